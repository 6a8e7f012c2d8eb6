"""Tests when ``chalice deploy`` is repeated."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from chalice.deploy.deployer import ChaliceDeploymentError

from infra.deploy import chalice_record, project, shared_steps
from infra.deploy.context import Context
from infra.deploy.target import DeployError, Target

RACE = "Unable to validate the following destination configurations"
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


def deploy(chalice: Chalice, target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Each failed run creates another resource.
    monkeypatch.setattr(
        chalice_record, "rebuild", lambda *_: [{"name": f"function-{len(chalice.records)}", "resource_type": "x"}]
    )
    monkeypatch.setattr(project, "run_chalice", chalice.run)
    context = Context(target, lambda _: None, None, lambda _: None, said.append)  # type: ignore[arg-type]
    shared_steps.run_chalice(context, target.project, {})


def test_a_deploy_is_repeated_with_a_new_record_while_s3_does_not_know_the_functions_permission(
    target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chalice = Chalice(REFUSED, REFUSED, REFUSED)
    deploy(chalice, target, said, monkeypatch)
    assert [each["name"] for [each] in chalice.records] == ["function-0", "function-1", "function-2", "function-3"]
    assert said == ["S3 does not accept the function receive_upload yet: trying again in 10 s"] * 3


@pytest.mark.parametrize(
    ("error", "runs"),
    [
        (REFUSED, 4),
        ((*REFUSED[:2], "The event is not supported"), 1),
        (("AccessDenied", *REFUSED[1:]), 1),
        (("InvalidArgument", "CreateEventSourceMapping", RACE), 1),
    ],
)
def test_a_deploy_is_not_repeated_for_ever_and_not_after_another_error(
    error: tuple[str, str, str], runs: int, target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chalice = Chalice(*[error] * 9)
    with pytest.raises(DeployError, match="chalice deploy failed"):
        deploy(chalice, target, said, monkeypatch)
    assert len(chalice.records) == runs
