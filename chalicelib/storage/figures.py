"""Reads the sizes of all buckets in a region from CloudWatch's daily figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib.storage.measurement import Tally

# CloudWatch's daily figures arrive up to two days late, and some days may be missing.
LOOK_BACK = timedelta(days=4)
# GetMetricData accepts at most this many metrics per call.
METRICS_PER_CALL = 500

# A _Metric contains a bucket name and a CloudWatch metric of that bucket.
_Metric = tuple[str, dict[str, Any]]


def read_figures(tallies: list[Tally], cloudwatch: Any, now: datetime, in_time: Callable[[], bool]) -> None:
    """Reads the newest size of each bucket in a region. The size is the sum for all storage types of the bucket.

    If a bucket no longer uses a storage type, CloudWatch still returns the last figure for that type. Old figures must
    not be added to newer figures, so the sum includes only the most recent day of each bucket.
    """
    by_name = {tally.name: tally for tally in tallies}
    metrics = _size_metrics(cloudwatch, by_name)
    sizes: dict[str, dict[datetime, int]] = defaultdict(lambda: defaultdict(int))
    is_complete = True
    for start in range(0, len(metrics), METRICS_PER_CALL):
        if not in_time():
            is_complete = False
            break
        for name, status, points in _points(cloudwatch, metrics[start : start + METRICS_PER_CALL], now):
            if status != "Complete":
                by_name[name].error = f"CloudWatch returned no figure: {status}"
            for moment, value in points:
                sizes[name][moment.astimezone(UTC)] += int(value)
    for tally in tallies:
        if tally.name in sizes:
            # The newest figure is found by its date, because some endpoints do not return it first.
            tally.as_of, size = max(sizes[tally.name].items())
            tally.counted = size, None
        elif is_complete and not tally.error:
            tally.counted = 0, None
        if is_complete:
            tally.left = {}


def _size_metrics(cloudwatch: Any, names: Iterable[str]) -> list[_Metric]:
    """Returns the CloudWatch metric for each storage type of each bucket in ``names``.

    Other buckets are ignored, because CloudWatch also lists deleted buckets.
    """
    metrics: dict[tuple[str, str], _Metric] = {}
    pages = cloudwatch.get_paginator("list_metrics").paginate(Namespace="AWS/S3", MetricName="BucketSizeBytes")
    for page in pages:
        for metric in page["Metrics"]:
            dimensions = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
            if dimensions.keys() == {"BucketName", "StorageType"} and dimensions["BucketName"] in names:
                metrics[dimensions["BucketName"], dimensions["StorageType"]] = (dimensions["BucketName"], metric)
    return list(metrics.values())


def _points(
    cloudwatch: Any, metrics: list[_Metric], now: datetime
) -> Iterator[tuple[str, str, list[tuple[datetime, float]]]]:
    """Yields each metric's bucket, status and figures from the last few days."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    pages = cloudwatch.get_paginator("get_metric_data").paginate(
        MetricDataQueries=[
            {"Id": f"m{index}", "MetricStat": {"Metric": metric, "Period": 86_400, "Stat": "Average"}}
            for index, (_, metric) in enumerate(metrics)
        ],
        StartTime=midnight - LOOK_BACK,
        EndTime=midnight + timedelta(days=1),
    )
    # The figures of one metric may be spread over several pages. Only the status on a metric's last page is valid.
    statuses: dict[str, str] = {}
    points: dict[str, list[tuple[datetime, float]]] = defaultdict(list)
    for page in pages:
        for result in page["MetricDataResults"]:
            statuses[result["Id"]] = result["StatusCode"]
            points[result["Id"]] += zip(result["Timestamps"], result["Values"], strict=True)
    for index, (name, _) in enumerate(metrics):
        yield name, statuses[f"m{index}"], points[f"m{index}"]
