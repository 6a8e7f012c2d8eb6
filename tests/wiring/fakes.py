"""Fakes the AWS services that ``infra/deploy`` uses. Arguments have the same names as in boto3."""
# ruff: noqa: N803

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import validate_parameters

from infra.deploy import project
from infra.deploy.target import Target
from tests.wiring.stage import as_variables, resolve

OUTPUTS = as_variables(resolve("test", "eu-central-1", "123456789012").outputs)
# The deploy adds two outputs after it has created the API.
DEPLOYED = {**OUTPUTS, "REST_API_URL": "https://abc.execute-api.eu-central-1.amazonaws.com/api", "REST_API_ID": "abc"}


def configured(target: Target) -> dict[str, Any]:
    """Writes the Chalice project of a stage, and returns its configuration."""
    config = project.configure(target, OUTPUTS, "2026-11-21")
    project.write_project(target, config)
    return config


def distributions(folder: Path, *names: str) -> Path:
    """Creates a folder that looks as if pip had installed these distributions."""
    for name in names:
        (folder / f"{name}-1.dist-info").mkdir(parents=True)
        (folder / f"{name}-1.dist-info" / "METADATA").touch()
        # The second field is the digest of an empty file.
        record = f"{name}-1.dist-info/METADATA,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n"
        (folder / f"{name}-1.dist-info" / "RECORD").write_text(record)
    return folder


def client_error(message: str, code: str = "ValidationError") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


def refusing(error: Exception) -> Callable[..., Any]:
    """Returns an operation that always raises this error."""

    def refuse(*_: Any, **__: Any) -> None:
        raise error

    return refuse


@cache
def _model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"))


def accepts(service: str, operation: str, given: dict[str, Any]) -> None:
    """Raises boto3's error if the operation does not accept these arguments."""
    shape = _model(service).operation_model(operation).input_shape
    assert shape
    validate_parameters(given, shape)


class CloudFormation:
    """Fakes CloudFormation with one stack that enters the states in ``coming``."""

    def __init__(self, status: str | None, *coming: str, parameters: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.coming = list(coming)
        self.parameters = [
            {"ParameterKey": name, "ParameterValue": value} for name, value in (parameters or {}).items()
        ]
        self.body = ""
        self.tags: dict[str, str] = {}
        self.calls: list[str] = []
        self.given: dict[str, Any] = {}
        self.refusal = ""
        # A failed change set gives this text as its reason.
        self.reason = ""
        self.events: list[dict[str, Any]] = []
        # A deleted stack of the same name has its own events.
        self.deleted: list[dict[str, Any]] = []
        # The list contains the state of each resource in the stack.
        self.statuses: list[str] = []

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        if self.status is None:
            raise client_error(f"Stack with id {StackName} does not exist")
        stack = {
            "StackStatus": self.status,
            "Parameters": self.parameters,
            "Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()],
            "Outputs": [{"OutputKey": "OrdersQueueUrl", "OutputValue": "https://queue"}],
        }
        if self.status.endswith("_IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS" and self.coming:
            self.status = self.coming.pop(0)
        return {"Stacks": [stack]}

    def get_template(self, StackName: str, TemplateStage: str) -> dict[str, Any]:
        return {"TemplateBody": self.body}

    def create_change_set(self, **given: Any) -> dict[str, str]:
        if self.refusal:
            raise client_error(self.refusal)
        accepts("cloudformation", "CreateChangeSet", given)
        self.calls.append(given["ChangeSetType"])
        self.given = given
        if self.status is None:
            self.status = "REVIEW_IN_PROGRESS"
        return {"Id": "arn:change-set"}

    def describe_change_set(self, StackName: str, ChangeSetName: str) -> dict[str, Any]:
        if self.reason:
            return {"Status": "FAILED", "StatusReason": self.reason}
        return {"Status": "CREATE_COMPLETE", "Changes": []}

    def describe_events(self, **given: Any) -> dict[str, Any]:
        accepts("cloudformation", "DescribeEvents", given)
        return {"OperationEvents": self.events}

    def execute_change_set(self, StackName: str, ChangeSetName: str) -> None:
        self.calls.append("execute")
        self.status = f"{self.given['ChangeSetType']}_IN_PROGRESS"

    def delete_change_set(self, StackName: str, ChangeSetName: str) -> None:
        self.calls.append("discard")

    def continue_update_rollback(self, StackName: str) -> None:
        self.calls.append("continue")
        self.status = self.coming.pop(0)

    def delete_stack(self, StackName: str) -> None:
        self.calls.append("delete")
        self.status = None

    def get_paginator(self, operation: str) -> Paginator:
        if operation == "describe_stack_events":
            events = {"cafe-test-resources": self.events, "deleted": self.deleted}
            long_ago = {"Timestamp": datetime(2026, 1, 1, tzinfo=UTC), "ResourceType": "AWS::SQS::Queue"}
            return Paginator("StackEvents", {key: [long_ago | each for each in value] for key, value in events.items()})
        if operation == "list_stacks":
            pages = [
                {"StackSummaries": [{"StackName": f"cafe-test-{part}", "StackId": id_, "DeletionTime": month}]}
                for month, part, id_ in (
                    (2, "resources", "deleted"),
                    (1, "resources", "earlier"),
                    (3, "deploys", "other"),
                )
            ]
            return SimpleNamespace(paginate=lambda **_: pages)  # type: ignore[return-value]
        assert operation == "list_stack_resources"
        resources = [{"ResourceStatus": each} for each in self.statuses]
        return Paginator("StackResourceSummaries", {"cafe-test-resources": resources})


class Missing(Exception):
    """Fakes the exceptions that Lambda, API Gateway and WAF raise for a missing resource."""


class Conflict(Exception):
    """Fakes Lambda's ResourceConflictException and Cognito's UsernameExistsException."""


class Unavailable(Exception):
    """Replaces WAF's WAFUnavailableEntityException."""


def found(things: Mapping[Any, Any], name: Any) -> Any:
    try:
        return things[name]
    except KeyError:
        raise Missing from None


class Paginator:
    """Yields pages with one item each from the list that the call's only argument selects, or from the list ``""``."""

    def __init__(self, name: str, lists: Mapping[str, list[dict[str, Any]]]) -> None:
        self._name = name
        self._lists = lists

    def paginate(self, **argument: str) -> Iterator[dict[str, Any]]:
        [key] = argument.values() or ("",)
        return ({self._name: [each]} for each in self._lists[key])


class Lambda:
    """Fakes Lambda with functions, event source mappings and asynchronous settings, keyed by function name."""

    exceptions = SimpleNamespace(ResourceNotFoundException=Missing)

    def __init__(self, target: Target, stage: dict[str, Any]) -> None:
        tracked = project.tracked_config()
        self.functions = {
            target.function(name): {
                "FunctionName": target.function(name),
                "FunctionArn": f"arn:{target.function(name)}",
                "Role": asked["iam_role_arn"],
                "Architectures": [stage["lambda_architecture"]],
                "Timeout": asked.get("lambda_timeout", tracked["lambda_timeout"]),
                "MemorySize": asked.get("lambda_memory_size", tracked["lambda_memory_size"]),
                "Environment": {"Variables": dict(stage["environment_variables"])},
                "VpcConfig": {
                    "SubnetIds": asked.get("subnet_ids", []),
                    "SecurityGroupIds": asked.get("security_group_ids", []),
                },
            }
            for name, asked in stage["lambda_functions"].items()
        }
        # Each event source mapping is in the state in which Chalice leaves it.
        sources = {
            "store_orders": OUTPUTS["ORDERS_QUEUE_ARN"],
            "retry_failures": OUTPUTS["RETRIES_QUEUE_ARN"],
            "announce_orders": OUTPUTS["ORDERS_STREAM_ARN"],
        }
        self.mappings: dict[str, list[dict[str, Any]]] = {
            target.function(name): [{"UUID": str(uuid.uuid4()), "EventSourceArn": arn, "State": "Creating"}]
            for name, arn in sources.items()
        }
        self.invocations: dict[str, dict[str, Any]] = {}
        self.reserved = {
            target.function(name): asked["reserved_concurrency"]
            for name, asked in stage["lambda_functions"].items()
            if "reserved_concurrency" in asked
        }
        self.changes = 0

    def get_function_concurrency(self, FunctionName: str) -> dict[str, int]:
        self.get_function_configuration(FunctionName)
        reserved = self.reserved.get(FunctionName)
        return {"ReservedConcurrentExecutions": reserved} if reserved else {}

    def get_function_configuration(self, FunctionName: str) -> dict[str, Any]:
        return found(self.functions, FunctionName)

    def get_paginator(self, operation: str) -> Paginator:
        if operation == "list_functions":
            return Paginator("Functions", {"": list(self.functions.values())})
        assert operation == "list_event_source_mappings"
        shown = {name: [dict(each) for each in mappings] for name, mappings in self.mappings.items()}
        for mapping in chain(*self.mappings.values()):
            if mapping["State"] in ("Creating", "Updating"):
                mapping["State"] = "Enabled"
        return Paginator("EventSourceMappings", shown)

    def update_event_source_mapping(self, **given: Any) -> None:
        accepts("lambda", "UpdateEventSourceMapping", given)
        [mapping] = [each for each in chain(*self.mappings.values()) if each["UUID"] == given["UUID"]]
        if mapping["State"] not in ("Enabled", "Disabled"):
            raise client_error(f"ResourceInUse: the mapping is {mapping['State']}")
        mapping.update(given, State="Updating")
        self.changes += 1

    def get_function_event_invoke_config(self, FunctionName: str) -> dict[str, Any]:
        return found(self.invocations, FunctionName)

    def put_function_event_invoke_config(self, **given: Any) -> None:
        accepts("lambda", "PutFunctionEventInvokeConfig", given)
        self.invocations[given["FunctionName"]] = given
        self.changes += 1


class Account:
    """Fakes an account: Lambda, topic subscriptions, the uploads bucket, the API's stage and the API's web ACL."""

    def __init__(self, target: Target, stage: dict[str, Any]) -> None:
        self.lambda_ = Lambda(target, stage)
        self.subscriptions = {
            OUTPUTS["TOPIC_ARN"]: ["barista@example.com", "arn:cafe-test-record_notification"],
            OUTPUTS["ALARMS_TOPIC_ARN"]: ["arn:cafe-test-record_alarm"],
        }
        # The redrive policies are keyed by subscription ARN.
        self.redrive_policies: dict[str, str] = {}
        self.notified = ["arn:cafe-test-receive_upload"]
        self.cors: list[dict[str, Any]] = []
        # The fake holds the API stage and the API Gateway settings of the account.
        self.api: dict[str, Any] = {"methodSettings": {}}
        self.gateway: dict[str, str] = {"cloudwatchRoleArn": "arn:aws:iam::123456789012:role/logs"}
        # The web ACLs are keyed by the ARN of the API's stage. A new web ACL is unavailable during the first calls.
        self.web_acls: dict[str, str] = {}
        self.unavailable = 2
        self.meta = SimpleNamespace(partition="aws", region_name="eu-central-1")

    exceptions = SimpleNamespace(
        NotFoundException=Missing, WAFNonexistentItemException=Missing, WAFUnavailableEntityException=Unavailable
    )

    def client(self, service: str, seconds: int = 60) -> Any:
        return {"lambda": self.lambda_, "sns": self, "s3": self, "apigateway": self, "wafv2": self}[service]

    def get_stage(self, restApiId: str, stageName: str) -> dict[str, Any]:
        return found({("abc", "api"): self.api}, (restApiId, stageName))

    def update_stage(self, **given: Any) -> None:
        """https://docs.aws.amazon.com/apigateway/latest/api/API_UpdateStage.html"""
        accepts("apigateway", "UpdateStage", given)
        self.get_stage(given["restApiId"], given["stageName"])
        for each in given["patchOperations"]:
            assert each["op"] == "replace"
            match each["path"].split("/"):
                case ["", path, method, "throttling", "rateLimit" | "burstLimit" as limit]:
                    # An empty path would be a slash that is not encoded.
                    assert path
                    entry = self.api["methodSettings"].setdefault(f"{path}/{method}", {})
                    if limit == "rateLimit":
                        entry["throttlingRateLimit"] = float(each["value"])
                    else:
                        entry["throttlingBurstLimit"] = int(each["value"])
                case ["", "accessLogSettings", name]:
                    if not self.gateway:
                        raise client_error("CloudWatch Logs role ARN must be set in account settings", "BadRequest")
                    self.api.setdefault("accessLogSettings", {})[name] = each["value"]
                case other:
                    raise AssertionError(other)
        self.lambda_.changes += 1

    def get_account(self) -> dict[str, str]:
        return self.gateway

    def get_web_acl_for_resource(self, ResourceArn: str) -> dict[str, Any]:
        return {"WebACL": {"ARN": found(self.web_acls, ResourceArn)}}

    def associate_web_acl(self, **given: str) -> None:
        accepts("wafv2", "AssociateWebACL", given)
        if self.unavailable:
            self.unavailable -= 1
            raise Unavailable
        self.web_acls[given["ResourceArn"]] = given["WebACLArn"]
        self.lambda_.changes += 1

    def disassociate_web_acl(self, ResourceArn: str) -> None:
        del self.web_acls[ResourceArn]

    def get_paginator(self, operation: str) -> Paginator:
        assert operation == "list_subscriptions_by_topic"
        topics = {
            topic: [{"Endpoint": each, "SubscriptionArn": f"{topic}:{each}"} for each in endpoints]
            for topic, endpoints in self.subscriptions.items()
        }
        return Paginator("Subscriptions", topics)

    def get_subscription_attributes(self, SubscriptionArn: str) -> dict[str, Any]:
        policy = self.redrive_policies.get(SubscriptionArn)
        return {"Attributes": {"RedrivePolicy": policy} if policy else {}}

    def set_subscription_attributes(self, **given: Any) -> None:
        accepts("sns", "SetSubscriptionAttributes", given)
        assert given["AttributeName"] == "RedrivePolicy"
        self.redrive_policies[given["SubscriptionArn"]] = given["AttributeValue"]
        self.lambda_.changes += 1

    def get_bucket_notification_configuration(self, Bucket: str) -> dict[str, Any]:
        assert Bucket == OUTPUTS["UPLOADS_BUCKET"]
        return {"LambdaFunctionConfigurations": [{"LambdaFunctionArn": each} for each in self.notified]}

    def get_bucket_cors(self, Bucket: str) -> dict[str, Any]:
        assert Bucket == OUTPUTS["UPLOADS_BUCKET"]
        if not self.cors:
            raise client_error("The CORS configuration does not exist", "NoSuchCORSConfiguration")
        return {"CORSRules": self.cors}

    def put_bucket_cors(self, **given: Any) -> None:
        accepts("s3", "PutBucketCors", given)
        assert given["Bucket"] == OUTPUTS["UPLOADS_BUCKET"]
        self.cors = given["CORSConfiguration"]["CORSRules"]
        self.lambda_.changes += 1
