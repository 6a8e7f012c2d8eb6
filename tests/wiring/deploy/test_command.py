"""Tests which arguments ``python -m infra.deploy`` refuses, what it asks, and what it destroys."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from infra.deploy import __main__ as command
from infra.deploy.__main__ import Question, main
from infra.deploy.target import DeployError
from tests.wiring.stage import ACCOUNT, REGION, client


@pytest.mark.parametrize("stage", ["", "Dev", "1st", "a_b", "-x", "a" * 21, "a.b", "é", "a-", "a--b"])
def test_a_malformed_stage_is_refused(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--", stage])
    assert error.value.code == 2
    assert "must be at most 20 lower-case letters, digits and single hyphens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "arguments", "problem"),
    [
        # A local stage needs DB_SECRET_ARN, because it does not create its own database.
        ({"DB_SECRET_ARN": ""}, ["--local"], "DB_SECRET_ARN is not set"),
        ({"DB_SECRET_ARN": "arn", "SUBNET_IDS": "subnet-1"}, [], "set both SUBNET_IDS and SECURITY_GROUP_IDS"),
        ({}, ["--parameter", "EmailAddress"], "--parameter: must be NAME=VALUE"),
        ({}, ["--destroy", "--yes"], "does not delete data: add --delete-data dev (make: DELETE_DATA=dev)"),
        ({}, ["--destroy", "--yes", "--delete-data", "prod"], "does not delete data"),
        ({}, ["--destroy", "--yes", "--delete-data", ""], "does not delete data"),
    ],
)
def test_wrong_arguments_and_variables_are_refused(
    variables: dict[str, str],
    arguments: list[str],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main(["dev", *arguments])
    assert problem in capsys.readouterr().err


def answers(monkeypatch: pytest.MonkeyPatch, *given: str) -> list[str]:
    """Answers each prompt with the next given answer, and returns the list of unused answers."""
    left = list(given)

    def answer(_: str) -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    monkeypatch.setattr("builtins.input", answer)
    return left


NOBODY = "use --yes to apply every change"


@pytest.mark.parametrize(
    ("given", "yes", "problem"),
    [
        *((["yes"], False, ""), ([" Y "], False, ""), (["all"], False, ""), ([], True, "")),
        *((["no"], False, "declined"), ([""], False, "declined"), (["yess"], False, "declined"), ([], False, NOBODY)),
    ],
)
def test_changes_are_shown_and_applied_only_if_a_person_or_an_option_agrees(
    given: list[str], yes: bool, problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, *given)
    with pytest.raises(DeployError, match=problem) if problem else nullcontext():
        Question(yes)(["a stack: 1 change", "  add it"])
    assert capsys.readouterr().out == "a stack: 1 change\n  add it\n"


def test_each_change_is_confirmed_until_a_person_says_all(monkeypatch: pytest.MonkeyPatch) -> None:
    left, ask = answers(monkeypatch, "yes", "all", "left over"), Question(False)
    for line in ("one", "two", "three", "four"):
        ask([line])
    assert left == ["left over"]


# --- destroy ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def account(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the command use the tests' shared clients of a mocked account."""
    monkeypatch.setattr(command, "cached_clients", lambda: lambda service, *_: client(service))


TABLE: Any = {
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}


def destroy(folder: Path, *options: str) -> int:
    return main(["test", "--destroy", "--project-dir", str(folder), *options])


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("given", [["no"], [""], ["TEST"], []])
def test_nothing_is_destroyed_until_a_person_types_the_name_of_the_stage(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = client("sqs").create_queue(QueueName="cafe-test-orders")["QueueUrl"]
    answers(monkeypatch, *given)
    assert destroy(tmp_path) == 1
    said = capsys.readouterr().out
    assert "Resources of test:\n  AWS::SQS::Queue: cafe-test-orders" in said
    assert ("nothing was removed" in said) is bool(given)
    assert client("sqs").list_queues()["QueueUrls"] == [queue]


@pytest.mark.usefixtures("account")
def test_a_destroyed_stage_leaves_nothing_and_is_destroyed_a_second_time_without_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    s3, bucket = client("s3"), f"cafe-test-uploads-{ACCOUNT}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for _ in range(2):
        s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="a")
    dynamodb, cognito = client("dynamodb"), client("cognito-idp")
    for table in ("cafe-test-orders", "cafe-other-orders"):
        dynamodb.create_table(TableName=table, DeletionProtectionEnabled=True, **TABLE)
    # An update that replaced the user pool left the old pool behind.
    for stage in ("test", "test", "other"):
        cognito.create_user_pool(PoolName=f"cafe-{stage}-users", DeletionProtection="ACTIVE")
    # A function or a MySQL cluster that logs after its stack is deleted creates its log group again.
    for group in ("/aws/lambda/cafe-test-store_orders", "/aws/rds/cluster/cafe-test/error"):
        client("logs").create_log_group(logGroupName=group)
    # The option --keep-data keeps the stage's data and MySQL's log.
    assert destroy(tmp_path, "--yes", "--keep-data") == 0
    assert "left of the stage: its data" in capsys.readouterr().out
    assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == [bucket]
    assert dynamodb.describe_table(TableName="cafe-test-orders")["Table"]["DeletionProtectionEnabled"]
    groups = [each["logGroupName"] for each in client("logs").describe_log_groups()["logGroups"]]
    assert groups == ["/aws/rds/cluster/cafe-test/error"]
    for _ in range(2):
        assert destroy(tmp_path, "--yes", "--delete-data", "test") == 0
        assert "left of the stage: nothing" in capsys.readouterr().out
    assert s3.list_buckets()["Buckets"] == client("logs").describe_log_groups()["logGroups"] == []
    assert dynamodb.list_tables()["TableNames"] == ["cafe-other-orders"]
    assert [each["Name"] for each in cognito.list_user_pools(MaxResults=60)["UserPools"]] == ["cafe-other-users"]


@pytest.mark.usefixtures("account")
def test_snapshots_of_mysql_are_named_at_the_end_and_are_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rds = client("rds")
    for name in ("cafe-test", "cafe-test-final"):
        password = {"MasterUsername": "admin", "MasterUserPassword": "password"}
        rds.create_db_cluster(DBClusterIdentifier=name, Engine="aurora-mysql", **password)
        rds.create_db_cluster_snapshot(DBClusterIdentifier=name, DBClusterSnapshotIdentifier=f"{name}-final-1")
    rds.delete_db_cluster(DBClusterIdentifier="cafe-test", SkipFinalSnapshot=True)
    assert destroy(tmp_path, "--yes", "--delete-data", "test") == 0
    said = capsys.readouterr().out
    assert "snapshots of MySQL, which cost money until you delete them: cafe-test-final-1\n" in said
    assert said.endswith("left of the stage: snapshots of MySQL\n")


@pytest.mark.usefixtures("account")
def test_remaining_resources_without_data_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client("sqs").create_queue(QueueName="cafe-test-orders")
    assert destroy(tmp_path, "--yes", "--keep-data") == 1
    assert "AWS::SQS::Queue: cafe-test-orders" in capsys.readouterr().err
