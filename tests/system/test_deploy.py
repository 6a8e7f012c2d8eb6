"""The one deploy path: a second run changes nothing, it sets what Chalice cannot, and it repairs what is missing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from infra.deploy import chalice_record
from infra.deploy.target import Target
from tests.system.system import ROOT, System, stored


def deploy(system: System, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.deploy", "dev", "--project-dir", str(system.stack.project)]
    command += ["--local", "--yes", "--origin", system.stack.api_url, *more]
    environment = {**system.env, "PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def mapping(system: System, function: str) -> dict[str, Any]:
    listed = system.aws("lambda").list_event_source_mappings(FunctionName=f"cafe-dev-{function}")
    [found] = listed["EventSourceMappings"]
    return dict(found)


def snapshot(system: System) -> Any:
    """Everything that a deploy could have changed, as the services describe it."""
    lambda_, apis = system.aws("lambda"), system.aws("apigateway")
    functions = lambda_.list_functions()["Functions"]
    mappings = lambda_.list_event_source_mappings()["EventSourceMappings"]
    [api] = apis.get_rest_apis()["items"]
    stack = system.aws("cloudformation").describe_stacks(StackName="cafe-dev-resources")["Stacks"][0]
    return (
        sorted((each["FunctionName"], each["CodeSha256"], str(each["LastModified"])) for each in functions),
        sorted((each["UUID"], str(each["LastModified"])) for each in mappings),
        (api["id"], [each["id"] for each in apis.get_deployments(restApiId=api["id"])["items"]]),
        str(stack.get("LastUpdatedTime", stack["CreationTime"])),
        sorted(each["Endpoint"] for each in system.aws("sns").list_subscriptions()["Subscriptions"]),
    )


@pytest.mark.long
def test_a_second_deploy_changes_nothing(system: System) -> None:
    before = snapshot(system)
    done = deploy(system)
    assert done.returncode == 0, done.stderr
    assert "functions and API: nothing to change" in done.stdout
    assert "cafe-dev-resources: nothing to change" in done.stdout
    assert snapshot(system) == before


@pytest.mark.long
def test_chalice_deploy_by_hand_keeps_working_and_what_it_cannot_set_stays_set(system: System) -> None:
    done = system.run("chalice", "deploy", "--stage", "dev")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Rest API URL" in done.stdout
    assert mapping(system, "store_orders")["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    again = deploy(system)
    assert again.returncode == 0, again.stderr
    assert system.request("GET", system.env["REST_API_URL"] + "/health").status == 200


@pytest.mark.long
def test_the_record_that_is_rebuilt_from_the_account_is_the_one_that_chalice_writes(system: System) -> None:
    done = system.run("chalice", "deploy", "--stage", "dev")
    assert done.returncode == 0, done.stdout + done.stderr
    target = Target("dev", system.stack.project, True, {}, {})
    written = chalice_record.read(system.stack.project, "dev")
    rebuilt = chalice_record.rebuild(target, system.env, system.aws)
    assert {each["name"]: each for each in rebuilt} == {each["name"]: each for each in written}
    assert len(rebuilt) == len(written)


def test_the_mappings_are_completed(system: System) -> None:
    assert mapping(system, "store_orders")["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    stream = mapping(system, "announce_orders")
    assert stream["BisectBatchOnFunctionError"] is True
    assert stream["MaximumRetryAttempts"] == 1000
    assert stream["MaximumRecordAgeInSeconds"] == 6 * 3600
    assert stream["DestinationConfig"]["OnFailure"]["Destination"] == system.env["FAILURES_QUEUE_ARN"]
    for function in ("receive_upload", "record_notification", "record_alarm"):
        config = system.aws("lambda").get_function_event_invoke_config(FunctionName=f"cafe-dev-{function}")
        assert config["DestinationConfig"]["OnFailure"]["Destination"] == system.env["FAILURES_QUEUE_ARN"]


def mapping_without_partial_replies(system: System) -> None:
    found = mapping(system, "store_orders")
    system.aws("lambda").update_event_source_mapping(UUID=found["UUID"], FunctionResponseTypes=[])


def no_failure_destination(system: System) -> None:
    system.aws("lambda").delete_function_event_invoke_config(FunctionName="cafe-dev-receive_upload")


def no_function(system: System) -> None:
    system.aws("lambda").delete_function(FunctionName="cafe-dev-presign_report")


def no_way_to_upload(system: System) -> None:
    system.aws("s3").delete_bucket_cors(Bucket=system.env["UPLOADS_BUCKET"])


def no_subscription(system: System) -> None:
    sns = system.aws("sns")
    found = sns.list_subscriptions_by_topic(TopicArn=system.env["ALARMS_TOPIC_ARN"])["Subscriptions"]
    [function] = [each for each in found if each["Protocol"] == "lambda"]
    sns.unsubscribe(SubscriptionArn=function["SubscriptionArn"])


def no_mapping(system: System) -> None:
    system.aws("lambda").delete_event_source_mapping(UUID=mapping(system, "announce_orders")["UUID"])


def no_stage_of_the_api(system: System) -> None:
    apis = system.aws("apigateway")
    [api] = apis.get_rest_apis()["items"]
    apis.delete_stage(restApiId=api["id"], stageName="api")


DAMAGES = (
    *(mapping_without_partial_replies, no_failure_destination, no_function, no_way_to_upload),
    *(no_subscription, no_mapping, no_stage_of_the_api),
)


@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_deploy_repairs_what_was_taken_away(system: System, damage: Callable[[System], None]) -> None:
    damage(system)
    done = deploy(system)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "check: every setting is right" in done.stdout
    assert system.report()["status"] == "SUCCEEDED"


@pytest.mark.long
def test_a_parameter_subscribes_an_address_with_its_filter_and_is_remembered(system: System) -> None:
    done = deploy(system, "--parameter", "EmailAddress=boss@example.com", "--parameter", "EmailKinds=report,storage")
    assert done.returncode == 0, done.stderr
    sns = system.aws("sns")

    def addresses() -> dict[str, str]:
        pages = sns.list_subscriptions_by_topic(TopicArn=system.env["TOPIC_ARN"])["Subscriptions"]
        return {each["Endpoint"]: each["SubscriptionArn"] for each in pages}

    arn = addresses()["boss@example.com"]
    policy = sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]["FilterPolicy"]
    assert json.loads(policy) == {"kind": ["report", "storage"]}
    assert deploy(system).returncode == 0
    assert "boss@example.com" in addresses()
    assert deploy(system, "--parameter", "EmailAddress=").returncode == 0
    assert "boss@example.com" not in addresses()


def test_the_deployment_package_is_small(system: System) -> None:
    for function in system.aws("lambda").list_functions()["Functions"]:
        assert function["CodeSize"] < 20_000_000


def test_the_api_behind_the_gateway_answers_like_the_one_of_chalice_local(system: System) -> None:
    gateway = system.env["REST_API_URL"]
    for path in ("/health", "/openapi.json", "/", "/orders?limit=1", "/reports?limit=1", "/notifications?limit=1"):
        local, deployed = system.request("GET", path), system.request("GET", gateway + path)
        assert (local.status, deployed.status) == (200, 200)
        assert local.headers["Content-Type"] == deployed.headers["Content-Type"]
    body = {"customerID": "gateway", "item": "Mocha"}
    placed = system.request("POST", gateway + "/orders", body)
    assert placed.status == 202, placed.text
    stored(system, placed.json["orderID"])
    assert system.request("GET", gateway + placed.json["href"]).status == 200
    assert system.request("POST", gateway + "/orders", {**body, "colour": "red"}).status == 400
