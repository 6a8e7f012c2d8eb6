"""Tests the local stack's processes, ports, files and error messages."""

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from local import letters
from local.__main__ import api, keep_to_this_machine
from local.database import Database, ExternalServer
from local.ministack.cognito import password_policy
from local.ministack.functions import shared_code
from local.processes import Process, StackError, exclusive_lock, fingerprint, free_ports, require_free_port
from local.stack import Stack
from local.trace_pages import Handler
from local.users import Users

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    f"child = subprocess.Popen({SLEEP!r}, stdout=subprocess.DEVNULL)\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(60)",
]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process("sleeper", tmp_path)
    yield process
    process.stop()


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def says(process: Process) -> Callable[[], bool]:
    return lambda: process.log.read_text().endswith("\n")


def is_gone(pid: int) -> bool:
    """Returns whether a process has ended. A process that is still a zombie counts as ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_another_command_recognises_the_process(process: Process, tmp_path: Path) -> None:
    process.start(SLEEP, {}, "one", 4566)
    again = Process("sleeper", tmp_path)
    assert again.pid() == process.pid() is not None
    assert again.port() == 4566
    assert again.runs("one")
    assert not again.runs("another command, environment or code")


def test_a_process_id_that_was_reused_is_never_signalled(process: Process, tmp_path: Path) -> None:
    stranger = subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL)
    try:
        record = {"pid": str(stranger.pid), "started": "long ago", "fingerprint": "one", "port": "4566"}
        (tmp_path / "sleeper.json").write_text(json.dumps(record))
        assert process.pid() is None
        assert not process.runs("one")
        assert process.stop() is False
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("record", ["", "{", "{}"])
def test_a_record_that_was_cut_off_counts_as_no_process(process: Process, tmp_path: Path, record: str) -> None:
    (tmp_path / "sleeper.json").write_text(record)
    assert process.pid() is None


def test_stop_ends_a_stubborn_process_and_its_children(process: Process) -> None:
    process.start(STUBBORN, {}, "one", 4566)
    process.wait(says(process))
    pid, child = process.pid(), int(process.log.read_text())
    assert pid
    assert process.stop(seconds=0.1) is True
    assert process.pid() is None
    deadline = time.monotonic() + 10
    while not (is_gone(pid) and is_gone(child)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_that_ends_or_is_never_ready_shows_the_end_of_its_log(process: Process) -> None:
    process.start([sys.executable, "-c", "raise SystemExit('no such table')"], {}, "one", 4566)
    with pytest.raises(StackError, match=r"sleeper ended while starting(.|\n)*no such table"):
        process.wait(lambda: False)
    process.start(SLEEP, {}, "one", 4566)
    process.wait(says(process))
    with pytest.raises(StackError, match=r"sleeper is not ready after 0 s(.|\n)*up"):
        process.wait(lambda: False, seconds=0)


def test_a_process_sees_only_the_environment_that_it_is_given(process: Process) -> None:
    process.start(["/usr/bin/env"], {"ONE": "1"}, "one", 4566)
    with pytest.raises(StackError):
        process.wait(lambda: False)
    assert process.log.read_text() == "ONE=1\n"


def test_a_second_command_says_that_it_waits_and_then_runs(tmp_path: Path) -> None:
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with exclusive_lock(tmp_path / "lock", waits.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with exclusive_lock(tmp_path / "lock", lambda: order.append("nobody else is here")):
        thread.start()
        assert waits.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_if_a_port_is_in_use_nothing_is_started_and_its_variable_is_named(tmp_path: Path, used_port: int) -> None:
    with pytest.raises(StackError, match=f"port {used_port} is in use: set CAFE_AWS_PORT to another"):
        require_free_port(used_port, "CAFE_AWS_PORT")
    stack = Stack(tmp_path, api_port=used_port, aws_port=used_port + 1, db_port=used_port + 2)
    with pytest.raises(StackError, match="set CAFE_API_PORT to another"):
        stack.start()
    assert not any(process.pid() for process in stack.processes.values())
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_stack_without_its_settings_says_which_one_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"CAFE_AWS_PORT=8000, CAFE_DB_PORT=33306[)]: set three different ports"):
        Stack(tmp_path, api_port=8000, aws_port=8000, db_port=33306).start()
    with pytest.raises(StackError, match=r"CAFE_DB_ADMIN_USER is not\. To use an existing MySQL server, set"):
        ExternalServer.read({"CAFE_DB_HOST": "db.example.com"})
    with pytest.raises(StackError, match="run `make run`"):
        Stack(tmp_path).variables()


def test_the_ports_come_from_the_variables_or_are_the_defaults() -> None:
    stack = Stack.read({"CAFE_AWS_PORT": "14566", "CAFE_API_PORT": ""})
    assert (stack.api_port, stack.aws_port, stack.db_port) == (8000, 14566, 33306)
    for value in ("0", "65536", "http", "-1", "80 80"):
        with pytest.raises(StackError, match=f"CAFE_DB_PORT is {value}: set it to a port number"):
            Stack.read({"CAFE_DB_PORT": value})


def test_passwords_are_random_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    one, other = (Database(tmp_path / name, 33306) for name in ("one", "other"))
    one.create_passwords()
    other.create_passwords()
    before = one.variables
    one.create_passwords()
    assert one.variables == before
    assert one.variables["DB_PASSWORD"] != other.variables["DB_PASSWORD"] != one.variables["DB_ADMIN_PASSWORD"]
    assert stat.S_IMODE((tmp_path / "one" / "passwords.json").stat().st_mode) == 0o600


def sourced(stack: Stack, script: str, *shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``script`` in a shell that has sourced the stack's ``env`` file."""
    command = [*shell, "-euc", f'. "$1"; {script}', "sh", str(stack.folder / "env")]
    variables = {"PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(command, env=variables, cwd=stack.folder, capture_output=True, text=True, check=True)


def write_environment(stack: Stack, outputs: dict[str, str]) -> None:
    stack.project.mkdir(parents=True)
    stack.database.create_passwords()
    (stack.project / "dev.outputs.json").write_text(json.dumps(outputs))
    stack._write_environment()


def test_the_file_to_source_has_every_value_unchanged(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "it's a folder")
    outputs = {"API_ROLE_ARN": "arn", "ODD": 'it\'s $HOME, `date` and "more"\\'}
    write_environment(stack, outputs)
    script = 'printf "%s\\n" "$ODD" "$CAFE_STAGE" "${AWS_PROFILE-unset}"; command -v chalice'
    printed = sourced(stack, script, "/bin/sh", AWS_PROFILE="mine").stdout.splitlines()
    assert printed == [outputs["ODD"], "dev", "unset", str(stack.folder / "bin" / "chalice")]
    assert stat.S_IMODE((stack.folder / "env").stat().st_mode) == 0o600


@pytest.mark.parametrize("shell", ["/bin/sh", "bash"])
def test_without_a_stack_the_sourced_file_sets_all_but_the_token(tmp_path: Path, shell: str) -> None:
    stack = Stack(tmp_path)
    [port] = free_ports(1)
    stack.users.write(f"http://127.0.0.1:{port}", "client", {"manager": "secret"})
    write_environment(stack, {})
    given = {"CAFE_TOKEN": "an old one", "http_proxy": "http://127.0.0.1:1"}
    done = sourced(stack, 'echo "$CAFE_STAGE ${CAFE_TOKEN-unset}"', shell, **given)
    assert done.stdout == "dev unset\n"
    [line] = done.stderr.splitlines()
    assert line.startswith(f"cafe-token: cannot sign in at http://127.0.0.1:{port}")
    assert line.endswith("start the stack with `make run`")


@pytest.fixture
def signed_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Fakes the sign-in, and returns a list of its calls. The tokens are numbered from 1 and valid for a minute."""
    asked: list[tuple[str, ...]] = []

    def sign_in(*arguments: str) -> tuple[str, float]:
        asked.append(arguments)
        return f"token-{len(asked)}", time.monotonic() + 60

    monkeypatch.setattr("local.users._sign_in", sign_in)
    return asked


def test_a_token_is_renewed_when_it_expires(
    tmp_path: Path, signed_in: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    users = Users(tmp_path / "users.json")
    users.write("http://cloud", "client", {"manager": "secret", "staff": "other"})
    for _ in range(2):
        assert (users.token(), users.token("staff")) == ("token-1", "token-2")
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert users.token() == "token-3"
    # The user gets a new token for a new stack.
    users.write("http://cloud", "another", {"manager": "new"})
    assert users.token() == "token-4"
    assert signed_in == [
        ("http://cloud", "client", "manager", "secret"),
        ("http://cloud", "client", "staff", "other"),
        ("http://cloud", "client", "manager", "secret"),
        ("http://cloud", "another", "manager", "new"),
    ]


def test_only_known_people_sign_in_after_the_first_run(tmp_path: Path) -> None:
    users = Users(tmp_path / "users.json")
    assert users.passwords == {}
    with pytest.raises(StackError, match="run `make run`"):
        users.token()
    users.write("http://cloud", "client", {"manager": "secret", "staff": "other"})
    with pytest.raises(StackError, match="ana is not a user of the local stack: use manager or staff"):
        users.token("ana")
    assert stat.S_IMODE(users.file.stat().st_mode) == 0o600


def test_dead_letters_of_another_stage_need_its_token(
    tmp_path: Path, signed_in: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack(tmp_path)
    stack.users.write("http://cloud", "client", {"manager": "secret"})
    monkeypatch.setenv("CAFE_TOKEN", "theirs")
    seen = []
    monkeypatch.setattr("local.api.fetch", lambda url, token: seen.append((url, token)) or b"{}")
    for url in ("", stack.api_url, "https://x1.execute-api.eu-central-1.amazonaws.com/api/"):
        monkeypatch.setenv("CAFE_API_URL", url)
        api(stack, None).get("/dead-letters")
    assert seen == [
        *[(f"{stack.api_url}/dead-letters", "token-1")] * 2,
        ("https://x1.execute-api.eu-central-1.amazonaws.com/api/dead-letters", "theirs"),
    ]
    monkeypatch.delenv("CAFE_TOKEN")
    with pytest.raises(StackError, match=r"https://x1.* needs a token: set CAFE_TOKEN to"):
        api(stack, None)


def test_the_dead_letters_of_a_stage_are_never_those_of_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack(tmp_path)
    monkeypatch.setattr("local.api.fetch", lambda url, **_: b'{"stage": "prod"}')
    monkeypatch.delenv("CAFE_API_URL", raising=False)
    with pytest.raises(
        StackError, match="prod is not the local stage: set CAFE_API_URL to the URL of its API, and CAFE_TOKEN"
    ):
        api(stack, "prod")
    monkeypatch.setenv("CAFE_API_URL", "https://x1.execute-api.eu-central-1.amazonaws.com/api")
    monkeypatch.setenv("CAFE_TOKEN", "theirs")
    with pytest.raises(
        StackError, match="CAFE_API_URL belongs to the stage prod: set CAFE_API_URL to the URL of the API of test"
    ):
        api(stack, "test")
    assert api(stack, "prod").get("/dead-letters") == {"stage": "prod"}


class Pages:
    """Fakes the API. Each list of dead letters is the next of ``pages``, and the last one is repeated."""

    def __init__(self, *pages: dict[str, Any]) -> None:
        self.pages, self.sent = list(pages), []

    def get(self, _: str) -> dict[str, Any]:
        return self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]

    def post(self, path: str, body: Any) -> dict[str, Any]:
        self.sent.append((path, body))
        return {"redriven": 2, "discarded": 1, "kept": [], "left": 0}


WAITING = {**dict.fromkeys(("since", "why"), "s"), "kind": "order", "tries": 1, "content": "two\nlines"}
DEAD = [{"id": each, "letter": each, "what": f"order {each}", **WAITING} for each in "ab"]


def became(*states: str) -> list[dict[str, Any]]:
    return [{**each, "at": "now", "state": state} for each, state in zip(DEAD, states, strict=False)]


@pytest.mark.parametrize(
    ("states", "last", "is_done"),
    [
        (("DONE", "DONE"), ["  done: order b"], True),
        (("FAILED_AGAIN", "DONE"), ["  failed again: order a: again"], False),
        (
            ("ON_ITS_WAY", "ON_ITS_WAY"),
            ["  still on its way: order b", "  `make dead-letters` shows what becomes"],
            True,
        ),
    ],
)
def test_a_redrive_says_what_became_of_each_letter_until_ctrl_c(
    states: tuple[str, str], last: list[str], is_done: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(time, "sleep", Mock(side_effect=[None, KeyboardInterrupt]))
    # The first letter's orders fail again, each with an id of its own.
    again = [{**DEAD[0], "letter": "a-5", "why": "again"}]
    pages = Pages(
        {"deadLetters": DEAD, "handled": [], "total": 2},
        {"deadLetters": [], "handled": became("ON_ITS_WAY", states[1]), "total": 0},
        {"deadLetters": again, "handled": became(*states), "total": 1},
    )
    assert letters.redrive(cast(Any, pages)) is is_done
    printed = capsys.readouterr().out.splitlines()
    assert [any(each.startswith(line) for each in printed) for line in last] == [True] * len(last)


@pytest.mark.parametrize(("answer", "sent"), [("yes", [("/dead-letters/discard", {"ids": ["b"]})]), ("", [])])
def test_a_discard_shows_the_content_and_asks(
    answer: str, sent: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: answer)
    pages = Pages({"deadLetters": DEAD, "handled": None, "total": 2})
    assert letters.discard(cast(Any, pages), identifier="b") is bool(sent)
    assert "order: order b\n  s\n    two\n    lines\n" in capsys.readouterr().out
    assert pages.sent == sent


def test_a_fingerprint_changes_with_any_source_but_not_with_compiled_files(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("1")
    before = fingerprint(tmp_path, "command")
    (tmp_path / "one.pyc").write_text("compiled")
    assert fingerprint(tmp_path, "command") == before
    (tmp_path / "one.py").write_text("2")
    assert fingerprint(tmp_path, "command") != before


def test_settings_of_the_shell_do_not_reach_the_local_cloud() -> None:
    shell = {"AWS_PROFILE": "gone", "AWS_ENDPOINT_URL": "https://elsewhere", "HOME": "/h", "http_proxy": "http://proxy"}
    keep_to_this_machine(shell)
    assert shell.pop("no_proxy") == shell.pop("NO_PROXY") == "127.0.0.1,localhost"
    assert shell == {"HOME": "/h", "http_proxy": "http://proxy"}


def test_a_new_package_reuses_unchanged_files_and_their_compiled_files_but_not_an_edited_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edited file keeps its size, and both packages are unpacked within the same second."""
    runtime: Any = ModuleType("ministack.core.lambda_runtime")
    for name, module in {
        "ministack": ModuleType("m"),
        "ministack.core": SimpleNamespace(lambda_runtime=runtime),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    monkeypatch.setenv("CODE_DIR", str(tmp_path / "code"))
    shared_code()

    def values(value: int) -> str:
        with zipfile.ZipFile(tmp_path / f"{value}.zip", "w") as package:
            package.writestr("edited.py", f"VALUE = {value}")
            package.writestr("package/same.py", "VALUE = 0")
        (folder := tmp_path / f"function-{value}").mkdir()
        with runtime.zipfile.ZipFile(tmp_path / f"{value}.zip") as package:
            package.extractall(folder)
        program = "import edited, package.same as same; print(edited.VALUE, same.VALUE, same.__spec__.cached)"
        # The environment is empty, because the tests' own does not let Python write compiled files.
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=folder, env={}, capture_output=True, text=True, check=True)
        *found, compiled = done.stdout.split()
        inodes.append(tuple(Path(folder, each).stat().st_ino for each in (compiled, "package/same.py", "edited.py")))
        return " ".join(found)

    inodes: list[tuple[int, ...]] = []
    assert [values(1), values(2)] == ["1 0", "2 0"]
    (compiled, same, edited), later = inodes
    assert later[:2] == (compiled, same)
    assert later[2] != edited


def test_without_a_secret_path_no_page_of_a_trace_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAFE_TRACE_PATH", raising=False)
    handler: Any = Mock(path="/None")
    Handler.do_GET(handler)
    handler._generic_handle.assert_called_once_with()


def test_the_policy_judges_a_new_password_in_either_field(monkeypatch: pytest.MonkeyPatch) -> None:
    cognito = SimpleNamespace(
        _pool_for_client=lambda _: ({"Name": "pool"}, "id"),
        _validate_password=lambda _, password: f"{password} is refused",
        **dict.fromkeys(("_respond_to_auth_challenge", "_admin_respond_to_auth_challenge"), lambda _: "accepted"),
    )
    for name, module in {"ministack": ModuleType("m"), "ministack.services": SimpleNamespace(cognito=cognito)}.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    password_policy()
    for field in ("NEW_PASSWORD", "PASSWORD"):
        assert cognito._respond_to_auth_challenge({"ChallengeResponses": {field: "weak"}}) == "weak is refused"
