"""An uploaded file as an S3 event or a request describes it, and its content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, unquote_plus

import humanize
from botocore.exceptions import ClientError

from chalicelib import correlation
from chalicelib.errors import CafeError, aws_errors
from chalicelib.notifications import one_line
from chalicelib.uploads.detection import NotImported
from chalicelib.uploads.links import FILE_BYTES
from chalicelib.uploads.records import upload_id

CHUNK_BYTES = 262_144


@dataclass(frozen=True)
class Upload:
    """One record of an S3 event. The ``sequencer`` shows the order of the events for the same key.

    A request of the API has the same format. Its ``event`` is one of ``jobs.REQUESTS``, and ``encoding`` is the
    encoding that the request names.
    """

    key: str
    size: int
    etag: str
    sequencer: str
    event: str
    time: str
    correlation_id: str | None = None
    encoding: str | None = None

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
            encoding=record.get("encoding"),
        )

    def to_record(self) -> dict[str, Any]:
        """Returns the record from which ``from_record`` makes the same upload."""
        stored = {"key": quote_plus(self.key), "size": self.size, "eTag": self.etag, "sequencer": self.sequencer}
        return {
            "eventName": self.event,
            "eventTime": self.time,
            "s3": {"object": stored},
            "responseElements": {"x-amz-request-id": self.correlation_id},
            "encoding": self.encoding,
        }

    def log_fields(self) -> dict[str, Any]:
        """Returns the upload's fields for a log record, with the names that S3 uses."""
        return {
            "key": self.key,
            "bytes": self.size,
            "eTag": self.etag,
            "sequencer": self.sequencer,
            "eventName": self.event,
            "eventTime": self.time,
        }

    @property
    def id(self) -> str:
        return upload_id(self.key, self.sequencer)

    @property
    def name(self) -> str:
        """The object's key on one line, for use in messages."""
        return one_line(self.key)

    def is_csv_in(self, folder: str) -> bool:
        return self.key.startswith(f"{folder}/") and self.key.lower().endswith(".csv")

    def is_newer_than(self, sequencer: str) -> bool:
        """Compares sequencers. They are hexadecimal numbers of different lengths, so the shorter one is padded."""
        width = max(len(self.sequencer), len(sequencer))
        return self.sequencer.upper().rjust(width, "0") > sequencer.upper().rjust(width, "0")


class Overwritten(CafeError):
    """The object was replaced by a newer object, which has its own event."""

    def __init__(self) -> None:
        super().__init__("a newer file with the same key replaced this file before it could be read; upload it again")


def open_file(upload: Upload, s3: Any, bucket: str) -> Any:
    """Opens the event's object as a stream. Never opens a newer object with the same key."""
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
                raise Overwritten from error
        raise


def chunks(body: Any) -> Iterator[bytes]:
    while True:
        with aws_errors():
            chunk = body.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk
