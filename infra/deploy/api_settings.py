"""Applies the API settings that Chalice cannot apply: throttling, access logs and AWS WAF."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from chalicelib.sign_in import OPEN, ROUTES
from infra.deploy import chalice_record
from infra.deploy.project import api_stage
from infra.deploy.target import Clients, Say, Target, shown

# WAF may take a minute to recognise a new web ACL.
ASSOCIATION_SECONDS = 120
EVERY_METHOD = "*/*"
# Each open route accepts this fraction of the request rate, because anyone can call it.
OPEN_SHARE = 0.1
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
    rate, burst = float(outputs["API_RATE_LIMIT"]), int(outputs["API_BURST_LIMIT"])
    # Opening the console loads more than 20 files at once, so open routes accept the whole burst.
    few = {"throttlingRateLimit": max(1.0, rate * OPEN_SHARE), "throttlingBurstLimit": burst}
    return {
        "id": outputs["REST_API_ID"],
        # The names and types of the settings match the responses from API Gateway.
        "throttling": {"throttlingRateLimit": rate, "throttlingBurstLimit": burst},
        "openMethods": {_method_key(path, method): few for (method, path), who in ROUTES.items() if who == OPEN},
        "accessLogs": {"destinationArn": outputs["ACCESS_LOGS_ARN"], "format": json.dumps(ACCESS_LOG)},
        "webAcl": outputs["API_WEB_ACL_ARN"],
    }


def apply(settings: Mapping[str, Any], clients: Clients, say: Say) -> None:
    """Applies the API settings that differ from the current settings."""
    gateway = clients("apigateway")
    current = _current(gateway, settings["id"])
    changes, done = {}, []
    if differing := _differing_limits(current, settings):
        for method, limits in differing.items():
            changes[f"/{method}/throttling/rateLimit"] = str(limits["throttlingRateLimit"])
            changes[f"/{method}/throttling/burstLimit"] = str(limits["throttlingBurstLimit"])
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
    lines = [
        f"API: {name} of {method} is {shown(found)}"
        for method, limits in _differing_limits(current, settings).items()
        for name, limit in limits.items()
        if (found := current["throttling"].get(method, {}).get(name)) != limit
    ]
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


def _method_key(path: str, method: str) -> str:
    """Returns the key of a method's settings. In the key, API Gateway encodes each slash of the path as ``~1``."""
    return f"{path.replace('/', '~1')}/{method}"


def _differing_limits(current: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Returns the desired limits of the methods whose limits differ. Releases before 0.2.0 have no open methods."""
    desired_limits = {EVERY_METHOD: settings["throttling"], **settings.get("openMethods", {})}
    return {
        method: limits
        for method, limits in desired_limits.items()
        if not limits.items() <= current["throttling"].get(method, {}).items()
    }


def _current(gateway: Any, api: str) -> dict[str, Any]:
    stage = gateway.get_stage(restApiId=api, stageName=api_stage())
    return {
        # MiniStack does not encode the slashes in the keys.
        "throttling": {
            _method_key(*key.rsplit("/", 1)): limits for key, limits in stage.get("methodSettings", {}).items()
        },
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
