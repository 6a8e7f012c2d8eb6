"""Defines fixtures for the resolved template, the state machines and app.py, which must agree with each other."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from typing import Any

import pytest
from chalice.app import Chalice
from moto import mock_aws

from infra.deploy import project
from infra.deploy.target import Target
from tests.wiring.stage import MACHINES, ROOT, SCHEDULES, as_variables, place, resolve
from tests.wiring.template import Template


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Mocks an AWS account, and hides the AWS settings in the shell's environment."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    # Without this setting, moto would create 1,300 machine images in each region.
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    # The mock keeps the boto3 session, because the session caches service models and loading them is slow.
    with mock_aws(config={"core": {"reset_boto3_session": False}}):
        yield


@pytest.fixture(scope="session")
def template() -> Template:
    """Returns the template as it is deployed to AWS without optional parameters."""
    return resolve()


@pytest.fixture(scope="session")
def whole() -> Template:
    """Returns the template as it is deployed to AWS with every role that a parameter can add."""
    return resolve(**SCHEDULES)


@pytest.fixture(scope="session")
def config() -> dict[str, Any]:
    return project.tracked_config()


@pytest.fixture(scope="session")
def app(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Chalice:
    """Returns a separate instance of app.py, with environment variables derived from stack outputs."""
    target = Target("test", tmp_path_factory.mktemp("project"), False, {}, place())
    config = project.configure(target, as_variables(template.outputs), "2026-11-21")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in config["stages"]["test"]["environment_variables"].items():
            patch.setenv(name, value)
        chalice: Chalice = runpy.run_path(str(ROOT / "app.py"))["app"]
    return chalice


@pytest.fixture(scope="session")
def functions(app: Chalice) -> set[str]:
    """Returns the names of the functions in app.py, except the API handler."""
    kinds = (app.pure_lambda_functions, app.event_sources, app.builtin_auth_handlers)
    return {each.name for kind in kinds for each in kind}


@pytest.fixture(scope="session", params=list(MACHINES.items()), ids=list(MACHINES))
def machine(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Returns a state machine's logical id in the template, and its definition."""
    name, file = request.param
    definition: dict[str, Any] = json.loads((ROOT / "infra" / file).read_text())
    return name, definition
