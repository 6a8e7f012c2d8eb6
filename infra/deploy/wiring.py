"""What Chalice cannot set, and the check that everything is as asked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from infra.deploy import record
from infra.deploy.project import api_stage
from infra.deploy.target import Clients, DeployError, Say, Target
from infra.functions import ASYNCHRONOUS, LIMITED, Trigger, sources

SETTLE_SECONDS = 15
HOURS = 3600


def mappings(outputs: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Returns the settings of each function's event source mapping that Chalice cannot make."""
    queue = {
        # Without it a reply that names the failed messages would delete all of them.
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        # app.py has the same number.
        "ScalingConfig": {"MaximumConcurrency": 10},
    }
    # The function sets aside after two minutes what it fails on. Where it cannot, the batch would block its shard.
    stream = {
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ParallelizationFactor": 1,
        "BisectBatchOnFunctionError": True,
        "MaximumRetryAttempts": 1000,
        "MaximumRecordAgeInSeconds": 6 * HOURS,
        "DestinationConfig": {"OnFailure": {"Destination": outputs["FAILURES_QUEUE_ARN"]}},
    }
    return dict.fromkeys(sources(Trigger.QUEUE), queue) | dict.fromkeys(sources(Trigger.STREAM), stream)


def invocations(outputs: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Returns the settings of each function that callers invoke without waiting."""
    config = {
        "MaximumRetryAttempts": 2,
        "MaximumEventAgeInSeconds": 6 * HOURS,
        "DestinationConfig": {"OnFailure": {"Destination": outputs["FAILURES_QUEUE_ARN"]}},
    }
    return dict.fromkeys(ASYNCHRONOUS, config)


def redrive_policy(outputs: Mapping[str, str]) -> dict[str, str]:
    """Of a subscription: where a message goes that SNS could not hand over to the function."""
    return {"deadLetterTargetArn": outputs["FAILURES_QUEUE_ARN"]}


def cors(target: Target, outputs: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rules of the uploads bucket: the console's page may send files there, and no other page."""
    url = urlsplit(outputs["REST_API_URL"])
    origins = sorted({f"{url.scheme}://{url.netloc}", *target.origins})
    return [{"AllowedMethods": ["POST"], "AllowedOrigins": origins, "MaxAgeSeconds": HOURS}]


# A line of JSON for each request: `requestId` is in the API's own log too, as the id that it answers with or beside it.
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


def api(outputs: Mapping[str, str]) -> dict[str, Any]:
    """The settings of the API's stage, and the web ACL in front of it, empty if there is none."""
    return {
        "id": outputs["REST_API_ID"],
        # As API Gateway tells them.
        "throttling": {
            "throttlingRateLimit": float(outputs["API_RATE_LIMIT"]),
            "throttlingBurstLimit": int(outputs["API_BURST_LIMIT"]),
        },
        "accessLogs": {"destinationArn": outputs["ACCESS_LOGS_ARN"], "format": json.dumps(ACCESS_LOG)},
        "webAcl": outputs["API_WEB_ACL_ARN"],
    }


def wanted(target: Target, outputs: Mapping[str, str]) -> dict[str, Any]:
    """All of it, as a release keeps it: what is put back is what that release asked for."""
    return {
        "mappings": mappings(outputs),
        "sources": {name: outputs[source] for name, source in sources(Trigger.QUEUE, Trigger.STREAM).items()},
        "invocations": invocations(outputs),
        "subscriptions": {name: outputs[topic] for name, topic in sources(Trigger.TOPIC).items()},
        "redrivePolicy": redrive_policy(outputs),
        "notified": {name: outputs[bucket] for name, bucket in sources(Trigger.BUCKET).items()},
        "cors": {outputs["UPLOADS_BUCKET"]: cors(target, outputs)},
        "api": api(outputs),
    }


def complete(target: Target, wiring: Mapping[str, Any], clients: Clients, say: Say) -> None:
    """Sets what is not set yet of what ``wanted`` asks for."""
    lambda_, sns = clients("lambda"), clients("sns")
    for name, settings in wiring["mappings"].items():
        # A mapping that is still being made takes no changes.
        _wait_for_mappings(lambda_, target, name)
        for mapping in _mappings_of(lambda_, target, name):
            if _missing(mapping, settings):
                lambda_.update_event_source_mapping(UUID=mapping["UUID"], **settings)
                say(f"{name}: event source mapping completed")
        _wait_for_mappings(lambda_, target, name)
    for name, settings in wiring["invocations"].items():
        if _missing(_invocation(lambda_, target, name), settings):
            lambda_.put_function_event_invoke_config(FunctionName=target.function(name), **settings)
            say(f"{name}: failure destination set")
    for name, topic in wiring["subscriptions"].items():
        arn = _configuration(lambda_, target, name)["FunctionArn"]
        # The list may lack for some seconds what Chalice has made just now.
        settled(lambda topic=topic, arn=arn: [] if _subscriptions(sns, topic, arn) else [arn])  # type: ignore[misc]
        for subscription in _subscriptions(sns, topic, arn):
            if _redrive_policy(sns, subscription) != wiring["redrivePolicy"]:
                sns.set_subscription_attributes(
                    SubscriptionArn=subscription,
                    AttributeName="RedrivePolicy",
                    AttributeValue=json.dumps(wiring["redrivePolicy"]),
                )
                say(f"{name}: failure queue of its subscription set")
    for bucket, rules in wiring["cors"].items():
        if _cors_rules(clients("s3"), bucket) != rules:
            clients("s3").put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
            say(f"{bucket}: opened to uploads from the console")
    _complete_api(wiring["api"], clients, say)


def _complete_api(asked: Mapping[str, Any], clients: Clients, say: Say) -> None:
    gateway = clients("apigateway")
    found = _api_stage(gateway, asked)
    changes, done = {}, []
    if _missing(found["throttling"], asked["throttling"]):
        changes["/*/*/throttling/rateLimit"] = str(asked["throttling"]["throttlingRateLimit"])
        changes["/*/*/throttling/burstLimit"] = str(asked["throttling"]["throttlingBurstLimit"])
        done.append("limits of its requests")
    # Whether it may is for the account to say, and no one stage's.
    if found["accessLogs"] != asked["accessLogs"] and record.may_write_access_logs(gateway):
        changes |= {f"/accessLogSettings/{name}": value for name, value in asked["accessLogs"].items()}
        done.append("access log")
    if changes:
        operations = [{"op": "replace", "path": path, "value": value} for path, value in changes.items()]
        gateway.update_stage(restApiId=asked["id"], stageName=api_stage(), patchOperations=operations)
        say(f"API: {' and '.join(done)} set")
    if asked["webAcl"] and _web_acl(clients("wafv2"), gateway, asked["id"]) != asked["webAcl"]:
        _put_in_front(asked["webAcl"], _stage_arn(gateway, asked["id"]), clients("wafv2"))
        say("API: WAF put in front of it")


def _put_in_front(acl: str, stage: str, wafv2: Any) -> None:
    """A web ACL that was made just now is known everywhere a minute later."""
    end = time.monotonic() + 120
    while True:
        try:
            wafv2.associate_web_acl(WebACLArn=acl, ResourceArn=stage)
            return
        except wafv2.exceptions.WAFUnavailableEntityException:
            if time.monotonic() > end:
                raise
            time.sleep(5)


def _api_stage(gateway: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    stage = gateway.get_stage(restApiId=asked["id"], stageName=api_stage())
    return {
        "throttling": stage.get("methodSettings", {}).get("*/*", {}),
        "accessLogs": stage.get("accessLogSettings", {}),
    }


def _stage_arn(gateway: Any, api: str) -> str:
    return f"arn:{gateway.meta.partition}:apigateway:{gateway.meta.region_name}::/restapis/{api}/stages/{api_stage()}"


def _web_acl(wafv2: Any, gateway: Any, api: str) -> str | None:
    try:
        found = wafv2.get_web_acl_for_resource(ResourceArn=_stage_arn(gateway, api))
    except wafv2.exceptions.WAFNonexistentItemException:
        return None
    arn: str | None = found.get("WebACL", {}).get("ARN")
    return arn


def take_away(acl: str, target: Target, clients: Clients, say: Say) -> None:
    """Takes the web ACL from the stage's APIs; another one that somebody has put there stays."""
    gateway, wafv2 = clients("apigateway"), clients("wafv2")
    for each in record.rest_apis(target, clients):
        if _web_acl(wafv2, gateway, each) == acl:
            wafv2.disassociate_web_acl(ResourceArn=_stage_arn(gateway, each))
            say("API: WAF taken away")


def _cors_rules(s3: Any, bucket: str) -> list[dict[str, Any]]:
    try:
        rules: list[dict[str, Any]] = s3.get_bucket_cors(Bucket=bucket)["CORSRules"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchCORSConfiguration":
            return []
        raise
    return rules


def _configuration(lambda_: Any, target: Target, name: str) -> dict[str, Any]:
    configuration: dict[str, Any] = lambda_.get_function_configuration(FunctionName=target.function(name))
    return configuration


def _subscriptions(sns: Any, topic: str, endpoint: str) -> list[str]:
    return [each["SubscriptionArn"] for each in record.subscriptions(sns, topic) if each["Endpoint"] == endpoint]


def _redrive_policy(sns: Any, subscription: str) -> dict[str, str]:
    attributes = sns.get_subscription_attributes(SubscriptionArn=subscription)["Attributes"]
    policy: dict[str, str] = json.loads(attributes.get("RedrivePolicy") or "{}")
    return policy


def _mappings_of(lambda_: Any, target: Target, name: str) -> list[dict[str, Any]]:
    pages = lambda_.get_paginator("list_event_source_mappings").paginate(FunctionName=target.function(name))
    return [mapping for page in pages for mapping in page["EventSourceMappings"]]


def _wait_for_mappings(lambda_: Any, target: Target, name: str) -> None:
    end = time.monotonic() + 120
    while any(each["State"] in ("Creating", "Updating", "Enabling") for each in _mappings_of(lambda_, target, name)):
        if time.monotonic() > end:
            raise DeployError(f"{name}: its event source mapping is not enabled after two minutes")
        time.sleep(0.5)


def _invocation(lambda_: Any, target: Target, name: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] = lambda_.get_function_event_invoke_config(FunctionName=target.function(name))
    except lambda_.exceptions.ResourceNotFoundException:
        return {}
    return config


def _missing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The names of the settings that are not as wanted. What AWS adds by itself, deep inside, does not count."""

    def holds(found: Any, wanted: Any) -> bool:
        if isinstance(wanted, dict):
            return isinstance(found, dict) and all(holds(found.get(key), value) for key, value in wanted.items())
        return bool(found == wanted)

    return [name for name, value in wanted.items() if not holds(found.get(name), value)]


def check(target: Target, config: Mapping[str, Any], wiring: Mapping[str, Any], clients: Clients) -> list[str]:
    """All that is not as asked, a line each; nothing if the deploy is whole."""
    lambda_, problems = clients("lambda"), []
    arns = {}
    [stage] = config["stages"].values()
    for name, asked in stage["lambda_functions"].items():
        try:
            found = _configuration(lambda_, target, name)
        except lambda_.exceptions.ResourceNotFoundException:
            problems.append(f"{name}: is not deployed")
            continue
        arns[name] = found["FunctionArn"]
        settings = {
            "Role": asked["iam_role_arn"],
            "Timeout": asked.get("lambda_timeout", config["lambda_timeout"]),
            "MemorySize": asked.get("lambda_memory_size", config["lambda_memory_size"]),
        }
        problems += [f"{name}: {each} is {found.get(each)}, not {settings[each]}" for each in _missing(found, settings)]
        if name in LIMITED:
            reserved, limit = record.reserved(lambda_, target.function(name)), asked.get("reserved_concurrency", 0)
            problems += [f"{name}: {reserved} are reserved, not {limit}"] if reserved != limit else []
        for each, ids in {"SubnetIds": "subnet_ids", "SecurityGroupIds": "security_group_ids"}.items():
            there = found.get("VpcConfig", {}).get(each, [])
            if set(there) != set(asked.get(ids, [])):
                problems.append(f"{name}: {each} are {there}, not {asked.get(ids, [])}")
    for name, settings in wiring["mappings"].items():
        found_mappings = _mappings_of(lambda_, target, name)
        if len(found_mappings) != 1:
            problems.append(f"{name}: has {len(found_mappings)} event source mappings, not one")
        for mapping in found_mappings:
            asked = {**settings, "EventSourceArn": wiring["sources"][name], "State": "Enabled"}
            problems += [f"{name}: its mapping's {each} is {mapping.get(each)}" for each in _missing(mapping, asked)]
    for name, settings in wiring["invocations"].items():
        invocation = _invocation(lambda_, target, name)
        problems += [f"{name}: its {each} is {invocation.get(each)}" for each in _missing(invocation, settings)]
    for name, topic in wiring["subscriptions"].items():
        subscriptions = _subscriptions(clients("sns"), topic, arns.get(name, ""))
        if len(subscriptions) != 1:
            problems.append(f"{name}: is subscribed {len(subscriptions)} times to {topic}, not once")
        policies = [_redrive_policy(clients("sns"), each) for each in subscriptions]
        problems += [
            f"{name}: its subscription's RedrivePolicy is {each}"
            for each in policies
            if each != wiring["redrivePolicy"]
        ]
    for name, bucket in wiring["notified"].items():
        found = clients("s3").get_bucket_notification_configuration(Bucket=bucket)
        notified = [each["LambdaFunctionArn"] for each in found.get("LambdaFunctionConfigurations", [])]
        if notified != [arns.get(name)]:
            problems.append(f"{name}: the bucket {bucket} notifies {notified}")
    for bucket, rules in wiring["cors"].items():
        if (found_rules := _cors_rules(clients("s3"), bucket)) != rules:
            problems.append(f"POST /uploads: the rules for other origins of {bucket} are {found_rules}")
    return problems + _check_api(wiring["api"], clients)


def _check_api(asked: Mapping[str, Any], clients: Clients) -> list[str]:
    gateway = clients("apigateway")
    found = _api_stage(gateway, asked)
    problems = [
        f"API: its {each} is {found['throttling'].get(each)}"
        for each in _missing(found["throttling"], asked["throttling"])
    ]
    if found["accessLogs"] != asked["accessLogs"] and record.may_write_access_logs(gateway):
        problems.append(f"API: its access log is {found['accessLogs']}")
    if asked["webAcl"] and (acl := _web_acl(clients("wafv2"), gateway, asked["id"])) != asked["webAcl"]:
        problems.append(f"API: the web ACL in front of it is {acl}")
    return problems


def is_current(target: Target, config: Mapping[str, Any], api: str | None, clients: Clients) -> bool:
    """Whether every function runs this very code with this very configuration, behind an API that is deployed."""
    lambda_, gateway = clients("lambda"), clients("apigateway")
    if api is None:
        return False
    [stage] = config["stages"].values()
    try:
        gateway.get_stage(restApiId=api, stageName=api_stage())
        return all(
            _configuration(lambda_, target, name).get("Environment", {}).get("Variables", {}).get("CAFE_BUILD")
            == stage["environment_variables"]["CAFE_BUILD"]
            for name in stage["lambda_functions"]
        )
    except (lambda_.exceptions.ResourceNotFoundException, gateway.exceptions.NotFoundException):
        return False


def settled(look: Callable[[], list[str]]) -> list[str]:
    """The problems that remain: a list of AWS may lack for some seconds what was made just now."""
    end = time.monotonic() + SETTLE_SECONDS
    while (problems := look()) and time.monotonic() < end:
        time.sleep(1)
    return problems
