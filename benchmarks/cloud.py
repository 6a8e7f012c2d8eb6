"""Starts separate stacks for the benchmarks, with MiniStack alone or with the whole system."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3

from chalicelib import clients
from local.cloud import CREDENTIALS, REGION, Cloud
from local.processes import free_ports
from local.stack import Stack


@contextmanager
def empty_cloud() -> Iterator[None]:
    """Starts an empty MiniStack, and selects it as ``selected`` does."""
    [port] = free_ports(1)
    with TemporaryDirectory() as folder:
        cloud = Cloud(Path(folder), port)
        if not cloud.installed:
            cloud.install()
        with selected(cloud.endpoint):
            try:
                cloud.start()
                yield
            finally:
                cloud.stop()


@contextmanager
def selected(endpoint: str) -> Iterator[None]:
    """Points this process's AWS clients to ``endpoint`` with environment variables, inside the ``with`` block."""
    clients.aws.cache_clear()
    environment = dict(os.environ)
    os.environ |= CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": REGION}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        # Cached clients would otherwise call a server that has been stopped.
        clients.aws.cache_clear()


@contextmanager
def whole_stack() -> Iterator[tuple[Stack, dict[str, str]]]:
    """Deploys the system as ``make run`` does, and yields the stack and its environment variables."""
    with TemporaryDirectory() as folder:
        api_port, aws_port, db_port = free_ports(3)
        stack = Stack(Path(folder), api_port=api_port, aws_port=aws_port, db_port=db_port)
        try:
            yield stack, stack.start(lambda _: None)
        finally:
            stack.stop(lambda _: None)


def client(env: Mapping[str, str], service: str) -> Any:
    """Returns a boto3 client with all permissions for the stack that ``env`` describes."""
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=env["AWS_ENDPOINT_URL"],
        region_name=env["AWS_DEFAULT_REGION"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
    )
