"""``deployer-policy.json``: all that a deploy needs, on the project's own things, in one policy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.wiring.conftest import ROOT
from tests.wiring.template import load

POLICY: dict[str, Any] = json.loads((ROOT / "infra" / "deployer-policy.json").read_text())
# What has no resource of its own on AWS, or one without a name: API Gateway's ids, and the ids of mappings and pools,
# which a condition narrows down.
UNNAMED = {"Look", "Subscriptions", "NewUserPools", "UserPools", "Mappings", "RestApis"}
READS = ("Describe", "Get", "List", "Simulate")


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def test_it_fits_into_one_managed_policy() -> None:
    assert len(json.dumps(POLICY, separators=(",", ":"))) <= 6144


@pytest.mark.parametrize("statement", POLICY["Statement"], ids=lambda each: each["Sid"])
def test_every_right_is_on_the_projects_own_things(statement: dict[str, Any]) -> None:
    assert statement["Effect"] == "Allow"
    assert not [each for each in listed(statement["Action"]) if each.endswith(":*") or each == "*"]
    if statement["Sid"] not in UNNAMED:
        assert all("cafe-" in each for each in listed(statement["Resource"]))


def test_what_is_allowed_on_everything_only_looks() -> None:
    [statement] = [each for each in POLICY["Statement"] if each["Sid"] == "Look"]
    assert all(each.partition(":")[2].startswith(READS) for each in statement["Action"])


@pytest.mark.parametrize("sid", ["NewUserPools", "UserPools", "Mappings"])
def test_what_has_no_name_is_narrowed_down_by_a_condition(sid: str) -> None:
    [statement] = [each for each in POLICY["Statement"] if each["Sid"] == sid]
    assert "cafe" in json.dumps(statement["Condition"])


def test_roles_are_passed_to_those_services_only_that_the_templates_have_roles_for() -> None:
    [statement] = [each for each in POLICY["Statement"] if each["Sid"] == "PassRoles"]
    resources = load((ROOT / "infra" / "resources.yaml").read_text())["Resources"]
    services = {
        service
        for each in resources.values()
        if each["Type"] == "AWS::IAM::Role"
        for trust in each["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        for service in listed(trust.get("Principal", {}).get("Service", []))
    }
    assert set(statement["Condition"]["StringEquals"]["iam:PassedToService"]) == services


# Of each kind of resource, the rights that CloudFormation needs to make and to delete it.
NEEDED = {
    "AWS::CloudWatch::Alarm": ("cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms"),
    "AWS::Cognito::UserPool": ("cognito-idp:CreateUserPool", "cognito-idp:DeleteUserPool*"),
    "AWS::Cognito::UserPoolClient": ("cognito-idp:CreateUserPoolClient", "cognito-idp:DeleteUserPool*"),
    "AWS::Cognito::UserPoolGroup": ("cognito-idp:CreateGroup", "cognito-idp:DeleteGroup"),
    "AWS::DynamoDB::Table": ("dynamodb:CreateTable", "dynamodb:DeleteTable"),
    "AWS::Events::Rule": ("events:PutRule", "events:PutTargets", "events:RemoveTargets", "events:DeleteRule"),
    "AWS::IAM::Role": ("iam:CreateRole", "iam:PutRolePolicy", "iam:DeleteRolePolicy", "iam:DeleteRole"),
    "AWS::Logs::LogGroup": ("logs:CreateLogGroup", "logs:PutRetentionPolicy", "logs:DeleteLogGroup"),
    "AWS::S3::Bucket": ("s3:CreateBucket", "s3:PutBucket*", "s3:DeleteBucket"),
    "AWS::S3::BucketPolicy": ("s3:PutBucket*", "s3:DeleteBucketPolicy"),
    "AWS::SNS::Subscription": ("sns:Subscribe", "sns:Unsubscribe"),
    "AWS::SNS::Topic": ("sns:CreateTopic", "sns:SetTopicAttributes", "sns:DeleteTopic"),
    "AWS::SNS::TopicPolicy": ("sns:SetTopicAttributes",),
    "AWS::SQS::Queue": ("sqs:CreateQueue", "sqs:SetQueueAttributes", "sqs:DeleteQueue"),
    "AWS::SQS::QueuePolicy": ("sqs:SetQueueAttributes",),
    "AWS::StepFunctions::StateMachine": (
        "states:CreateStateMachine",
        "states:UpdateStateMachine",
        "states:DeleteStateMachine",
        "iam:PassRole",
    ),
}


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "infra").glob("*.yaml")))
def test_there_is_a_right_to_make_and_to_delete_every_kind_of_resource(file: str) -> None:
    """The local cloud does not ask for these: CloudFormation uses them in the deployer's name."""
    allowed = {action for each in POLICY["Statement"] for action in listed(each["Action"])}
    for name, resource in load((ROOT / "infra" / file).read_text())["Resources"].items():
        assert set(NEEDED[resource["Type"]]) <= allowed, name
