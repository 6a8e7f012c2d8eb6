"""The storage report: the total size of all the account's buckets, and how several functions share a large one.

The first call measures all by itself, and in most accounts that is all. What it has not listed after two minutes, as
whole buckets and as ranges of keys, is dealt out in shares, each an object in the reports bucket. The state machine
calls a function for each share, and then one that adds up and deals out what is left, for some rounds at most.
What cannot be measured is named with its reason, and never silently left out.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import metrics
from chalicelib.errors import InvalidRequest, Problem
from chalicelib.logs import logger
from chalicelib.reports import MODES, id_of_event, report_key
from chalicelib.storage import measure, page
from chalicelib.storage.measure import Deadline, InRegion, Tally, translated
from chalicelib.storage.ranges import Range
from chalicelib.timeline import timestamp

# How long a function lists where others can go on: a new round takes seconds to begin, and deals out evenly again what
# one large bucket or a slow one would leave to one function alone.
TURN_SECONDS = 120
# As many functions at the same moment as the state machine's MaxConcurrency. Each reads some 55 answers a second, which
# stays below the 5,500 calls a second that S3 takes for one prefix, and 40 far below an account's 1,000 functions.
SHARES = 40
# In the last one each function takes all the time that it has. Three billion objects are listed by then.
ROUNDS = 6
# The names of executions, without the slash, which would make folders of them.
REPORT_ID = re.compile(r"[!-.0-~]{1,80}")

log = logger("storage")


@dataclass(frozen=True)
class Wanted:
    report_id: str
    mode: str
    alone_seconds: float


@dataclass(frozen=True)
class Files:
    """Where the functions of a report hand work on to each other."""

    s3: Any
    bucket: str
    report_id: str

    def write(self, name: str, tallies: list[Tally]) -> None:
        body = json.dumps([_packed(tally) for tally in tallies], separators=(",", ":")).encode()
        self.put(f"storage/{self.report_id}/{name}.json", body, "application/json", "what is left")

    def put(self, key: str, body: bytes, kind: str, what: str) -> None:
        try:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType=kind)
        except (ClientError, BotoCoreError) as error:
            raise translated(error, f"{what} cannot be stored in {self.bucket}") from error

    def read(self, name: str) -> list[Tally]:
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=f"storage/{self.report_id}/{name}.json")
            return [_unpacked(each) for each in json.load(answer["Body"])]
        except (ClientError, BotoCoreError) as error:
            raise translated(error, f"what is left cannot be read from {self.bucket}") from error


def handle(
    event: dict[str, Any], context: Any, *, aws: Callable[..., Any], bucket: str, now: datetime
) -> dict[str, Any]:
    """Does one step of a report for the state machine, or a whole report for a direct call of the function.

    The state machine sends its own input as ``request``, beside ``reportId`` and ``spread``. ``aws`` returns clients,
    and ``context`` is the function's.
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
    spread: dict[str, Any] | None = None,
    *,
    s3: Any,
    s3_in: InRegion,
    cloudwatch_in: InRegion,
    deadline: Deadline,
    bucket: str,
    now: datetime,
) -> dict[str, Any]:
    """Measures all buckets and stores the page in ``bucket``: ``{reportId, reportKey, summary, notice, spread}``.

    ``payload`` is ``{}`` or has ``reportId``, ``mode`` and ``aloneSeconds``. ``notice`` is what the state machine
    publishes. ``spread`` is None outside of a state machine, where nobody would go on. A state machine's first call
    has ``{"round": 0}``. Where the answer's own ``spread`` has ``shares``, it is called with that and a ``share`` for
    each of them, which gives nothing, and then with that as it is. Raises ``InvalidRequest``, and what
    ``measure_buckets`` raises.
    """
    wanted = _parse(payload)
    if spread and "share" in spread:
        files = Files(s3, bucket, wanted.report_id)
        left = files.read(_share(spread, spread["share"]))
        until = deadline if spread["round"] == ROUNDS else _at_most(TURN_SECONDS, deadline)
        listed = measure.list_objects(left, s3=s3, s3_in=s3_in, deadline=until, now=now)
        files.write(_share(spread, spread["share"]) + "-listed", listed)
        return {}
    if spread and spread["round"]:
        files = Files(s3, bucket, wanted.report_id)
        tallies = _added_up(files, spread)
    else:
        tallies = measure.tallies(
            wanted.mode,
            s3=s3,
            s3_in=s3_in,
            cloudwatch_in=cloudwatch_in,
            deadline=_at_most(wanted.alone_seconds, deadline) if spread and wanted.mode == "listing" else deadline,
            now=now,
        )
        files = Files(s3, bucket, wanted.report_id)
    measurement = measure.measured(wanted.mode, tallies)
    log.info(
        "buckets measured",
        extra={
            "reportId": wanted.report_id,
            "mode": wanted.mode,
            "buckets": len(measurement.buckets),
            "errors": len(measurement.errors),
            "bytes": measurement.total_bytes,
            "partial": measurement.partial,
        },
    )
    key = report_key("storage", wanted.report_id)
    files.put(key, page.render(measurement, wanted.report_id).encode(), "text/html; charset=utf-8", "the page")
    goes_on = spread and wanted.mode == "listing" and measurement.partial and spread["round"] < ROUNDS
    if not goes_on:
        metrics.emit({"BytesMeasured": measurement.total_bytes})
    return {
        "reportId": wanted.report_id,
        "reportKey": key,
        "summary": page.summary(measurement),
        "notice": page.notice(measurement, wanted.report_id),
        "spread": _dealt(files, tallies, spread["round"] + 1) if spread and goes_on else {"shares": []},
    }


