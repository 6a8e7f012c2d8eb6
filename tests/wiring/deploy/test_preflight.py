"""Tests the checks that a deploy makes before its first change, such as the caller and the permissions."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from infra.deploy import preflight, stacks, target
from infra.deploy.context import Changes, Context
from infra.deploy.preflight import CallerIdentity, PermissionsUnknown
from infra.deploy.target import Clients, DeployError, Target
from tests.wiring.fakes import Missing, client_error, found, refusing
from tests.wiring.permissions import as_list
from tests.wiring.stage import ACCOUNT, REGION, client

ANA = CallerIdentity(ACCOUNT, REGION, f"arn:aws:iam::{ACCOUNT}:user/ana")


# --- the caller -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            "there is no region: set AWS_DEFAULT_REGION",
        ),
        ({"AWS_DEFAULT_REGION": REGION}, "there are no AWS credentials: run `aws configure`"),
    ],
)
def test_an_error_says_what_to_set(given: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), "/dev/null")
    for name, value in {**given, **files, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    with pytest.raises(DeployError, match=problem):
        preflight.caller_identity(target.client)


def test_credentials_that_aws_rejects_are_an_error_with_its_message() -> None:
    refuse = refusing(client_error("The token has expired", "ExpiredToken"))
    sts = SimpleNamespace(get_caller_identity=refuse, meta=SimpleNamespace(region_name="x"))
    with pytest.raises(DeployError, match="AWS rejects these credentials: The token has expired"):
        preflight.caller_identity(lambda _: sts)


# --- permissions ------------------------------------------------------------------------------------------------------


class Iam:
    """Fakes an IAM policy simulation that denies some actions and reports missing context values."""

    def __init__(self, *denied: str, lacking: tuple[str, ...] = ()) -> None:
        self.denied = denied
        self.lacking = lacking
        self.asked: list[dict[str, Any]] = []

    def get_role(self, RoleName: str) -> dict[str, Any]:  # noqa: N803 - boto's name
        return {"Role": {"Arn": f"arn:aws:iam::{ACCOUNT}:role/deployers/{RoleName}"}}

    def simulate_principal_policy(self, **given: Any) -> dict[str, Any]:
        self.asked.append(given)
        [resource] = given["ResourceArns"]
        more = {"EvalResourceName": resource, "ResourceSpecificResults": [{"MissingContextValues": self.lacking}]}
        decisions = {action: "implicitDeny" if action in self.denied else "allowed" for action in given["ActionNames"]}
        results = [{"EvalActionName": name, "EvalDecision": each, **more} for name, each in decisions.items()]
        return {"EvaluationResults": results}


def missing(target: Target, iam: Any, arn: str = ANA.arn) -> list[str]:
    return preflight.missing_permissions(target, lambda _: iam, replace(ANA, arn=arn))


def test_each_missing_permission_is_named_with_its_resource(target: Target) -> None:
    assert missing(target, Iam()) == []
    assert missing(target, Iam("lambda:AddPermission", "s3:CreateBucket")) == [
        "  s3:CreateBucket on arn:aws:s3:::cafe-test-x",
        "  lambda:AddPermission on arn:aws:lambda:eu-central-1:123456789012:function:cafe-test-x",
    ]
    # A denied action is not reported if the simulated call lacks a region, because a condition may require one region.
    assert missing(target, Iam("lambda:AddPermission", lacking=("aws:RequestedRegion",))) == []


def test_missing_permissions_stop_the_deploy_unless_the_check_is_off(
    target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "missing_permissions", lambda *_: ["  s3:CreateBucket on arn:aws:s3:::cafe-test-x"])
    monkeypatch.setattr(preflight, "check_boundary", lambda *_: None)
    account = SimpleNamespace(
        describe_stacks=lambda **_: {"Stacks": [{"StackStatus": "CREATE_COMPLETE"}]},
        **settings(1000, 0)("lambda").__dict__,
    )
    context = Context(target, lambda _: account, ANA, said.extend, said.append)
    with pytest.raises(DeployError, match="s3:CreateBucket"):
        Changes(context).confirm(["a change"])
    assert said == []
    Changes(replace(context, check_permissions=False)).confirm(["a change"])
    assert said == ["a change"]


def test_queues_that_were_just_deleted_are_no_clash(
    target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQS lists a deleted queue for up to a minute."""
    monkeypatch.setattr(stacks, "find", lambda *_: None)
    monkeypatch.setattr(stacks, "wait_for_queue_names", lambda _cfn, name, new, _say: said.append(f"{name} {new}"))
    monkeypatch.setattr(preflight, "name_clashes", lambda *_: said.append("clashes"))
    monkeypatch.setattr(preflight, "check_boundary", lambda *_: None)
    for local in (False, True):
        preflight.run(replace(target, local=local), settings(1000, 0), ANA, False, said.append)
    assert said == ["cafe-test-resources True", "clashes", "clashes"]


