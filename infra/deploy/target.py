"""Describes the stage to deploy and the names of its resources."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoRegionError

from infra.deploy.mysql_location import MysqlLocation

REPOSITORY = Path(__file__).resolve().parents[2]

Say = Callable[[str], None]
# Returns a boto3 client for a service's name. An optional second argument is the read timeout in seconds.
Clients = Callable[..., Any]


class DeployError(Exception):
    """A failure that stops a deploy. The message gives the reason and says what to do next."""


FAILURES = (DeployError, BotoCoreError, ClientError)


@dataclass(frozen=True)
class Target:
    """The stage to deploy, and the settings given on the command line and in the environment.

    ``parameters`` are template parameters. ``origins`` are additional web origins that can serve the console's page.
    """

    stage: str
    project: Path
    local: bool
    parameters: Mapping[str, str]
    database: MysqlLocation | None
    origins: tuple[str, ...] = ()

    def stack(self, part: str) -> str:
        """Returns the name of one of the stage's CloudFormation stacks."""
        return f"cafe-{self.stage}-{part}"

    def function(self, name: str) -> str:
        """Returns a function's name on AWS. All REST routes share the function ``api_handler``."""
        return f"cafe-{self.stage}" if name == "api_handler" else f"cafe-{self.stage}-{name}"

    def function_of(self, deployed: str) -> str:
        """Returns a function's name in ``app.py`` from its name on AWS."""
        return deployed.removeprefix(f"cafe-{self.stage}").removeprefix("-") or "api_handler"


def shown(value: Any) -> str:
    """Formats a setting's value for a message."""
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value)


def cached_clients() -> Clients:
    """Returns a function like ``client`` that makes each client only once. Several threads may call it."""
    lock, cached = Lock(), cache(client)

    def clients(service: str, seconds: int = 60) -> Any:
        # boto3's default session is not thread-safe.
        with lock:
            return cached(service, seconds)

    return clients


def client(service: str, seconds: int = 60) -> Any:
    """Returns a boto3 client. Long calls are not retried, because the first call may still be running."""
    # This import is here because most commands of ``local`` make no client.
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard"} if seconds == 60 else {"total_max_attempts": 1}
    config = Config(connect_timeout=5, read_timeout=seconds, retries=retries, tcp_keepalive=True)  # type: ignore[arg-type]
    try:
        return boto3.client(service, config=config)  # type: ignore[call-overload]
    except NoRegionError:
        raise DeployError("there is no region: set AWS_DEFAULT_REGION, or set `region` in the AWS profile") from None
