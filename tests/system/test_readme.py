"""Tests that the README's commands run when pasted and that every name in the README exists."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import urllib3

from local.processes import free_ports
from tests.system.stack import copied
from tests.system.system import ROOT, System, stored, wait_for

# The tests read the README and its reference pages.
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "docs/api.md", "docs/configuration.md")}
README = "\n".join(PAGES.values())
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
MAKEFILE = (ROOT / "Makefile").read_text()
TEMPLATE = (ROOT / "infra" / "resources.yaml").read_text()

# Pasted code blocks call this command instead of curl. The command runs curl and also prints each response's status to
# standard error.
TELLING_CURL = "command curl --silent --show-error --write-out '%{stderr}%{http_code}\\n'"
STAND_IN = f"'{sys.executable}' '{ROOT / 'tests' / 'system' / 'curl.py'}'"


def blocks(*programs: str) -> list[str]:
    """Returns the README's code blocks that call one of ``programs``, in their original order."""
    return [block for block in BLOCKS if re.search(rf"^({'|'.join(programs)}) ", block, re.MULTILINE)]


def paste(system: System, block: str) -> subprocess.CompletedProcess[str]:
    """Runs the code block in a new shell after ``source .local/env``. The shell stops at the first failed command."""
    curl = TELLING_CURL if shutil.which("curl") else STAND_IN
    return system.run("bash", "-c", f'set -eo pipefail; curl() {{ {curl} "$@"; }}\n{block}')


# --- commands ---------------------------------------------------------------------------------------------------------


def test_every_curl_example_works_as_pasted(system: System) -> None:
    for block in blocks("curl", "python"):
        # The result of the previous code block may not exist yet, so a code block that gets a 404 is repeated.
        done = wait_for(partial(paste_in_time, system, block), f"a response to\n{block}")
        assert done
        assert done.returncode == 0, block + done.stdout + done.stderr
        statuses = re.findall(r"^\d{3}$", done.stderr, re.MULTILINE)
        assert len(statuses) == len(re.findall(r"^curl ", block, re.MULTILINE)), block + done.stderr
        assert all(status.startswith("2") for status in statuses), block + done.stdout

    # The results of the commands must match the README's description.
    assert system.ended("inventory-monday")["status"] == "SUCCEEDED"
    assert stored(system, "breakfast-1")["customerID"] == "table-4"
    assert "1 row imported" in system.notification("inventory/beans.csv", "upload")["message"]


def paste_in_time(system: System, block: str) -> subprocess.CompletedProcess[str] | None:
    """Runs the code block, but returns None if a request got a 404 because a result does not exist yet."""
    done = paste(system, block)
    return None if re.search(r"^404$", done.stderr, re.MULTILINE) else done


@pytest.fixture
def throwaway(tmp_path: Path) -> Iterator[System]:
    """Starts a separate stack, because ``chalice delete`` deletes its functions."""
    stack = copied(tmp_path / "stack", wired=False)
    try:
        yield System(stack, stack.resume())
    finally:
        stack.stop()


def test_every_chalice_command_works_as_typed(throwaway: System) -> None:
    for block in blocks("chalice"):
        if block.startswith("chalice local"):
            serves(throwaway, block)
        else:
            done = paste(throwaway, block)
            assert done.returncode == 0, block + done.stdout + done.stderr
        if block.startswith("chalice deploy"):
            [url] = re.findall(r"Rest API URL: (\S+)", done.stdout)
            assert throwaway.request("GET", f"{url}health").status == 200
            assert f"{throwaway.stack.api_url} now serves the new code" in done.stdout
    assert blocks("chalice")[-1] == "chalice delete\n"
    assert throwaway.aws("lambda").list_functions()["Functions"] == []
    assert throwaway.stack.api.pid() is None


def serves(system: System, block: str) -> None:
    """Runs ``chalice local`` until it responds. The test uses a free port, because the README's port may be in use."""
    [port] = free_ports(1)
    command, replaced = re.subn(r"(?<=--port )\d+", str(port), block)
    assert replaced == 1, block
    shell = ["bash", "-c", f"source '{system.stack.folder / 'env'}'\n{command}"]
    # The shell runs in its own session, because `chalice local` starts a second process that must also be killed.
    clean = {name: os.environ[name] for name in ("PATH", "HOME")}
    with subprocess.Popen(shell, cwd=ROOT, env=clean, start_new_session=True) as process:
        try:
            wait_for(lambda: process.poll() is not None or answers(system, port), f"a response of {command}")
            assert process.poll() is None, f"{command} ended unexpectedly"
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def answers(system: System, port: int) -> bool:
    try:
        return system.request("GET", f"http://127.0.0.1:{port}/health").status == 200
    except urllib3.exceptions.HTTPError:
        return False


