"""Logs each uploaded file, imports inventories into MySQL, and publishes a notification of the result.

A single transaction imports the rows and records the S3 event. An event that is delivered twice, or after a newer
event, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import humanize
from botocore.exceptions import ClientError

from chalicelib import correlation, metrics
from chalicelib.errors import CafeError, aws_errors
from chalicelib.logs import logger
from chalicelib.names import quoted
from chalicelib.notifications import Notification, Publish, counted, one_line
from chalicelib.uploads.detection import Column, NotImported
from chalicelib.uploads.importing import Imported, Ledger, import_rows
from chalicelib.uploads.links import FILE_BYTES
from chalicelib.uploads.rows import COLUMNS_SHOWN, read_rows

if TYPE_CHECKING:
    from pymysql.connections import Connection
    from pymysql.cursors import Cursor

CHUNK_BYTES = 262_144

log = logger("uploads")


@dataclass(frozen=True)
class Upload:
    """One record of an S3 event. The ``sequencer`` determines the order of events for the same key."""

    key: str
    size: int
    etag: str
    sequencer: str
    event: str
    time: str
    correlation_id: str | None = None

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Upload:
        stored = record["s3"]["object"]
        return cls(
            key=unquote_plus(stored["key"]),
            size=stored["size"],
            etag=stored["eTag"],
            sequencer=stored["sequencer"],
            event=record["eventName"],
            time=record["eventTime"],
            correlation_id=correlation.of_upload(record),
        )

    def log_fields(self) -> dict[str, Any]:
        """Returns the fields that describe the upload in a log record."""
        return {
            "key": self.key,
            "bytes": self.size,
            "eTag": self.etag,
            "sequencer": self.sequencer,
            "eventName": self.event,
            "eventTime": self.time,
        }

    @property
    def name(self) -> str:
        """The object's key as a single line of text, for use in messages."""
        return one_line(self.key)

    def is_inventory(self) -> bool:
        return self.key.startswith("inventory/") and self.key.lower().endswith(".csv")

    def is_newer_than(self, sequencer: str) -> bool:
        """Compares sequencers as hexadecimal numbers, after padding the shorter number with zeros."""
        width = max(len(self.sequencer), len(sequencer))
        return self.sequencer.upper().rjust(width, "0") > sequencer.upper().rjust(width, "0")


class Overwritten(CafeError):
    """The uploaded object was replaced by a newer object, which has its own event."""


def receive(
    event: dict[str, Any],
    *,
    s3: Any,
    connect: Callable[[], AbstractContextManager[Connection[Any]]],
    publish: Publish,
    bucket: str,
) -> None:
    """Handles each record in an S3 event. Raises ``Unavailable`` if S3, SNS or MySQL is temporarily unavailable.

    ``connect`` opens a connection to MySQL, and is called only for inventories.
    """
    if "Records" not in event:
        log.info("S3 test event ignored", extra={"event": event.get("Event")})
        return
    for upload in map(Upload.from_record, event["Records"]):
        with correlation.about(upload.correlation_id):
            log.info("upload received", extra=upload.log_fields())
            if upload.is_inventory():
                with connect() as connection:
                    _import_once(upload, connection, s3=s3, publish=publish, bucket=bucket)
            else:
                details = "The file is kept for 90 days. Only inventory/*.csv files are imported."
                publish(_notification(upload, "received", details, {"outcome": "received"}))


