"""What there is of a stage: everything that a template gives a name, and nothing of another stage."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from infra.deploy import inventory
from infra.deploy.inventory import NAMED, TEMPLATES, Thing
from infra.deploy.target import Target
from tests.template import load
from tests.wiring.stage import ROOT

ACCOUNT = "123456789012"
# Made and removed by CloudFormation alone, and none holds up another: two queries may have one name, and of two
# policies the second is refused in the change set. Neither the local cloud nor moto knows these services. A role's
# policy goes with its role.
NOT_LOOKED_FOR = {"AWS::IAM::Policy", "AWS::Logs::QueryDefinition", "AWS::XRay::ResourcePolicy"}


def clients(service: str) -> Any:
    return boto3.client(service)  # type: ignore[call-overload]


def test_every_template_is_of_a_part_that_is_looked_through() -> None:
    assert {path.name for path in (ROOT / "infra").glob("*.yaml")} == set(TEMPLATES.values())
    assert TEMPLATES.keys() == set(inventory.PARTS)


@pytest.mark.parametrize("file", TEMPLATES.values())
def test_every_resource_with_a_name_of_its_stage_is_looked_for(file: str) -> None:
    """A name that is not looked for is neither a clash before the deploy nor left over after the stage."""
    for name, resource in load((ROOT / "infra" / file).read_text())["Resources"].items():
        properties = resource.get("Properties", {})
        for key, value in properties.items():
            if resource["Type"] in NOT_LOOKED_FOR:
                continue
            if key.endswith("Name") and "${Stage}" in str(value) and "ClientName" not in key:
                assert resource["Type"] in NAMED, name
                assert key == NAMED[resource["Type"]][0], name


def test_names_are_those_that_cloudformation_gives(target: Target) -> None:
    names = inventory.named(target, ACCOUNT)
    assert Thing("AWS::SQS::Queue", "cafe-test-orders-dead") in names
    assert Thing("AWS::S3::Bucket", f"cafe-test-deploys-{ACCOUNT}") in names
    assert Thing("AWS::Logs::LogGroup", "/aws/lambda/cafe-test") in names
    assert not [each for each in names if "$" in each.name]


def test_what_there_is_is_found_and_nothing_of_a_stage_whose_name_begins_alike(aws: None, target: Target) -> None:
    for stage in ("test", "test-2"):
        boto3.client("sqs").create_queue(QueueName=f"cafe-{stage}-orders")
        boto3.client("sns").create_topic(Name=f"cafe-{stage}-alarms")
        boto3.client("logs").create_log_group(logGroupName=f"/aws/lambda/cafe-{stage}")
        boto3.client("s3").create_bucket(
            Bucket=f"cafe-{stage}-uploads-{ACCOUNT}",
            CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
        )
    assert inventory.there(target, clients, ACCOUNT) == [
        Thing("AWS::Logs::LogGroup", "/aws/lambda/cafe-test"),
        Thing("AWS::S3::Bucket", f"cafe-test-uploads-{ACCOUNT}"),
        Thing("AWS::SNS::Topic", "cafe-test-alarms"),
        Thing("AWS::SQS::Queue", "cafe-test-orders"),
    ]


def test_a_bucket_of_another_region_is_not_of_this_stage(aws: None, target: Target) -> None:
    """S3 lists those of all regions, and whoever destroys a stage would destroy it of another one."""
    boto3.client("s3", "us-west-2").create_bucket(
        Bucket=f"cafe-test-uploads-{ACCOUNT}", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    assert inventory.there(target, clients, ACCOUNT) == []


def test_things_are_shown_by_kind() -> None:
    things = [Thing("AWS::SQS::Queue", "a"), Thing("AWS::SNS::Topic", "t"), Thing("AWS::SQS::Queue", "b")]
    assert inventory.shown(things) == ["  AWS::SNS::Topic: t", "  AWS::SQS::Queue: a, b"]
