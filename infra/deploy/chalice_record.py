"""Rebuilds Chalice's record of deployed resources from the resources that exist on AWS.

Chalice writes the record to a local file at the end of a deploy. After an interrupted deploy or in another clone, the
record is missing or outdated. Without a correct record, Chalice creates a second API and duplicate event source
mappings. The deploy therefore always rebuilds the record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.deploy.project import api_stage, record_file
from infra.deploy.target import Clients, DeployError, Target

Record = list[dict[str, Any]]

# In version 0.1.0, the APIs of all stages had this name.
FORMER_API_NAME = "cafe"


def functions(target: Target, clients: Clients) -> dict[str, dict[str, Any]]:
    """Returns the configurations of the stage's existing functions, keyed by their names in ``app.py``.

    The environment variable CAFE_STAGE identifies a function's stage, because one stage name can begin with another.
    """
    pages = clients("lambda").get_paginator("list_functions").paginate()
    return {
        target.function_of(each["FunctionName"]): each
        for page in pages
        for each in page["Functions"]
        if stage_of(each) == target.stage and f"{each['FunctionName']}-".startswith(f"cafe-{target.stage}-")
    }


def stage_of(configuration: Mapping[str, Any]) -> str | None:
    variables: dict[str, str] = configuration.get("Environment", {}).get("Variables", {})
    return variables.get("CAFE_STAGE")


def reserved(lambda_: Any, function: str) -> int:
    """Returns a function's reserved concurrency, or 0 if none is set or the function does not exist."""
    try:
        concurrency = lambda_.get_function_concurrency(FunctionName=function)
    except lambda_.exceptions.ResourceNotFoundException:
        return 0
    return int(concurrency.get("ReservedConcurrentExecutions", 0))


def may_write_access_logs(gateway: Any) -> bool:
    """Returns whether API Gateway has a role for writing logs. All APIs in an account and region share this role."""
    return bool(gateway.get_account().get("cloudwatchRoleArn"))


def rest_apis(target: Target, clients: Clients) -> list[str]:
    """Returns the ids of the REST APIs that invoke the stage's API function. The stage's address is the first.

    An API without a deployment comes last. An API with the name of version 0.1.0 comes after an API with today's name.

    The name of an API is not sufficient, because another API in the account may have the same name.
    """
    gateway = clients("apigateway")
    name = target.function("api_handler")
    integration, found = f":function:{name}/invocations", []
    for page in gateway.get_paginator("get_rest_apis").paginate():
        for api in page["items"]:
            if api["name"] not in (name, FORMER_API_NAME):
                continue
            resources = gateway.get_resources(restApiId=api["id"], embed=["methods"], limit=500)["items"]
            methods = [method for each in resources for method in each.get("resourceMethods", {}).values()]
            if any(m.get("methodIntegration", {}).get("uri", "").endswith(integration) for m in methods):
                found.append((not gateway.get_stages(restApiId=api["id"])["item"], api["name"] != name, str(api["id"])))
    return [api for *_, api in sorted(found, key=lambda each: each[:2])]


def mappings(
    found: Mapping[str, Mapping[str, Any]], clients: Clients, deleting: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each function's name in ``app.py`` with each of its event source mappings.

    If ``deleting`` is true, yields only mappings that AWS is deleting. If ``deleting`` is false, yields all other
    mappings.
    """
    names = {configuration["FunctionArn"]: name for name, configuration in found.items()}
    for page in clients("lambda").get_paginator("list_event_source_mappings").paginate():
        for each in page["EventSourceMappings"]:
            if each["FunctionArn"] in names and (each["State"] == "Deleting") is deleting:
                yield names[each["FunctionArn"]], each


def rebuild(target: Target, outputs: Mapping[str, str], clients: Clients) -> Record:
    """Returns the existing resources of the stage in the format of Chalice's record."""
    found = functions(target, clients)
    arns = {configuration["FunctionArn"]: name for name, configuration in found.items()}
    record: Record = [
        {"name": name, "resource_type": "lambda_function", "lambda_arn": configuration["FunctionArn"]}
        for name, configuration in found.items()
    ]
    for name, mapping in mappings(found, clients):
        source, kind = mapping["EventSourceArn"], mapping["EventSourceArn"].split(":")[2]
        same = {"event_uuid": mapping["UUID"], "lambda_arn": mapping["FunctionArn"]}
        if kind == "sqs":
            same |= {"queue_arn": source, "queue": source.rpartition(":")[2]}
            record.append({"name": f"{name}-sqs-event-source", "resource_type": "sqs_event", **same})
        else:
            same |= {"stream_arn": source}
            record.append({"name": f"{name}-dynamodb-event-source", "resource_type": "dynamodb_event", **same})
    for topic in filter(None, (outputs.get("TOPIC_ARN"), outputs.get("ALARMS_TOPIC_ARN"))):
        for subscription in subscriptions(clients("sns"), topic):
            if subscription["Endpoint"] in arns:
                record.append(
                    {
                        "name": f"{arns[subscription['Endpoint']]}-sns-subscription",
                        "resource_type": "sns_event",
                        "topic": topic,
                        "lambda_arn": subscription["Endpoint"],
                        "subscription_arn": subscription["SubscriptionArn"],
                        "topic_arn": topic,
                    }
                )
    if bucket := outputs.get("UPLOADS_BUCKET"):
        notified = clients("s3").get_bucket_notification_configuration(Bucket=bucket)
        for arn in (each["LambdaFunctionArn"] for each in notified.get("LambdaFunctionConfigurations", [])):
            if arn in arns:
                name = f"{arns[arn]}-s3event"
                record.append({"name": name, "resource_type": "s3_event", "bucket": bucket, "lambda_arn": arn})
    if apis := rest_apis(target, clients):
        region = clients("lambda").meta.region_name
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        url = f"https://{apis[0]}.execute-api.{region}.{suffix}/{api_stage()}/"
        record.append({"name": "rest_api", "resource_type": "rest_api", "rest_api_id": apis[0], "rest_api_url": url})
    return record


def subscriptions(sns: Any, topic: str) -> list[dict[str, Any]]:
    pages = sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
    return [each for page in pages for each in page["Subscriptions"]]


def write(project: Path, stage: str, record: Record) -> None:
    """Writes the record of deployed resources for Chalice.

    Raises ``DeployError`` if two resources have the same name.
    """
    names = [each["name"] for each in record]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise DeployError(f"some resources exist more than once, so delete the duplicates: {', '.join(doubled)}")
    file = record_file(project, stage)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"resources": record, "schema_version": "2.0", "backend": "api"}, indent=2))


def read(project: Path, stage: str) -> Record:
    """Returns Chalice's record of deployed resources, or an empty list if the file does not exist."""
    file = record_file(project, stage)
    record: Record = json.loads(file.read_text())["resources"] if file.exists() else []
    return record
