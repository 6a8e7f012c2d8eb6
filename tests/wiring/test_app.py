"""Tests that app.py, the configuration, the template and the deploy agree on every function, trigger and route."""

from __future__ import annotations

import ast
import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from chalice.app import Chalice
from chalice.deploy.swagger import SwaggerGenerator

from chalicelib.settings import Settings
from chalicelib.sign_in import OPEN, ROUTES
from infra.deploy import project, wiring
from infra.functions import MYSQL_ADMINISTRATORS, MYSQL_USERS
from tests.wiring.stage import ROOT, as_variables
from tests.wiring.template import Template

PACKAGED = [ROOT / "app.py", *sorted((ROOT / "chalicelib").rglob("*.py"))]


# --- functions --------------------------------------------------------------------------------------------------------


def test_no_handler_is_longer_than_12_lines() -> None:
    """A handler contains only its trigger, its collaborators and one call.

    Docstrings and decorators do not count as lines of the handler.
    """
    lengths = {
        each.name: each.end_lineno - each.lineno + 1 - len((ast.get_docstring(each) or "").splitlines())
        for each in ast.parse((ROOT / "app.py").read_text()).body
        if isinstance(each, ast.FunctionDef) and each.end_lineno
    }
    assert len(lengths) > 30
    assert {name: length for name, length in lengths.items() if length > 12} == {}


def test_the_apis_name_contains_its_stage_for_cloudwatchs_metrics(app: Chalice) -> None:
    assert as_deployed(app)["info"]["title"] == app.app_name == "cafe-test"


def test_each_function_has_a_role_from_the_template_and_a_timeout_that_aws_allows(
    config: dict[str, Any],
) -> None:
    assert config["manage_iam_role"] is False
    # The longest timeout is 29 seconds for API Gateway and 900 seconds for Lambda.
    assert config["lambda_timeout"] <= 29
    assert max(each["lambda_timeout"] for each in config["lambda_functions"].values()) <= 900


@pytest.mark.parametrize(
    ("secret", "functions"), [("database_secret", MYSQL_USERS), ("database_admin_secret", MYSQL_ADMINISTRATORS)]
)
def test_only_the_functions_that_use_mysql_get_its_secrets(secret: str, functions: tuple[str, ...]) -> None:
    tree = ast.parse((ROOT / "app.py").read_text())
    users = {
        function.name
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
        and any(isinstance(node, ast.Name) and node.id == secret for node in ast.walk(function))
    }
    assert set(functions) == users


def test_one_module_makes_clients_and_one_reads_the_environment() -> None:
    for path in PACKAGED:
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not {"boto3", "get_session"} & names or path.name == "clients.py", path
        assert "os" not in names or path.name == "settings.py", path


# --- settings and triggers --------------------------------------------------------------------------------------------


def test_the_templates_outputs_are_everything_that_the_settings_need(template: Template) -> None:
    """The deploy itself sets CAFE_STAGE and ORDERS_SINCE."""
    needed = {field.name.upper() for field in fields(Settings)} - {"CAFE_STAGE", "ORDERS_SINCE"}
    assert needed <= as_variables(template.outputs).keys()


def test_no_order_or_upload_is_left_out_and_app_py_and_the_deploy_set_one_maximum(
    app: Chalice, template: Template
) -> None:
    sources: dict[str, Any] = {each.name: each for each in app.event_sources}
    # An order that is stored before the event source mapping is enabled must also be announced.
    assert sources["announce_orders"].starting_position == "TRIM_HORIZON"
    uploads = sources["receive_upload"]
    assert (uploads.events, uploads.prefix, uploads.suffix) == (["s3:ObjectCreated:*"], None, None)
    # Chalice sets the maximum concurrency when it creates the mapping. The deploy restores the maximum concurrency if
    # somebody changed it.
    for name in ("store_orders", "retry_failures"):
        asked = wiring.mappings(as_variables(template.outputs))[name]["ScalingConfig"]
        assert asked == {"MaximumConcurrency": sources[name].maximum_concurrency}


# --- routes -----------------------------------------------------------------------------------------------------------


def test_the_routes_are_those_of_the_groups_and_of_the_openapi_description(app: Chalice) -> None:
    routes = {(path, method) for path, methods in app.routes.items() for method in methods}
    assert routes == {(path, method) for method, path in ROUTES}
    description = json.loads((ROOT / "chalicelib" / "openapi.json").read_text())
    assert routes == {
        (path.replace("{reportId}", "{report_id}").replace("{orderID}", "{order_id}"), method.upper())
        for path, methods in description["paths"].items()
        for method in methods
        if method != "parameters"
    }


HANDLER = "arn:aws:lambda:eu-central-1:123456789012:function:cafe-test"


def as_deployed(app: Chalice) -> dict[str, Any]:
    """Returns the API description that Chalice sends to API Gateway."""
    authorizer = {"cafe-test-authorize": {"arn": f"{HANDLER}-authorize"}}
    made = {"api_handler_arn": HANDLER, "api_handler_name": "cafe-test", "lambda_functions": authorizer}
    swagger: dict[str, Any] = SwaggerGenerator("eu-central-1", made).generate_swagger(app)
    return swagger


def test_api_gateway_asks_the_authorizer_on_every_route_that_is_not_open_and_on_no_other(app: Chalice) -> None:
    swagger = as_deployed(app)
    asked = {
        (method.upper(), path)
        for path, methods in swagger["paths"].items()
        for method, operation in methods.items()
        if operation.get("security") == [{"authorize": []}]
    }
    assert asked == {route for route, group in ROUTES.items() if group != OPEN}
    [definition] = swagger["securityDefinitions"].values()
    assert (definition["type"], definition["in"], definition["name"]) == ("apiKey", "header", "Authorization")
    authorizer = definition["x-amazon-apigateway-authorizer"]
    assert (authorizer["type"], authorizer["authorizerResultTtlInSeconds"]) == ("token", 60)
    assert "function:cafe-test-authorize/invocations" in authorizer["authorizerUri"]


# --- a fresh clone, before any deploy ---------------------------------------------------------------------------------


@pytest.fixture
def fresh_clone(tmp_path: Path) -> Path:
    (tmp_path / ".chalice").mkdir()
    (tmp_path / ".chalice" / "config.json").write_text((ROOT / ".chalice" / "config.json").read_text())
    for name in project.LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


CHALICE = str(Path(sys.executable).with_name("chalice"))
TEST_CLIENT = (sys.executable, "-c", "from chalice.test import Client; from app import app; Client(app)")


@pytest.mark.parametrize(
    "command", [(CHALICE, "deploy"), (CHALICE, "local"), TEST_CLIENT], ids=["deploy", "local", "client"]
)
def test_a_fresh_clone_says_in_one_line_what_to_run(fresh_clone: Path, command: tuple[str, ...]) -> None:
    """The command ``chalice local`` keeps watching for changes after the error, so the test ends the process."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(fresh_clone), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command, cwd=fresh_clone, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stderr
            assert select.select([process.stderr], [], [], 60)[0], "no line after a minute"
            line = process.stderr.readline().strip()
            if "local" not in command:
                assert (process.wait(60), process.stderr.read()) == (1, "")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert line.startswith("cafe: not set: CAFE_STAGE, ORDERS_QUEUE_URL")
    assert line.endswith("Run `make run` once and then `source .local/env`, or deploy a stage.")
