"""The storage report: the total size of all the account's buckets, exact by listing or fast by daily metrics.

Both ways are many small pieces of work (a bucket each, or a region each), done at once until the time is nearly up.
What cannot be measured is named with its reason, and never silently left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import humanize
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.errors import InvalidRequest, StorageRefused, Unavailable, may_pass
from chalicelib.logs import logger
from chalicelib.notifications import counted
from chalicelib.reports import MODES, report_key
from chalicelib.timeline import timestamp

# Listing waits for S3 far more than it works; the clients keep 32 connections.
WORKERS = 16
# What rendering and storing the page may take, after the measuring has been stopped.
RESERVE_SECONDS = 30
BUCKETS_PER_PAGE = 1_000
# The daily figures come up to two days late, and a day may be missing.
LOOK_BACK = timedelta(days=4)
# As many as one GetMetricData call takes.
METRICS_PER_CALL = 500
# A summary travels through the state machine, so it stays far below its 256 KB.
SUMMARY_BUCKETS = 100
SUMMARY_ERRORS = 100
ERROR_CHARACTERS = 300
NOTICE_LINES = 10
# The names of executions, without the slash, which would make folders of them.
REPORT_ID = re.compile(r"[!-.0-~]{1,80}")
LAST_MODIFIED = re.compile(rb"<LastModified>[^<]*</LastModified>")
TEMPLATES = Path(__file__).parent / "reports" / "templates"

log = logger("storage")

InRegion = Callable[[str], Any]
InTime = Callable[[], bool]


@dataclass(frozen=True)
class Bucket:
    """``objects`` is None in metrics mode. ``as_of`` is None where CloudWatch has no figure, which counts as 0."""

    name: str
    bytes: int
    objects: int | None
    as_of: datetime | None


@dataclass(frozen=True)
class Failure:
    """Why a bucket is not measured, or not to its end."""

    bucket: str
    error: str


@dataclass(frozen=True)
class Measurement:
    """All that is known: ``buckets``, largest first, and ``errors`` by name.

    ``partial`` says that the time ran out: what had been counted of an unfinished bucket by then is in ``buckets``,
    and the bucket is in ``errors`` too.
    """

    mode: str
    buckets: list[Bucket]
    errors: list[Failure]
    partial: bool

    @cached_property
    def total_bytes(self) -> int:
        return sum(bucket.bytes for bucket in self.buckets)

    @cached_property
    def total_objects(self) -> int | None:
        """None in metrics mode."""
        return None if self.mode == "metrics" else sum(bucket.objects or 0 for bucket in self.buckets)

    @cached_property
    def as_of(self) -> datetime | None:
        """The oldest figure's time: nothing in the total is older. None where there is no figure at all."""
        return min((bucket.as_of for bucket in self.buckets if bucket.as_of), default=None)

    @cached_property
    def without_figure(self) -> int:
        """How many buckets CloudWatch knows nothing of: they are empty, or younger than two days."""
        return sum(bucket.as_of is None for bucket in self.buckets)

    @cached_property
    def total(self) -> str:
        """``Total size of all buckets: 114.2 GB``."""
        least = "at least " if self.partial else ""
        return f"Total size of all buckets: {least}{humanize.naturalsize(self.total_bytes)}"

    @cached_property
    def sentence(self) -> str:
        """``total``, and what has to be known beside it."""
        text = self.total
        if self.mode == "metrics" and self.as_of:
            text += f" (CloudWatch's daily figures as of {self.as_of:%Y-%m-%d})"
        if self.without_figure:
            text += f"; {counted(self.without_figure, 'bucket')} without a figure, empty or new, counted as 0"
        if self.partial:
            text += f"; the time ran out, {counted(len(self.errors), 'bucket')} not fully measured"
        elif self.errors:
            text += f"; {counted(len(self.errors), 'bucket')} could not be read"
        return text


@dataclass
class _Tally:
    """What is known of one bucket so far. Only the thread that measures it writes to it."""

    name: str
    region: str | None
    counted: tuple[int, int | None] | None = None
    as_of: datetime | None = None
    error: str | None = None
    done: bool = False


# A bucket's name with one of its metrics, and a piece of work with the buckets that fail with it.
_Metric = tuple[str, dict[str, Any]]
_Work = tuple[Callable[[], None], list[_Tally]]