def _dealt(files: Files, tallies: list[Tally], number: int) -> dict[str, Any]:
    """A round's work in ``SHARES`` files or fewer, beside one with all that is counted: ``{round, id, shares}``.

    The id is new at each try, so no share is ever of one try, and the sums of another.
    """
    spread: dict[str, Any] = {"round": number, "id": uuid4().hex}
    pieces = [
        Tally(tally.name, tally.region, left={0: rest})
        for tally in tallies
        if not tally.error
        for rest in tally.left.values()
    ]
    # In turns, so that the ranges of one bucket are in several shares.
    shares = [share for start in range(SHARES) if (share := pieces[start::SHARES])]
    for place, share in enumerate(shares):
        files.write(_share(spread, place), share)
    files.write(_share(spread, "all"), tallies)
    return {**spread, "shares": list(range(len(shares)))}


def _added_up(files: Files, spread: dict[str, Any]) -> list[Tally]:
    tallies = {tally.name: tally for tally in files.read(_share(spread, "all"))}
    for tally in tallies.values():
        if not tally.error:
            tally.left = {}
    for place in spread["shares"]:
        for listed in files.read(_share(spread, place) + "-listed"):
            tallies[listed.name].add(listed)
    return list(tallies.values())


def _share(spread: dict[str, Any], place: object) -> str:
    return f"round-{spread['round']}-{spread['id']}/{place}"


def _at_most(seconds: float, deadline: Deadline) -> Deadline:
    """``deadline``, or an earlier one that leaves the measuring so many seconds from now."""
    end = time.monotonic() + seconds + measure.RESERVE_SECONDS
    return lambda: min(deadline(), end - time.monotonic())


def _parse(payload: dict[str, Any]) -> Wanted:
    # What else is there stays unread: an execution that a schedule starts has fields of its own.
    problems = []
    report_id = payload.get("reportId", uuid4().hex)
    if not isinstance(report_id, str) or not REPORT_ID.fullmatch(report_id):
        problems.append(Problem("reportId", "must be a string of 1 to 80 printable ASCII characters without a slash"))
    mode = payload.get("mode", MODES[0])
    if mode not in MODES:
        problems.append(Problem("mode", f"must be one of {', '.join(MODES)}"))
    seconds = payload.get("aloneSeconds", TURN_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= TURN_SECONDS:
        problems.append(Problem("aloneSeconds", f"must be a number from 0 to {TURN_SECONDS}"))
    if problems:
        raise InvalidRequest(problems)
    return Wanted(report_id, mode, seconds)


def _packed(tally: Tally) -> dict[str, Any]:
    return {
        "name": tally.name,
        "region": tally.region,
        "counted": tally.counted,
        "asOf": timestamp(tally.as_of) if tally.as_of else None,
        "error": tally.error,
        "left": [[rest.after, rest.until] for rest in tally.left.values()],
    }


def _unpacked(content: dict[str, Any]) -> Tally:
    return Tally(
        content["name"],
        content["region"],
        (content["counted"][0], content["counted"][1]) if content["counted"] else None,
        datetime.fromisoformat(content["asOf"]) if content["asOf"] else None,
        content["error"],
        {number: Range(*rest) for number, rest in enumerate(content["left"])},
    )
