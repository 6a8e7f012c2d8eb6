"""Finds the report before a report, in a list of the newest inventory reports that is one S3 object.

The list is written under the condition that nobody else has changed it, so concurrent reports lose no entry.
"""

from __future__ import annotations

import json
from typing import Any

from chalicelib.errors import CafeError, aws_errors
from chalicelib.logs import logger

KEY = "inventory/newest.json"
# The list must be longer than the number of reports that run at the same time.
KEPT = 100
TRIES = 5
FIELDS = ("reportId", "csvKey", "generatedAt")
CHANGED = ("PreconditionFailed", "ConditionalRequestConflict")

Report = dict[str, Any]

log = logger("earlier")


def find(s3: Any, bucket: str, report: Report) -> Report | None:
    """Returns the newest rendered report that is earlier than ``report``, or None if no such report is known.

    Both reports have the fields in ``FIELDS``. A report that was rendered before gets the same answer again. An
    unreadable list counts as empty, because no report must fail for want of a comparison.
    """
    from botocore.exceptions import ClientError

    try:
        reports, _ = _read(s3, bucket)
    except (CafeError, ClientError) as error:
        log.warning("list of reports not read", extra={"reason": str(error)})
        return None
    for each in reports:
        if each["reportId"] == report["reportId"]:
            before: Report | None = each["before"]
            return before
    before = max((each for each in reports if _order(each) < _order(report)), key=_order, default=None)
    return before and {name: before[name] for name in FIELDS}


def record(s3: Any, bucket: str, report: Report, before: Report | None) -> None:
    """Adds ``report`` to the list, unless it is there. If that fails, only a warning is logged."""
    from botocore.exceptions import ClientError

    entry = {**{name: report[name] for name in FIELDS}, "before": before}
    reason = "other reports changed the list at the same time"
    for _ in range(TRIES):
        try:
            reports, condition = _read(s3, bucket)
            if any(each["reportId"] == entry["reportId"] for each in reports):
                return
            newest = sorted([*reports, entry], key=_order)[-KEPT:]
            with aws_errors():
                s3.put_object(Bucket=bucket, Key=KEY, Body=json.dumps(newest).encode(), **condition)
            return
        except (CafeError, ClientError) as error:
            reason = str(error)
            if isinstance(error, CafeError) or error.response["Error"]["Code"] not in CHANGED:
                break
    log.warning("report not added to the list", extra={"reportId": entry["reportId"], "reason": reason})


def _order(report: Report) -> tuple[str, str]:
    return report["generatedAt"], report["reportId"]


def _read(s3: Any, bucket: str) -> tuple[list[Report], dict[str, str]]:
    """Returns the list, and the arguments with which S3 replaces exactly this list."""
    from botocore.exceptions import ClientError

    try:
        with aws_errors():
            answer = s3.get_object(Bucket=bucket, Key=KEY)
            body = answer["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
        return [], {"IfNoneMatch": "*"}
    try:
        reports = [
            {**{name: str(each[name]) for name in FIELDS}, "before": each["before"]} for each in json.loads(body)
        ]
    except (ValueError, TypeError, KeyError):
        log.warning("list of reports replaced, because it was not readable")
        reports = []
    return reports, {"IfMatch": answer["ETag"]}
