"""app.py against the configuration, the template and the deploy: every function, trigger and route is in each."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any

import boto3
import pytest
from chalice.app import Chalice
from chalice.config import Config
from chalice.deploy.appgraph import ApplicationGraphBuilder
from chalice.deploy.models import LambdaFunction, RestAPI
from chalice.deploy.swagger import SwaggerGenerator

from chalicelib.settings import Settings
from chalicelib.sign_in import OPEN, ROUTES
from infra.deploy import project, wiring
from infra.functions import MYSQL_ADMINISTRATORS, MYSQL_USERS
from tests.wiring.stage import ROOT, as_variables
from tests.wiring.template import Template

PACKAGED = [ROOT / "app.py", *sorted((ROOT / "chalicelib").rglob("*.py"))]
Routes = set[tuple[str, str]]


# --- functions --------------------------------------------------------------------------------------------------------


def test_the_functions_are_those_of_the_interface(functions: set[str]) -> None:
    assert functions == {
        "authorize",
        "store_orders",
        "announce_orders",
        "receive_upload",
        "record_notification",
        "record_alarm",
        "read_inventory",
        "render_report",
        "presign_report",
        "measure_buckets",
        "migrate",
        "rotate_password",
    }


def test_the_api_has_the_name_of_its_stage_by_which_cloudwatch_knows_it(app: Chalice) -> None:
    handler = "arn:aws:lambda:eu-central-1:123456789012:function:cafe-test"
    assert as_deployed(app, handler)["info"]["title"] == app.app_name == "cafe-test"


def test_every_function_and_the_api_are_traced(app: Chalice, config: dict[str, Any], functions: set[str]) -> None:
    given = {"chalice_app": app, "project_dir": str(ROOT)}
    graph = ApplicationGraphBuilder().build(Config("test", user_provided_params=given, config_from_disk=config), "test")
    traced = {each.resource_name: each.xray for each in graph.resources if isinstance(each, RestAPI | LambdaFunction)}
    for each in graph.resources:
        made = getattr(each, "lambda_function", None)
        traced |= {made.resource_name: made.xray} if made else {}
    [api] = [each for each in graph.resources if isinstance(each, RestAPI)]
    traced |= {each.resource_name: each.xray for each in api.authorizers}
    assert traced == dict.fromkeys(functions | {"rest_api", "api_handler"}, True)


def test_chalice_makes_no_role_for_each_function_has_its_own(config: dict[str, Any]) -> None:
    assert config["manage_iam_role"] is False


def test_the_api_answers_before_api_gateway_gives_up(config: dict[str, Any]) -> None:
    assert config["lambda_timeout"] <= 29


def test_no_function_may_run_longer_than_lambda_lets_it(config: dict[str, Any]) -> None:
    assert max(each["lambda_timeout"] for each in config["lambda_functions"].values()) <= 900


@pytest.mark.parametrize(
    ("secret", "told"),
    [("database_secret", MYSQL_USERS), ("database_admin_secret", MYSQL_ADMINISTRATORS)],
)
def test_only_the_functions_that_talk_to_mysql_are_told_its_secrets(secret: str, told: tuple[str, ...]) -> None:
    tree = ast.parse((ROOT / "app.py").read_text())
    talking = {
        function.name
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
        and any(isinstance(node, ast.Name) and node.id == secret for node in ast.walk(function))
    }
    assert set(told) == talking


def test_app_py_has_no_boto3_and_reads_no_environment() -> None:
    """One module makes clients, and one reads the environment."""
    for path in PACKAGED:
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not {"boto3", "get_session"} & names or path.name == "clients.py", path
        assert "os" not in names or path.name == "settings.py", path


# --- settings and triggers --------------------------------------------------------------------------------------------


def test_the_templates_outputs_are_all_that_the_settings_need(template: Template) -> None:
    """CAFE_STAGE and ORDERS_SINCE are the deploy's own."""
    needed = {field.name.upper() for field in fields(Settings)} - {"CAFE_STAGE", "ORDERS_SINCE"}
    assert needed <= as_variables(template.outputs).keys()


def test_every_object_that_is_created_in_the_uploads_bucket_is_received(app: Any) -> None:
    [source] = [each for each in app.event_sources if each.name == "receive_upload"]
    assert (source.events, source.prefix, source.suffix) == (["s3:ObjectCreated:*"], None, None)


def test_the_stream_is_read_from_its_beginning(app: Any) -> None:
    """An order that is stored before the mapping is enabled is announced too."""
    [source] = [each for each in app.event_sources if each.name == "announce_orders"]
    assert source.starting_position == "TRIM_HORIZON"


def test_as_many_of_store_orders_run_at_once_as_app_py_says(app: Any) -> None:
    [source] = [each for each in app.event_sources if each.name == "store_orders"]
    asked = wiring.mappings({"FAILURES_QUEUE_ARN": "arn"})["store_orders"]["ScalingConfig"]
    assert asked == {"MaximumConcurrency": source.maximum_concurrency}


