"""Compares the sizes of buckets with those in earlier storage reports.

Each finished report adds one object with its sizes to the reports bucket, and never changes an existing object.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from functools import partial
from itertools import dropwhile
from typing import Any

from chalicelib.clients import longest_call
from chalicelib.logs import logger
from chalicelib.storage.crew import Deadline
from chalicelib.storage.measurement import Measurement
from chalicelib.storage.shares import ShareFiles
from chalicelib.timeline import timestamp

# The growth is shown for this many buckets and days. The last day is the day of the report.
BUCKETS, DAYS = 100, 31
MONTH = timedelta(days=30)
# The report from a month ago can be up to this old. Reports that run every two weeks then always have one.
LOOK_BACK = timedelta(days=45)
# If there are more earlier reports than this, the newest ones are ignored.
MOST_LISTED = 10_000
# The calls to S3 may take S3_SECONDS at a time. The page is rendered within PAGE_SECONDS.
S3_SECONDS, PAGE_SECONDS = 10, 5
# The name of an object starts with a time of this length.
TIMESTAMP_LENGTH = len("2026-11-21T03:14:15.123456Z")
# The names of the differences.
SINCE = ("sinceLast", "sinceMonth")

# Maps each bucket to its size in bytes, or to None if the bucket was not measured completely.
Sizes = dict[str, int | None]
# The field ``growth`` of the summary, but with up to ``BUCKETS`` buckets. Only the page and the notice use ``unknown``.
Growth = dict[str, Any]

log = logger("growth")


def store_and_compare(
    files: ShareFiles, series: str, measurement: Measurement, now: datetime, deadline: Deadline
) -> Growth | None:
    """Stores the sizes for later reports, and returns the growth since earlier reports of the same series.

    Returns None if no earlier report can be read. A failure is only logged, because it must not fail the report.
    """
    failed: Sizes = dict.fromkeys(each.bucket for each in measurement.errors if not each.is_directory)
    sizes = {bucket.name: bucket.bytes if bucket.as_of else None for bucket in measurement.buckets} | failed
    folder, moment = f"storage-sizes/{series}/", timestamp(now)
    suffix = f"~{hashlib.sha256(files.report_id.encode()).hexdigest()[:16]}.json.gz"

    def find() -> list[str]:
        place = {"Bucket": files.bucket, "Prefix": folder, "StartAfter": folder + timestamp(now - LOOK_BACK)}
        pages = files.s3.get_paginator("list_objects_v2").paginate(**place, PaginationConfig={"MaxItems": MOST_LISTED})
        names = [each["Key"].removeprefix(folder) for page in pages for each in page.get("Contents", [])]
        # A retried report must not be compared with its own earlier attempt.
        return [name for name in names if name < moment and not name.endswith(suffix)]

    def read(name: str) -> Any:
        return files.s3.get_object(Bucket=files.bucket, Key=folder + name)["Body"].read()

    def write() -> None:
        body = json.dumps({"reportId": files.report_id, "asOf": moment, "buckets": sizes}).encode()
        files.s3.put_object(Bucket=files.bucket, Key=folder + moment + suffix, Body=gzip.compress(body))

    def in_time(tasks: dict[str, Callable[[], Any]]) -> dict[str, Any]:
        # The page must still be stored after these calls.
        seconds = min(S3_SECONDS, deadline() - longest_call("s3") - PAGE_SECONDS)
        return _in_time(tasks if seconds > 0 else {}, seconds, files.report_id)

    names = in_time({"": find}).get("", [])
    last_of_days = {name[:10]: name for name in names if name >= _days(now)[0]}
    chosen = sorted({*last_of_days.values(), *names[-1:], _from_a_month_ago(names, now)} - {""})
    results = in_time({"": write, **{name: partial(read, name) for name in chosen}})
    return growth_since({name: results[name] for name in chosen if name in results}, sizes, now)


def _in_time(tasks: dict[str, Callable[[], Any]], seconds: float, report_id: str) -> dict[str, Any]:
    """Runs tasks side by side, and returns the results of those that succeed in time."""
    pool = ThreadPoolExecutor(DAYS + 2)
    futures = {pool.submit(task): name for name, task in tasks.items()}
    done, late = wait(futures, seconds)
    pool.shutdown(wait=False, cancel_futures=True)
    if reasons := [str(each.exception()) for each in done if each.exception()] + ["no answer in time" for _ in late]:
        log.warning("sizes not read or not stored", extra={"reportId": report_id, "reason": reasons[0]})
    return {futures[each]: each.result() for each in done if not each.exception()}


def growth_since(bodies: dict[str, bytes], sizes: Sizes, now: datetime) -> Growth | None:
    """Returns the growth since the earlier reports in ``bodies``. The keys start with the times of the reports."""
    last, before = next(
        ((name, found) for name in sorted(bodies, reverse=True) if (found := _decode(bodies[name])) is not None),
        ("", None),
    )
    if before is None:
        return None
    month = _from_a_month_ago(bodies, now)
    month_sizes = _decode(bodies.get(month))
    changes: list[dict[str, Any]] = [
        {"name": name, "sinceLast": _change(sizes, before, name), "sinceMonth": _change(sizes, month_sizes, name)}
        for name in {**sizes, **before, **(month_sizes or {})}
    ]
    changes.sort(key=lambda each: (-(each["sinceLast"] or 0), -(each["sinceMonth"] or 0), each["name"]))
    buckets = [{**each, "sizes": []} for each in changes if each["sinceLast"] or each["sinceMonth"]][:BUCKETS]
    of_days = {name[:10]: body for name, body in bodies.items()}
    *earlier, today = _days(now)
    days = [*dropwhile(lambda day: day not in of_days, earlier), today]
    for day in days:
        # Decoding one day at a time saves memory.
        of_day = sizes if day == today else _decode(of_days.get(day))
        for each in buckets:
            each["sizes"].append(None if of_day is None else of_day.get(each["name"], 0))
    return {
        **{
            "days": days,
            "lastReport": last[:TIMESTAMP_LENGTH],
            "monthReport": month[:TIMESTAMP_LENGTH] if month_sizes is not None else None,
        },
        **{since: _total([each[since] for each in changes]) for since in SINCE},
        # The number of buckets that the totals leave out.
        "unknown": {since: sum(each[since] is None for each in changes) for since in SINCE},
        "buckets": buckets,
    }


def _days(now: datetime) -> list[str]:
    return [f"{now.date() - timedelta(days=days)}" for days in reversed(range(DAYS))]


def _from_a_month_ago(names: Iterable[str], now: datetime) -> str:
    return max((name for name in names if name[:TIMESTAMP_LENGTH] <= timestamp(now - MONTH)), default="")


def _decode(body: bytes | None) -> Sizes | None:
    try:
        return dict(json.loads(gzip.decompress(body))["buckets"]) if body else None
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError) as error:
        log.warning("sizes not readable", extra={"reason": repr(error)})
        return None


def _change(now: Sizes, before: Sizes | None, name: str) -> int | None:
    """Returns None if a size is unknown. A bucket that does not exist has 0 bytes."""
    new, old = now.get(name, 0), None if before is None else before.get(name, 0)
    return None if new is None or old is None else new - old


def _total(differences: list[int | None]) -> int | None:
    return sum(filter(None, differences)) if set(differences) != {None} else None
