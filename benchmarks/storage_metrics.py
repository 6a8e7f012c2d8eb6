"""Measures the time and the number of calls needed to read the sizes of all buckets from CloudWatch metrics.

The peer calls GetMetricStatistics once per bucket. The local cloud lists all metrics on one page, but CloudWatch has
pages of 500. `tests/unit/test_storage.py` counts the calls for 10,000 buckets with pages of 500 metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.cloud import empty_cloud
from benchmarks.compare import compare
from benchmarks.results import Result
from benchmarks.total_size import total_bytes
from chalicelib import clients
from chalicelib.storage import figures

BUCKETS = 1_000
PEER = "GetMetricStatistics for each bucket"
DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def run() -> Iterator[Result]:
    with empty_cloud():
        _fill()
        yield compare(f"total size by metrics, {BUCKETS:,} buckets", _ours, PEER, _each, 1.0, rounds=5)
        ours, peers = _count_calls(_ours), _count_calls(_each)
        # Three calls list the buckets, the directory buckets and the metrics. Each further call reads many metrics.
        goal = peers / (3 + BUCKETS / figures.METRICS_PER_CALL)
        work = f"total size by metrics, {BUCKETS:,} buckets, calls"
        yield Result(work, f"{ours:,}", PEER, f"{peers:,}", peers / ours, goal)


def _fill() -> None:
    s3, cloudwatch = clients.aws("s3"), clients.aws("cloudwatch")
    names = [f"bench-{number:05}" for number in range(BUCKETS)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: s3.create_bucket(Bucket=name), names))
    for start in range(0, BUCKETS, 500):
        figures = [
            {
                "MetricName": "BucketSizeBytes",
                "Dimensions": _dimensions(name),
                "Timestamp": DAY,
                "Value": 1_000 + start,
                "Unit": "Bytes",
            }
            for name in names[start : start + 500]
        ]
        cloudwatch.put_metric_data(Namespace="AWS/S3", MetricData=figures)


def _dimensions(bucket: str) -> list[dict[str, str]]:
    return [{"Name": "BucketName", "Value": bucket}, {"Name": "StorageType", "Value": "StandardStorage"}]


def _ours() -> int:
    return total_bytes("metrics")


def _each() -> int:
    total = 0
    for bucket in clients.aws("s3").list_buckets()["Buckets"]:
        points = clients.aws("cloudwatch").get_metric_statistics(
            Namespace="AWS/S3",
            MetricName="BucketSizeBytes",
            Dimensions=_dimensions(bucket["Name"]),
            StartTime=DAY - timedelta(days=2),
            EndTime=DAY + timedelta(days=1),
            Period=86_400,
            Statistics=["Average"],
        )["Datapoints"]
        total += int(max(points, key=lambda point: point["Timestamp"])["Average"])
    return total


def _count_calls(work: Callable[[], int]) -> int:
    """Returns how many AWS calls the function ``work`` makes."""
    calls: list[str] = []

    def count(model: Any, **_: Any) -> None:
        calls.append(model.name)

    # The measured code uses clients without a region, and clients for the region of the buckets.
    used_clients = [
        clients.aws(*name) for name in (("s3",), ("s3", "us-east-1"), ("cloudwatch",), ("cloudwatch", "us-east-1"))
    ]
    for client in used_clients:
        client.meta.events.register("before-call", count, unique_id="count")
    work()
    for client in used_clients:
        client.meta.events.unregister("before-call", count, unique_id="count")
    return len(calls)
