"""Tests that ``infra/deployer`` has all permissions that a deploy needs, but only for the project's resources."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

from infra.deploy import preflight, stacks
from infra.template import TAGGED
from tests.template import load
from tests.wiring.deployer import ATTEMPTS, POLICIES, STATEMENTS, allows, matches
from tests.wiring.permissions import as_list
from tests.wiring.stage import ROOT, rendered

ALLOWING = preflight.allowing_statements()
READS = ("Describe", "GET", "Get", "List", "Simulate")
# These statements change resources that neither a name nor a condition identifies as the project's.
WITHOUT_BOUND = {
    "RestApis": "API Gateway knows the name only if a call creates, changes or deletes the API itself, not its parts",
    "WebAclsOfApis": "APIs and user pools have no names of the project's; the web ACL has one",
    "WebAcls": "a web ACL also needs permission for the rules of AWS that it contains",
    "DefaultsOfDatabases": "RDS asks for its own default groups, and these actions cannot change the groups",
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_fits_into_a_managed_policy(name: str) -> None:
    """IAM does not count whitespace."""
    assert len("".join(json.dumps(POLICIES[name]).split())) < 6144
    assert len({each["Sid"] for each in STATEMENTS}) == len(STATEMENTS)


def test_every_change_is_limited_by_a_name_or_a_condition_or_has_a_reason() -> None:
    unlimited = set()
    for statement in ALLOWING:
        actions = [action.partition(":")[2] for action in as_list(statement["Action"])]
        named = all("cafe-" in each for each in as_list(statement["Resource"]))
        conditions = [each for each in statement.get("Condition", {}) if not each.endswith("IfExists")]
        assert not {"*", ""} & set(actions)
        if not (named or conditions or all(each.startswith(READS) for each in actions)):
            unlimited.add(statement["Sid"])
    assert unlimited == WITHOUT_BOUND.keys()


# --- tags -------------------------------------------------------------------------------------------------------------

# The actions for which EC2 checks a resource of the type, from AWS's Service Authorization Reference.
CHECKED = {
    "AWS::Cognito::UserPool": ["cognito-idp:*"],
    "AWS::EC2::RouteTable": ["ec2:*RouteTable*", "ec2:*VpcEndpoint", "ec2:DeleteTags"],
    "AWS::EC2::SecurityGroup": ["ec2:*SecurityGroup*", "ec2:*VpcEndpoint", "ec2:DeleteTags"],
    "AWS::EC2::Subnet": [
        "ec2:*Subnet*",
        "ec2:*ssociateRouteTable",
        "ec2:*Association",
        "ec2:*VpcEndpoint",
        "ec2:DeleteTags",
    ],
    "AWS::EC2::VPC": ["ec2:Create*", "ec2:*Vpc", "ec2:*VpcAttribute", "ec2:DeleteTags"],
    "AWS::EC2::VPCEndpoint": ["ec2:*VpcEndpoint*", "ec2:DeleteTags"],
}


def test_every_resource_that_a_policy_recognises_by_its_tag_has_the_tag_in_its_template() -> None:
    """A stack's own tags were reported not to reach user pools and endpoints."""
    kinds = set()
    for statement in STATEMENTS:
        if "Tag/app" in json.dumps(statement.get("Condition", {})):
            for action in as_list(statement["Action"]):
                checked = {kind for kind, actions in CHECKED.items() if matches(actions, action)}
                assert checked, action
                kinds |= checked
    # The deploy itself recognises buckets by their tags.
    assert kinds | {"AWS::S3::Bucket"} == TAGGED.keys()
    for path in (ROOT / "infra").glob("*.yaml"):
        for name, resource in load(rendered(path.name))["Resources"].items():
            if property_ := TAGGED.get(resource["Type"]):
                tags = resource["Properties"][property_]
                tags = tags if isinstance(tags, dict) else {each["Key"]: each["Value"] for each in tags}
                assert tags.items() >= {"app": "cafe", "stage": {"Ref": "Stage"}}.items(), name
                kinds.discard(resource["Type"])
    assert kinds == set()


