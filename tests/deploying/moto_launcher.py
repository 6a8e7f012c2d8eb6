"""Starts the moto server on a port, with the patches that a deploy needs."""

from __future__ import annotations

import sys
from functools import wraps
from typing import Any

from moto.apigateway.models import APIGatewayBackend
from moto.awslambda.models import LambdaBackend
from moto.cloudformation.models import CloudFormationBackend
from moto.server import main

list_event_source_mappings = LambdaBackend.list_event_source_mappings
import_rest_api, put_rest_api = APIGatewayBackend.import_rest_api, APIGatewayBackend.put_rest_api
execute_change_set = CloudFormationBackend.execute_change_set


@wraps(execute_change_set)
def with_outputs(backend: Any, change_set_name: str, stack_name: str | None = None) -> None:
    """Computes a stack's outputs after a change, as AWS does.

    Without this patch, moto computes the outputs before the change.
    """
    execute_change_set(backend, change_set_name, stack_name)
    for stack in backend.stacks.values():
        stack._parse_template()
        stack.output_map = stack._create_output_map()


@wraps(list_event_source_mappings)
def by_name(backend: Any, event_source_arn: str, function_name: str) -> list[Any]:
    """Finds event source mappings by function name, as AWS does.

    Without this patch, moto finds a mapping only by the function name or ARN that was used to create it.
    """
    found = list_event_source_mappings(backend, event_source_arn, "")
    return [each for each in found if not function_name or each.function_arn.split(":")[6] == function_name]


def as_openapi(document: dict[str, Any]) -> dict[str, Any]:
    """Converts Chalice's Swagger 2 document to OpenAPI 3 and adds a description, as moto requires."""
    return {**document, "swagger": None, "openapi": "3.0.0", "info": {"description": "", **document["info"]}}


@wraps(import_rest_api)
def import_swagger(backend: Any, api_doc: dict[str, Any], fail_on_warnings: bool) -> Any:
    return import_rest_api(backend, as_openapi(api_doc), fail_on_warnings)


@wraps(put_rest_api)
def put_swagger(backend: Any, function_id: str, api_doc: dict[str, Any], *arguments: Any, **named: Any) -> Any:
    return put_rest_api(backend, function_id, as_openapi(api_doc), *arguments, **named)


if __name__ == "__main__":
    LambdaBackend.list_event_source_mappings = by_name  # type: ignore[method-assign,assignment]
    APIGatewayBackend.import_rest_api = import_swagger  # type: ignore[method-assign]
    APIGatewayBackend.put_rest_api = put_swagger  # type: ignore[method-assign]
    CloudFormationBackend.execute_change_set = with_outputs  # type: ignore[method-assign]
    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
