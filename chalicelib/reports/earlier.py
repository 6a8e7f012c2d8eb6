"""Finds the report before a report, in a list of the newest inventory reports that is one S3 object.

A report is a dictionary with the ``FIELDS``. The list also has the report that each report was compared with.
"""

from __future__ import annotations

import json
from typing import Any

from chalicelib.errors import CafeError, aws_errors
from chalicelib.logs import logger

KEY = "inventory/newest.json"
FIELDS = ("reportId", "csvKey", "generatedAt")
# The list must be longer than the number of reports that run at the same time.
KEPT = 100
TRIES = 5
CHANGED = ("PreconditionFailed", "ConditionalRequestConflict")

Report = dict[str, Any]

log = logger("earlier")


def find(s3: Any, bucket: str, report: Report) -> Report | None:
    """Returns the newest rendered report that is earlier than ``report``, or None if no such report is known.

    A report that was rendered before gets the same answer again. An unreadable list counts as empty, because no report
    must fail for want of a comparison.
    """
    from botocore.exceptions import ClientError

    try:
        reports, _ = _read(s3, bucket)
    except (CafeError, ClientError) as error:
        log.warning("list of reports not read", extra={"reason": str(error)})
        return None
    if own := [each for each in reports if each["reportId"] == report["reportId"]]:
        before: Report | None = own[0]["before"]
        return before
    return max((_fields(each) for each in reports if _order(each) < _order(report)), key=_order, default=None)


def record(s3: Any, bucket: str, report: Report, before: Report | None) -> None:
    """Adds ``report`` to the list, unless the list contains it. If that fails, only a warning is logged."""
    from botocore.exceptions import ClientError

    reason = ""
    for _ in range(TRIES):
        try:
            reports, condition = _read(s3, bucket)
            if any(each["reportId"] == report["reportId"] for each in reports):
                return
            newest = sorted([*reports, {**_fields(report), "before": before}], key=_order)[-KEPT:]
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
        reports = [{**_fields(e), "before": e["before"] and _fields(e["before"])} for e in json.loads(body)]
    except (ValueError, TypeError, KeyError):
        log.warning("list of reports replaced, because it was not readable")
        reports = []
    return reports, {"IfMatch": answer["ETag"]}
