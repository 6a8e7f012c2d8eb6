"""Applies the settings that Chalice cannot apply, and checks every setting of a stage."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from infra.deploy import api_settings, chalice_record
from infra.deploy.project import api_stage, architecture
from infra.deploy.target import Clients, DeployError, Say, Target, shown
from infra.functions import ASYNCHRONOUS, LIMITED, Trigger, sources

SETTLE_SECONDS = 15
HOURS = 3600


def mappings(outputs: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Returns the settings of event source mappings that Chalice cannot apply, keyed by function."""
    # Without this setting, Lambda would ignore the list of failed messages and delete the whole batch.
    queue = {"FunctionResponseTypes": ["ReportBatchItemFailures"]}
    queues = {
        # These numbers must match the numbers in app.py.
        "store_orders": {**queue, "ScalingConfig": {"MaximumConcurrency": 10}},
        "retry_failures": {**queue, "ScalingConfig": {"MaximumConcurrency": 2}},
    }
    # Orders wait in the stream while SNS is unavailable. A batch that expires after 23 hours can still be read from the
    # stream, which deletes its records after 24 hours.
    stream = {
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ParallelizationFactor": 1,
        "BisectBatchOnFunctionError": True,
        "MaximumRetryAttempts": -1,
        "MaximumRecordAgeInSeconds": 23 * HOURS,
        "DestinationConfig": {"OnFailure": {"Destination": outputs["RETRIES_QUEUE_ARN"]}},
    }
    return queues | dict.fromkeys(sources(Trigger.STREAM), stream)


