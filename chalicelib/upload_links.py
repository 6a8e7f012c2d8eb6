"""Where a browser may put a file: S3 takes it by a link that was made for this one upload.

The file itself never comes through the API. What the link allows is signed into it, and S3 holds the upload to that:
its key, its type, its size, and for how long.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from datetime import datetime, timedelta
from typing import Any

from chalicelib.fields import Fields
from chalicelib.logs import logger
from chalicelib.timeline import timestamp

# What an import takes: S3 refuses more already.
FILE_BYTES = 50_000_000
CONTENT_TYPE = "text/csv"
LINK_SECONDS = 600
FILENAME_CHARACTERS = 255
# Of the file's name the key has these characters, and so many.
KEY_CHARACTERS = re.compile(r"[^A-Za-z0-9_.-]+")
NAME_CHARACTERS = 80

log = logger("upload_links")


def parse(body: Any) -> str:
    """The name of the file, from a request's JSON body: ``{"filename"}`` and, if it is known, ``"size"`` in bytes."""
    fields = Fields.of_body(body, ("filename", "size"), of="an upload", expected="an object with filename")
    name = fields.get("filename")
    if "filename" not in fields:
        fields.refuse("filename", "is missing")
    elif not isinstance(name, str) or not 1 <= len(name) <= FILENAME_CHARACTERS:
        fields.refuse("filename", f"must be a text of 1 to {FILENAME_CHARACTERS} characters")
    elif not name.lower().endswith(".csv"):
        fields.refuse("filename", "must end in .csv")
    fields.whole_number("size", 1, FILE_BYTES, default=1, unit=" of bytes,")
    fields.check()
    return str(name)


def offer(filename: str, *, s3: Any, bucket: str, now: datetime) -> dict[str, Any]:
    """A link for one upload: ``{"key", "url", "fields", "expiresAt", "maxBytes"}``.

    The browser sends a form to ``url`` with ``fields`` and, last, the ``file``. Each link has a key of its own, so two
    uploads of one name are two files.
    """
    key = f"inventory/{now:%Y-%m-%d}-{secrets.token_hex(6)}/{_safe(filename)}.csv"
    link = s3.generate_presigned_post(
        bucket,
        key,
        Fields={"Content-Type": CONTENT_TYPE},
        Conditions=[{"Content-Type": CONTENT_TYPE}, ["content-length-range", 1, FILE_BYTES]],
        ExpiresIn=LINK_SECONDS,
    )
    log.info("upload offered", extra={"key": key})
    expires_at = timestamp(now + timedelta(seconds=LINK_SECONDS))
    return {"key": key, "url": link["url"], "fields": link["fields"], "expiresAt": expires_at, "maxBytes": FILE_BYTES}


def _safe(filename: str) -> str:
    """``filename`` without its folders and its ending, in characters that mean nothing to anyone."""
    name = re.split(r"[/\\]", filename)[-1][: -len(".csv")]
    # Letters lose their accents, which are characters of their own in this form.
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return KEY_CHARACTERS.sub("-", bare).strip("-.")[:NAME_CHARACTERS] or "upload"
