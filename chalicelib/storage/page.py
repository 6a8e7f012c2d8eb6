"""Presents a storage measurement as a JSON summary, an HTML page and a notification."""

from __future__ import annotations

from datetime import datetime
from itertools import accumulate
from typing import Any

import humanize

from chalicelib.notifications import counted
from chalicelib.reports import href
from chalicelib.reports.embedding import TEMPLATES, embedded
from chalicelib.storage.growth import Growth
from chalicelib.storage.measurement import KINDS, Bucket, Measurement, Part, by_kind, other_parts_clause
from chalicelib.timeline import timestamp

# The state machine passes the summary between states, and Step Functions limits that data to 256 KB.
SUMMARY_BUCKETS = 100
SUMMARY_ERRORS = 100
SUMMARY_GROWTH = 20
SUMMARY_PARTS = 600
NOTICE_LINES = 10
NOTICE_GROWTH = 3


def summary(measurement: Measurement, growth: Growth | None = None) -> dict[str, Any]:
    """Returns a summary for the REST API with the 100 largest buckets, up to 600 of their parts, and 100 errors."""
    largest = measurement.buckets[:SUMMARY_BUCKETS]
    return {
        "message": measurement.sentence,
        "totalBytes": measurement.total_bytes,
        "totalObjects": measurement.total_objects,
        "bucketCount": len(measurement.buckets),
        "buckets": [
            {
                "name": bucket.name,
                "bytes": bucket.bytes,
                "objects": bucket.objects,
                "asOf": _moment(bucket.as_of),
                "parts": None if bucket.parts is None or parts > SUMMARY_PARTS else list(map(_part, bucket.parts)),
            }
            for bucket, parts in zip(largest, accumulate(len(each.parts or ()) for each in largest), strict=True)
        ],
        "errorCount": len(measurement.errors),
        "errors": [
            {"bucket": failure.bucket, "error": failure.error} for failure in measurement.errors[:SUMMARY_ERRORS]
        ],
        "bucketsWithoutFigure": measurement.without_figure,
        "mode": measurement.mode,
        "versions": measurement.versions,
        "asOf": _moment(measurement.as_of),
        "partial": measurement.partial,
        "growth": growth and _growth_summary(growth),
    }


def _growth_summary(growth: Growth) -> Growth:
    fields = {name: value for name, value in growth.items() if name != "unknown"}
    return {**fields, "buckets": growth["buckets"][:SUMMARY_GROWTH]}


def _part(part: Part) -> dict[str, Any]:
    amounts = {"bytes": part.bytes, "count": part.count, "oldest": _moment(part.oldest)}
    return {"kind": part.kind, "storageClass": part.storage_class} | amounts


def _moment(moment: datetime | None) -> str | None:
    return timestamp(moment) if moment else None


def render(measurement: Measurement, report_id: str, growth: Growth | None = None) -> str:
    """Renders all buckets as one HTML page that loads no other files."""
    # The import is inside the function because the summary and the notification do not need Jinja.
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["size"] = humanize.naturalsize
    environment.filters["change"] = _change
    environment.filters["sentence"] = lambda text: text[0].upper() + text[1:]
    environment.filters["age"] = lambda age: humanize.naturaldelta(age, months=False)
    environment.filters["counted"] = lambda part: counted(part.count, KINDS[part.kind])
    environment.filters["number"] = "{:,}".format
    environment.filters["percent"] = lambda part, whole: f"{100 * part / (whole or 1):.1f}"
    return environment.get_template("storage.html").render(
        **embedded("storage"),
        measurement=measurement,
        growth=growth,
        grown=_total_change,
        kinds=KINDS,
        sums=by_kind(measurement.parts),
        unfinished={failure.bucket for failure in measurement.errors},
        largest=max((bucket.bytes for bucket in measurement.buckets), default=0),
        report_id=report_id,
    )


def _size(bucket: Bucket) -> str:
    return humanize.naturalsize(bucket.bytes) if bucket.as_of else "no figure"


def _change(difference: int | None) -> str:
    if not difference:
        return "unknown" if difference is None else "no change"
    return f"{'+' if difference > 0 else ''}{humanize.naturalsize(difference)}".replace("-", "−")


def _total_change(growth: Growth, since: str) -> str:
    """Returns the growth of all buckets, such as ``+1.2 GB (without 1 bucket of unknown size)``."""
    unknown = growth["unknown"][since]
    is_incomplete = unknown and growth[since] is not None
    return _change(growth[since]) + (
        f" (without {counted(unknown, 'bucket')} of unknown size)" if is_incomplete else ""
    )


def _growth_lines(growth: Growth) -> list[str]:
    lines = [""]
    for report, since in (("lastReport", "sinceLast"), ("monthReport", "sinceMonth")):
        changed = sorted((each for each in growth["buckets"] if each[since]), key=lambda each: -each[since])
        named = ", ".join(f"{each['name']} {_change(each[since])}" for each in changed[:NOTICE_GROWTH])
        if growth[report]:
            lines.append(f"Growth since {growth[report][:10]}: {_total_change(growth, since)}{named and '; '}{named}")
    return lines


def notice(measurement: Measurement, report_id: str, growth: Growth | None = None) -> dict[str, str]:
    """Returns the subject, message and SMS of the notification that the state machine publishes."""
    lines = [measurement.sentence, ""]
    lines += [
        f"{_size(bucket):>10}  {bucket.name}{other_parts_clause(bucket.parts) if bucket.parts else ''}"
        for bucket in measurement.buckets[:NOTICE_LINES]
    ]
    if len(measurement.buckets) > NOTICE_LINES:
        lines.append(f"{'':>10}  and {counted(len(measurement.buckets) - NOTICE_LINES, 'bucket')} more")
    lines += _growth_lines(growth) if growth else []
    if measurement.errors:
        lines += ["", "Not measured, or only partly measured:"]
        lines += [f"- {failure.bucket}: {failure.error}" for failure in measurement.errors[:NOTICE_LINES]]
        if len(measurement.errors) > NOTICE_LINES:
            lines.append(f"- and {len(measurement.errors) - NOTICE_LINES:,} more")
    lines += ["", f"Report {report_id}: GET {href('storage', report_id)} returns a link to the full list."]
    return {
        "subject": f"Storage report: {measurement.title}",
        "message": "\n".join(lines),
        "sms": measurement.short_sentence,
    }