# --- what the deployer cannot do --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("may", "action", "resource", "context"), ATTEMPTS)
def test_the_deployer_changes_neither_itself_nor_other_peoples_resources(
    may: bool, action: str, resource: str, context: dict[str, str]
) -> None:
    assert allows(STATEMENTS, action, resource, context) is may


def test_settings_for_all_apis_of_the_account_are_only_read() -> None:
    [statement] = [each for each in STATEMENTS if "/account" in json.dumps(each["Resource"])]
    assert statement["Action"] == "apigateway:GET"
    [apis] = [each for each in STATEMENTS if "apigateway:SetWebACL" in each["Action"]]
    assert all("/restapis" in each for each in apis["Resource"])


def test_roles_are_passed_only_to_the_services_of_the_templates_roles() -> None:
    [statement] = [each for each in STATEMENTS if each["Sid"] == "PassRoles"]
    resources = load(rendered())["Resources"]
    services = {
        service
        for each in resources.values()
        if each["Type"] == "AWS::IAM::Role"
        for trust in each["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        for service in as_list(trust.get("Principal", {}).get("Service", []))
    }
    assert set(statement["Condition"]["StringEquals"]["iam:PassedToService"]) == services


# AWS's list of permissions is far too long for these resource types, so the test uses shorter lists.
NEEDED = {
    "AWS::DynamoDB::Table": {"dynamodb:CreateTable", "dynamodb:DeleteTable"},
    "AWS::Logs::LogGroup": {"logs:CreateLogGroup", "logs:PutRetentionPolicy", "logs:DeleteLogGroup"},
    "AWS::S3::Bucket": {"s3:CreateBucket", "s3:PutBucket*", "s3:DeleteBucket"},
    "AWS::WAFv2::WebACLAssociation": {
        *("wafv2:AssociateWebACL", "wafv2:DisassociateWebACL", "wafv2:GetWebACLForResource", "wafv2:GetWebACL"),
        *("cognito-idp:AssociateWebACL", "cognito-idp:DisassociateWebACL"),
    },
}
# AWS also lists permissions for properties that no template of the project sets.
OF_OTHER_PROPERTIES = (
    *("vpc-lattice:*", "vpce:*", "ec2:*VpcEncryptionControl", "ec2:*SubnetCidrBlock", "ec2:ModifyVpcTenancy"),
    *("iam:GetRole", "iam:ListRoles", "iam:*PermissionsBoundary", "iam:UpdateRoleDescription"),
    *("iam:*UserPolicy", "iam:*GroupPolicy", "iam:*tachRolePolicy", "kms:*", "payments:*", "s3:GetObjectVersion"),
    *("rds:AddRoleTo*", "rds:RemoveRoleFrom*", "rds:*GlobalCluster", "rds:*HttpEndpoint", "rds:Restore*"),
    *("rds:CreateDBSnapshot", "rds:*ReadReplica", "rds:RebootDBInstance", "rds:*AutomatedBackupsReplication"),
    *("secretsmanager:ReplicateSecretToRegions", "secretsmanager:RemoveRegionsFromReplication"),
    *("sns:PutDataProtectionPolicy", "cognito-idp:AddCustomAttributes"),
)


def schema(kind: str) -> dict[str, Any]:
    return dict(PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema)


def needed(kind: str) -> set[str]:
    """Returns the permissions that CloudFormation needs to create, update and delete this type of resource."""
    if kind in NEEDED:
        return NEEDED[kind]
    steps = [step for name, step in schema(kind)["handlers"].items() if name in ("create", "update", "delete")]
    listed = {action for step in steps for action in step["permissions"]}
    return {each for each in listed if not any(fnmatch.fnmatchcase(each, other) for other in OF_OTHER_PROPERTIES)}


KINDS = sorted(
    {
        resource["Type"]
        for path in (ROOT / "infra").glob("*.yaml")
        for resource in load(rendered(path.name))["Resources"].values()
    }
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_can_create_update_and_delete_every_type_of_resource(kind: str) -> None:
    """The local cloud does not check the permissions that CloudFormation uses on the deployer's behalf."""
    right = [each for statement in ALLOWING for each in as_list(statement["Action"])]
    lacking = {
        action for action in needed(kind) - set(right) if not any(fnmatch.fnmatchcase(action, each) for each in right)
    }
    assert lacking == set()


# A resource type has an example ARN if the policy has separate statements for the types of its service.
ARNS = {
    "AWS::CloudWatch::Alarm": "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:cafe-test-failures",
    "AWS::CloudWatch::Dashboard": "arn:aws:cloudwatch::123456789012:dashboard/cafe-test",
    "AWS::DynamoDB::Table": "arn:aws:dynamodb:eu-central-1:123456789012:table/cafe-test-orders",
    "AWS::Events::Rule": "arn:aws:events:eu-central-1:123456789012:rule/cafe-test-unfinished-reports",
    "AWS::IAM::Role": "arn:aws:iam::123456789012:role/cafe-test-resources-ApiRole-1A2B3C",
    "AWS::Logs::LogGroup": "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/lambda/cafe-test",
    "AWS::RDS::DBCluster": "arn:aws:rds:eu-central-1:123456789012:cluster:cafe-test",
    "AWS::RDS::DBClusterParameterGroup": "arn:aws:rds:eu-central-1:123456789012:cluster-pg:cafe-test",
    "AWS::RDS::DBInstance": "arn:aws:rds:eu-central-1:123456789012:db:cafe-test-1",
    "AWS::RDS::DBSubnetGroup": "arn:aws:rds:eu-central-1:123456789012:subgrp:cafe-test",
    "AWS::S3::Bucket": "arn:aws:s3:::cafe-test-uploads-123456789012",
    "AWS::SNS::Topic": "arn:aws:sns:eu-central-1:123456789012:cafe-test-alarms",
    "AWS::SQS::Queue": "arn:aws:sqs:eu-central-1:123456789012:cafe-test-orders",
    "AWS::SecretsManager::Secret": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:cafe-test-database-AbCdEf",
    "AWS::StepFunctions::StateMachine": "arn:aws:states:eu-central-1:123456789012:stateMachine:cafe-test-report",
    "AWS::WAFv2::WebACL": "arn:aws:wafv2:eu-central-1:123456789012:regional/webacl/cafe-test-api/1a2b3c4d",
}


def allowed(action: str, resource: str) -> bool:
    return allows(STATEMENTS, action, resource)


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_resource_can_get_its_stacks_tags(kind: str) -> None:
    """CloudFormation tags each resource, and a missing permission to set tags would fail the whole stack."""
    # The policy identifies user pools and networks by their tags, because they have no names.
    arn = ARNS.get(kind, "arn:aws:cognito-idp:eu-central-1:123456789012:userpool/eu-central-1_x")
    # S3 has no permission named DeleteBucketTagging, because the operation requires PutBucketTagging.
    asked = set(schema(kind).get("tagging", {}).get("permissions", [])) - {"s3:DeleteBucketTagging"}
    assert [action for action in asked if not allowed(action, arn)] == []


@pytest.mark.parametrize("kind", stacks.DATA)
def test_cloudformation_can_read_what_it_imports(kind: str) -> None:
    asked = schema(kind)["handlers"]["read"]["permissions"]
    # The ``s3tables`` permissions are left out, because they are for a bucket's metadata tables.
    own = [action for action in asked if not action.startswith("s3tables:")]
    assert [action for action in own if not allowed(action, ARNS[kind])] == []


@pytest.mark.parametrize("group", ["og:default:aurora-mysql-8-0", "pg:default.aurora-mysql8.0"])
@pytest.mark.parametrize("action", ["rds:CreateDBCluster", "rds:CreateDBInstance"])
def test_mysql_can_use_the_default_groups(action: str, group: str) -> None:
    """If a template names no groups for a cluster, RDS checks the permissions for its default groups."""
    assert allowed(action, f"arn:aws:rds:eu-central-1:123456789012:{group}")
