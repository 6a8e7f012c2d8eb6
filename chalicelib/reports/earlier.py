"""Finds the previous report, in a list of the newest inventory reports that is one S3 object.

A report is a dictionary with the ``FIELDS``. The list also has the report that each report was compared with.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from chalicelib.errors import CafeError, aws_errors
from chalicelib.logs import logger

KEY = "inventory/newest.json"
FIELDS = ("reportId", "csvKey", "generatedAt")
# The list must be longer than the number of reports that run at the same time.
KEPT = 100
TRIES = 8
# The pause before another try is random. Its longest length grows by this time with each try.
PAUSE_SECONDS = 0.1
CHANGED = ("PreconditionFailed", "ConditionalRequestConflict")

Report = dict[str, Any]
# Stands for the previous report, if the list could not be read.
UNKNOWN: Report = {}

log = logger("earlier")


def find(s3: Any, bucket: str, report: Report) -> Report | None:
    """Returns the newest rendered report that is earlier than ``report``, or None if the list has no such report.

    A report that was rendered before gets the same answer again. Returns ``UNKNOWN`` if S3 does not return the list,
    because reports must not fail without a comparison.
    """
    from botocore.exceptions import ClientError

    try:
        reports, _ = _read(s3, bucket)
    except (CafeError, ClientError) as error:
        log.warning("list of reports not read", extra={"reason": str(error)})
        return UNKNOWN
    rendered = next((each for each in reports if _order(each) == _order(report)), None)
    if rendered and rendered["before"] != UNKNOWN:
        before: Report | None = rendered["before"]
        return before
    # A report that is tried again must not be compared with its own earlier try.
    others = (each for each in reports if each["reportId"] != report["reportId"] and _order(each) < _order(report))
    return max(map(_fields, others), key=_order, default=None)


def record(s3: Any, bucket: str, report: Report, before: Report | None, sleep: Callable[[float], None]) -> None:
    """Adds ``report`` to the list in place of an earlier try of it. If that fails, only a warning is logged."""
    from botocore.exceptions import ClientError

    reason = ""
    for tries in range(TRIES):
        sleep(random.uniform(0, PAUSE_SECONDS * tries))  # noqa: S311 - not for cryptography  # nosec B311
        try:
            reports, condition = _read(s3, bucket)
            if any(each["reportId"] == report["reportId"] and _order(each) >= _order(report) for each in reports):
                return
            others = [each for each in reports if each["reportId"] != report["reportId"]]
            newest = sorted([*others, {**_fields(report), "before": before}], key=_order)[-KEPT:]
            # Under this condition, concurrent reports do not replace each other's lists.
            with aws_errors():
                s3.put_object(Bucket=bucket, Key=KEY, Body=json.dumps(newest).encode(), **condition)
            return
        except (CafeError, ClientError) as error:
            reason = str(error)
            if isinstance(error, CafeError) or error.response["Error"]["Code"] not in CHANGED:
                break
    log.warning("report not added to the list", extra={"reportId": report["reportId"], "reason": reason})


def _fields(report: Report) -> Report:
    return {name: str(report[name]) for name in FIELDS}


def _order(report: Report) -> tuple[str, str]:
    return report["generatedAt"], report["reportId"]


def _read(s3: Any, bucket: str) -> tuple[list[Report], dict[str, str]]:
    """Returns the list, and the condition under which S3 replaces exactly this list."""
    try:
        with aws_errors():
            answer = s3.get_object(Bucket=bucket, Key=KEY)
            body = answer["Body"].read()
    except s3.exceptions.NoSuchKey:
        return [], {"IfNoneMatch": "*"}
    try:
        reports = [{**_fields(each), "before": each["before"] and _fields(each["before"])} for each in json.loads(body)]
    except (ValueError, TypeError, KeyError):
        log.warning("list of reports replaced, because it was not readable")
        reports = []
    return reports, {"IfMatch": answer["ETag"]}
