"""Starts, finds and lists reports.

Each report is one execution of a Step Functions state machine, and the report id is the name of the execution. Step
Functions keeps finished executions for 90 days, so the list of reports needs no database. Step Functions also refuses
to reuse an execution's name. Requests with the same ``Idempotency-Key`` therefore create only one report, even after
that report has ended.
"""

from __future__ import annotations

import heapq
import json
import re
import secrets
from bisect import insort
from collections.abc import Iterator
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any
from urllib.parse import quote, unquote

from chalicelib import correlation, timeline
from chalicelib.errors import InvalidRequest, NotFound, Problem, aws_errors
from chalicelib.fields import Fields
from chalicelib.logs import logger
from chalicelib.rest import Page

KINDS = ("inventory", "storage")
MODES = ("listing", "metrics")
VERSIONS_REFUSED = "is allowed only for storage reports that list objects"
# A report's id is its execution's name, in which Step Functions allows these characters. A name may exist in both state
# machines, so an id may begin with the report's kind and a tilde, which no name contains.
REPORT_ID = re.compile(
    r"(?:(inventory|storage)~)?"
    r'([^\s<>{}\[\]?*"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]{1,80})'
)
# A presigned link expires with the credentials that signed it, so links are valid for at most one hour.
LINK_SECONDS = 3600

log = logger("reports")

Machines = dict[str, str]


def folder(kind: str, name: str) -> str:
    """Returns the folder of a report's files in the reports bucket."""
    # Browsers and HTTP libraries remove the folders "." and ".." from a link.
    return f"{kind}/{name if name.strip('.') else f'~{name}'}"


def report_key(kind: str, name: str) -> str:
    """Returns the S3 key of a report's page in the reports bucket."""
    return f"{folder(kind, name)}/report.html"


def _kinds(name: str) -> list[str]:
    """Returns the kinds in the order in which ``find`` looks for a name. Reports from the API begin with their kind."""
    return sorted(KINDS, key=lambda kind: not name.startswith(kind))


def full_id(kind: str, name: str) -> str:
    """Returns the id that opens this report. The kind is left out if the name alone opens this report too."""
    return name if _kinds(name)[0] == kind and name.strip(".") else f"{kind}~{name}"


def href(kind: str, name: str) -> str:
    """Returns the path of a report in the REST API."""
    return f"/reports/{quote(full_id(kind, name), safe='')}"


def id_of_event(event: dict[str, Any], context: Any) -> str:
    """Returns the report's id from a state machine's event, or a new id if the function was invoked manually."""
    return event.get("reportId") or f"by-hand-{context.aws_request_id}"


def presign(s3: Any, bucket: str, key: str, now: datetime) -> dict[str, str]:
    """Returns a link that opens an S3 object for one hour, as ``{"url", "expiresAt"}``."""
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=LINK_SECONDS)
    log.info("link made", extra={"key": key})
    return {"url": url, "expiresAt": timeline.timestamp(now + timedelta(seconds=LINK_SECONDS))}


def parse(body: Any) -> dict[str, Any]:
    """Validates a request for a report. Returns ``kind`` and, for a storage report, ``mode`` and any ``versions``."""
    fields = Fields.of_body(body, ("kind", "mode", "versions"), of="a report", expected="an object, or nothing")
    kind, mode = fields.get("kind", "inventory"), fields.get("mode", "listing")
    versions = fields.get("versions", False)
    if kind not in KINDS:
        fields.refuse("kind", f"must be one of {', '.join(KINDS)}")
    if "mode" in fields and kind == "inventory":
        fields.refuse("mode", "is allowed only for storage reports")
    elif mode not in MODES:
        fields.refuse("mode", f"must be one of {', '.join(MODES)}")
    if not isinstance(versions, bool):
        fields.refuse("versions", "must be true or false")
    elif "versions" in fields and (kind == "inventory" or (versions and mode == "metrics")):
        fields.refuse("versions", VERSIONS_REFUSED)
    fields.check()
    options = {"mode": mode} | ({"versions": True} if versions else {})
    return {"kind": kind} | ({} if kind == "inventory" else options)


@aws_errors()
def start(
    request: dict[str, Any], key: str | None, requested_by: str, *, sfn: Any, machines: Machines, now: datetime
) -> dict[str, Any]:
    """Starts the report that ``request`` describes, or finds the report that was started with the same ``key``.

    ``key`` is the request's Idempotency-Key, or None. ``requested_by`` is the name of the user who requested the
    report. If two users send the same key, the report keeps the name of the first user. Returns ``{"reportId", "kind",
    "status", "href"}``. Requests with the same key get the same response.
    """
    kind = request["kind"]
    report_id = f"{kind}-{key or f'{now:%Y%m%dT%H%M%S}-{secrets.token_hex(6)}'}"
    # The execution input does not contain `kind`, because each state machine makes only one kind of report.
    options = {name: value for name, value in request.items() if name != "kind"}
    content = {**options, "requestedBy": requested_by, correlation.NAME: correlation.current()}
    try:
        sfn.start_execution(stateMachineArn=machines[kind], name=report_id, input=json.dumps(content))
    except sfn.exceptions.ExecutionAlreadyExists:
        log.info("report found by its key", extra={"reportId": report_id, "kind": kind})
    else:
        log.info("report started", extra={"reportId": report_id, "kind": kind})
    return {"reportId": report_id, "kind": kind, "status": "RUNNING", "href": href(kind, report_id)}


def _describe(name: str, machine: str, sfn: Any) -> dict[str, Any] | None:
    arn = machine.replace(":stateMachine:", ":execution:") + f":{name}"
    try:
        execution: dict[str, Any] = sfn.describe_execution(executionArn=arn)
    except (sfn.exceptions.ExecutionDoesNotExist, sfn.exceptions.InvalidArn):
        return None
    return execution


