"""Tests that a rollback to a release without some queue keeps the messages in that queue."""
# ruff: noqa: N803

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from infra.deploy import leaving_queues, project, rollback, wiring
from infra.deploy.context import Context
from infra.deploy.releases import Release
from infra.deploy.target import DeployError, Target
from infra.template import text
from tests.wiring.fakes import DEPLOYED, OUTPUTS, Account, CloudFormation, accepts

FAILURES, RETRIES = OUTPUTS["FAILURES_QUEUE_ARN"], OUTPUTS["RETRIES_QUEUE_ARN"]
QUEUES = {
    f"{name.title()}Queue": {
        "Type": "AWS::SQS::Queue",
        "Properties": {"QueueName": {"Fn::Sub": f"cafe-${{Stage}}-{name}"}},
    }
    for name in ("failures", "retries")
}
MORE = {"RetriesQueuePolicy": {"Type": "AWS::SQS::QueuePolicy"}, "Retries": {"Type": "AWS::CloudWatch::Alarm"}}
FORMER, LATER = text({"Resources": {"FailuresQueue": QUEUES["FailuresQueue"]}}), text({"Resources": QUEUES | MORE})


class Stage(CloudFormation):
    """Fakes the stack, its queues, and Lambda, which may send failed events until the functions are restored."""

    def __init__(self, account: Account) -> None:
        super().__init__("UPDATE_COMPLETE", *["UPDATE_COMPLETE"] * 2)
        self.body, self.tags, self.account = LATER, {"app": "cafe", "stage": "test"}, account
        self.history: list[str] = []
        # The time at which each message becomes visible.
        self.retries, self.moved, self.now = {"a": 0, "b": 0, "hidden": 300}, list[str](), 0

    def client(self, service: str, seconds: int = 60) -> Any:
        return self if service in ("cloudformation", "sqs") else self.account.client(service)

    def monotonic(self) -> int:
        return self.now

    def upload(self, body: str) -> str:
        self.uploaded = body
        return "https://template"

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        [stack] = super().describe_stacks(StackName)["Stacks"]
        return {"Stacks": [{**stack, "Outputs": [{"OutputKey": "FailuresQueueUrl", "OutputValue": "failures"}]}]}

    def execute_change_set(self, StackName: str, ChangeSetName: str) -> None:
        super().execute_change_set(StackName, ChangeSetName)
        self.body = self.uploaded
        names = {line.split(":")[0].strip() for line in self.body.splitlines()[1:]}
        self.history.append(" ".join(sorted(names - {"FailuresQueue"})) or "no retries")
        # The roles of the former release do not allow Lambda to send to the retries queue.
        assert {each["DestinationConfig"]["OnFailure"]["Destination"] for each in self.destinations()} == {FAILURES}

    def destinations(self) -> list[dict[str, Any]]:
        [stream] = self.account.lambda_.mappings["cafe-test-announce_orders"]
        return [stream, *self.account.lambda_.invocations.values()]

    def get_queue_url(self, QueueName: str) -> dict[str, str]:
        return {"QueueUrl": {"cafe-test-retries": "retries"}[QueueName]}

    def receive_message(self, **given: Any) -> dict[str, Any]:
        accepts("sqs", "ReceiveMessage", given)
        visible = [each for each, time in self.retries.items() if time <= self.now]
        self.now += 0 if visible else given["WaitTimeSeconds"]
        return {"Messages": [{"Body": each, "ReceiptHandle": each} for each in visible]} if visible else {}

    def send_message(self, **given: Any) -> None:
        accepts("sqs", "SendMessage", given)
        assert given["QueueUrl"] == "failures"
        self.moved.append(given["MessageBody"])

    def delete_message(self, QueueUrl: str, ReceiptHandle: str) -> None:
        assert ReceiptHandle in self.moved
        del self.retries[ReceiptHandle]

    def get_queue_attributes(self, **given: Any) -> dict[str, Any]:
        accepts("sqs", "GetQueueAttributes", given)
        return {
            "Attributes": dict.fromkeys(given["AttributeNames"], "0")
            | {given["AttributeNames"][1]: str(len(self.retries))}
        }


@pytest.fixture
def stage(target: Target, monkeypatch: pytest.MonkeyPatch) -> Stage:
    config = project.configure(target, OUTPUTS, "2026-11-21")
    account = Account(target, config["stages"]["test"])
    wiring.apply(target, wiring.desired(target, DEPLOYED), account.client, print)
    stage = Stage(account)
    monkeypatch.setattr(leaving_queues, "time", stage)
    monkeypatch.setattr(wiring, "is_current", lambda *_: False)
    monkeypatch.setattr(rollback, "_restore_functions", lambda *_: stage.history.append("restores the functions"))
    monkeypatch.setattr(rollback, "require_settings", lambda *_: None)
    monkeypatch.setattr(rollback, "smoke_test", lambda *_: stage.history.append("works"))
    return stage


def restore(target: Target, stage: Stage) -> None:
    settings = json.loads(json.dumps(wiring.desired(target, DEPLOYED)).replace(RETRIES, FAILURES))
    del settings["mappings"]["retry_failures"], settings["sources"]["retry_failures"]
    stacks = {"cafe-test-resources": {"template": "key", "parameters": {}}}
    config = project.configure(target, OUTPUTS, "2026-11-21")
    release = Release("former", project.RUNTIME, "", config, stacks, {}, settings, [])
    releases: Any = SimpleNamespace(
        release=lambda _: release, template=lambda _: FORMER, url=stage.upload, keep=lambda _: None
    )
    context = Context(target, stage.client, None, lambda _: None, print)  # type: ignore[arg-type]
    rollback.restore(context, releases, "former")


def test_a_queue_that_the_release_lacks_is_deleted_last_and_without_messages(target: Target, stage: Stage) -> None:
    restore(target, stage)
    assert stage.history == ["RetriesQueue RetriesQueuePolicy", "restores the functions", "works", "no retries"]
    assert (stage.moved, stage.retries, stage.body) == (["a", "b", "hidden"], {}, FORMER)
    restore(target, stage)
    assert stage.history[4:] == ["restores the functions", "works"]


def test_a_queue_whose_messages_stay_hidden_is_not_deleted(target: Target, stage: Stage) -> None:
    stage.retries["hidden"] = 43_200
    with pytest.raises(DeployError, match=r"^cafe-test-retries: messages that could not be moved .* yet: 1$"):
        restore(target, stage)
    assert (stage.moved, list(stage.retries), stage.history[-1]) == (["a", "b"], ["hidden"], "works")
    stage.now = 43_200
    restore(target, stage)
    assert (stage.moved, stage.history[-1]) == (["a", "b", "hidden"], "no retries")
