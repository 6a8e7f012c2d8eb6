"""Tests that a deploy gives the state machines the console's address, which is known only after the API exists."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from infra.deploy import stacks
from infra.deploy.context import Changes, Context
from infra.deploy.deployment import Deployment
from infra.deploy.preflight import CallerIdentity
from infra.deploy.releases import Releases
from infra.deploy.stacks import Stack
from infra.deploy.target import Target
from tests.wiring.fakes import DEPLOYED, CloudFormation

API, CAFE = f"{DEPLOYED['REST_API_URL']}/", "https://cafe.example/"


@pytest.mark.parametrize(
    ("origins", "before", "after"),
    [((), "", API), ((), API, None), ((), "https://deleted.example/api/", API), (("https://cafe.example",), API, CAFE)],
)
def test_the_state_machines_get_the_consoles_address_when_it_changes(
    target: Target, said: list[str], origins: tuple[str, ...], before: str, after: str | None
) -> None:
    cfn = CloudFormation("CREATE_COMPLETE", "UPDATE_COMPLETE")
    caller = cast(CallerIdentity, None)
    context = Context(replace(target, origins=origins), lambda *_: cfn, caller, lambda _: None, said.append)
    deployment = Deployment(context)
    deployment.changes = cast(Changes, SimpleNamespace(apply=lambda change, *_: stacks.apply(change, cfn, said.append)))
    deployment.releases = cast(Releases, SimpleNamespace(url=lambda _: "https://template"))
    body = "Parameters: {Stage: {}, ConsoleUrl: {}}"
    deployment.resources = Stack("cafe-test-resources", body, {"ConsoleUrl": before} if before else {}, {})
    deployment.outputs, deployment.functions_are_current = DEPLOYED, True
    deployment.apply_settings()
    given: list[dict[str, Any]] = cfn.given.get("Parameters", [])
    assert {each["ParameterValue"] for each in given} == ({after} if after else set())
    # The release contains this address, so a rollback restores it.
    assert deployment.resources.parameters["ConsoleUrl"] == (after or before)
