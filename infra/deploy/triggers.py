"""Describes the triggers of an app: its routes, event sources and authorizers.

If an edit does not change the triggers, ``infra/deploy/code.py`` deploys the edit without Chalice.
"""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chalice.app import Chalice

from infra.deploy.target import REPOSITORY, DeployError


def read(project: Path, variables: Mapping[str, str]) -> str:
    """Imports the project's code in a separate process, and returns a description of the triggers.

    ``variables`` are the environment variables of every function.
    """
    # With -P, modules in the current folder cannot hide the project's.
    command = [sys.executable, "-P", "-m", __name__]
    path = os.pathsep.join(map(str, (project, REPOSITORY)))
    environment = {**os.environ, **variables, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeployError(f"app.py cannot be imported:\n{done.stderr.strip()}")
    return done.stdout


def describe(app: Chalice) -> str:
    """Returns a description of the app's routes, event sources and authorizers."""
    routes = [entry for methods in app.routes.values() for entry in methods.values()]
    handlers = (*app.event_sources, *app.builtin_auth_handlers, *app.pure_lambda_functions)
    return repr([app.api.binary_types, *map(_plain, (*routes, *handlers))])


def _plain(value: Any) -> Any:
    """Converts a Chalice object to a dictionary of its attributes, and a function to its name."""
    if inspect.isroutine(value):
        return value.__name__
    if hasattr(value, "__dict__"):
        return {name: _plain(each) for name, each in sorted(vars(value).items())}
    return sorted(value) if isinstance(value, set) else value


if __name__ == "__main__":
    print(describe(importlib.import_module("app").app), end="")
