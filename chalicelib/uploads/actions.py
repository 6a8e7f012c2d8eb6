"""Starts a new preview, an import of a previewed file, or an undo. The function that has MySQL does the work."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from chalicelib import correlation
from chalicelib.errors import Conflict, Problem, aws_errors
from chalicelib.fields import Fields
from chalicelib.rest import Page
from chalicelib.timeline import timestamp
from chalicelib.uploads import comparing
from chalicelib.uploads.records import Records, Status, shown
from chalicelib.uploads.upload import Upload

ENCODINGS = ("windows-1252",)


class Transition(NamedTuple):
    """An action's event. It starts in one of the statuses ``allowed`` and sets ``begun``. In ``done``, it is done."""

    event: str
    allowed: tuple[Status, ...]
    begun: Status
    done: tuple[Status, ...] = ()


ACTIONS = {
    "preview": Transition("Cafe:Preview", (Status.PREVIEWED, Status.OUTDATED, Status.REFUSED), Status.PREVIEWING),
    "apply": Transition("Cafe:Apply", (Status.PREVIEWED,), Status.IMPORTING, (Status.IMPORTED,)),
    "undo": Transition("Cafe:Undo", (Status.IMPORTED,), Status.UNDOING, (Status.UNDONE,)),
}


def parse(body: Any, *names: str) -> str | None:
    """Returns the encoding in a request's JSON body, if any. ``names`` lists the allowed fields."""
    fields = Fields.of_body(body, names, of="this request", expected="an object")
    encoding: str | None = fields.get("encoding")
    if encoding not in (None, *ENCODINGS):
        fields.refuse("encoding", f"must be {' or '.join(ENCODINGS)}, or left out")
    fields.check()
    return encoding


def show(upload_id: str, page: Page, records: Records, s3: Any, bucket: str) -> dict[str, Any]:
    """Returns ``{"upload", "changes", "next"}`` with a page of the changes that a preview found."""
    stored = records.get(upload_id)
    changes, token = comparing.shown(stored, page, s3, bucket)
    return {"upload": shown(stored), "changes": changes, "next": token}


def start(
    name: str,
    upload_id: str,
    encoding: str | None,
    user: str,
    *,
    records: Records,
    aws: Any,
    function: str,
    now: datetime,
) -> dict[str, Any]:
    """Starts an action and returns the upload. Raises ``Conflict`` if the upload's state does not allow the action."""
    stored, action = records.get(upload_id), ACTIONS[name]
    if stored["status"] in action.done:
        return shown(stored)
    upload = _file(stored, name, now)
    values: dict[str, Any] = {"rowsRead": 0} if name != "undo" else {}
    if name == "undo" and not stored.get("undo"):
        # A repeated request does not change who requested the undo.
        values = {"undo": {"requestedBy": user}}
    records.begin(upload_id, action.allowed, action.begun, now, **values)
    request = replace(
        upload, event=action.event, time=timestamp(now), encoding=encoding, correlation_id=correlation.current()
    )
    with aws_errors():
        payload = json.dumps({"Records": [request.to_record()]})
        aws("lambda").invoke(FunctionName=function, InvocationType="Event", Payload=payload)
    return shown(records.get(upload_id))


def _file(stored: dict[str, Any], name: str, now: datetime) -> Upload:
    """Returns the uploaded file. Raises ``Conflict`` if the action is not possible with this file."""
    status, result = stored["status"], stored.get("result", {})
    problem = None
    upload = Upload.from_record(stored["file"]) if "file" in stored else None
    if not upload:
        problem = "upload the file first"
    elif name != "undo" and not upload.is_csv_in("previews"):
        problem = "this file was uploaded without a preview"
    elif name == "undo" and status == Status.IMPORTED:
        until = result.get("undoableUntil")
        if not until:
            problem = "this import changed too many beans to be undone"
        elif until < timestamp(now):
            problem = f"this import could be undone until {until}"
    if problem or not upload:
        raise Conflict([Problem("status", f"is {status}: {problem}")])
    return upload
