"""The command: what it refuses, and what it asks."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest

from infra.deploy.__main__ import Question, main
from infra.deploy.target import DeployError


@pytest.mark.parametrize("stage", ["", "Dev", "1st", "a_b", "-x", "a" * 21, "a.b", "é", "a-", "a--b"])
def test_a_bad_name_of_a_stage_is_refused(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--", stage])
    assert error.value.code == 2
    assert "must be lower-case letters, digits and single hyphens, at most 20" in capsys.readouterr().err


def test_the_local_cloud_has_no_database_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DB_SECRET_ARN", "")
    with pytest.raises(SystemExit):
        main(["dev", "--local"])
    assert "not set: DB_SECRET_ARN" in capsys.readouterr().err


def test_half_a_network_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"DB_SECRET_ARN": "arn", "SUBNET_IDS": "subnet-1", "SECURITY_GROUP_IDS": ""}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main(["dev"])
    assert "SUBNET_IDS and SECURITY_GROUP_IDS: both of them" in capsys.readouterr().err


def test_a_parameter_without_a_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["dev", "--parameter", "EmailAddress"])
    assert "--parameter: must be NAME=VALUE" in capsys.readouterr().err


def answers(monkeypatch: pytest.MonkeyPatch, *given: str) -> list[str]:
    """Lets a person answer so, one question after the other; returns the answers that are still to come."""
    left = list(given)

    def answer(_: str) -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    monkeypatch.setattr("builtins.input", answer)
    return left


@pytest.mark.parametrize("answer", ["yes", " Y ", "all"])
def test_what_a_person_agrees_to_is_applied(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    answers(monkeypatch, answer)
    Question(False)(["a stack: 1 change", "  add it"])
    assert capsys.readouterr().out == "a stack: 1 change\n  add it\n"


@pytest.mark.parametrize("answer", ["no", "", "yess"])
def test_everything_else_is_a_no(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    answers(monkeypatch, answer)
    with pytest.raises(DeployError, match="declined"):
        Question(False)(["a stack: 1 change"])


def test_each_change_is_asked_about_until_a_person_says_all(monkeypatch: pytest.MonkeyPatch) -> None:
    left, ask = answers(monkeypatch, "yes", "all", "never asked for"), Question(False)
    for line in ("one", "two", "three", "four"):
        ask([line])
    assert left == ["never asked for"]


def test_yes_shows_and_does_not_ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers(monkeypatch)
    Question(True)(["a stack: 1 change"])
    assert capsys.readouterr().out == "a stack: 1 change\n"


def test_where_nobody_can_be_asked_nothing_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch)
    with pytest.raises(DeployError, match="`--yes` applies everything without a question"):
        Question(False)(["a stack: 1 change"])


@pytest.mark.parametrize("answer", ["no", "", "TEST"])
def test_nothing_is_destroyed_unless_the_stages_name_is_typed(
    aws: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    boto3.client("sqs").create_queue(QueueName="cafe-test-orders")
    answers(monkeypatch, answer)
    assert main(["test", "--destroy"]) == 1
    said = capsys.readouterr().out
    assert "All that there is of test:\n  AWS::SQS::Queue: cafe-test-orders" in said
    assert "nothing was removed" in said


def test_where_nobody_can_be_asked_nothing_is_destroyed(
    aws: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch)
    assert main(["test", "--destroy"]) == 1
    assert boto3.client("sqs").list_queues().get("QueueUrls") is None


def test_a_stage_that_does_not_exist_is_destroyed_already(
    aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", "--destroy", "--yes", "--project-dir", str(tmp_path)]) == 0
    assert "left of the stage: nothing" in capsys.readouterr().out


def test_what_a_stack_has_left_and_is_no_data_is_named(
    aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boto3.client("sqs").create_queue(QueueName="cafe-test-orders")
    assert main(["test", "--destroy", "--yes", "--project-dir", str(tmp_path)]) == 1
    assert "AWS::SQS::Queue: cafe-test-orders" in capsys.readouterr().err


@pytest.mark.parametrize("keep", [True, False])
def test_data_is_kept_only_where_that_is_asked_for(aws: None, tmp_path: Path, keep: bool) -> None:
    s3, bucket = boto3.client("s3"), "cafe-test-uploads-123456789012"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for _ in range(2):
        s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="a")
    more = ["--keep-data"] if keep else []
    assert main(["test", "--destroy", "--yes", "--project-dir", str(tmp_path), *more]) == 0
    assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == ([bucket] if keep else [])


@pytest.mark.parametrize(
    ("group", "keep"),
    [
        ("/aws/lambda/cafe-test-store_orders", True),
        ("/aws/rds/cluster/cafe-test/error", False),
    ],
)
def test_a_log_group_that_came_back_goes_too(aws: None, tmp_path: Path, group: str, keep: bool) -> None:
    """A function, or MySQL, writes its last words when its log group is gone, and makes it anew."""
    boto3.client("logs").create_log_group(logGroupName=group)
    more = ["--keep-data"] if keep else []
    assert main(["test", "--destroy", "--yes", "--project-dir", str(tmp_path), *more]) == 0
    assert boto3.client("logs").describe_log_groups()["logGroups"] == []
