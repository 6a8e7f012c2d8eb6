"""Stores each upload's state and result in DynamoDB, because the API cannot reach MySQL.

The API writes the attribute ``offer`` when it issues a link, and the import writes ``file`` and ``result``. A change of
``status`` is conditional, so a repeated or late event cannot turn an upload back.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import unquote_plus

from chalicelib.errors import Conflict, NotFound, Problem, aws_errors
from chalicelib.rest import Page
from chalicelib.timeline import Timeline, index_keys, timestamp

KEPT = timedelta(days=90)
# The id of an upload whose link the API issued is part of the object's key.
ISSUED_KEY = re.compile(r"(?:inventory|previews)/\d{4}-\d{2}-\d{2}-([0-9a-f]{12})/")
UPLOAD_ID = re.compile("[0-9a-f]{12}")


class Status(StrEnum):
    """The states of an upload. ``docs/architecture.md`` shows which state follows which."""

    WAITING = "WAITING"
    PREVIEWING = "PREVIEWING"
    PREVIEWED = "PREVIEWED"
    IMPORTING = "IMPORTING"
    IMPORTED = "IMPORTED"
    REFUSED = "REFUSED"
    OUTDATED = "OUTDATED"
    UNDOING = "UNDOING"
    UNDONE = "UNDONE"


# The fields of an upload's result, with their values before there is a result.
NO_RESULT: dict[str, Any] = {
    "encoding": None,
    "delimiter": None,
    "counts": None,
    "unusedColumns": [],
    "reason": None,
    "looksLike": None,
    "samples": [],
    "differences": [],
    "undoable": False,
    "undoableUntil": None,
}


def upload_id(key: str, sequencer: str) -> str:
    """Returns the id of the upload that an S3 event reports. A file put straight into S3 gets an id of its own."""
    if issued := ISSUED_KEY.match(key):
        return issued[1]
    return hashlib.sha256(f"{key}\0{sequencer}".encode()).hexdigest()[:12]


class Records:
    """The uploads table. ``dynamodb`` is a DynamoDB client."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table

    @aws_errors()
    def offer(self, identifier: str, key: str, filename: str, user: str, now: datetime) -> None:
        """Records that ``user`` requested a link. The upload is listed only when its file arrives."""
        offer = {"key": key, "filename": filename, "uploadedBy": user}
        self._update(identifier, now, status=Status.WAITING, offer=offer)

    @aws_errors()
    def arrive(self, identifier: str, file: Mapping[str, Any], status: Status, now: datetime) -> None:
        """Records an uploaded file, which ``file`` describes, and lists it. A repeated event changes nothing."""
        keys = index_keys(timestamp(now), identifier)
        self._update(
            identifier, now, {Status.WAITING, None}, status=status, file=file, uploadedAt=timestamp(now), **keys
        )

    @aws_errors()
    def change(
        self, identifier: str, allowed: Collection[Status], status: Status, now: datetime, **values: Any
    ) -> bool:
        """Changes the status and the attributes in ``values``. Returns whether the status was one of ``allowed``."""
        return self._update(identifier, now, allowed, status=status, **values)

    @aws_errors()
    def progress(self, identifier: str, rows: int) -> None:
        """Records how many rows of a file have been read."""
        self._dynamodb.update_item(
            TableName=self._table,
            Key={"uploadId": {"S": identifier}},
            UpdateExpression="SET rowsRead = :rows",
            ExpressionAttributeValues={":rows": {"N": str(rows)}},
        )

    @aws_errors()
    def get(self, identifier: str) -> dict[str, Any]:
        """Returns an upload's stored attributes. Raises ``NotFound`` if there is no such upload."""
        if UPLOAD_ID.fullmatch(identifier):
            key = {"uploadId": {"S": identifier}}
            answer = self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True)
            if "Item" in answer:
                return _stored(answer["Item"])
        raise NotFound("upload", identifier[:64])

    @aws_errors()
    def newest(self, page: Page, now: datetime) -> dict[str, Any]:
        """Returns ``{"uploads": [upload], "next": token or None}``, newest first."""
        timeline = Timeline(self._dynamodb, self._table)
        items, token = timeline.page("uploads", (now - KEPT).date().isoformat(), page.limit, page.next, now)
        return {"uploads": [shown(_stored(item)) for item in items], "next": token}

    def begin(self, identifier: str, allowed: Collection[Status], status: Status, now: datetime, **values: Any) -> None:
        """Starts an action. A repetition is allowed. Raises ``Conflict`` if the upload is in another state."""
        if not self.change(identifier, {*allowed, status}, status, now, **values):
            present = self.get(identifier)["status"]
            wanted = " or ".join(allowed)
            raise Conflict([Problem("status", f"is {present}, but must be {wanted}; read the upload again")])

    def _update(
        self, identifier: str, now: datetime, allowed: Collection[Status | None] | None = None, **values: Any
    ) -> bool:
        """Sets attributes. Returns False, and changes nothing, if the status is not one of ``allowed``."""
        values["expiresAt"] = int((now + KEPT).timestamp())
        names = {f"#{name}": name for name in values}
        given = {f":{name}": _attribute(value) for name, value in values.items()}
        condition = {}
        if allowed is not None:
            states = [status for status in allowed if status]
            given |= {f":is{number}": {"S": state} for number, state in enumerate(states)}
            terms = [f"#status IN ({', '.join(f':is{number}' for number in range(len(states)))})"]
            terms += ["attribute_not_exists(#status)"] if None in allowed else []
            condition = {"ConditionExpression": " OR ".join(terms)}
        try:
            self._dynamodb.update_item(
                TableName=self._table,
                Key={"uploadId": {"S": identifier}},
                UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in values),
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=given,
                **condition,
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True


def _attribute(value: Any) -> dict[str, str]:
    """Returns a DynamoDB attribute. Objects become JSON, because no query looks into them."""
    if isinstance(value, str):
        return {"S": str(value)}
    return {"N": str(value)} if isinstance(value, int) else {"S": json.dumps(value)}


def _stored(item: dict[str, Any]) -> dict[str, Any]:
    contents: dict[str, Any] = {
        name: json.loads(item[name]["S"]) for name in ("offer", "file", "result", "undo") if name in item
    }
    texts: dict[str, Any] = {name: item[name]["S"] for name in ("uploadId", "status", "uploadedAt") if name in item}
    return {**contents, **texts, "rowsRead": int(item.get("rowsRead", {"N": "0"})["N"])}


def shown(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an upload in the format that ``chalicelib/openapi.json`` describes."""
    offer, result = stored.get("offer", {}), stored.get("result", {})
    file = stored["file"]["s3"]["object"] if "file" in stored else {}
    key = unquote_plus(file["key"]) if file else offer["key"]
    return {
        "uploadId": stored["uploadId"],
        "key": key,
        "filename": offer.get("filename") or key.rpartition("/")[2],
        "bytes": file.get("size"),
        "status": stored["status"],
        "uploadedBy": offer.get("uploadedBy"),
        "uploadedAt": stored.get("uploadedAt"),
        "rowsRead": stored["rowsRead"],
        **{name: result.get(name, default) for name, default in NO_RESULT.items()},
        "undo": stored.get("undo"),
    }
