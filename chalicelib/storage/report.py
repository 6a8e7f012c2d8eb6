"""Runs the steps of a storage report. Each step is one invocation of the Lambda function ``measure_buckets``.

In the first step, a single function lists all buckets. For most accounts, one step is enough. After two minutes, the
remaining work is divided into parts called shares. The state machine then invokes one function per share. Another
function merges the results and divides the remaining work again for the next round. The report names buckets that could
not be measured, with the reason.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from chalicelib import metrics
from chalicelib.errors import InvalidRequest, Problem
from chalicelib.logs import logger
from chalicelib.reports import MODES, VERSIONS_REFUSED, id_of_event, report_key
from chalicelib.storage import growth, measure, page
from chalicelib.storage.crew import RESERVE_SECONDS, Deadline
from chalicelib.storage.measure import InRegion
from chalicelib.storage.measurement import Measurement, summarize
from chalicelib.storage.shares import ShareFiles, Spread, assign_shares, merge_shares, read_share, write_result

# A function lists objects for this many seconds before the remaining work is divided. A new round takes a few seconds
# to start, but spreads a large or slow bucket over all functions.
TURN_SECONDS = 120
# A report has at most this many rounds. In the last round, each function uses all its remaining time. Six rounds can
# list about seven billion objects.
ROUNDS = 6
# A report's id can contain the same characters as an execution's name. A slash would create folders in S3.
REPORT_ID = re.compile(r"[^\s/\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]{1,80}")

log = logger("storage")


@dataclass(frozen=True)
class Request:
    """The validated input for a storage report.

    A single function lists objects for ``alone_seconds`` before the remaining work is divided.
    """

    report_id: str
    mode: str
    versions: bool
    alone_seconds: float


def run_step(
    event: dict[str, Any], context: Any, *, aws: Callable[..., Any], bucket: str, now: datetime
) -> dict[str, Any]:
    """Runs one step for the state machine, or a whole report if the function is invoked manually.

    The state machine passes its own input as ``request``, along with ``reportId`` and ``spread``. ``aws`` is a function
    that returns AWS clients, and ``context`` is the Lambda context.
    """
    request = event.get("request", event)
    return report(
        {**(request if isinstance(request, dict) else {}), "reportId": id_of_event(event, context)},
        event.get("spread") if "request" in event else None,
        s3=aws("s3"),
        s3_in=lambda region: aws("s3", region),
        cloudwatch_in=lambda region: aws("cloudwatch", region),
        deadline=lambda: context.get_remaining_time_in_millis() / 1000,
        bucket=bucket,
        now=now,
    )


def report(
    payload: dict[str, Any],
    spread: Spread | None = None,
    *,
    s3: Any,
    s3_in: InRegion,
    cloudwatch_in: InRegion,
    deadline: Deadline,
    bucket: str,
    now: datetime,
) -> dict[str, Any]:
    """Measures all buckets, stores the report's page, and returns ``{reportId, reportKey, summary, notice, spread}``.

    ``payload`` may contain ``reportId``, ``mode``, ``versions`` and ``aloneSeconds``. ``notice`` is the notification
    that the state machine publishes. ``spread`` is None without a state machine, or ``{"round": 0}`` in the first step.

    If the returned ``spread`` lists any ``shares``, the state machine invokes the function once per share. Each
    invocation receives the share's number as ``share`` in ``spread``, and returns ``{}``. The state machine then
    invokes the function once more, without ``share``.

    Raises ``InvalidRequest`` if ``payload`` is invalid, and the errors of ``measure_buckets``.
    """
    request = _parse(payload)
    files = ShareFiles(s3, bucket, request.report_id)
    if spread and "share" in spread:
        left = read_share(files, spread)
        until = deadline if spread["round"] == ROUNDS else _at_most(TURN_SECONDS, deadline)
        write_result(files, spread, measure.list_objects(left, s3=s3, s3_in=s3_in, deadline=until, now=now))
        return {}
    if spread and spread["round"]:
        tallies = merge_shares(files, spread)
    else:
        until = _at_most(request.alone_seconds, deadline) if spread and request.mode == "listing" else deadline
        tallies = measure.tally_buckets(
            request.mode, request.versions, s3=s3, s3_in=s3_in, cloudwatch_in=cloudwatch_in, deadline=until, now=now
        )
    measurement = summarize(request.mode, tallies, request.versions)
    _log(request, measurement)
    key = report_key("storage", request.report_id)
    goes_on = spread and request.mode == "listing" and measurement.partial and spread["round"] < ROUNDS
    series = "versions" if request.versions else request.mode
    grown = None if goes_on else growth.store_and_compare(files, series, measurement, now, deadline)
    files.put(key, page.render(measurement, request.report_id, grown).encode(), "text/html; charset=utf-8", "the page")
    if not goes_on and measurement.figure is not None:
        metrics.emit({"BytesMeasured": measurement.figure})
    return {
        "reportId": request.report_id,
        "reportKey": key,
        "summary": page.summary(measurement, grown),
        "notice": page.notice(measurement, request.report_id, grown),
        "spread": assign_shares(files, tallies, spread["round"] + 1) if spread and goes_on else {"shares": []},
    }


def _log(request: Request, measurement: Measurement) -> None:
    log.info(
        "buckets measured",
        extra={
            "reportId": request.report_id,
            **{"mode": request.mode, "versions": request.versions},
            "buckets": len(measurement.buckets),
            "errors": len(measurement.errors),
            "bytes": measurement.figure,
            "partial": measurement.partial,
        },
    )


def _at_most(seconds: float, deadline: Deadline) -> Deadline:
    """Returns the earlier of ``deadline`` and a deadline that allows ``seconds`` for the measurement."""
    end = time.monotonic() + seconds + RESERVE_SECONDS
    return lambda: min(deadline(), end - time.monotonic())


def _parse(payload: dict[str, Any]) -> Request:
    # Unknown fields are ignored, because a schedule may add fields to the input.
    problems = []
    report_id = payload.get("reportId", uuid4().hex)
    if not isinstance(report_id, str) or not REPORT_ID.fullmatch(report_id):
        expected = "must be a string of 1 to 80 characters without spaces, control characters and slashes"
        problems.append(Problem("reportId", expected))
    mode = payload.get("mode", MODES[0])
    if mode not in MODES:
        problems.append(Problem("mode", f"must be one of {', '.join(MODES)}"))
    versions = payload.get("versions", False)
    if not isinstance(versions, bool):
        problems.append(Problem("versions", "must be true or false"))
    elif versions and mode == "metrics":
        problems.append(Problem("versions", VERSIONS_REFUSED))
    seconds = payload.get("aloneSeconds", TURN_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= TURN_SECONDS:
        problems.append(Problem("aloneSeconds", f"must be a number from 0 to {TURN_SECONDS}"))
    if problems:
        raise InvalidRequest(problems)
    return Request(report_id, mode, versions, seconds)
