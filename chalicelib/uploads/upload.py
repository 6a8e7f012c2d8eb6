"""An uploaded file as an S3 event or a request describes it, and its content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
# Maximum length of the column ``sequencer`` in the table ``uploads``.
SEQUENCERS_CHARACTERS = 64


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

    def is_folder(self) -> bool:
        """Returns True for the empty object that S3's console creates for a folder."""
        return self.key.endswith("/") and not self.size

    def is_new(self, handled: str, is_current: Callable[[], bool]) -> bool:
        """Returns True unless this event, or a later event for the same key, was handled.

        AWS's documentation contradicts itself about how to compare sequencers of different lengths. If the lengths
        differ, the event is new if its object ``is_current``, which means that the object was not replaced.
        """
        sequencers = handled.split()
        same_length = [each for each in sequencers if len(each) == len(self.sequencer)]
        if any(each.upper() >= self.sequencer.upper() for each in same_length):
            return False
        return len(same_length) == len(sequencers) or is_current()

    def with_handled(self, handled: str) -> str:
        """Returns the newest handled sequencer of each length, including this event's sequencer, for the ledger."""
        sequencers = self.sequencer
        for each in handled.split():
            if len(each) != len(self.sequencer) and len(f"{sequencers} {each}") <= SEQUENCERS_CHARACTERS:
                sequencers += f" {each}"
        return sequencers


class Overwritten(CafeError):
    """The object was replaced by a newer object, which has its own event."""

    def __init__(self) -> None:
        super().__init__("a newer file with the same key replaced this file before it could be read; upload it again")


def is_current(upload: Upload, s3: Any, bucket: str) -> bool:
    """Returns whether S3 still has the uploaded object, and neither a newer object with the same key nor none."""
    try:
        with aws_errors():
            return bool(s3.head_object(Bucket=bucket, Key=upload.key)["ETag"].strip('"') == upload.etag)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return False
        raise


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
