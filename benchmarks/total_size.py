"""Prints the total size of all buckets in bytes, with the listing code of `measure_buckets`."""

import atexit
import gc
from datetime import UTC, datetime

from chalicelib import clients
from chalicelib.storage import measure


def total_bytes(mode: str) -> int:
    return measure.measure_buckets(
        mode,
        False,
        s3=clients.aws("s3"),
        s3_in=lambda region: clients.aws("s3", region),
        cloudwatch_in=lambda region: clients.aws("cloudwatch", region),
        deadline=lambda: 900,
        now=datetime.now(UTC),
    ).total_bytes


if __name__ == "__main__":
    # The functions have the same threshold, in app.py.
    gc.set_threshold(200_000)
    # Otherwise, Python searches all objects for cycles at exit. A function's process does not exit.
    atexit.register(gc.freeze)
    print(total_bytes("listing"))
