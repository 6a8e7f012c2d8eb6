"""Applies the API settings that Chalice cannot apply: throttling, access logs and AWS WAF."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from infra.deploy import chalice_record
from infra.deploy.project import api_stage
from infra.deploy.target import Clients, Say, Target, shown

# WAF may take a minute to recognize a new web ACL.
ASSOCIATION_SECONDS = 120
# The access log contains a line of JSON for each request. The log of the API function contains the same `requestId`.
ACCESS_LOG = {
    "message": "request",
    "requestId": "$context.requestId",
    "route": "$context.httpMethod $context.resourcePath",
    "status": "$context.status",
    "milliseconds": "$context.responseLatency",
    "bytes": "$context.responseLength",
    "address": "$context.identity.sourceIp",
    "user": "$context.authorizer.principalId",
    "refused": "$context.error.responseType",
    "waf": "$context.waf.status",
}


def desired(outputs: Mapping[str, str]) -> dict[str, Any]:
    """Returns the desired settings of the API stage. The web ACL's ARN is empty if WAF is off."""
    return {
        "id": outputs["REST_API_ID"],
        # The names and types of the settings match the responses from API Gateway.
        "throttling": {
            "throttlingRateLimit": float(outputs["API_RATE_LIMIT"]),
            "throttlingBurstLimit": int(outputs["API_BURST_LIMIT"]),
        },
        "accessLogs": {"destinationArn": outputs["ACCESS_LOGS_ARN"], "format": json.dumps(ACCESS_LOG)},
        "webAcl": outputs["API_WEB_ACL_ARN"],
    }


def apply(settings: Mapping[str, Any], clients: Clients, say: Say) -> None:
    """Applies the API settings that differ from the current settings."""
    gateway = clients("apigateway")
    current = _current(gateway, settings["id"])
    changes, done = {}, []
    throttling = settings["throttling"]
    if _throttling_differs(current, settings):
        changes["/*/*/throttling/rateLimit"] = str(throttling["throttlingRateLimit"])
        changes["/*/*/throttling/burstLimit"] = str(throttling["throttlingBurstLimit"])
        done.append("request limits")
    # API Gateway can write logs only if the AWS account has a role for it.
    if current["accessLogs"] != settings["accessLogs"] and chalice_record.may_write_access_logs(gateway):
        changes |= {f"/accessLogSettings/{name}": value for name, value in settings["accessLogs"].items()}
        done.append("access log")
    if changes:
        operations = [{"op": "replace", "path": path, "value": value} for path, value in changes.items()]
        gateway.update_stage(restApiId=settings["id"], stageName=api_stage(), patchOperations=operations)
        say(f"API: {' and '.join(done)} set")
    if settings["webAcl"] and _web_acl(clients("wafv2"), gateway, settings["id"]) != settings["webAcl"]:
        _associate(settings["webAcl"], _arn(gateway, settings["id"]), clients("wafv2"))
        say("API: WAF associated")


def differences(settings: Mapping[str, Any], clients: Clients) -> list[str]:
    """Returns a line for each API setting that differs from ``settings``."""
    gateway = clients("apigateway")
    current = _current(gateway, settings["id"])
    throttling = current["throttling"]
    lines = [f"API: {name} is {shown(throttling.get(name))}" for name in _throttling_differs(current, settings)]
    if current["accessLogs"] != settings["accessLogs"] and chalice_record.may_write_access_logs(gateway):
        lines.append(f"API: access log is {shown(current['accessLogs'])}")
    if settings["webAcl"] and (acl := _web_acl(clients("wafv2"), gateway, settings["id"])) != settings["webAcl"]:
        lines.append(f"API: web ACL is {shown(acl)}")
    return lines


def disassociate(acl: str, target: Target, clients: Clients, say: Say) -> None:
    """Removes a web ACL from the stage's APIs so that it can be deleted."""
    gateway, wafv2 = clients("apigateway"), clients("wafv2")
    for api in chalice_record.rest_apis(target, clients):
        if _web_acl(wafv2, gateway, api) == acl:
            wafv2.disassociate_web_acl(ResourceArn=_arn(gateway, api))
            say("API: WAF disassociated")


def _throttling_differs(current: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    return [name for name, value in settings["throttling"].items() if current["throttling"].get(name) != value]


def _current(gateway: Any, api: str) -> dict[str, Any]:
    stage = gateway.get_stage(restApiId=api, stageName=api_stage())
    return {
        "throttling": stage.get("methodSettings", {}).get("*/*", {}),
        "accessLogs": stage.get("accessLogSettings", {}),
    }


def _arn(gateway: Any, api: str) -> str:
    return f"arn:{gateway.meta.partition}:apigateway:{gateway.meta.region_name}::/restapis/{api}/stages/{api_stage()}"


def _web_acl(wafv2: Any, gateway: Any, api: str) -> str | None:
    try:
        answer = wafv2.get_web_acl_for_resource(ResourceArn=_arn(gateway, api))
    except wafv2.exceptions.WAFNonexistentItemException:
        return None
    arn: str | None = answer.get("WebACL", {}).get("ARN")
    return arn


def _associate(acl: str, stage: str, wafv2: Any) -> None:
    end = time.monotonic() + ASSOCIATION_SECONDS
    while True:
        try:
            wafv2.associate_web_acl(WebACLArn=acl, ResourceArn=stage)
            return
        except wafv2.exceptions.WAFUnavailableEntityException:
            if time.monotonic() > end:
                raise
            time.sleep(5)
