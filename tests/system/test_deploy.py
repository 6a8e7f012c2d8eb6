"""Tests deploys to the local stack.

A manual `chalice deploy` also works, and one deploy restores everything that is missing.
"""

import os
import subprocess
import sys
import time
from typing import Any

import pytest

from chalicelib.orders.replay import FRESH_SECONDS
from infra.deploy import chalice_record
from infra.deploy.target import Target
from tests.system.system import ROOT, System, new_id, wait_for


def deploy(system: System, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.deploy", "dev", "--project-dir", str(system.stack.project)]
    command += ["--local", "--yes", "--origin", system.stack.api_url, *more]
    environment = {**system.env, "PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def mapping(system: System, function: str) -> dict[str, Any]:
    listed = system.aws("lambda").list_event_source_mappings(FunctionName=f"cafe-dev-{function}")
    [found] = listed["EventSourceMappings"]
    return dict(found)


@pytest.mark.long
def test_chalice_deploy_works_by_hand_and_its_record_can_be_rebuilt_from_the_account(system: System) -> None:
    done = system.run("chalice", "deploy", "--stage", "dev")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Rest API URL" in done.stdout
    # `chalice deploy` must not change settings that Chalice does not support.
    assert mapping(system, "store_orders")["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    target = Target("dev", system.stack.project, True, {}, {})
    written = chalice_record.read(system.stack.project, "dev")
    rebuilt = chalice_record.rebuild(target, system.env, system.aws)
    assert {each["name"]: each for each in rebuilt} == {each["name"]: each for each in written}
    assert len(rebuilt) == len(written)
    again = deploy(system)
    assert again.returncode == 0, again.stderr
    assert system.request("GET", system.env["REST_API_URL"] + "/health").status == 200


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
def test_orders_are_announced_once_although_a_new_mapping_reads_the_stream_from_its_start(system: System) -> None:
    before, after = [new_id() for _ in range(5)], new_id()
    for order_id in before:
        system.post("/orders", {"orderID": order_id, "customerID": "c", "item": "Tea"})
        system.notification(order_id, "order")
    # On AWS, replacing a mapping takes longer than this.
    end = time.monotonic() + FRESH_SECONDS
    wait_for(lambda: time.monotonic() > end, "records that are no longer fresh")
    no_mapping(system)
    done = deploy(system)
    assert done.returncode == 0, done.stdout + done.stderr
    system.post("/orders", {"orderID": after, "customerID": "c", "item": "Tea"})
    system.notification(after, "order")
    announced = [system.notifications(order_id, "order") for order_id in (*before, after)]
    assert [len(each) for each in announced] == [1] * 6


@pytest.mark.long
def test_one_deploy_repairs_everything_that_is_missing(system: System) -> None:
    for damage in DAMAGES:
        damage(system)
    done = deploy(system)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "check: every setting is correct" in done.stdout
    assert system.report()["status"] == "SUCCEEDED"


def test_the_deployment_package_is_small(system: System) -> None:
    for function in system.aws("lambda").list_functions()["Functions"]:
        assert function["CodeSize"] < 20_000_000
