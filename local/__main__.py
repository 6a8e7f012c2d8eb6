"""``python -m local``: starts, inspects, uses and stops the stack on this machine."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import MutableMapping
from typing import TYPE_CHECKING

from local import logs
from local.processes import NO_PROXY, StackError
from local.stack import Stack

if TYPE_CHECKING:
    from local.api import Api


def run(stack: Stack) -> None:
    began = time.monotonic()
    print("The café back office, on this machine")
    earlier_passwords = stack.users.passwords
    variables = stack.start()
    print(f"  {'up and deployed':<40} {time.monotonic() - began:5.1f} s\n")

    from local import demo

    passwords = stack.users.passwords
    if passwords == earlier_passwords:
        sign_in = f"as {' or as '.join(passwords)}; `make status` names the file with the passwords"
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
    stack.variables()  # raises an error that names the command to run if nothing is deployed yet
    print(stack.env_file)


def dead_letters(stack: Stack) -> None:
    from local import letters

    letters.show(api(stack))


def redrive(stack: Stack) -> None:
    from local import letters

    if not letters.redrive(api(stack)):
        sys.exit(1)


def api(stack: Stack) -> Api:
    """Returns a client for this stack's API, or for the API at CAFE_API_URL with the token in CAFE_TOKEN."""
    from local.api import Api

    url = (os.environ.get("CAFE_API_URL") or stack.api_url).rstrip("/")
    if url == stack.api_url:
        return Api(url, stack.users.token)
    token = os.environ.get("CAFE_TOKEN")
    if not token:
        raise StackError(f"CAFE_TOKEN is not set: set it to a manager's token for {url}")
    return Api(url, lambda: token)


def user(stack: Stack, name: str, group: str) -> None:
    """Creates a user in this stack. For a stage on AWS, use ``python -m infra.users``."""
    from infra import users

    if problem := users.validation_error(name, group):
        raise StackError(problem)
    pool_id = stack.variables()["USER_POOL_ID"]
    print(users.result_message(name, group, users.make(stack.cloud.client("cognito-idp"), pool_id, name, group)))


def keep_to_this_machine(environment: MutableMapping[str, str]) -> None:
    """Removes the shell's AWS variables, and makes requests to 127.0.0.1 bypass proxies."""
    for name in [name for name in environment if name.startswith("AWS_")]:
        del environment[name]
    environment.update(NO_PROXY)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local", description="The whole system on this machine.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, work, about in (
        ("run", run, "start everything, deploy, and do the main job once"),
        ("stop", stop, "stop everything that run started"),
        ("status", status, "show what is running, and where"),
        ("env", env, "print the path of the stack's environment file, for `source`"),
        ("dead-letters", dead_letters, "list the dead letters"),
        ("redrive", redrive, "send the dead letters back to be processed again"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(work=work)
    logs_command = commands.add_parser("logs", help="follow the logs of the functions and of the API")
    logs_command.add_argument("--once", action="store_true", help="print the existing lines and exit")
    logs_command.set_defaults(work=lambda stack: logs.follow(stack, once=arguments.once))
    about = "follow an order, a report, an upload or a request through the logs"
    trace_command = commands.add_parser("trace", help=about, description=about)
    trace_command.add_argument("id", help="the id of an order, a report or a request, or the key of an upload")
    trace_command.set_defaults(work=lambda stack: sys.exit(not logs.trace(stack, arguments.id)))
    about = "create a user who can sign in"
    user_command = commands.add_parser("user", help=about, description=about)
    for name in ("name", "group"):
        user_command.add_argument(name)
    user_command.set_defaults(work=lambda stack: user(stack, arguments.name, arguments.group))
    arguments: argparse.Namespace = parser.parse_args()
    keep_to_this_machine(os.environ)
    try:
        arguments.work(Stack.read())
    except StackError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
