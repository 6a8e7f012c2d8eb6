"""Tests the commands that start, inspect, repair and stop the local stack."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

import local.__main__ as command
from infra import users
from local import logs
from local.database import Database
from local.processes import Process, StackError, free_ports
from local.stack import Stack
from tests.system import people
from tests.system.people import sign_in
from tests.system.stack import copied
from tests.system.system import ROOT, System, stored, wait_for

ALWAYS = {
    *("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    *("CAFE_API_URL", "CAFE_STAGE", "CAFE_TOKEN"),
    *("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD", "DB_ADMIN_USER", "DB_ADMIN_PASSWORD"),
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Starts a stack whose processes tests may kill and must restart. The last test stops the stack."""
    stack = copied(tmp_path_factory.mktemp("stacks") / "a folder with spaces", wired=False)
    try:
        stack.resume()
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def main(stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Returns a function that runs ``python -m local`` on this stack and returns the output."""

    def main(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["python -m local", *arguments])
        monkeypatch.setattr(Stack, "read", lambda: stack)
        # The real function would change environment variables that other tests in this process use.
        monkeypatch.setattr(command, "keep_to_this_machine", lambda _: None)
        command.main()
        return capsys.readouterr().out

    return main


def pids(stack: Stack) -> dict[str, int | None]:
    return {name: process.pid() for name, process in stack.processes.items()}


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def kill(process: Process) -> None:
    """Kills a process without its children, as a crash would."""
    pid, port = process.pid(), process.port()
    assert pid
    assert port
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: process.pid() is None and is_free(port), f"the end of {process.name}")


def works(stack: Stack) -> bool:
    """Returns whether an order is stored and an inventory report succeeds."""
    system = System(stack, stack.variables())
    order_id = system.post("/orders", {"customerID": "c", "item": "Mocha"})["orderID"]
    return bool(stored(system, order_id)) and system.report()["status"] == "SUCCEEDED"


def family(stack: Stack) -> list[psutil.Process]:
    """Returns all processes in the process sessions of the stack, including descendants."""
    leaders, found = set(pids(stack).values()), []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) in leaders:
                found.append(process)
    return found


def alive(processes: list[psutil.Process]) -> set[int | None]:
    """Returns the ids of the running processes. A dead orphan is a zombie until the init process reaps it."""
    found = set[int | None]()
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            if each.status() != psutil.STATUS_ZOMBIE:
                found.add(each.pid)
    return found


def sourced(stack: Stack, folder: Path, **shell: str) -> dict[str, str]:
    """Sources the stack's ``env`` file with bash in ``folder``. Returns bash's environment variables."""
    printed = subprocess.run(
        ["bash", "-euc", 'source "$0"; env -0', str(stack.folder / "env")],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **shell},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return dict(line.split("=", 1) for line in printed.split("\0") if line)


def exported(environment: Mapping[str, str]) -> set[str]:
    return set(environment) - {"PATH", "PWD", "OLDPWD", "SHLVL", "_"}


# --- a running stack


def test_a_new_stack_works(stack: Stack) -> None:
    assert works(stack)


def test_all_processes_listen_only_on_this_machine(stack: Stack) -> None:
    # An earlier test ran the flows, so the processes include workers of the functions.
    processes = family(stack)
    assert len(processes) > len(stack.processes)

    found = {
        each.laddr
        for process in processes
        for each in process.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    }
    assert {port for _, port in found} >= {stack.api_port, stack.aws_port, stack.db_port}
    assert {address for address, _ in found} == {"127.0.0.1"}


def test_the_file_to_source_sets_exactly_the_documented_variables_from_any_folder(stack: Stack, tmp_path: Path) -> None:
    found = sourced(stack, tmp_path, AWS_PROFILE="mine", AWS_SESSION_TOKEN="mine", no_proxy="mine")

    # Requests to this machine must bypass the shell's HTTP proxy.
    assert (found.pop("no_proxy"), found.pop("NO_PROXY")) == ("127.0.0.1,localhost,mine", "127.0.0.1,localhost")

    outputs = json.loads((stack.project / "dev.outputs.json").read_text())
    assert exported(found) == ALWAYS | set(outputs)
    assert set(outputs) >= {
        *("UPLOADS_BUCKET", "REPORTS_BUCKET", "ORDERS_QUEUE_URL", "ORDERS_TABLE", "NOTIFICATIONS_TABLE", "TOPIC_ARN"),
        *("INVENTORY_REPORT_ARN", "STORAGE_REPORT_ARN", "ORDERS_DEAD_LETTER_URL"),
    }
    token = found.pop("CAFE_TOKEN")
    assert {name: found[name] for name in exported(found)} == stack.variables()
    assert found["DB_USER"] != found["DB_ADMIN_USER"]
    # The token belongs to a manager and changes each time a shell sources the file.
    asked = System(stack, stack.variables()).sent_by(None)
    assert asked.request("GET", "/reports", Authorization=token).status == 200
    assert sourced(stack, tmp_path)["CAFE_TOKEN"] != token


def test_status_and_logs_use_the_running_stack_even_if_the_shell_sets_other_ports(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = replace(stack, api_port=1, aws_port=2, db_port=3)
    command.status(asked)
    logs.follow(asked, logs.Filter(function="store_orders"), once=True)
    printed = capsys.readouterr().out
    assert f"http://127.0.0.1:{stack.api_port}/\n" in printed
    assert "  store_orders  " in printed


def test_no_file_that_others_can_read_contains_a_password(stack: Stack) -> None:
    secrets = [stack.variables()[name].encode() for name in ("DB_PASSWORD", "DB_ADMIN_PASSWORD")]
    secrets += [password.encode() for password in stack.users.passwords.values()]
    files = [
        file
        for file in stack.folder.rglob("*")
        if file.is_file() and stack.database.folder / "data" not in file.parents
    ]
    private = [file for file in files if any(secret in file.read_bytes() for secret in secrets)]

    assert {stack.folder / "env", stack.users.file} <= set(private)
    assert [file for file in private if stat.S_IMODE(file.stat().st_mode) & 0o077] == []


def test_status_shows_what_is_running_and_env_names_the_file_to_source(stack: Stack, main: Any) -> None:
    printed = main("status")

    ports = {"API": stack.api_port, "MiniStack": stack.aws_port, "MariaDB": stack.db_port}
    for name, pid in pids(stack).items():
        assert re.search(rf"^ +{name} +up +127\.0\.0\.1:{ports[name]} +process {pid} +log /", printed, re.M)
    assert f"http://127.0.0.1:{stack.api_port}/" in printed
    assert f"manager and staff, with their passwords in {stack.users.file}" in printed
    assert main("env") == f"{stack.folder / 'env'}\n"


def test_an_added_person_must_choose_a_password_at_the_first_sign_in(stack: Stack, main: Any) -> None:
    [password] = re.findall(r"^    (\S+)$", main("user", "ana", "staff"), re.MULTILINE)
    system = System(stack, stack.variables())
    answer = sign_in(system.aws("cognito-idp"), system.env["USER_POOL_CLIENT_ID"], "ana", password)
    assert answer["ChallengeName"] == "NEW_PASSWORD_REQUIRED"
    with pytest.raises(SystemExit, match='GROUP must be staff or managers, not "boss"'):
        main("user", "ana", "boss")


def test_a_disabled_or_removed_person_can_neither_sign_in_nor_get_new_tokens(stack: Stack, main: Any) -> None:
    env = stack.variables()
    cognito, page = System(stack, env).aws("cognito-idp"), env["USER_POOL_CLIENT_ID"]
    refused = cognito.exceptions.NotAuthorizedException
    password = people.add(cognito, env["USER_POOL_ID"], "ben", "managers")

    def refresh_token() -> str:
        return str(sign_in(cognito, page, "ben", password)["AuthenticationResult"]["RefreshToken"])

    def refresh(token: str) -> None:
        cognito.initiate_auth(ClientId=page, AuthFlow="REFRESH_TOKEN_AUTH", AuthParameters={"REFRESH_TOKEN": token})

    token = refresh_token()
    refresh(token)
    assert "ben can no longer sign in. The API accepts" in main("user", "--disable", "--", "ben", "")
    with pytest.raises(refused, match="User is disabled"):
        refresh_token()
    main("user", "--enable", "--", "ben", "")
    # Only a new sign-in gives tokens.
    with pytest.raises(refused):
        refresh(token)
    token = refresh_token()
    assert "ben was removed" in main("user", "--remove", "--", "ben", "")
    for work in (refresh_token, lambda: refresh(token)):
        with pytest.raises(refused):
            work()
    with pytest.raises(SystemExit, match="error: there is no user ben: check NAME"):
        main("user", "--remove", "--", "ben", "")
    with pytest.raises(SystemExit, match="error: `make run` signs in as manager: only other users can be changed"):
        main("user", "--disable", "--", "manager", "")


def test_the_user_pool_enforces_the_password_policy(stack: Stack) -> None:
    env = stack.variables()
    cognito, page = System(stack, env).aws("cognito-idp"), env["USER_POOL_CLIENT_ID"]
    made = users.make(cognito, env["USER_POOL_ID"], "cleo", "staff")
    session = sign_in(cognito, page, "cleo", str(made.password))["Session"]
    for password, reason in {
        "short": "Password not long enough",
        "lower-case-123": "Password must have uppercase characters",
        "No-digit-at-all": "Password must have numeric characters",
    }.items():
        with pytest.raises(cognito.exceptions.InvalidPasswordException, match=f"conform with policy: {reason}$"):
            people.choose(cognito, page, session, "cleo", password)
    # The policy requires no symbol.
    assert "AuthenticationResult" in people.choose(cognito, page, session, "cleo", "LongEnough123")


# --- starting an existing stack


def test_a_second_start_keeps_all_processes_and_data(stack: Stack) -> None:
    before, variables = pids(stack), stack.variables()
    system = System(stack, variables)
    system.upload("any/kept.txt", b"x")

    passwords = stack.users.passwords

    assert stack.start() == variables

    assert pids(stack) == before
    assert stack.users.passwords == passwords
    assert system.aws("s3").head_object(Bucket=variables["UPLOADS_BUCKET"], Key="any/kept.txt")


def test_a_port_in_use_is_reported_with_its_variable_and_running_processes_continue(stack: Stack) -> None:
    before = pids(stack)
    with socket.create_server(("127.0.0.1", 0)) as server:
        [other] = free_ports(1)
        moved = Stack(stack.folder, api_port=other, aws_port=server.getsockname()[1], db_port=stack.db_port)
        with pytest.raises(StackError, match="is in use: set CAFE_AWS_PORT to another"):
            moved.start()

    assert pids(stack) == before


def test_a_dead_api_is_restarted_and_a_process_that_reuses_its_id_survives(stack: Stack) -> None:
    before = pids(stack)
    kill(stack.api)
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        try:
            record = stack.api.folder / "api.json"
            record.write_text(json.dumps({**json.loads(record.read_text()), "pid": str(stranger.pid)}))

            stack.start()

            assert stranger.poll() is None
        finally:
            stranger.kill()
    after = pids(stack)
    assert after["API"] not in (None, before["API"], stranger.pid)
    assert after == {**before, "API": after["API"]}
    assert works(stack)


@pytest.mark.long
def test_an_interrupted_start_is_repaired_by_the_next(stack: Stack) -> None:
    before = pids(stack)
    script = (
        "import sys; from pathlib import Path; from local.stack import Stack; api, aws, db = map(int, sys.argv[2:]);"
        "Stack(Path(sys.argv[1]), api_port=api, aws_port=aws, db_port=db).start()"
    )
    # If MiniStack is not running, the next start deploys everything again. The test interrupts that deploy.
    kill(stack.cloud.process)
    arguments = [str(each) for each in (stack.folder, stack.api_port, stack.aws_port, stack.db_port)]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, text=True
    ) as start:
        assert start.stdout
        try:
            assert any("deploying" in line for line in start.stdout)
        finally:
            os.killpg(start.pid, signal.SIGKILL)
    half = stack.cloud.process.pid()
    assert half not in (None, before["MiniStack"])

    variables = stack.start()

    # The repair replaced the incomplete MiniStack, so no resource exists twice.
    assert stack.cloud.process.pid() not in (None, half)
    assert len(System(stack, variables).aws("apigateway").get_rest_apis()["items"]) == 1
    assert works(stack)


@pytest.mark.parametrize("part", ["MiniStack", "MariaDB"])
def test_a_start_without_ministack_or_mariadb_deploys_everything_again(
    stack: Stack, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This test replaces the slow deploy with a stub. After this test, the stack is empty."""
    before, processes = pids(stack), family(stack)
    kill(stack.processes[part])
    deployed = []
    for step in ("_create_users", "_write_environment", "_start_api", "variables"):
        monkeypatch.setattr(Stack, step, lambda *_: None)
    monkeypatch.setattr(Database, "seed", lambda _: None)
    monkeypatch.setattr(Stack, "_deploy", lambda self, _: deployed.append(pids(self)))

    stack.start()

    after = pids(stack)
    assert deployed == [after]
    assert after["MiniStack"] not in (None, before["MiniStack"])
    assert (after["MariaDB"] == before["MariaDB"]) == (part == "MiniStack")
    kept = {after["API"], after["MariaDB"]}
    wait_for(lambda: alive(processes) <= kept, "the old MiniStack's workers to end")


# --- stopping


def test_stop_ends_all_processes_and_frees_the_ports(stack: Stack, main: Any) -> None:
    processes = family(stack)

    assert main("stop") == "  stopped: API, MiniStack, MariaDB\n"

    wait_for(lambda: not alive(processes), "the end of every process")
    # A zombie process can hold its sockets for a moment, because its other threads are still ending.
    wait_for(lambda: all(map(is_free, (stack.api_port, stack.aws_port, stack.db_port))), "free ports")
    assert pids(stack) == {"API": None, "MiniStack": None, "MariaDB": None}
    assert not (stack.folder / "env").exists()
    assert not stack.users.file.exists()
    assert main("stop") == "  nothing was running\n"
    assert main("status").count(" down\n") == 3
    for arguments in (["logs", "--once"], ["env"]):
        with pytest.raises(SystemExit, match="run `make run`"):
            main(*arguments)
