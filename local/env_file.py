"""Writes ``.local/env``, which sets environment variables and provides the commands ``chalice`` and ``cafe-token``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from infra.files import write_private
from local.chalice_local import PROGRAMS
from local.processes import NO_PROXY

ROOT = Path(__file__).parent.parent


def write(file: Path, variables: Mapping[str, str], ports: tuple[int, int], users_file: Path) -> None:
    """Writes the environment file, and the commands in the folder ``bin`` next to the file.

    The command ``chalice`` uses the stack in the same folder. ``ports`` contains the ports of the local API and
    MiniStack. The command ``cafe-token`` reads ``users_file``.
    """
    programs = file.parent / "bin"
    programs.mkdir(exist_ok=True)
    for name, command in {
        "chalice": " ".join(["local.chalice_command", _quoted(file.parent), *map(str, ports)]),
        "cafe-token": f"local.users {_quoted(users_file)}",
    }.items():
        wrapper = programs / name
        # Compiled Python files would otherwise be included in the deployment package.
        lines = ["#!/bin/sh", "export PYTHONDONTWRITEBYTECODE=1"]
        lines += [f"export PYTHONPATH={_quoted(ROOT)}"]
        wrapper.write_text("\n".join([*lines, f'exec {_quoted(sys.executable)} -P -m {command} "$@"']) + "\n")
        wrapper.chmod(0o755)
    lines = [f"export {name}={_quoted(value)}" for name, value in variables.items()]
    lines += [f'export {name}="{hosts}${{{name}:+,${name}}}"' for name, hosts in NO_PROXY.items()]
    lines += [
        # An AWS profile or session token from the shell would not match the exported access key.
        "unset AWS_PROFILE AWS_SESSION_TOKEN",
        f'export PATH={_quoted(programs)}:{_quoted(PROGRAMS)}:"$PATH"',
        # If the command cafe-token fails, all other variables are still set.
        "if CAFE_TOKEN=$(cafe-token); then export CAFE_TOKEN; else unset CAFE_TOKEN; fi",
    ]
    write_private(file, "\n".join(lines) + "\n")


def _quoted(value: object) -> str:
    """Returns the value quoted as a single word for any shell."""
    return "'" + str(value).replace("'", "'\\''") + "'"
