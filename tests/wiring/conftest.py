"""The parts that have to agree: the template as CloudFormation resolves it, the state machines, and app.py."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chalice.app import Chalice
from moto import mock_aws

from infra.deploy import project, stacks
from infra.deploy.place import Place
from infra.deploy.target import Target
from tests.wiring.template import Template

ROOT = Path(__file__).parents[2]
SCHEDULES = {"StorageReportSchedule": "cron(0 6 * * ? *)", "InventoryReportSchedule": "cron(0 6 ? * MON *)"}
MACHINES = {"InventoryReport": "inventory_report.asl.json", "StorageReport": "storage_report.asl.json"}


def resolve(
    stage: str = "<stage>", region: str = "<region>", account: str = "<account>", **parameters: str
) -> Template:
    """The template with these parameters; without any, its names read as in the documentation."""
    given = {"Stage": stage, **place(stage, region, account).parameters, **parameters}
    return Template(stacks.template(), given, region=region, account=account)


def place(stage: str = "test", region: str = "eu-central-1", account: str = "123456789012") -> Place:
    """The database that a stage has of its own on AWS."""
    secrets = f"arn:aws:secretsmanager:{region}:{account}:secret"
    return Place(
        f"{secrets}:cafe-{stage}-database-<random>",
        f"{secrets}:rds!cluster-<id>-<random>",
        ("subnet-1", "subnet-2"),
        ("sg-1",),
    )


def as_variables(outputs: dict[str, str]) -> dict[str, str]:
    return {stacks.variable(name): value for name, value in outputs.items()}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An AWS account in this process; neither a sourced ``.local/env`` nor an account of one's own is used."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        yield


@pytest.fixture(scope="session")
def template() -> Template:
    """As deployed to AWS, without optional parameters."""
    return resolve()


@pytest.fixture(scope="session")
def whole() -> Template:
    """As deployed to AWS, with everything that a parameter turns on and that has a role."""
    return resolve(**SCHEDULES)


@pytest.fixture(scope="session")
def config() -> dict[str, Any]:
    return project.tracked_config()


@pytest.fixture(scope="session", params=list(MACHINES.items()), ids=list(MACHINES))
def machine(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Each state machine: its logical id in the template, and its definition."""
    name, file = request.param
    definition: dict[str, Any] = json.loads((ROOT / "infra" / file).read_text())
    return name, definition


@pytest.fixture(scope="session")
def app(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Chalice:
    """app.py with the variables that a deploy makes of the template's outputs; its own copy, apart from other tests."""
    target = Target("test", tmp_path_factory.mktemp("project"), False, {}, place())
    config = project.configure(target, as_variables(template.outputs), "2026-11-21")
    spec = importlib.util.spec_from_file_location("wired_app", ROOT / "app.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in config["stages"]["test"]["environment_variables"].items():
            patch.setenv(name, value)
        spec.loader.exec_module(module)
    chalice: Chalice = module.app
    return chalice


@pytest.fixture(scope="session")
def functions(app: Chalice) -> set[str]:
    """The names of the functions that app.py has beside the API's."""
    kinds = (app.pure_lambda_functions, app.event_sources, app.builtin_auth_handlers)
    return {each.name for kind in kinds for each in kind}
