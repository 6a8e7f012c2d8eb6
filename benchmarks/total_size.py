"""Prints the total size of all buckets in bytes, with the listing code of `measure_buckets`."""

import atexit
import gc
from datetime import UTC, datetime

from chalicelib import clients
from chalicelib.settings import GARBAGE_THRESHOLD
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
    gc.set_threshold(GARBAGE_THRESHOLD)
    # At exit, Python searches for reference cycles, but a function's process does not exit. Frozen objects are skipped.
    atexit.register(gc.freeze)
    print(total_bytes("listing"))