def invocations(outputs: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Returns the settings for asynchronous invocations, keyed by function."""
    config = {
        "MaximumRetryAttempts": 2,
        "MaximumEventAgeInSeconds": 6 * HOURS,
        "DestinationConfig": {"OnFailure": {"Destination": outputs["RETRIES_QUEUE_ARN"]}},
    }
    return dict.fromkeys(ASYNCHRONOUS, config)


def redrive_policy(outputs: Mapping[str, str]) -> dict[str, str]:
    """Returns the redrive policy of the functions' SNS subscriptions, for messages that SNS cannot deliver."""
    return {"deadLetterTargetArn": outputs["RETRIES_QUEUE_ARN"]}


def cors(target: Target, outputs: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns CORS rules that allow uploads to the bucket only from the console."""
    url = urlsplit(outputs["REST_API_URL"])
    origins = sorted({f"{url.scheme}://{url.netloc}", *target.origins})
    return [{"AllowedMethods": ["POST"], "AllowedOrigins": origins, "MaxAgeSeconds": HOURS}]


def desired(target: Target, outputs: Mapping[str, str]) -> dict[str, Any]:
    """Returns all settings that Chalice cannot apply. A release stores these settings for rollbacks."""
    return {
        "mappings": mappings(outputs),
        "sources": {name: outputs[source] for name, source in sources(Trigger.QUEUE, Trigger.STREAM).items()},
        "invocations": invocations(outputs),
        "subscriptions": {name: outputs[topic] for name, topic in sources(Trigger.TOPIC).items()},
        "redrivePolicy": redrive_policy(outputs),
        "notified": {name: outputs[bucket] for name, bucket in sources(Trigger.BUCKET).items()},
        "cors": {outputs["UPLOADS_BUCKET"]: cors(target, outputs)},
        "api": api_settings.desired(outputs),
    }


def apply(target: Target, settings: Mapping[str, Any], clients: Clients, say: Say) -> None:
    """Applies the settings that differ from the current settings."""
    apply_to_triggers(target, settings, clients, say)
    for bucket, rules in settings["cors"].items():
        if _cors_rules(clients("s3"), bucket) != rules:
            clients("s3").put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
            say(f"{bucket}: uploads from the console are now allowed")
    api_settings.apply(settings["api"], clients, say)


def apply_to_triggers(target: Target, settings: Mapping[str, Any], clients: Clients, say: Say) -> None:
    """Applies the settings of event source mappings, asynchronous invocations and subscriptions."""
    lambda_, sns = clients("lambda"), clients("sns")
    for name, desired_mapping in settings["mappings"].items():
        # AWS rejects changes to a mapping that is still being created.
        _wait_for_mappings(lambda_, target, name)
        for mapping in _mappings_of(lambda_, target, name):
            # Chalice does not enable a mapping that someone has disabled.
            if _different(mapping, {**desired_mapping, "State": "Enabled"}):
                lambda_.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True, **desired_mapping)
                say(f"{name}: event source mapping updated")
        _wait_for_mappings(lambda_, target, name)
    for name, desired_invocation in settings["invocations"].items():
        if _different(_invocation(lambda_, target, name), desired_invocation):
            lambda_.put_function_event_invoke_config(FunctionName=target.function(name), **desired_invocation)
            say(f"{name}: failure destination set")
    for name, topic in settings["subscriptions"].items():
        arn = _configuration(lambda_, target, name)["FunctionArn"]
        # A new subscription may be missing from the list for a few seconds.
        problems_after_settling(lambda topic=topic, arn=arn: [] if _subscriptions(sns, topic, arn) else [arn])  # type: ignore[misc]
        for subscription in _subscriptions(sns, topic, arn):
            if _redrive_policy(sns, subscription) != settings["redrivePolicy"]:
                sns.set_subscription_attributes(
                    SubscriptionArn=subscription,
                    AttributeName="RedrivePolicy",
                    AttributeValue=json.dumps(settings["redrivePolicy"]),
                )
                say(f"{name}: dead-letter queue set")


def check(target: Target, config: Mapping[str, Any], settings: Mapping[str, Any], clients: Clients) -> list[str]:
    """Returns a line for each setting that differs from ``config`` or ``settings``."""
    return [
        *_check_functions(target, config, clients),
        *_check_triggers(target, settings, clients),
        *api_settings.differences(settings["api"], clients),
    ]


def _check_functions(target: Target, config: Mapping[str, Any], clients: Clients) -> Iterator[str]:
    lambda_, functions = clients("lambda"), chalice_record.functions(target, clients)
    [stage] = config["stages"].values()
    for name, asked in stage["lambda_functions"].items():
        if (function := functions.get(name)) is None:
            yield f"{name}: is not deployed"
            continue
        settings = {
            "Role": asked["iam_role_arn"],
            "Architectures": [architecture(config)],
            "Timeout": asked.get("lambda_timeout", config["lambda_timeout"]),
            "MemorySize": asked.get("lambda_memory_size", config["lambda_memory_size"]),
        }
        for each in _different(function, settings):
            yield f"{name}: {each} is {shown(function.get(each))}, not {shown(settings[each])}"
        if name in LIMITED:
            reserved = chalice_record.reserved(lambda_, target.function(name))
            if reserved != (limit := asked.get("reserved_concurrency", 0)):
                yield f"{name}: its reserved concurrency is {reserved}, not {limit}"
        for each, key in {"SubnetIds": "subnet_ids", "SecurityGroupIds": "security_group_ids"}.items():
            ids = function.get("VpcConfig", {}).get(each, [])
            if set(ids) != set(asked.get(key, [])):
                yield f"{name}: {each} are {shown(ids)}, not {shown(asked.get(key, []))}"


def _check_triggers(target: Target, settings: Mapping[str, Any], clients: Clients) -> Iterator[str]:
    lambda_, sns, s3 = clients("lambda"), clients("sns"), clients("s3")
    functions = chalice_record.functions(target, clients)
    arns = {name: configuration["FunctionArn"] for name, configuration in functions.items()}
    for name, desired_mapping in settings["mappings"].items():
        mappings = _mappings_of(lambda_, target, name)
        if len(mappings) != 1:
            yield f"{name}: has {len(mappings)} event source mappings instead of one"
        asked = {**desired_mapping, "EventSourceArn": settings["sources"][name], "State": "Enabled"}
        for mapping in mappings:
            for each in _different(mapping, asked):
                yield f"{name}: its mapping's {each} is {shown(mapping.get(each))}"
    for name, desired_invocation in settings["invocations"].items():
        invocation = _invocation(lambda_, target, name)
        for each in _different(invocation, desired_invocation):
            yield f"{name}: its {each} is {shown(invocation.get(each))}"
    for name, topic in settings["subscriptions"].items():
        subscriptions = _subscriptions(sns, topic, arns.get(name, ""))
        if len(subscriptions) != 1:
            yield f"{name}: has {len(subscriptions)} subscriptions to {topic} instead of one"
        for policy in [_redrive_policy(sns, each) for each in subscriptions]:
            if policy != settings["redrivePolicy"]:
                yield f"{name}: its subscription's RedrivePolicy is {shown(policy)}"
    for name, bucket in settings["notified"].items():
        configurations = s3.get_bucket_notification_configuration(Bucket=bucket).get("LambdaFunctionConfigurations", [])
        if (notified := [each["LambdaFunctionArn"] for each in configurations]) != [arns.get(name)]:
            yield f"{name}: the bucket {bucket} notifies {shown(notified)}"
    for bucket, rules in settings["cors"].items():
        if (current := _cors_rules(s3, bucket)) != rules:
            yield f"POST /uploads: the CORS rules of {bucket} are {shown(current)}"


def is_current(target: Target, config: Mapping[str, Any], api: str | None, clients: Clients) -> bool:
    """Returns whether every function has the code and settings in ``config`` and the API has a deployment."""
    if api is None:
        return False
    gateway, functions = clients("apigateway"), chalice_record.functions(target, clients)
    [stage] = config["stages"].values()
    current = stage["environment_variables"]["CAFE_BUILD"]
    if not functions.keys() >= stage["lambda_functions"].keys():
        return False
    try:
        gateway.get_stage(restApiId=api, stageName=api_stage())
    except gateway.exceptions.NotFoundException:
        return False
    builds = [functions[name]["Environment"]["Variables"].get("CAFE_BUILD") for name in stage["lambda_functions"]]
    return all(build == current for build in builds)


def problems_after_settling(find_problems: Callable[[], list[str]]) -> list[str]:
    """Returns the problems that remain after a few seconds. Lists from AWS may omit new items for a few seconds."""
    end = time.monotonic() + SETTLE_SECONDS
    while (problems := find_problems()) and time.monotonic() < end:
        time.sleep(1)
    return problems


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
    subscriptions = chalice_record.subscriptions(sns, topic)
    return [each["SubscriptionArn"] for each in subscriptions if each["Endpoint"] == endpoint]


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
            raise DeployError(f"{name}: its event source mapping is still not enabled after two minutes")
        time.sleep(0.5)


def _invocation(lambda_: Any, target: Target, name: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] = lambda_.get_function_event_invoke_config(FunctionName=target.function(name))
    except lambda_.exceptions.ResourceNotFoundException:
        return {}
    return config


def _different(current: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Returns the names of the settings that differ from ``current``.

    Values that AWS adds to nested settings are ignored.
    """

    def has(current: Any, setting: Any) -> bool:
        if isinstance(setting, dict):
            return isinstance(current, dict) and all(has(current.get(key), value) for key, value in setting.items())
        return bool(current == setting)

    return [name for name, value in settings.items() if not has(current.get(name), value)]