def report(
    payload: dict[str, Any],
    *,
    s3: Any,
    s3_in: InRegion,
    cloudwatch_in: InRegion,
    deadline: Callable[[], float],
    bucket: str,
    now: datetime,
) -> dict[str, Any]:
    """Measures all buckets, stores the page in ``bucket``, and gives ``{reportId, reportKey, summary, notice}``.

    ``payload`` is ``{}`` or has ``reportId`` and ``mode``. ``notice`` is what the state machine publishes. Raises
    ``InvalidRequest``, and what ``measure_buckets`` raises.
    """
    report_id, mode = _parse(payload)
    measurement = measure_buckets(mode, s3=s3, s3_in=s3_in, cloudwatch_in=cloudwatch_in, deadline=deadline, now=now)
    log.info(
        "buckets measured",
        extra={
            "reportId": report_id,
            "mode": mode,
            "buckets": len(measurement.buckets),
            "errors": len(measurement.errors),
            "bytes": measurement.total_bytes,
            "partial": measurement.partial,
        },
    )
    key = report_key("storage", report_id)
    try:
        s3.put_object(
            Bucket=bucket,
            Key=key,
            Body=render(measurement, report_id).encode(),
            ContentType="text/html; charset=utf-8",
        )
    except (ClientError, BotoCoreError) as error:
        raise _translated(error, f"the page cannot be stored in {bucket}") from error
    return {
        "reportId": report_id,
        "reportKey": key,
        "summary": summary(measurement),
        "notice": _notice(measurement, report_id),
    }


def measure_buckets(
    mode: str,
    *,
    s3: Any,
    s3_in: InRegion,
    cloudwatch_in: InRegion,
    deadline: Callable[[], float],
    now: datetime,
) -> Measurement:
    """The size of every bucket of the account, as far as ``deadline`` (the seconds left) allows.

    ``listing`` adds up the current objects of each bucket, and is exact; the clients that ``s3_in`` makes are kept
    for that, for they stop reading dates. ``metrics`` reads what CloudWatch has measured once a day, which counts old
    versions and unfinished uploads too. Raises ``StorageRefused`` where the buckets may not even be listed, and
    ``Unavailable`` where that fails for now.
    """

    def in_time() -> bool:
        return deadline() > RESERVE_SECONDS

    tallies = _find(s3)
    # Only S3 look-alikes leave out the region of a bucket.
    homeless = [tally for tally in tallies if tally.region is None]
    _at_once(((partial(_locate, tally, s3), [tally]) for tally in homeless), deadline, in_time)
    by_region: dict[str, list[_Tally]] = defaultdict(list)
    for tally in tallies:
        if tally.region:
            by_region[tally.region].append(tally)
    if mode == "metrics":
        work: list[_Work] = [
            (partial(_read_metrics, found, cloudwatch_in(region), now, in_time), found)
            for region, found in by_region.items()
        ]
    else:
        clients = {region: _for_sizes(s3_in(region)) for region in by_region}
        work = [
            (partial(_list, tally, clients[region], now, in_time), [tally])
            for region, found in by_region.items()
            for tally in found
        ]
    _at_once(work, deadline, in_time)
    # Copies, for a call that hangs may still come back and write.
    return _measurement(mode, [copy(tally) for tally in tallies])


def summary(measurement: Measurement) -> dict[str, Any]:
    """The report's summary as the REST API shows it: the 100 largest buckets and the first 100 errors."""
    return {
        "message": measurement.sentence,
        "totalBytes": measurement.total_bytes,
        "totalObjects": measurement.total_objects,
        "bucketCount": len(measurement.buckets),
        "buckets": [
            {"name": bucket.name, "bytes": bucket.bytes, "objects": bucket.objects}
            for bucket in measurement.buckets[:SUMMARY_BUCKETS]
        ],
        "errorCount": len(measurement.errors),
        "errors": [
            {"bucket": failure.bucket, "error": failure.error} for failure in measurement.errors[:SUMMARY_ERRORS]
        ],
        "bucketsWithoutFigure": measurement.without_figure,
        "mode": measurement.mode,
        "asOf": timestamp(measurement.as_of) if measurement.as_of else None,
        "partial": measurement.partial,
    }


def render(measurement: Measurement, report_id: str) -> str:
    """The whole list as one HTML page that needs nothing else."""
    # Imported here: of all functions only this one pays for it.
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["size"] = humanize.naturalsize
    environment.filters["number"] = "{:,}".format
    environment.filters["percent"] = lambda part, whole: f"{100 * part / (whole or 1):.1f}"
    return environment.get_template("storage.html").render(
        measurement=measurement,
        unfinished={failure.bucket for failure in measurement.errors},
        largest=max((bucket.bytes for bucket in measurement.buckets), default=0),
        report_id=report_id,
    )