def test_every_action_of_the_policy_except_patterns_is_checked_on_a_resource_of_its_service(target: Target) -> None:
    iam = Iam()
    missing(target, iam)
    statements = preflight.allowing_statements()
    actions = {action for each in statements for action in as_list(each["Action"]) if "*" not in action}
    assert {action for each in iam.asked for action in each["ActionNames"]} == actions
    for each in iam.asked:
        [resource] = each["ResourceArns"]
        services = {action.partition(":")[0] for action in each["ActionNames"]}
        assert resource == "*" or services == {resource.split(":")[2]}
        assert "*" not in resource.replace("*", "", 1) or resource == "*"
    # A conditional permission is simulated with a value that meets the condition.
    [passing] = [each for each in iam.asked if each["ActionNames"] == ["iam:PassRole"]]
    [entry] = passing["ContextEntries"]
    assert (entry["ContextKeyName"], entry["ContextKeyType"]) == ("iam:PassedToService", "string")
    assert entry["ContextKeyValues"] == ["lambda.amazonaws.com"]
    types = {entry["ContextKeyName"]: entry["ContextKeyType"] for each in iam.asked for entry in each["ContextEntries"]}
    assert types["aws:CalledVia"] == "stringList"
    assert types["aws:ViaAWSService"] == "boolean"


@pytest.mark.parametrize(
    ("arn", "source"),
    [
        (f"arn:aws:iam::{ACCOUNT}:user/team/ana", f"arn:aws:iam::{ACCOUNT}:user/team/ana"),
        # Only the role itself knows its path.
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/session", f"arn:aws:iam::{ACCOUNT}:role/deployers/deployer"),
    ],
)
def test_the_policies_of_the_user_or_of_the_role_are_checked(target: Target, arn: str, source: str) -> None:
    iam = Iam()
    missing(target, iam, arn)
    assert {each["PolicySourceArn"] for each in iam.asked} == {source}


