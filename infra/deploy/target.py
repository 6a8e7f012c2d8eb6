"""Where to deploy to, and the names of what is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from infra.deploy.place import Place

REPOSITORY = Path(__file__).resolve().parents[2]
# A database's name has no hyphen at its end, and no two in a row.
STAGE = re.compile(r"(?!.*(--|-$))[a-z][a-z0-9-]{0,19}")

Say = Callable[[str], None]
# A service's name, and for how many seconds it may be silent if not for 60 -> its client.
Clients = Callable[..., Any]


class DeployError(Exception):
    """The deploy stopped; the message says at what, and what to do."""


@dataclass(frozen=True)
class Target:
    """Where to deploy to, and with what. ``parameters`` are those of the resources template that a user may set, and
    ``origins`` has the console's page beside the API's own."""

    stage: str
    project: Path
    local: bool
    parameters: Mapping[str, str]
    database: Place | None
    origins: tuple[str, ...] = ()

    def stack(self, part: str) -> str:
        """The name of one of the stage's CloudFormation stacks."""
        return f"cafe-{self.stage}-{part}"

    def function(self, name: str) -> str:
        """The deployed name of the Chalice function ``name``; all REST routes share ``api_handler``."""
        return f"cafe-{self.stage}" if name == "api_handler" else f"cafe-{self.stage}-{name}"

    def function_of(self, deployed: str) -> str:
        """The Chalice function of a deployed name that is this stage's."""
        return deployed.removeprefix(f"cafe-{self.stage}").removeprefix("-") or "api_handler"


def client(service: str, seconds: int = 60) -> Any:
    """A call that may take longer than usual is made once: for all that is known, the first one is still under way."""
    retries = {"mode": "standard"} if seconds == 60 else {"total_max_attempts": 1}
    config = Config(connect_timeout=5, read_timeout=seconds, retries=retries, tcp_keepalive=True)  # type: ignore[arg-type]
    return boto3.client(service, config=config)  # type: ignore[call-overload]