# --- routes -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def routes(app: Chalice) -> Routes:
    return {(path, method) for path, methods in app.routes.items() for method in methods}


def test_the_routes_are_those_of_the_interface(routes: Routes) -> None:
    documented = {
        ("/create_report", "POST"),
        ("/reports/{report_id}", "GET"),
        ("/reports/{report_id}/history", "GET"),
        ("/reports", "GET"),
        ("/orders", "POST"),
        ("/orders/{order_id}", "GET"),
        ("/orders", "GET"),
        ("/uploads", "POST"),
        ("/notifications", "GET"),
        ("/today", "GET"),
        ("/dead-letters", "GET"),
        ("/dead-letters/redrive", "POST"),
        ("/health", "GET"),
        ("/openapi.json", "GET"),
        ("/", "GET"),
        ("/console/{file}", "GET"),
    }
    assert routes == documented


def test_the_openapi_description_has_every_route_and_no_other(routes: Routes) -> None:
    description = json.loads((ROOT / "chalicelib" / "openapi.json").read_text())
    described = {
        (path.replace("{reportId}", "{report_id}").replace("{orderID}", "{order_id}"), method.upper())
        for path, methods in description["paths"].items()
        for method in methods
        if method != "parameters"
    }
    assert described == routes


def as_deployed(app: Chalice, handler: str) -> dict[str, Any]:
    """The description of the API that Chalice sends to API Gateway."""
    authorizer = {"cafe-test-authorize": {"arn": f"{handler}-authorize"}}
    made = {"api_handler_arn": handler, "api_handler_name": "cafe-test", "lambda_functions": authorizer}
    swagger: dict[str, Any] = SwaggerGenerator("eu-central-1", made).generate_swagger(app)
    return swagger


def test_the_table_of_who_may_do_what_has_every_route_and_no_other(routes: Routes) -> None:
    assert {(path, method) for method, path in ROUTES} == routes


def test_api_gateway_asks_the_authorizer_on_every_route_that_is_not_open_and_on_no_other(app: Chalice) -> None:
    swagger = as_deployed(app, "arn:aws:lambda:eu-central-1:123456789012:function:cafe-test")
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


def test_the_api_imports_into_api_gateway(app: Chalice, routes: Routes, aws: None) -> None:
    handler = "arn:aws:lambda:eu-central-1:123456789012:function:cafe-test"
    swagger = as_deployed(app, handler)
    # moto takes version 3 alone, and asks for a description. Of the paths it reads what both versions have.
    document = {"openapi": "3.0.1", "info": {**swagger["info"], "description": ""}, "paths": swagger["paths"]}
    gateway = boto3.client("apigateway")
    api = gateway.import_rest_api(body=json.dumps(document).encode())["id"]
    imported = {
        (resource["path"], method): gateway.get_integration(restApiId=api, resourceId=resource["id"], httpMethod=method)
        for resource in gateway.get_resources(restApiId=api, limit=500)["items"]
        for method in resource.get("resourceMethods", {})
    }
    assert imported.keys() == routes
    for integration in imported.values():
        assert integration["type"].upper() == "AWS_PROXY"
        assert f"functions/{handler}/invocations" in integration["uri"]


# --- a fresh clone, before any deploy ---------------------------------------------------------------------------------


@pytest.fixture
def fresh_clone(tmp_path: Path) -> Path:
    (tmp_path / ".chalice").mkdir()
    (tmp_path / ".chalice" / "config.json").write_text((ROOT / ".chalice" / "config.json").read_text())
    for name in project.LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", [("deploy",), ("local", "--no-autoreload"), ("package", "out")], ids=" ".join)
def test_chalice_in_a_fresh_clone_says_in_one_line_what_to_run(fresh_clone: Path, command: tuple[str, ...]) -> None:
    done = run(fresh_clone, str(Path(sys.executable).with_name("chalice")), *command)
    assert done.returncode == 1
    [line] = (done.stdout + done.stderr).splitlines()
    assert line.startswith("cafe: not set: CAFE_STAGE, ORDERS_QUEUE_URL")
    assert line.endswith("Run `make run` once and then `source .local/env`, or deploy a stage.")


def test_chalice_local_which_watches_for_changes_says_it_too(fresh_clone: Path) -> None:
    """It goes on watching, so it is ended here."""
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("chalice")), "local"],
        cwd=fresh_clone,
        env=environment(fresh_clone),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = partial(os.killpg, process.pid, signal.SIGKILL)
    watchdog = Timer(60, end)
    watchdog.start()
    try:
        assert process.stderr
        assert "make run" in process.stderr.readline()
    finally:
        watchdog.cancel()
        end()
        process.communicate()


def test_the_test_client_in_a_fresh_clone_says_in_one_line_what_to_run(fresh_clone: Path) -> None:
    done = run(fresh_clone, sys.executable, "-c", "from chalice.test import Client; from app import app; Client(app)")
    assert done.returncode == 1
    [line] = (done.stdout + done.stderr).splitlines()
    assert "make run" in line
