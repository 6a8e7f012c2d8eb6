"""Serves the REST API on this machine like ``chalice local``, together with the pages of ``local/trace_pages.py``.

``python -m local.chalice_local`` is the server. This module also provides its command and its AWS profile.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

# This folder contains the programs of the virtual environment.
PROGRAMS = Path(sys.executable).parent
CHALICE = PROGRAMS / "chalice"

ROLE_SESSION_SECONDS = 12 * 3_600


def command(project: Path, port: int, stage: str) -> list[str]:
    """Returns the command that serves the project's ``stage`` on ``port``."""
    return [sys.executable, "-m", "local.chalice_local", str(project), str(port), stage]


def main(project: str, port: str, stage: str) -> None:
    from chalice.cli.factory import CLIFactory
    from chalice.local import create_local_server

    from local.trace_pages import Handler

    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    # As on AWS, the code must not be able to import other packages of the checkout, such as `infra`.
    sys.path[:] = [each for each in sys.path if each != os.environ["PYTHONPATH"]]
    os.chdir(project)
    config = CLIFactory(project, environ=os.environ).create_config_obj(stage)
    server = create_local_server(config.chalice_app, config, "127.0.0.1", int(port))
    server.server.RequestHandlerClass = partial(Handler, app_object=config.chalice_app, config=config)
    server.serve_forever()


def profiles(role_arn: str, credentials: Iterable[tuple[str, str]]) -> str:
    """Returns an AWS configuration file whose profile ``api`` assumes ``role_arn``.

    The role gives the local API the same permissions as on AWS. botocore renews the role session automatically.
    """
    keys = "\n".join(f"{name.lower()} = {value}" for name, value in credentials)
    return (
        f"[profile local]\n{keys}\n\n"
        f"[profile api]\nrole_arn = {role_arn}\nsource_profile = local\n"
        f"role_session_name = chalice-local\nduration_seconds = {ROLE_SESSION_SECONDS}\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
