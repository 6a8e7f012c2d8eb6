"""The environment: read once, and all that is missing named at once, before anything else happens."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from chalicelib.errors import MissingSettings
from chalicelib.settings import Database, Settings
from tests.unit.conftest import ENVIRONMENT, ROOT

DATABASE = {"DB_HOST": "db", "DB_PORT": "3306", "DB_NAME": "cafe", "DB_USER": "u", "DB_PASSWORD": "p"}
IMPORT_APP = [sys.executable, "-c", "import app"]
CHALICE = [str(Path(sys.executable).with_name("chalice"))]
BARE = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """In the repository, with nothing in the environment but this."""
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


def test_the_database_is_read_apart_for_only_some_functions_have_it() -> None:
    assert Database.read(DATABASE) == Database("db", 3306, "cafe", "u", "p")
    with pytest.raises(MissingSettings) as caught:
        Database.read({"DB_HOST": "db", "DB_PASSWORD": ""})
    assert caught.value.names == ["DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD"]


@pytest.mark.parametrize(
    "command", [IMPORT_APP, [*CHALICE, "local", "--no-autoreload"], [*CHALICE, "package", "/nowhere"]]
)
def test_in_a_fresh_clone_one_line_says_what_to_run(command: list[str]) -> None:
    done = run(command, BARE)
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert_what_to_run(line)


def test_in_a_fresh_clone_chalice_local_says_it_and_waits_for_a_change() -> None:
    """Its reloader does so whatever is wrong with an app."""
    command = [*CHALICE, "local"]
    with subprocess.Popen(
        command, cwd=ROOT, env=BARE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr
        line = process.stderr.readline()
        # The reloader and its worker.
        os.killpg(process.pid, signal.SIGKILL)
    assert_what_to_run(line.rstrip())


def assert_what_to_run(line: str) -> None:
    assert line.startswith("cafe: not set: CAFE_STAGE, ORDERS_QUEUE_URL, ")
    assert line.endswith("Run `make run` once and then `source .local/env`, or deploy a stage.")
    assert all(name in line for name in ENVIRONMENT)


def test_importing_the_app_makes_no_client_and_loads_nothing_that_not_every_function_needs() -> None:
    """Imports are most of a cold start: a function that never talks to MySQL never loads its driver."""
    heavy = ("boto3", "botocore.session", "botocore.client", "pymysql", "jinja2")
    code = f"import app, sys; print([each for each in {heavy} if each in sys.modules])"
    done = run([sys.executable, "-c", code], ENVIRONMENT)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_app_reads_no_variable_but_through_settings() -> None:
    found = []
    for path in [ROOT / "app.py", *(ROOT / "chalicelib").rglob("*.py")]:
        if path.name != "settings.py" and re.search(r"\benviron\b|\bgetenv\b", path.read_text()):
            found.append(path)
    assert found == []