# --- names ------------------------------------------------------------------------------------------------------------


def names(pattern: str, text: str = README) -> set[str]:
    return set(re.findall(pattern, text, re.MULTILINE))


def section(title: str) -> str:
    """Returns the text under a second-level heading."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_make_and_the_readme_list_every_make_target() -> None:
    targets = names(r"^\.PHONY: (help .*)$", MAKEFILE).pop().split()
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert names(r"^  make ([a-z-]+) ", listed) == set(targets)
    assert names(r"\bmake ([a-z]+(?:-[a-z]+)?)\b", "\n".join(code())) == set(targets) - {"help"}


def test_every_file_that_the_readme_names_exists() -> None:
    tracked = r"(?:app\.py|(?:chalicelib|infra|local|tests|docs|benchmarks|\.chalice)/[\w./-]*)"
    named = names(rf"`({tracked})`") | names(r'src(?:set)?="([^"]+)"')
    for page, text in PAGES.items():
        named |= {str(Path(page).parent / link) for link in names(r"\]\((?!https?:)([^)#]+)\)", text)}
    # In the README's table of flows, three columns contain file names relative to a folder.
    for folder, column in (("chalicelib", 3), ("infra", 4), ("tests", 5)):
        cells = [line.split("|")[column] for line in section("Where things are").splitlines() if line[:2] == "| "]
        named |= {f"{folder}/{name}" for name in names(r"`([\w/]+/|[\w./]+\.\w+)`", "\n".join(cells[1:]))}
    assert {"docs/images/report.png", "chalicelib/reports/", "tests/unit/test_orders.py"} <= named
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_every_name_in_the_table_of_flows_is_a_function_or_a_resource() -> None:
    handlers = names(r"^def (\w+)", (ROOT / "app.py").read_text())
    resources = names(r"^  (\w+):$", TEMPLATE.split("\nResources:\n")[1].split("\nOutputs:\n")[0])
    named = names(r"`(\w+)`", section("Where things are"))
    assert {"store_orders", "OrdersQueue"} <= named <= handlers | resources


def test_every_name_in_the_how_to_steps_is_in_the_code() -> None:
    source = "\n".join(path.read_text() for part in ("chalicelib", "infra") for path in (ROOT / part).rglob("*.py"))
    named = names(r"`(\w+)`", section("How to add …")) - {"ApiRole"}
    assert len(named) > 10
    assert sorted(name for name in named if not re.search(rf"\b{name}\b", source)) == []


def test_all_variables_of_the_local_stack_are_documented() -> None:
    source = "".join((ROOT / "local" / name).read_text() for name in ("stack.py", "database.py"))
    # The stack itself passes these variables on.
    passed = {"CAFE_API_URL", "CAFE_STAGE", "CAFE_TOKEN", "CAFE_LOCAL_STACK", "CAFE_TRACE_PATH"}
    read = names(r"\bCAFE_[A-Z_]+\b", source) - passed
    assert names(r"`(CAFE_[A-Z_]+)`", PAGES["docs/configuration.md"]) == read


def test_sourcing_the_environment_sets_every_other_variable(system: System) -> None:
    used = names(r"(?:\$|environ\[\")([A-Z_]+)\b", "\n".join(BLOCKS)) | names(r"`([A-Z]+_[A-Z_]+)`")
    own = names(r"`(CAFE_[A-Z_]+)`", PAGES["docs/configuration.md"]) | {
        "DB_ADMIN_SECRET_ARN",
        "SUBNET_IDS",
        "SECURITY_GROUP_IDS",
    }
    assert "UPLOADS_BUCKET" in used
    assert sorted(used - own - set(system.env) - {"CAFE_TOKEN"}) == []


def code() -> list[str]:
    """Returns all the code blocks and inline code in the pages."""
    return [*BLOCKS, *re.findall(r"`([^`\n]+)`", README)]