def _import_once(upload: Upload, connection: Connection[Any], *, s3: Any, publish: Publish, bucket: str) -> None:
    imported = Imported()
    with connection.cursor() as cursor:
        # READ COMMITTED avoids gap locks, so imports wait for each other only if they share a supplier.
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        ledger = Ledger(cursor, upload.key)
        if upload.is_newer_than(ledger.lock(publish)):
            try:
                imported, notification = _import_file(cursor, upload, s3, bucket)
                ledger.write(upload.sequencer, upload.etag, notification)
            except Overwritten:
                log.info(
                    "overwritten before it could be read; the newer file has its own event", extra={"key": upload.key}
                )
        else:
            log.info("event known already", extra={"key": upload.key, "sequencer": upload.sequencer})
        connection.commit()
        # Row counts are published as metrics only after the commit, because a failed import is retried.
        metrics.emit({"RowsGood": imported.good, "RowsBad": imported.bad})
        # Publishes the notification while the row is locked, so that simultaneous deliveries publish it only once.
        ledger.lock(publish)
        connection.commit()


def _import_file(cursor: Cursor, upload: Upload, s3: Any, bucket: str) -> tuple[Imported, Notification]:
    try:
        with closing(_open(upload, s3, bucket)) as body:
            reading = read_rows(_chunks(body))
            imported = import_rows(cursor, reading)
    except NotImported as error:
        log.warning("inventory not imported", extra={"key": upload.key, "reason": str(error)})
        details = f"Nothing was imported: {error}."
        seen = {"looksLike": error.looks_like, "cells": [*error.cells]} if error.looks_like else {}
        return Imported(), _notification(upload, "not imported", details, {"outcome": "notImported", **seen})
    facts = {**imported.counts, **reading.facts}
    log.info("inventory imported", extra={"key": upload.key, **facts})
    outcome = f"{counted(imported.good, 'row')} imported, {imported.bad:,} bad"
    details = _details(imported, reading.unused_columns)
    return imported, _notification(upload, outcome, details, {"outcome": "imported", **facts})


def _open(upload: Upload, s3: Any, bucket: str) -> Any:
    """Opens the uploaded object as a stream, but never a newer object with the same key."""
    if upload.size > FILE_BYTES:
        limit = humanize.naturalsize(FILE_BYTES)
        raise NotImported(f"the file is larger than {limit}; split it into smaller files")
    try:
        with aws_errors():
            return s3.get_object(Bucket=bucket, Key=upload.key, IfMatch=f'"{upload.etag}"')["Body"]
    except ClientError as error:
        match error.response["Error"]["Code"]:
            case "NoSuchKey":
                raise NotImported("the file was deleted before it could be read") from error
            case "PreconditionFailed":
                raise Overwritten(upload.key) from error
        raise


def _chunks(body: Any) -> Iterator[bytes]:
    while True:
        with aws_errors():
            chunk = body.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def _notification(upload: Upload, outcome: str, details: str, facts: dict[str, Any]) -> Notification:
    size = humanize.naturalsize(upload.size)
    subject = f"Upload: {outcome} ({upload.name})"
    return Notification(
        kind="upload",
        key=f"upload/{upload.name}/{upload.sequencer}",
        subject=subject,
        message=f"{upload.name} ({size}) was received at {upload.time}.\n{details}",
        sms=subject,
        correlation_ids=(upload.correlation_id,) if upload.correlation_id else (),
        facts={"key": upload.key, **facts},
    )


def _details(imported: Imported, unused: list[Column]) -> str:
    lines = [
        f"{counted(imported.good, 'row')} imported: {imported.new:,} new, {imported.updated:,} updated, "
        f"{imported.unchanged:,} unchanged."
    ]
    if unused:
        names = [quoted(name) if name else f"column {position:,} without a name" for position, name in unused]
        more = f" and {len(unused) - COLUMNS_SHOWN:,} more" if len(unused) > COLUMNS_SHOWN else ""
        lines.append(f"Columns that were not used: {', '.join(names[:COLUMNS_SHOWN])}{more}.")
    if imported.bad:
        lines.append(f"{counted(imported.bad, 'row')} left out:")
        lines += [f"- line {line:,}: {reason}" for line, reason in imported.bad_rows]
    if imported.bad > len(imported.bad_rows):
        lines.append(f"and {imported.bad - len(imported.bad_rows):,} more")
    return "\n".join(lines)
