"""``python -m local``: the commands behind ``make run`` and those that look after what it started."""

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
    from local.demo import Api


def run(stack: Stack) -> None:
    began = time.monotonic()
    print("The café back office, on this machine")
    known = stack.users.passwords
    variables = stack.start()
    print(f"  {'up and deployed':<40} {time.monotonic() - began:5.1f} s\n")

    from local import demo

    made = stack.users.passwords
    if made == known:
        sign_in = f"as {' or as '.join(made)}; `make status` says where the passwords are"
    else:
        sign_in = " or ".join(f"as {name} with {password}" for name, password in made.items()) + " (shown this once)"
    demo.main(variables, stack.users.token, sign_in)


def stop(stack: Stack) -> None:
    stack.stop()


def status(stack: Stack) -> None:
    for name, process in stack.processes.items():
        where = f"up    127.0.0.1:{process.port()}  process {process.pid()}  log {process.log}"
        print(f"  {name:<10} {where if process.pid() else 'down'}")
    if stack.db_server:
        print(f"  {'MySQL':<10} {stack.db_server.host}:{stack.db_server.port}, by CAFE_DB_HOST")
    if stack.api.pid():
        print(f"  {'console':<10} http://127.0.0.1:{stack.api.port()}/")
    if stack.users.passwords:
        print(f"  {'users':<10} {' and '.join(stack.users.passwords)}, with the passwords in {stack.users.file}")


def env(stack: Stack) -> None:
    stack.variables()  # says what to do where there is none
    print(stack.folder / "env")


def dead_letters(stack: Stack) -> None:
    from local import letters

    letters.show(api(stack))


def redrive(stack: Stack) -> None:
    from local import letters

    if not letters.redrive(api(stack)):
        sys.exit(1)


def api(stack: Stack) -> Api:
    """Of this stack, or of the stage whose address CAFE_API_URL has, for which CAFE_TOKEN has a manager's token."""
    from local.demo import Api

    url = (os.environ.get("CAFE_API_URL") or stack.api_url).rstrip("/")
    if url == stack.api_url:
        return Api(url, stack.users.token)
    token = os.environ.get("CAFE_TOKEN")
    if not token:
        raise StackError(f"CAFE_TOKEN is not set: it must be the token of a manager of {url}")
    return Api(url, lambda: token)


def user(stack: Stack, name: str, group: str) -> None:
    """Of this stack; ``python -m infra.users`` makes those of others."""
    from infra import users

    if problem := users.validation_error(name, group):
        raise StackError(problem)
    pool_id = stack.variables()["USER_POOL_ID"]
    print(users.result_message(name, group, users.make(stack.cloud.client("cognito-idp"), pool_id, name, group)))


def keep_to_this_machine(environment: MutableMapping[str, str]) -> None:
    """Takes out what the shell has set for AWS itself, and leads no call to 127.0.0.1 over a proxy."""
    for name in [name for name in environment if name.startswith("AWS_")]:
        del environment[name]
    environment.update(NO_PROXY)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local", description="The whole system on this machine.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, work, about in (
        ("run", run, "bring everything up, deploy, and do the main job once"),
        ("stop", stop, "end what run has started"),
        ("status", status, "say what is up, and where"),
        ("env", env, "print the path of the file to source"),
        ("dead-letters", dead_letters, "list what failed for good"),
        ("redrive", redrive, "put what failed for good back to where it came from"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(work=work)
    follow = commands.add_parser("logs", help="follow the logs of the functions and of the API")
    follow.add_argument("--once", action="store_true", help="print what is there, and end")
    follow.set_defaults(work=lambda stack: logs.follow(stack, once=arguments.once))
    about = "follow an order, a report, an upload or a request through the logs"
    follow_one = commands.add_parser("trace", help=about, description=about)
    follow_one.add_argument("id", help="an order's, a report's or a request's id, or an upload's key")
    follow_one.set_defaults(work=lambda stack: sys.exit(not logs.trace(stack, arguments.id)))
    about = "make a person who may sign in"
    person = commands.add_parser("user", help=about, description=about)
    for name in ("name", "group"):
        person.add_argument(name)
    person.set_defaults(work=lambda stack: user(stack, arguments.name, arguments.group))
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
