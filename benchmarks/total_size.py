"""Prints the total size of all buckets in bytes, with the listing code of `measure_buckets`."""

from datetime import UTC, datetime

from chalicelib import clients
from chalicelib.storage import measure

measurement = measure.measure_buckets(
    "listing",
    s3=clients.aws("s3"),
    s3_in=lambda region: clients.aws("s3", region),
    cloudwatch_in=lambda region: clients.aws("cloudwatch", region),
    deadline=lambda: 900,
    now=datetime.now(UTC),
)
print(measurement.total_bytes)
