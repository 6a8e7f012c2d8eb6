"""Patches for API Gateway."""

import contextvars
import json
from functools import wraps
from typing import Any


def import_rest_api() -> None:
    """On AWS, ImportRestApi creates a whole API from a Swagger document, and PutRestApi replaces a whole API.

    MiniStack reads Swagger documents only from CloudFormation templates. Without this patch, ImportRestApi creates an
    empty API, and PutRestApi fails. ``chalice deploy`` creates the API with ImportRestApi, and updates the API with
    PutRestApi and ``mode=overwrite``.
    """
    from ministack.services import apigateway_v1 as gateway

    handle_request = gateway.handle_request

    def replace_content(api_id: str, document: dict[str, Any]) -> None:
        """Replaces the API's resources, methods and settings with those in the Swagger document."""
        api, resources = gateway._rest_apis[api_id], gateway._resources[api_id]
        api["name"] = document["info"]["title"]
        api["version"] = document["info"]["version"]
        api["binaryMediaTypes"] = document.get("x-amazon-apigateway-binary-media-types", [])
        api["policy"] = document.get("x-amazon-apigateway-policy")
        for resource in list(resources.values()):
            if resource["path"] == "/":
                resource["resourceMethods"] = {}
            else:
                del resources[resource["id"]]
        gateway._authorizers_v1[api_id] = {}
        authorizers = gateway._import_security_schemes(api_id, document)
        for path, methods in document["paths"].items():
            gateway._import_path_item(api_id, path, methods, authorizers, document.get("security"))

    @wraps(handle_request)
    async def handle_imports(method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
        parts = path.strip("/").split("/")
        mode = gateway._qp(query, "mode")
        if parts == ["restapis"] and method == "POST" and mode == "import":
            endpoint = gateway._qp(query, "endpointConfigurationTypes") or "EDGE"
            created = gateway._create_rest_api({"endpointConfiguration": {"types": [endpoint]}})
            api_id = json.loads(created[2])["id"]
            replace_content(api_id, json.loads(body))
            return gateway._v1_response(gateway._rest_api_view(gateway._rest_apis[api_id]), 201)
        if parts[0] == "restapis" and len(parts) == 2 and method == "PUT":
            if parts[1] not in gateway._rest_apis:
                return gateway._v1_error("NotFoundException", "Invalid API identifier specified", 404)
            if mode != "overwrite":
                return gateway._v1_error("BadRequestException", "Only mode=overwrite is emulated", 400)
            replace_content(parts[1], json.loads(body))
            return gateway._get_rest_api(parts[1])
        return await handle_request(method, path, headers, body, query)

    gateway.handle_request = handle_imports


def update_rest_api() -> None:
    """On AWS, UpdateRestApi stores the minimum compression size as a number. UpdateRestApi can also remove the size or
    replace the endpoint type.

    MiniStack stores the minimum compression size as a string, which botocore cannot parse. MiniStack also turns the
    list of endpoint types into a mapping. Every ``chalice deploy`` after the first sets the compression size and the
    endpoint type.
    """
    from ministack.services import apigateway_v1 as gateway

    apply_patch = gateway._apply_patch

    @wraps(apply_patch)
    def apply_as_aws(target: dict[str, Any], operations: list[dict[str, Any]]) -> Any:
        others = []
        for operation in operations:
            path, value = operation["path"], operation.get("value")
            if path == "/minimumCompressionSize":
                target["minimumCompressionSize"] = int(value) if value else None
            elif path.startswith("/endpointConfiguration/types/"):
                target["endpointConfiguration"]["types"] = [value]
            else:
                others.append(operation)
        return apply_patch(target, others)

    gateway._apply_patch = apply_as_aws


def request_path() -> None:
    """AWS puts the path that the client requested into the request context of a REST API event.

    MiniStack removes its URL prefix, ``/_aws/execute-api/<id>``, from the path in the request context. The project's
    API derives its own URL from the requested path, for ``Location`` headers and for the console.
    """
    from ministack import app
    from ministack.services import apigateway_v1 as gateway

    handle_request, build_event = app._handle_execute_api_request, gateway._build_lambda_event_v1
    requested_path: contextvars.ContextVar[str] = contextvars.ContextVar("requested_path")

    @wraps(handle_request)
    async def remember_path(host: str, path: str, *arguments: Any, **options: Any) -> Any:
        requested_path.set(path)
        return await handle_request(host, path, *arguments, **options)

    @wraps(build_event)
    def build_with_path(*arguments: Any, **options: Any) -> Any:
        event = build_event(*arguments, **options)
        event["requestContext"]["path"] = requested_path.get()
        return event

    app._handle_execute_api_request = remember_path
    gateway._build_lambda_event_v1 = build_with_path