@aws_errors()
def get(report_id: str, *, sfn: Any, machines: Machines, s3: Any, bucket: str, now: datetime) -> dict[str, Any]:
    """Returns a report for the REST API, with a new link if the page exists. Raises ``NotFound`` for an unknown id."""
    kind, execution = find(report_id, sfn, machines)
    return _shown(kind, execution, s3, bucket, now)


def find(report_id: str, sfn: Any, machines: Machines) -> tuple[str, dict[str, Any]]:
    """Returns a report's kind and its execution. Raises ``NotFound`` if no report has this id."""
    # API Gateway decodes the id in a path, but `chalice local` does not. No name contains a percent sign.
    report_id = unquote(report_id)
    if match := REPORT_ID.fullmatch(report_id):
        for kind in [match[1]] if match[1] else _kinds(match[2]):
            execution = _describe(match[2], machines[kind], sfn)
            if execution:
                return kind, execution
    raise NotFound("report", report_id[:80])


def _shown(kind: str, execution: dict[str, Any], s3: Any, bucket: str, now: datetime) -> dict[str, Any]:
    succeeded = execution["status"] == "SUCCEEDED"
    link: dict[str, Any] = {"url": None, "expiresAt": None}
    if succeeded and _exists(s3, bucket, report_key(kind, execution["name"])):
        link |= presign(s3, bucket, report_key(kind, execution["name"]), now)
    return {
        **line(kind, execution),
        "summary": json.loads(execution["output"])["summary"] if succeeded else None,
        **link,
        "error": None if succeeded or execution["status"] == "RUNNING" else reason(execution),
        **_request(kind, execution),
    }


def _request(kind: str, execution: dict[str, Any]) -> dict[str, str | bool | None]:
    """Returns the name of the user who requested the report, if it is known, and what a storage report measures."""
    content = json.loads(execution.get("input") or "{}")
    content = content if isinstance(content, dict) else {}
    name, mode = content.get("requestedBy"), content.get("mode")
    return {
        "requestedBy": name if isinstance(name, str) else None,
        "mode": None if kind == "inventory" else mode if mode in MODES else MODES[0],
        "versions": None if kind == "inventory" else content.get("versions") is True,
    }


def reason(execution: dict[str, Any]) -> str:
    """Returns why an execution did not succeed."""
    if execution.get("cause"):
        return str(execution["cause"])
    reasons = {"TIMED_OUT": "the report timed out", "ABORTED": "the report was stopped manually"}
    return reasons.get(execution["status"], execution.get("error") or "no reason is known")


def _exists(s3: Any, bucket: str, key: str) -> bool:
    """Returns True if the S3 object exists. The bucket's lifecycle rules delete old objects."""
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
            return False
        raise
    return True


def line(kind: str, execution: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields that all responses about a report include."""
    stopped = execution.get("stopDate")
    return {
        "reportId": execution["name"],
        "kind": kind,
        "status": execution["status"],
        "startedAt": timeline.timestamp(execution["startDate"]),
        "finishedAt": timeline.timestamp(stopped) if stopped else None,
    }


@aws_errors()
def newest(page: Page, *, sfn: Any, machines: Machines) -> dict[str, Any]:
    """Returns one page of reports, newest first.

    The result is ``{"reports": [{"reportId", "kind", "status", "startedAt", "finishedAt", "href"}], "next"}``.
    """
    kind = page.filters.get("kind")
    if kind is not None and kind not in KINDS:
        raise InvalidRequest([Problem("kind", f"must be one of {', '.join(KINDS)}")])
    before = timeline.read_token("reports", page.next)
    # For a later page, all newer reports are read again, because page tokens from Step Functions expire after a day.
    # Reading all reports from 90 days takes only a few calls, because each call returns up to 1,000 reports.
    size = 1000 if page.next else page.limit + 1
    lists = [_by_start(_executions(each, machines[each], size, sfn)) for each in ([kind] if kind else KINDS)]
    lines: list[dict[str, Any]] = []
    for key, line in heapq.merge(*lists, key=itemgetter(0), reverse=True):
        if key >= before:
            continue
        if len(lines) == page.limit:
            return {"reports": lines, "next": timeline.write_token("reports", _sort_key(lines[-1]))}
        lines.append(line)
    return {"reports": lines, "next": None}


def _by_start(lines: Iterator[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each report with its sort key, sorted by start time, newest first.

    Step Functions sorts finished executions by end time, and running executions by start time. Each report waits until
    the loop reaches a report that ended before the waiting report started. All later reports in the list started even
    earlier. For a report that is still running, the start time is used instead of the end time.
    """
    waiting: list[tuple[str, dict[str, Any]]] = []
    for line in lines:
        bound = line["finishedAt"] or line["startedAt"]
        while waiting and waiting[-1][1]["startedAt"] > bound:
            yield waiting.pop()
        insort(waiting, (_sort_key(line), line), key=itemgetter(0))
    yield from reversed(waiting)


def _sort_key(line: dict[str, Any]) -> str:
    return f"{line['startedAt']}#{line['reportId']}~{line['kind']}"


def _executions(kind: str, machine: str, size: int, sfn: Any) -> Iterator[dict[str, Any]]:
    arguments = {"stateMachineArn": machine, "maxResults": size}
    while True:
        answer = sfn.list_executions(**arguments)
        for execution in answer["executions"]:
            yield {**line(kind, execution), "href": href(kind, execution["name"])}
        if "nextToken" not in answer:
            return
        arguments["nextToken"] = answer["nextToken"]
