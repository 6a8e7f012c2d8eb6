"""An empty MiniStack of the benchmark's own, so that a running stack is neither disturbed nor measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from chalicelib import clients
from local.cloud import CREDENTIALS, REGION, Cloud
from local.processes import free_ports


@contextmanager
def empty_cloud() -> Iterator[None]:
    """The environment's AWS is that MiniStack, until the end of the block."""
    [port] = free_ports(1)
    with TemporaryDirectory() as folder:
        cloud = Cloud(Path(folder), port)
        if not cloud.installed:
            cloud.install()
        clients.aws.cache_clear()
        before = dict(os.environ)
        os.environ |= CREDENTIALS | {"AWS_ENDPOINT_URL": cloud.endpoint, "AWS_DEFAULT_REGION": REGION}
        try:
            cloud.start()
            yield
        finally:
            cloud.stop()
            os.environ.clear()
            os.environ.update(before)
            # They lead to a cloud that is gone.
            clients.aws.cache_clear()
