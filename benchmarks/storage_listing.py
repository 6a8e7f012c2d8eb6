"""The total size of all buckets by listing, against boto3's paginator over one bucket after the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

import boto3

from benchmarks.cloud import empty_cloud
from benchmarks.compare import Row, compare
from chalicelib import clients, storage

PEER = "boto3 paginator"


def run() -> list[Row]:
    with empty_cloud():
        # Made once, as ours are: a client takes longer to make than a page to read.
        paginator = partial(_paginator, boto3.client("s3"))
        _fill("large", 10_000)
        rows = [compare("10,000 objects in one bucket", _ours, PEER, paginator, 4.0)]
        for number in range(10):
            _fill(f"small-{number}", 500)
        return [*rows, compare("15,000 objects in 11 buckets", _ours, PEER, paginator, 4.0)]


def _fill(bucket: str, objects: int) -> None:
    s3 = clients.aws("s3")
    s3.create_bucket(Bucket=bucket)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: s3.put_object(Bucket=bucket, Key=f"{number:06}", Body=b"x"), range(objects)))


def _ours() -> int:
    return storage.measure_buckets(
        "listing",
        s3=clients.aws("s3"),
        s3_in=lambda region: clients.aws("s3", region),
        cloudwatch_in=lambda region: clients.aws("cloudwatch", region),
        deadline=lambda: 900,
        now=datetime.now(UTC),
    ).total_bytes


def _paginator(s3: Any) -> int:
    total: int = sum(
        found["Size"]
        for bucket in s3.list_buckets()["Buckets"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"])
        for found in page.get("Contents", [])
    )
    return total
