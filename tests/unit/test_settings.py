"""Tests that the settings are read once at startup and that one error names all missing environment variables."""

import json
import os
import subprocess
import sys
import traceback
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from chalicelib.errors import DatabaseRefused, MissingSettings
from chalicelib.settings import (
    Database,
    Settings,
    currency,
    database_admin_secret,
    database_secret,
    first_retry_seconds,
    longest_retry_seconds,
    low_stock,
)
from tests.unit.cloud import ENVIRONMENT, ROOT

DATABASE = {"host": "db", "port": 3306, "dbname": "cafe", "username": "u", "password": "p"}
IMPORT_APP = [sys.executable, "-c", "import app"]
CHALICE = [str(Path(sys.executable).with_name("chalice"))]
BARE = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a command in the repository with exactly these environment variables."""
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_every_setting_comes_from_the_variable_of_its_name() -> None:
    settings = Settings.read(ENVIRONMENT)
    assert {field.name.upper(): getattr(settings, field.name) for field in fields(Settings)} == ENVIRONMENT


def test_all_missing_and_empty_variables_are_named_in_one_message() -> None:
    some = {**ENVIRONMENT, "TOPIC_ARN": ""}
    del some["CAFE_STAGE"], some["UPLOADS_BUCKET"]
    with pytest.raises(MissingSettings) as caught:
        Settings.read(some)
    assert caught.value.names == ["CAFE_STAGE", "TOPIC_ARN", "UPLOADS_BUCKET"]
    assert str(caught.value).startswith("not set: CAFE_STAGE, TOPIC_ARN, UPLOADS_BUCKET. Run `make run`")


def test_the_first_retry_comes_after_a_second_unless_a_stack_for_tests_says_otherwise() -> None:
    assert [first_retry_seconds({}), first_retry_seconds({"FIRST_RETRY_SECONDS": "0.1"})] == [1, 0.1]
    assert [longest_retry_seconds({}), longest_retry_seconds({"LONGEST_RETRY_SECONDS": "2"})] == [300, 2]


def test_the_currency_and_the_limit_for_low_stock_are_settings_of_the_stage() -> None:
    assert [currency({}), currency({"CURRENCY": "CHF"})] == ["$", "CHF"]
    assert [low_stock({}), low_stock({"LOW_STOCK": "0"})] == [20, 0]


def test_the_secrets_of_the_database_are_read_separately_because_few_functions_have_them() -> None:
    assert database_secret({"DB_SECRET_ARN": "arn:secret"}) == "arn:secret"
    with pytest.raises(MissingSettings) as caught:
        database_secret({"DB_SECRET_ARN": ""})
    assert caught.value.names == ["DB_SECRET_ARN"]
    assert database_admin_secret({"DB_ADMIN_SECRET_ARN": "arn:admin"}) == "arn:admin"
    assert database_admin_secret({}) is None


@pytest.mark.parametrize("port", [3306, "3306"])
def test_a_secret_has_the_fields_that_rds_uses_and_an_administrators_no_address(port: int | str) -> None:
    """A secret created by RDS has only a user name and a password."""
    database = Database.of_secret(json.dumps({**DATABASE, "port": port, "engine": "mysql"}))
    assert database == Database("db", 3306, "cafe", "u", "p")
    assert database.logged_in('{"username": "admin", "password": "a"}') == Database("db", 3306, "cafe", "admin", "a")
    with pytest.raises(DatabaseRefused, match=r"has no username, password$"):
        database.logged_in("{}")


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ({**DATABASE, "host": ""}, "has no host$"),
        ({"username": "u", "password": "p"}, "has no host, port, dbname$"),
        (["p4ssw0rd"], "has no host, port, dbname, username, password$"),
        ({**DATABASE, "port": "p4ssw0rd"}, "is not a number$"),
        ("p4ssw0rd", "is not JSON$"),
    ],
)
def test_a_wrong_secret_is_refused_without_showing_it(secret: Any, problem: str) -> None:
    with pytest.raises(DatabaseRefused, match=problem) as caught:
        Database.of_secret(secret if isinstance(secret, str) else json.dumps(secret))
    assert "p4ssw0rd" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("command", [IMPORT_APP, [*CHALICE, "package", "/nowhere"]])
def test_in_a_fresh_clone_one_line_says_what_to_run(command: list[str]) -> None:
    done = run(command, BARE)
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("cafe: not set: CAFE_STAGE, ORDERS_QUEUE_URL, ")
    assert line.endswith("Run `make run` once and then `source .local/env`, or deploy a stage.")
    assert all(name in line for name in ENVIRONMENT)


def loaded(code: str) -> set[str]:
    """Returns the modules that a new process has loaded after running ``code``."""
    done = run([sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules, file=sys.stderr)"], ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_importing_the_app_loads_only_what_every_function_needs() -> None:
    """Imports take most of a cold start, so handlers and clients.py import modules only when they are called."""
    names = ("clients", "correlation", "errors", "logs", "rest", "settings")
    needed = "import __future__, contextvars, dataclasses, gc, pathlib, chalice.app"
    own = {"app", "chalicelib", *(f"chalicelib.{name}" for name in names)}
    more = loaded("import app") - loaded(needed) - own
    assert not more, f"every function waits for {', '.join(sorted(more))}: import it where it is used"


def test_checking_a_token_loads_no_certificates() -> None:
    refused = "    sign_in.bearer('a.b.c', keys=None, issuer='', client_id='')\nexcept sign_in.TokenRefused:\n    pass"
    modules = loaded(f"from chalicelib import sign_in\ntry:\n{refused}")
    assert "jwt.algorithms" in modules
    assert "cryptography.x509.name" not in modules


def test_a_cold_start_looks_for_no_garbage() -> None:
    create = "clients.aws('s3', 'us-east-1').list_buckets"
    loaded(f"import gc\nfrom app import clients\nruns = gc.get_stats()\n{create}\nassert gc.get_stats() == runs")


def test_no_flow_loads_modules_that_only_another_flow_needs() -> None:
    heavy = {"boto3", "botocore.session", "pymysql", "jinja2", "humanize", "concurrent.futures", "cryptography"}
    light = (
        "sign_in orders.placing orders.listing orders.store orders.announce notifications reports reports.inventory "
        "reports.render uploads.links dead_letters.listing dead_letters.redrive database database.rotation"
    )
    flows: dict[str, set[str]] = {flow: set() for flow in light.split()}
    flows |= {"uploads.receiving": {"humanize"}, "storage.report": {"humanize", "concurrent.futures"}}
    # The test imports each flow's module in a forked process that has already loaded the common modules.
    code = (
        "import app, importlib, os, sys\n"
        f"for flow in {list(flows)}:\n"
        "    if not os.fork():\n"
        "        importlib.import_module(f'chalicelib.{flow}')\n"
        f"        print(flow, *sorted({heavy} & set(sys.modules)), flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()"
    )
    lines = run([sys.executable, "-c", code], ENVIRONMENT).stdout.splitlines()
    assert {flow: set(modules) for flow, *modules in map(str.split, lines)} == flows