def _parse(payload: dict[str, Any]) -> tuple[str, str]:
    # What else is there stays unread: an execution that a schedule starts has fields of its own.
    problems = []
    report_id = payload.get("reportId", uuid4().hex)
    if not isinstance(report_id, str) or not REPORT_ID.fullmatch(report_id):
        problems.append("reportId: must be a string of 1 to 80 printable ASCII characters without a slash")
    mode = payload.get("mode", MODES[0])
    if mode not in MODES:
        problems.append(f"mode: must be one of {', '.join(MODES)}")
    if problems:
        raise InvalidRequest(problems)
    return report_id, mode


def _find(s3: Any) -> list[_Tally]:
    pages = s3.get_paginator("list_buckets").paginate(PaginationConfig={"PageSize": BUCKETS_PER_PAGE})
    try:
        return [_Tally(found["Name"], found.get("BucketRegion")) for page in pages for found in page["Buckets"]]
    except (ClientError, BotoCoreError) as error:
        raise _translated(error, "the account's buckets cannot be listed") from error


def _locate(tally: _Tally, s3: Any) -> None:
    constraint = s3.get_bucket_location(Bucket=tally.name).get("LocationConstraint")
    # The two oldest regions have names of their own here.
    tally.region = {None: "us-east-1", "EU": "eu-west-1"}.get(constraint, constraint)


def _for_sizes(s3: Any) -> Any:
    """``s3``, from now on listing objects without their dates: reading those takes two thirds of botocore's time."""
    s3.meta.events.register("before-parse.s3.ListObjectsV2", _drop_dates, unique_id="storage")
    return s3


def _drop_dates(response_dict: dict[str, Any], **_: Any) -> None:
    # What a key has of < is escaped, so only the element itself can match.
    response_dict["body"] = LAST_MODIFIED.sub(b"", response_dict["body"])


def _list(tally: _Tally, s3: Any, now: datetime, in_time: InTime) -> None:
    size = objects = 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=tally.name):
        contents = page.get("Contents", [])
        size += sum(found["Size"] for found in contents)
        objects += len(contents)
        tally.counted, tally.as_of = (size, objects), now
        if page["IsTruncated"] and not in_time():
            return
    tally.done = True


def _read_metrics(tallies: list[_Tally], cloudwatch: Any, now: datetime, in_time: InTime) -> None:
    """All buckets of a region: of each, the figures of all storage types on its newest day, added up.

    A type that the bucket has no longer stops with its last figure, which must not count beside those of later days.
    """
    by_name = {tally.name: tally for tally in tallies}
    metrics = _storage_metrics(cloudwatch, by_name)
    sizes: dict[str, dict[datetime, int]] = defaultdict(lambda: defaultdict(int))
    whole = True
    for start in range(0, len(metrics), METRICS_PER_CALL):
        if not in_time():
            whole = False
            break
        for name, status, points in _figures(cloudwatch, metrics[start : start + METRICS_PER_CALL], now):
            if status != "Complete":
                by_name[name].error = f"CloudWatch gives no figure: {status}"
            for moment, value in points:
                sizes[name][moment.astimezone(UTC)] += int(value)
    for tally in tallies:
        if tally.name in sizes:
            # By its time: not every endpoint sends the newest first.
            tally.as_of, size = max(sizes[tally.name].items())
            tally.counted = size, None
        elif whole and not tally.error:
            tally.counted = 0, None
        tally.done = whole


def _storage_metrics(cloudwatch: Any, names: Iterable[str]) -> list[_Metric]:
    """One metric for each bucket and storage type, of the buckets in ``names``: CloudWatch remembers deleted ones."""
    metrics: dict[tuple[str, str], _Metric] = {}
    pages = cloudwatch.get_paginator("list_metrics").paginate(Namespace="AWS/S3", MetricName="BucketSizeBytes")
    for page in pages:
        for metric in page["Metrics"]:
            dimensions = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
            if dimensions.keys() == {"BucketName", "StorageType"} and dimensions["BucketName"] in names:
                metrics[dimensions["BucketName"], dimensions["StorageType"]] = (dimensions["BucketName"], metric)
    return list(metrics.values())


