"""``python -m local``: the commands behind ``make run``, ``make stop``, ``make status`` and ``make logs``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import MutableMapping

from local import logs
from local.processes import NO_PROXY, StackError
from local.stack import Stack


def run(stack: Stack) -> None:
    began = time.monotonic()
    print("The café back office, on this machine")
    variables = stack.start()
    print(f"  {'up and deployed':<40} {time.monotonic() - began:5.1f} s\n")

    from local import demo

    demo.main(variables)


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


def env(stack: Stack) -> None:
    stack.variables()  # says what to do where there is none
    print(stack.folder / "env")


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
    ):
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(work=work)
    follow = commands.add_parser("logs", help="follow the logs of the functions and of the API")
    follow.add_argument("--once", action="store_true", help="print what is there, and end")
    follow.set_defaults(work=None)
    arguments = parser.parse_args()
    keep_to_this_machine(os.environ)
    try:
        stack = Stack.read()
        if arguments.work:
            arguments.work(stack)
        else:
            logs.follow(stack, once=arguments.once)
    except StackError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
