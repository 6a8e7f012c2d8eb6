"""Implements the command ``python -m local``, which starts, inspects, uses and stops the local stack."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
import time
from collections.abc import MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from infra import arguments as types
from infra.functions import NAMES
from infra.trace import HTML_HELP
from local import logs
from local.processes import NO_PROXY, StackError
from local.stack import Stack
from local.steps import say

if TYPE_CHECKING:
    from local.api import Api

DEBUG_PORT = 5678


def run(stack: Stack) -> None:
    began = time.monotonic()
    print("The café back office, on this machine")
    earlier_passwords = stack.users.passwords
    with ThreadPoolExecutor(1) as pool:

        def say_and_import(line: str) -> None:
            say(line)
            # Only the first import takes time, and the start waits for other processes during that time.
            pool.submit(import_module, "local.demo")

        variables = stack.start(say_and_import)
    print(f"  {'up and deployed':<40} {time.monotonic() - began:5.1f} s\n")

    from local import demo

    passwords = stack.users.passwords
    if passwords == earlier_passwords:
        sign_in = f"as {' or as '.join(passwords)}; `make status` shows which file contains the passwords"
    else:
        sign_in = " or ".join(f"as {name} with {word}" for name, word in passwords.items()) + " (shown this once)"
    demo.main(variables, stack.users.token, sign_in)


def stop(stack: Stack) -> None:
    stack.stop()


def status(stack: Stack) -> None:
    for name, process in stack.processes.items():
        details = f"up    127.0.0.1:{process.port()}  process {process.pid()}  log {process.log}"
        print(f"  {name:<10} {details if process.pid() else 'down'}")
    if stack.external_server:
        print(f"  {'MySQL':<10} {stack.external_server.host}:{stack.external_server.port}, from CAFE_DB_HOST")
    if stack.api.pid():
        print(f"  {'console':<10} http://127.0.0.1:{stack.api.port()}/")
    if stack.users.passwords:
        print(f"  {'users':<10} {' and '.join(stack.users.passwords)}, with their passwords in {stack.users.file}")


def env(stack: Stack) -> None:
    stack.variables()  # If nothing is deployed, variables() raises an error that names the command to run.
    print(stack.env_file)


def dead_letters(api: Api, arguments: argparse.Namespace) -> None:
    from local import letters

    if arguments.command == "dead-letters":
        letters.show(api)
        return
    chosen = arguments.kind, arguments.id
    is_done = (
        letters.redrive(api, *chosen)
        if arguments.command == "redrive"
        else letters.discard(api, *chosen, yes=arguments.yes)
    )
    sys.exit(not is_done)


def kind(text: str) -> str:
    from local import letters

    return letters.kind(text)


def api(stack: Stack, stage: str | None) -> Api:
    """Returns a client for the local stack's API. If CAFE_API_URL is set, uses that URL and the manager's token in
    CAFE_TOKEN.

    Raises ``StackError`` if the API at CAFE_API_URL does not belong to ``stage``.
    """
    from local.api import Api

    url = (os.environ.get("CAFE_API_URL") or stack.api_url).rstrip("/")
    token = os.environ.get("CAFE_TOKEN")
    if url == stack.api_url:
        if stage not in (None, stack.stage):
            raise StackError(
                f"{stage} is not the local stage: set CAFE_API_URL to the URL of its API, "
                "and CAFE_TOKEN to a manager's token"
            )
        return Api(url, stack.users.token)
    if not token:
        raise StackError(f"{url} needs a token: set CAFE_TOKEN to a manager's token")
    api = Api(url, lambda: token)
    if stage and (found := api.get("/health")["stage"]) != stage:
        raise StackError(
            f"CAFE_API_URL belongs to the stage {found}: set CAFE_API_URL to the URL of the API of {stage}"
        )
    return api


def user(stack: Stack, given: argparse.Namespace) -> None:
    """Creates or changes a user in the local stack. For a stage on AWS, use ``python -m infra.users``."""
    from infra import users
    from infra.deploy.target import FAILURES

    if problem := users.validation_error(given.name, given.group, given.actions):
        raise StackError(problem)
    if given.name in stack.users.passwords and given.actions:
        raise StackError(f"`make run` signs in as {given.name}: only other users can be changed")
    try:
        print(users.run(stack.cloud.client("cognito-idp"), stack.variables(), given))
    except FAILURES as error:
        raise StackError(str(error)) from None


def show_logs(stack: Stack, shown: logs.Filter, once: bool) -> None:
    # Pressing Ctrl-C is the normal way to stop following the logs.
    with suppress(KeyboardInterrupt):
        logs.follow(stack, shown, once=once)


def dev(stack: Stack, function: str | None, port: int) -> None:
    # This import is here because only `make dev` installs the requirements of the module.
    from local import dev

    dev.run(stack, function, port)


def keep_to_this_machine(environment: MutableMapping[str, str]) -> None:
    """Removes all AWS variables from ``environment``, and excludes 127.0.0.1 from proxies."""
    for name in [name for name in environment if name.startswith("AWS_")]:
        del environment[name]
    environment.update(NO_PROXY)


def main(given: list[str] | None = None) -> None:
    parser = types.Parser(prog="python -m local", description="Runs the whole system on this machine.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, work, about in (
        ("run", run, "start everything, deploy, and run the main job once"),
        ("stop", stop, "stop everything that `run` started"),
        ("status", status, "show what is running, and where"),
        ("env", env, "print the path of the environment file to `source`"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(work=work)
    for name, about in (
        ("dead-letters", "list the dead letters, and what became of those that were put back or discarded"),
        ("redrive", "send the dead letters back for processing, and wait a minute for the results"),
        ("discard", "remove dead letters after a confirmation, and keep a copy for 30 days"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument(
            "stage", metavar="STAGE", nargs="?", type=types.stage, help="the stage to use instead of the local stack"
        )
        if name != "dead-letters":
            command.add_argument("--kind", metavar="KIND", type=kind, help="only dead letters of this kind")
            command.add_argument("--id", metavar="ID", help="only the dead letter with this id")
        if name == "discard":
            command.add_argument("--yes", action="store_true", help="discard without a confirmation")
        command.set_defaults(command=name, work=lambda stack: dead_letters(api(stack, arguments.stage), arguments))
    about = "run saved edits immediately, and show the logs"
    dev_command = commands.add_parser("dev", help=about, description=about)
    dev_command.add_argument(
        "--debug", metavar="FUNCTION", choices=NAMES, help="let a debugger attach to this function"
    )
    dev_command.add_argument("--port", type=int, default=DEBUG_PORT, help=f"the debugger's port: {DEBUG_PORT}")
    dev_command.set_defaults(work=lambda stack: dev(stack, arguments.debug, arguments.port))
    about = "follow the logs of the functions and the API"
    logs_command = commands.add_parser("logs", help=about, description=about)
    logs_command.add_argument("--once", action="store_true", help="print the existing log lines and exit")
    logs_command.add_argument(
        "--function",
        choices=("API", *NAMES),
        metavar="FUNCTION",
        help="show only log lines of this function or of the API",
    )
    logs_command.add_argument("--id", help="show only log lines about this order, report, upload or request")
    logs_command.add_argument(
        "--since", type=types.since, help="how far to look back in the logs, such as 15m, 2h or 7d"
    )
    logs_command.set_defaults(
        work=lambda stack: show_logs(
            stack, logs.Filter(arguments.function, arguments.id, arguments.since), arguments.once
        )
    )
    about = "follow an order, a report, an upload or a request through the logs"
    trace_command = commands.add_parser("trace", help=about, description=about)
    trace_command.add_argument("id", help="the id of an order, report or request, or the key of an upload")
    trace_command.add_argument(
        "since", metavar="SINCE", nargs="?", type=types.since, help="how far to look back in the logs, such as 15m"
    )
    trace_command.add_argument("--html", metavar="FILE", type=Path, help=HTML_HELP)
    trace_command.set_defaults(
        work=lambda stack: sys.exit(not logs.trace(stack, arguments.id, arguments.since, arguments.html))
    )
    about = "create a user who can sign in, or disable, enable or remove a user"
    user_command = commands.add_parser("user", help=about, description=about)
    types.add_user(user_command)
    user_command.set_defaults(work=lambda stack: user(stack, arguments))
    arguments: argparse.Namespace = parser.parse_args(given)
    keep_to_this_machine(os.environ)
    try:
        arguments.work(Stack.read())
    except StackError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    # At exit, Python searches for reference cycles, which takes 0.1 s. The search skips frozen objects.
    atexit.register(gc.freeze)
    main()
