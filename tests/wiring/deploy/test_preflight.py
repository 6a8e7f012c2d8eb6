"""What is looked at before anything is changed."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from infra.deploy import preflight
from infra.deploy.preflight import NotKnown, Who
from infra.deploy.stage import Stage
from infra.deploy.target import Clients, DeployError, Target

ACCOUNT = "123456789012"
ANA = Who(ACCOUNT, "eu-central-1", f"arn:aws:iam::{ACCOUNT}:user/ana")


def clients(service: str) -> Any:
    return boto3.client(service)  # type: ignore[call-overload]


# --- who --------------------------------------------------------------------------------------------------------------


def test_account_region_and_identity_are_told(aws: None) -> None:
    found = preflight.who(clients)
    assert str(found) == f"account {ACCOUNT} in eu-central-1, as user/moto"


def test_another_endpoint_than_aws_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    assert str(ANA) == f"account {ACCOUNT} in eu-central-1 at http://127.0.0.1:4566, as user/ana"


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in (*names, "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    boto3.DEFAULT_SESSION = None


def test_without_a_region_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "AWS_DEFAULT_REGION", "AWS_REGION")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(DeployError, match="there is no region: set AWS_DEFAULT_REGION"):
        preflight.who(clients)


def test_without_credentials_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with pytest.raises(DeployError, match="there are no AWS credentials: `aws configure`"):
        preflight.who(clients)


def test_credentials_that_aws_does_not_take_are_told() -> None:
    def refuse() -> None:
        raise ClientError({"Error": {"Code": "ExpiredToken", "Message": "The token has expired"}}, "GetCallerIdentity")

    with pytest.raises(DeployError, match="AWS does not take these credentials: The token has expired"):
        preflight.who(lambda _: SimpleNamespace(get_caller_identity=refuse, meta=SimpleNamespace(region_name="x")))


# --- rights -----------------------------------------------------------------------------------------------------------


class Iam:
    """Simulates that all is allowed but ``denied``."""

    def __init__(self, *denied: str) -> None:
        self.denied = denied
        self.asked: list[dict[str, Any]] = []

    def simulate_principal_policy(self, **given: Any) -> dict[str, Any]:
        self.asked.append(given)
        [resource] = given["ResourceArns"]
        return {
            "EvaluationResults": [
                {
                    "EvalActionName": action,
                    "EvalResourceName": resource,
                    "EvalDecision": "implicitDeny" if action in self.denied else "allowed",
                }
                for action in given["ActionNames"]
            ]
        }


def test_whoever_has_all_rights_lacks_none(target: Target) -> None:
    assert preflight.lacking(target, lambda _: Iam(), ANA) == []


def test_each_right_that_is_missing_is_named_with_what_it_is_for(target: Target) -> None:
    assert preflight.lacking(target, lambda _: Iam("lambda:AddPermission", "s3:CreateBucket"), ANA) == [
        "  s3:CreateBucket on arn:aws:s3:::cafe-test-x",
        "  lambda:AddPermission on arn:aws:lambda:eu-central-1:123456789012:function:cafe-test-x",
    ]


def test_a_denial_for_lack_of_what_only_a_real_call_has_says_nothing(target: Target) -> None:
    """As of a policy that denies everything outside of some regions."""

    class Denied(Iam):
        def simulate_principal_policy(self, **given: Any) -> dict[str, Any]:
            answer = super().simulate_principal_policy(**given)
            for each in answer["EvaluationResults"]:
                each["ResourceSpecificResults"] = [{"MissingContextValues": ["aws:RequestedRegion"]}]
            return answer

    assert preflight.lacking(target, lambda _: Denied("lambda:AddPermission"), ANA) == []


def test_missing_rights_stop_the_deploy_unless_iam_shall_not_be_asked(
    target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "lacking", lambda *_: ["  s3:CreateBucket on arn:aws:s3:::cafe-test-x"])
    account = SimpleNamespace(
        describe_stacks=lambda **_: {"Stacks": [{"StackStatus": "CREATE_COMPLETE"}]},
        **settings(1000, 0)("lambda").__dict__,
    )
    stage = Stage(target, lambda _: account, ANA, said.extend, said.append)
    with pytest.raises(DeployError, match="s3:CreateBucket"):
        stage._may_change(["a change"])
    assert said == []
    replace(stage, check_rights=False)._may_change(["a change"])
    assert said == ["a change"]


def test_every_action_of_the_policy_that_is_no_pattern_is_asked_for_on_a_resource_of_its_service(
    target: Target,
) -> None:
    iam = Iam()
    preflight.lacking(target, lambda _: iam, ANA)
    policy = json.loads(preflight.POLICY.read_text())
    actions = {
        action
        for statement in policy["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
        if "*" not in action
    }
    assert {action for each in iam.asked for action in each["ActionNames"]} == actions
    for each in iam.asked:
        [resource] = each["ResourceArns"]
        services = {action.partition(":")[0] for action in each["ActionNames"]}
        assert resource == "*" or services == {resource.split(":")[2]}
        assert "*" not in resource.replace("*", "", 1) or resource == "*"


def test_a_right_with_a_condition_is_asked_for_with_what_fulfils_it(target: Target) -> None:
    iam = Iam()
    preflight.lacking(target, lambda _: iam, ANA)
    [passing] = [each for each in iam.asked if each["ActionNames"] == ["iam:PassRole"]]
    assert passing["ContextEntries"] == [
        {
            "ContextKeyName": "iam:PassedToService",
            "ContextKeyValues": ["lambda.amazonaws.com"],
            "ContextKeyType": "string",
        }
    ]


@pytest.mark.parametrize(
    ("arn", "source"),
    [
        (f"arn:aws:iam::{ACCOUNT}:user/team/ana", f"arn:aws:iam::{ACCOUNT}:user/team/ana"),
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/session", f"arn:aws:iam::{ACCOUNT}:role/deployer"),
    ],
)
def test_it_is_the_users_or_the_roles_policies_that_are_asked_about(target: Target, arn: str, source: str) -> None:
    iam = Iam()
    preflight.lacking(target, lambda _: iam, Who(ACCOUNT, "eu-central-1", arn))
    assert {each["PolicySourceArn"] for each in iam.asked} == {source}


def test_of_root_nothing_is_asked(target: Target) -> None:
    with pytest.raises(NotKnown, match="root has no policies"):
        preflight.lacking(target, lambda _: Iam(), Who(ACCOUNT, "eu-central-1", f"arn:aws:iam::{ACCOUNT}:root"))


def test_who_may_not_ask_is_told_so(target: Target) -> None:
    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "SimulatePrincipalPolicy")

    with pytest.raises(NotKnown, match="AccessDenied"):
        preflight.lacking(target, lambda _: SimpleNamespace(simulate_principal_policy=refuse), ANA)


# --- names and quotas -------------------------------------------------------------------------------------------------


def tagged(**tags: str) -> None:
    boto3.client("dynamodb").create_table(
        TableName="cafe-test-orders",
        AttributeDefinitions=[{"AttributeName": "orderID", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "orderID", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )


def test_what_somebody_else_has_made_is_a_clash(aws: None, target: Target) -> None:
    boto3.client("sqs").create_queue(QueueName="cafe-test-orders")
    tagged(app="another")
    assert preflight.clashes(target, clients, ACCOUNT) == [
        "  AWS::DynamoDB::Table: cafe-test-orders",
        "  AWS::SQS::Queue: cafe-test-orders",
    ]


def test_data_that_an_earlier_stage_of_the_name_has_left_is_none(aws: None, target: Target) -> None:
    tagged(app="cafe", stage="test")
    bucket = f"cafe-test-uploads-{ACCOUNT}"
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    assert preflight.clashes(target, clients, ACCOUNT) == [f"  AWS::S3::Bucket: {bucket}"]
    s3.put_bucket_tagging(
        Bucket=bucket, Tagging={"TagSet": [{"Key": "app", "Value": "cafe"}, {"Key": "stage", "Value": "test"}]}
    )
    assert preflight.clashes(target, clients, ACCOUNT) == []


def test_the_mysql_that_an_earlier_stage_of_the_name_has_left_with_its_stack_is_none(aws: None, target: Target) -> None:
    boto3.client("secretsmanager").create_secret(Name="cafe-test-database", SecretString="{}")
    assert preflight.clashes(target, clients, ACCOUNT) == ["  AWS::SecretsManager::Secret: cafe-test-database"]
    template = {"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}}
    boto3.client("cloudformation").create_stack(StackName="cafe-test-database", TemplateBody=json.dumps(template))
    assert preflight.clashes(target, clients, ACCOUNT) == []


def settings(at_once: int, size: int, role: str = "arn:role") -> Clients:
    found = {
        "AccountLimit": {"ConcurrentExecutions": at_once, "TotalCodeSize": 80_000_000_000},
        "AccountUsage": {"TotalCodeSize": size},
    }
    gateway = {"cloudwatchRoleArn": role} if role else {}
    return lambda _: SimpleNamespace(get_account_settings=lambda: found, get_account=lambda: gateway)


@pytest.mark.parametrize(
    ("clients", "lines"),
    [
        (settings(1000, 0), []),
        (settings(10, 0), ["Lambda runs only 10 functions at once here: ask for 100 or more"]),
        (
            settings(1000, 79_900_000_000),
            ["Lambda has room for 0.1 GB of code only: remove old functions, or ask for more"],
        ),
        (
            settings(1000, 0, role=""),
            ["API Gateway may write no logs here, so there is no access log: docs/deploying.md says what to do"],
        ),
    ],
)
def test_a_limit_that_a_stage_would_reach_is_told(clients: Clients, lines: list[str]) -> None:
    assert preflight.limits(clients) == lines


class Reserving:
    """Lambda, of whose functions some have others reserved for them."""

    class exceptions:  # noqa: N801
        class ResourceNotFoundException(Exception):
            pass

    def __init__(self, unreserved: int, **reserved: int) -> None:
        self.unreserved = unreserved
        self.reserved = reserved

    def get_account_settings(self) -> dict[str, Any]:
        return {"AccountLimit": {"UnreservedConcurrentExecutions": self.unreserved}}

    def get_function_concurrency(self, FunctionName: str) -> dict[str, int]:  # noqa: N803
        name = FunctionName.removeprefix("cafe-test-")
        if not self.reserved:
            raise self.exceptions.ResourceNotFoundException
        return {"ReservedConcurrentExecutions": self.reserved[name]} if name in self.reserved else {}


@pytest.mark.parametrize(
    ("lambda_", "may"),
    [
        (Reserving(1000), True),
        (Reserving(120), True),
        (Reserving(119), False),
        # A new account.
        (Reserving(10), False),
        # What is reserved for these is theirs already.
        (Reserving(100, read_inventory=10, receive_upload=10), True),
        (Reserving(105, read_inventory=10), False),
        (Reserving(100, store_orders=50), False),
    ],
)
def test_functions_are_reserved_where_lambda_lets_the_account_and_its_others_have_a_hundred(
    lambda_: Reserving, may: bool, target: Target
) -> None:
    assert preflight.can_reserve(target, 10, lambda _: lambda_) is may
