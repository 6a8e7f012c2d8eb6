"""Tests that the resources of a stage include everything in its templates and nothing from another stage."""

from __future__ import annotations

import boto3
import pytest

from infra.deploy import resources_of_stage
from infra.deploy.resources_of_stage import NAMED, TEMPLATES, Resource
from infra.deploy.target import Target
from tests.template import load
from tests.wiring.stage import ACCOUNT, REGION, ROOT, client, rendered

# Only CloudFormation creates and deletes resources of these types, and existing resources do not block a deploy. Two
# saved queries may share a name, and a change set refuses a second X-Ray policy. Neither the local cloud nor moto
# supports query definitions and X-Ray policies. The policy of a role is deleted together with the role.
NOT_LISTED = {"AWS::IAM::Policy", "AWS::Logs::QueryDefinition", "AWS::XRay::ResourcePolicy"}


def test_every_template_belongs_to_a_part_of_a_stage() -> None:
    assert {path.name for path in (ROOT / "infra").glob("*.yaml")} == set(TEMPLATES.values())
    assert TEMPLATES.keys() == set(resources_of_stage.PARTS)


@pytest.mark.parametrize("file", TEMPLATES.values())
def test_every_resource_with_a_name_of_its_stage_is_listed(file: str) -> None:
    """If a type is not listed, a deploy would miss a name clash and a destroy would miss a leftover resource."""
    for name, resource in load(rendered(file))["Resources"].items():
        for key, value in resource.get("Properties", {}).items():
            named = key.endswith("Name") and "${Stage}" in str(value) and "ClientName" not in key
            if named and resource["Type"] not in NOT_LISTED:
                assert resource["Type"] in NAMED, name
                assert key == NAMED[resource["Type"]][0], name


def test_the_names_are_those_that_cloudformation_assigns(target: Target) -> None:
    names = resources_of_stage.declared_resources(target, ACCOUNT)
    assert Resource("AWS::SQS::Queue", "cafe-test-orders-dead") in names
    assert Resource("AWS::S3::Bucket", f"cafe-test-deploys-{ACCOUNT}") in names
    assert Resource("AWS::Logs::LogGroup", "/aws/lambda/cafe-test") in names
    assert not [each for each in names if "$" in each.name]


def make_bucket(name: str, region: str) -> None:
    s3 = boto3.client("s3", region)  # type: ignore[call-overload]
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": region})


def test_a_stage_is_distinguished_from_one_with_the_same_prefix(aws: None, target: Target) -> None:
    for stage in ("test", "test-2"):
        client("sqs").create_queue(QueueName=f"cafe-{stage}-orders")
        client("sns").create_topic(Name=f"cafe-{stage}-alarms")
        client("logs").create_log_group(logGroupName=f"/aws/lambda/cafe-{stage}")
        make_bucket(f"cafe-{stage}-uploads-{ACCOUNT}", REGION)
    # S3 lists the buckets of all regions, so a bucket of a stage in another region must be left out.
    make_bucket(f"cafe-test-reports-{ACCOUNT}", "us-west-2")
    things = resources_of_stage.existing_resources(target, client, ACCOUNT)
    assert things == [
        Resource("AWS::Logs::LogGroup", "/aws/lambda/cafe-test"),
        Resource("AWS::S3::Bucket", f"cafe-test-uploads-{ACCOUNT}"),
        Resource("AWS::SNS::Topic", "cafe-test-alarms"),
        Resource("AWS::SQS::Queue", "cafe-test-orders"),
    ]
    assert resources_of_stage.lines_by_kind([*things[2:], Resource("AWS::SQS::Queue", "more")]) == [
        "  AWS::SNS::Topic: cafe-test-alarms",
        "  AWS::SQS::Queue: cafe-test-orders, more",
    ]
