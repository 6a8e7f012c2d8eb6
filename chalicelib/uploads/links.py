"""Creates upload links, which are presigned forms that let a browser send one file directly to S3.

The file does not pass through the API. The link's signature covers the key, the content type, the size limits and the
expiry time, so S3 refuses any upload that differs.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from chalicelib.fields import Fields
from chalicelib.logs import logger
from chalicelib.timeline import timestamp
from chalicelib.uploads.records import Records

# S3 and the import both refuse files with more bytes than this.
FILE_BYTES = 50_000_000
CONTENT_TYPE = "text/csv"
LINK_SECONDS = 600
FILENAME_CHARACTERS = 255
# Hyphens replace these characters in the file name at the end of the S3 key. The file name is shortened to 80
# characters.
OTHER_CHARACTERS = re.compile(r"[^A-Za-z0-9_.-]+")
NAME_CHARACTERS = 80

log = logger("upload_links")


class Wish(NamedTuple):
    """A request for a link. ``preview`` compares the file with the stock instead of importing it."""

    filename: str
    preview: bool


def parse(body: Any) -> Wish:
    """Returns the content of a request's JSON body, ``{"filename", "preview", "size"}``. Only the name is required."""
    fields = Fields.of_body(body, ("filename", "preview", "size"), of="an upload", expected="an object with filename")
    name = fields.get("filename")
    if "filename" not in fields:
        fields.refuse("filename", "is missing")
    elif not isinstance(name, str) or not 1 <= len(name) <= FILENAME_CHARACTERS:
        fields.refuse("filename", f"must be a string of 1 to {FILENAME_CHARACTERS} characters")
    elif not name.lower().endswith(".csv"):
        fields.refuse("filename", "must end in .csv")
    fields.whole_number("size", 1, FILE_BYTES, default=1, unit=" of bytes,")
    if not isinstance(fields.get("preview", False), bool):
        fields.refuse("preview", "must be true or false")
    fields.check()
    return Wish(str(name), fields.get("preview", False))


def offer(wish: Wish, user: str, *, s3: Any, bucket: str, records: Records, now: datetime) -> dict[str, Any]:
    """Returns a link for one upload, as ``{"key", "url", "fields", "expiresAt", "maxBytes"}``.

    To use the link, the browser posts a form to ``url``. The form contains ``fields`` followed by ``file``. Each link
    has a new S3 key, so two uploads with the same name create two objects.
    """
    identifier, folder = secrets.token_hex(6), "previews" if wish.preview else "inventory"
    key = f"{folder}/{now:%Y-%m-%d}-{identifier}/{_safe_name(wish.filename)}.csv"
    link = s3.generate_presigned_post(
        bucket,
        key,
        Fields={"Content-Type": CONTENT_TYPE},
        Conditions=[{"Content-Type": CONTENT_TYPE}, ["content-length-range", 1, FILE_BYTES]],
        ExpiresIn=LINK_SECONDS,
    )
    records.offer(identifier, key, wish.filename, user, now)
    log.info("upload offered", extra={"key": key})
    expires_at = timestamp(now + timedelta(seconds=LINK_SECONDS))
    return {
        "uploadId": identifier,
        "key": key,
        "url": link["url"],
        "fields": link["fields"],
        "expiresAt": expires_at,
        "maxBytes": FILE_BYTES,
    }


def _safe_name(filename: str) -> str:
    """Returns ``filename`` without folders or extension, and without characters that must be escaped in an S3 key."""
    name = re.split(r"[/\\]", filename)[-1][: -len(".csv")]
    # NFKD normalization turns accents into separate characters, which are then removed.
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return OTHER_CHARACTERS.sub("-", bare).strip("-.")[:NAME_CHARACTERS] or "upload"
