"""Tests when ``chalice deploy`` is repeated, and that its event source mappings never lose a failed message."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from chalice.awsclient import TypedAWSClient
from chalice.deploy.deployer import ChaliceDeploymentError

from infra.deploy import chalice_command, chalice_record, project, shared_steps
from infra.deploy.context import Context
from infra.deploy.target import DeployError, Target
from tests.wiring.fakes import OUTPUTS

RACE = "Unable to validate the following destination configurations"
FAILS = pytest.raises(DeployError, match="chalice deploy failed")
REFUSED = ("InvalidArgument", "PutBucketNotificationConfiguration", RACE)


class Chalice:
    """Fakes ``chalice deploy``. Each run fails with the next of these messages, and then succeeds."""

    def __init__(self, *errors: tuple[str, str, str]) -> None:
        self.errors, self.records = list(errors), []

    def run(self, folder: Any, stage: str, command: str, say: Any) -> None:
        self.records.append(chalice_record.read(folder, stage))
        if self.errors:
            code, operation, message = self.errors.pop(0)
            error = ClientError({"Error": {"Code": code, "Message": message}}, operation)
            raise DeployError(f"chalice deploy failed:\n{ChaliceDeploymentError(error)}")


@pytest.mark.parametrize(
    ("errors", "runs", "outcome"),
    [
        ([REFUSED] * 3, 4, nullcontext()),
        ([REFUSED] * 9, 4, FAILS),
        ([(*REFUSED[:2], "The event is not supported")], 1, FAILS),
        ([("AccessDenied", *REFUSED[1:])], 1, FAILS),
        ([("InvalidArgument", "CreateEventSourceMapping", RACE)], 1, FAILS),
    ],
)
def test_a_deploy_is_repeated_with_a_new_record_only_while_s3_does_not_know_the_functions_permission(
    errors: list[Any], runs: int, outcome: Any, target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chalice = Chalice(*errors)
    # Each failed run creates another resource.
    monkeypatch.setattr(chalice_record, "rebuild", lambda *_: [{"name": f"function-{len(chalice.records)}"}])
    monkeypatch.setattr(project, "run_chalice", chalice.run)
    context = Context(target, lambda _: None, None, lambda _: None, said.append)  # type: ignore[arg-type]
    with outcome:
        shared_steps.run_chalice(context, target.project, {})
    assert [each["name"] for [each] in chalice.records] == [f"function-{number}" for number in range(runs)]
    assert said == ["S3 does not accept the function receive_upload yet: trying again in 10 s"] * (runs - 1)


def test_a_new_event_source_mapping_reports_failed_messages_from_the_start(
    target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    aws = TypedAWSClient(chalice_command.create_session())
    asked = {"EventSourceArn": OUTPUTS["ORDERS_QUEUE_ARN"], "FunctionName": "f", "BatchSize": 5}
    added = {"MaximumBatchingWindowInSeconds": 0, "FunctionResponseTypes": ["ReportBatchItemFailures"]}
    with Stubber(aws._client("lambda")) as stubber:
        stubber.add_response("create_event_source_mapping", {"UUID": 36 * "u"}, {**asked, **added})
        aws.create_lambda_event_source(*asked.values())
    # The deploy runs Chalice through this module.
    with pytest.raises(DeployError, match=r"(?s)chalice no-such failed:.*No such command 'no-such'"):
        project.run_chalice(target.project, target.stage, "no-such", said.append)