def test_the_permissions_of_root_and_of_an_identity_that_must_not_ask_are_unknown(target: Target) -> None:
    refuse = refusing(client_error("no", "AccessDenied"))
    with pytest.raises(PermissionsUnknown, match="root has no policies"):
        missing(target, Iam(), f"arn:aws:iam::{ACCOUNT}:root")
    for arn in (ANA.arn, f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/session"):
        with pytest.raises(PermissionsUnknown, match="AccessDenied"):
            missing(target, SimpleNamespace(simulate_principal_policy=refuse, get_role=refuse), arn)


def test_the_boundary_of_the_roles_must_exist_and_is_compared_with_the_projects(
    aws: None, target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(**parameters: str) -> None:
        preflight.check_boundary(replace(target, parameters=parameters), client, ANA, said.append)

    with pytest.raises(
        DeployError, match=f"there is no policy arn:aws:iam::{ACCOUNT}:policy/deployers/cafe-boundary: "
    ):
        check()
    check(PermissionsBoundary="")
    document = (preflight.DEPLOYER / "cafe-boundary.json").read_text()
    iam = client("iam")
    arn = iam.create_policy(Path="/deployers/", PolicyName="cafe-boundary", PolicyDocument=document)["Policy"]["Arn"]
    check()
    assert said == []
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=document.replace("sns:Publish", "sns:*"), SetAsDefault=True)
    check()
    assert said == [f"warning: {arn} differs from infra/deployer/cafe-boundary.json, so functions may lack permissions"]
    # A stage keeps its parameters.
    monkeypatch.setattr(stacks, "current_parameters", lambda *_: {"PermissionsBoundary": "other"})
    with pytest.raises(DeployError, match=f"there is no policy arn:aws:iam::{ACCOUNT}:policy/other: "):
        check()


# --- names and quotas -------------------------------------------------------------------------------------------------


def make_table(**tags: str) -> None:
    client("dynamodb").create_table(
        TableName="cafe-test-orders",
        AttributeDefinitions=[{"AttributeName": "orderID", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "orderID", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )


def test_other_owners_resources_with_the_stages_names_are_a_clash(aws: None, target: Target) -> None:
    client("sqs").create_queue(QueueName="cafe-test-orders")
    make_table(app="another")
    assert preflight.name_clashes(target, client, ACCOUNT) == [
        "  AWS::DynamoDB::Table: cafe-test-orders",
        "  AWS::SQS::Queue: cafe-test-orders",
    ]


def test_data_and_mysql_left_by_an_earlier_stage_of_that_name_are_no_clash(aws: None, target: Target) -> None:
    make_table(app="cafe", stage="test")
    bucket, s3 = f"cafe-test-uploads-{ACCOUNT}", client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    client("secretsmanager").create_secret(Name="cafe-test-database", SecretString="{}")
    assert preflight.name_clashes(target, client, ACCOUNT) == [
        f"  AWS::S3::Bucket: {bucket}",
        "  AWS::SecretsManager::Secret: cafe-test-database",
    ]
    tags = [{"Key": "app", "Value": "cafe"}, {"Key": "stage", "Value": "test"}]
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    template = {"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}}
    client("cloudformation").create_stack(StackName="cafe-test-database", TemplateBody=json.dumps(template))
    assert preflight.name_clashes(target, client, ACCOUNT) == []


def settings(at_once: int, size: int, role: str = "arn:role") -> Clients:
    limit = {"ConcurrentExecutions": at_once, "TotalCodeSize": 80_000_000_000}
    known = {"AccountLimit": limit, "AccountUsage": {"TotalCodeSize": size}}
    gateway = {"cloudwatchRoleArn": role} if role else {}
    return lambda _: SimpleNamespace(get_account_settings=lambda: known, get_account=lambda: gateway)


@pytest.mark.parametrize(
    ("clients", "lines"),
    [
        (settings(1000, 0), []),
        (settings(10, 0), ["Lambda's concurrency limit is only 10: ask AWS for 100 or more"]),
        (
            settings(1000, 79_900_000_000),
            ["Lambda can store only 0.1 GB of code: delete old functions, or ask AWS for a higher limit"],
        ),
        (
            settings(1000, 0, role=""),
            ["API Gateway has no role for writing logs, so the API has no access log: see docs/deploying.md"],
        ),
    ],
)
def test_a_limit_that_a_stage_would_reach_is_a_warning(clients: Clients, lines: list[str]) -> None:
    assert preflight.account_warnings(clients) == lines


@pytest.mark.parametrize(
    ("unreserved", "reserved", "may"),
    [
        (1000, {}, True),
        (120, {}, True),
        (119, {}, False),
        # A new AWS account has a limit of ten concurrent executions.
        (10, {}, False),
        # In this test case, the functions already have reserved concurrency.
        (100, {"read_inventory": 10, "receive_upload": 10}, True),
        (105, {"read_inventory": 10}, False),
        (100, {"store_orders": 50}, False),
    ],
)
def test_concurrency_is_reserved_if_a_hundred_remain_for_the_other_functions(
    unreserved: int, reserved: dict[str, int], may: bool, target: Target
) -> None:
    functions = {target.function(name): {"ReservedConcurrentExecutions": each} for name, each in reserved.items()}
    lambda_ = SimpleNamespace(
        exceptions=SimpleNamespace(ResourceNotFoundException=Missing),
        get_account_settings=lambda: {"AccountLimit": {"UnreservedConcurrentExecutions": unreserved}},
        get_function_concurrency=lambda **given: found(functions, given["FunctionName"]),
    )
    assert preflight.can_reserve(target, 10, lambda _: lambda_) is may
