"""Identifies the AWS operation of an HTTP request, such as ``sns:Publish``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Call:
    """A request to AWS, with its operation and its caller.

    ``body`` is empty for S3 requests, because the proxy streams their bodies. ``port`` is the client's port.

    ``caller`` is the name of a function, ``states`` for a state machine, or ``api`` for the API. ``attempt`` is 2 for
    the first retry.
    """

    name: str
    caller: str
    path: str
    body: bytes
    port: int
    attempt: int = 1

    @property
    def service(self) -> str:
        return self.name.partition(":")[0]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __contains__(self, text: str) -> bool:
        """Returns whether the path or the body contains ``text``."""
        return text in self.path or text.encode() in self.body


def service_of(headers: Message, path: str) -> str:
    """Returns the name of the AWS service from the request's signature.

    Unsigned requests are for the user pool's keys or for S3.
    """
    if path.endswith("/.well-known/jwks.json"):
        return "cognito-idp"
    scope = headers.get("Authorization", "") + unquote(urlsplit(path).query)
    found = re.search(r"(?:Credential=[^/]+)/\d{8}/[^/]+/([a-z0-9-]+)/aws4_request", scope)
    service = found[1] if found else "s3"
    return {"monitoring": "cloudwatch"}.get(service, service)


def operation_name(service: str, method: str, path: str, headers: Message, body: bytes) -> str:
    """Returns the service and the operation of a request in any of the AWS protocols."""
    if target := headers.get("X-Amz-Target"):
        return f"{service}:{target.rpartition('.')[2]}"
    if rpc := re.search(r"/operation/(\w+)$", path):
        return f"{service}:{rpc[1]}"
    if service == "lambda":
        return "lambda:Invoke" if path.split("?")[0].endswith("/invocations") else f"lambda:{method}"
    if service == "s3":
        return f"s3:{_s3_operation(method, path)}"
    action = parse_qs(body.decode("latin-1")).get("Action", [""])[0]
    return f"{service}:{action or method}"


def _s3_operation(method: str, path: str) -> str:
    parts = urlsplit(path)
    bucket, _, key = parts.path.strip("/").partition("/")
    query = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if not bucket:
        return "ListBuckets"
    if key:
        if "uploads" in query:
            return "CreateMultipartUpload"
        if "uploadId" in query:
            multipart = {"PUT": "UploadPart", "POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload"}
            return multipart.get(method, "ListParts")
        return f"{method.title()}Object"
    if method == "GET" and "list-type" in query:
        return "ListObjectsV2"
    return f"{method.title()}Bucket"
