"""Provides the command and the AWS profile for ``chalice local``, the server of the REST API on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

# This folder contains the programs of the virtual environment.
PROGRAMS = Path(sys.executable).parent
CHALICE = PROGRAMS / "chalice"

ROLE_SESSION_SECONDS = 12 * 3_600


def command(project: Path, port: int, stage: str) -> list[str]:
    """Returns the command that serves the project's ``stage`` on ``port``."""
    return [
        *(str(CHALICE), "--project-dir", str(project), "local", "--no-autoreload"),
        *("--host", "127.0.0.1", "--port", str(port), "--stage", stage),
    ]


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