def _figures(
    cloudwatch: Any, metrics: list[_Metric], now: datetime
) -> Iterator[tuple[str, str, list[tuple[datetime, float]]]]:
    """The bucket, the status and the last days' figures of each metric."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    pages = cloudwatch.get_paginator("get_metric_data").paginate(
        MetricDataQueries=[
            {"Id": f"m{index}", "MetricStat": {"Metric": metric, "Period": 86_400, "Stat": "Average"}}
            for index, (_, metric) in enumerate(metrics)
        ],
        StartTime=midnight - LOOK_BACK,
        EndTime=midnight + timedelta(days=1),
    )
    # One metric's figures may come in several pages, of which the last one has the status that counts.
    statuses: dict[str, str] = {}
    points: dict[str, list[tuple[datetime, float]]] = defaultdict(list)
    for page in pages:
        for result in page["MetricDataResults"]:
            statuses[result["Id"]] = result["StatusCode"]
            points[result["Id"]] += zip(result["Timestamps"], result["Values"], strict=True)
    for index, (name, _) in enumerate(metrics):
        yield name, statuses[f"m{index}"], points[f"m{index}"]


def _at_once(work: Iterable[_Work], deadline: Callable[[], float], in_time: InTime) -> None:
    """Does all of ``work``, at most ``WORKERS`` at a time, and returns when it is done or the time is nearly up."""
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="storage")
    futures = [pool.submit(_try, *piece, in_time) for piece in work]
    finished, _ = wait(futures, timeout=max(0.0, deadline() - RESERVE_SECONDS))
    pool.shutdown(wait=False, cancel_futures=True)
    for future in finished:
        future.result()


def _try(do: Callable[[], None], tallies: list[_Tally], in_time: InTime) -> None:
    if not in_time():
        return
    try:
        do()
    except (ClientError, BotoCoreError) as error:
        for tally in tallies:
            tally.error = _readable(error)


def _measurement(mode: str, tallies: list[_Tally]) -> Measurement:
    buckets = [Bucket(tally.name, *tally.counted, as_of=tally.as_of) for tally in tallies if tally.counted is not None]
    late = [tally for tally in tallies if not tally.done and not tally.error]
    errors = [Failure(tally.name, tally.error) for tally in tallies if tally.error]
    errors += [Failure(tally.name, _out_of_time(tally)) for tally in late]
    return Measurement(
        mode,
        sorted(buckets, key=lambda bucket: (-bucket.bytes, bucket.name)),
        sorted(errors, key=lambda failure: failure.bucket),
        partial=bool(late),
    )


def _out_of_time(tally: _Tally) -> str:
    if tally.counted is None:
        return "not measured: out of time"
    return f"not measured to its end: out of time after {humanize.naturalsize(tally.counted[0])}, which count"


def _notice(measurement: Measurement, report_id: str) -> dict[str, str]:
    lines = [measurement.sentence, ""]
    lines += [
        f"{humanize.naturalsize(bucket.bytes):>10}  {bucket.name}" for bucket in measurement.buckets[:NOTICE_LINES]
    ]
    if len(measurement.buckets) > NOTICE_LINES:
        lines.append(f"{'':>10}  and {counted(len(measurement.buckets) - NOTICE_LINES, 'bucket')} more")
    if measurement.errors:
        lines += ["", "Not measured, or not to the end:"]
        lines += [f"- {failure.bucket}: {failure.error}" for failure in measurement.errors[:NOTICE_LINES]]
        if len(measurement.errors) > NOTICE_LINES:
            lines.append(f"- and {counted(len(measurement.errors) - NOTICE_LINES, 'bucket')} more")
    lines += ["", f"Report {report_id}: GET /reports/{report_id} gives a link to the whole list."]
    return {
        "subject": f"Storage report: {humanize.naturalsize(measurement.total_bytes)} in all buckets",
        "message": "\n".join(lines),
        "sms": measurement.total,
    }


def _readable(error: ClientError | BotoCoreError) -> str:
    if isinstance(error, ClientError):
        text = f"{_code(error)}: {error.response.get('Error', {}).get('Message') or 'no message'}"
    else:
        text = str(error)
    return text[:ERROR_CHARACTERS]


def _translated(error: ClientError | BotoCoreError, what: str) -> StorageRefused | Unavailable:
    text = f"{what}: {_readable(error)}"
    return StorageRefused(text) if isinstance(error, ClientError) and not may_pass(error) else Unavailable(text)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "Unknown"))
