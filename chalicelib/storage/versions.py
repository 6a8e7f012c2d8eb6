"""Lists everything that S3 stores in a bucket: all versions of objects, and unfinished uploads."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from chalicelib.storage.crew import Crew
from chalicelib.storage.measurement import Part, Tally, merge
from chalicelib.storage.ranges import Range

# Each upload takes at least one more call, so a page of uploads is short. Its position is recorded after a few seconds.
UPLOADS_PER_PAGE = 10
# S3 escapes "<" in keys, so these patterns do not match inside a key. A key with an escaped character does not match.
ENTRY = re.compile(rb"<(Version|DeleteMarker)>")
FIELDS = {
    "Key": re.compile(rb"<Key>([^<&]*)</Key>"),
    "IsLatest": re.compile(rb"<IsLatest>(true|false)</IsLatest>"),
    "StorageClass": re.compile(rb"<StorageClass>(\w+)</StorageClass>"),
    "Size": re.compile(rb"<Size>(\d+)</Size>"),
}


@dataclass(frozen=True)
class Page:
    """The keys and parts in one response. ``end`` is the last key and its version or upload id if more follow."""

    entries: list[tuple[str, Part]]
    end: tuple[str, str] | None

    def parts(self, keys: Range) -> tuple[Part, ...]:
        """Returns the parts that are in the key range."""
        return merge(part for key, part in self.entries if key in keys)

    def rest(self, keys: Range) -> Range | None:
        """Returns the part of the key range that follows this page, or None."""
        rest = replace(keys, after=self.end[0], version=self.end[1]) if self.end else None
        return rest if rest and (rest.until is None or rest.after <= rest.until) else None


def list_page(s3: Any, bucket: str, keys: Range) -> Page:
    """Lists up to 1,000 versions and delete markers from the start of a key range. Some may be after its end."""
    page = s3.list_object_versions(Bucket=bucket, **_start(keys, "VersionIdMarker"))
    entries = [
        (each["Key"], Part("current" if each["IsLatest"] else "noncurrent", _storage_class(each), each["Size"], 1))
        for each in page.get("Versions", [])
    ]
    entries += [(each["Key"], Part("deleteMarkers", None, 0, 1)) for each in page.get("DeleteMarkers", [])]
    return Page(entries, _end(page, "NextVersionIdMarker"))


def list_uploads(s3: Any, bucket: str, keys: Range) -> Page:
    """Lists up to ten unfinished uploads from the start of a key range, with the sizes of their parts."""
    page = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=UPLOADS_PER_PAGE, **_start(keys, "UploadIdMarker"))
    entries = [
        (each["Key"], Part("unfinishedUploads", _storage_class(each), size, 1, each["Initiated"]))
        for each in page.get("Uploads", [])
        if each["Key"] in keys and (size := _uploaded(s3, bucket, each)) is not None
    ]
    return Page(entries, _end(page, "NextUploadIdMarker"))


def _uploaded(s3: Any, bucket: str, upload: dict[str, Any]) -> int | None:
    """Returns the number of bytes uploaded so far, or None if the upload has ended since it was listed."""
    pages = s3.get_paginator("list_parts").paginate(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    try:
        return sum(int(part["Size"]) for page in pages for part in page.get("Parts", []))
    except s3.exceptions.NoSuchUpload:
        return None


def _start(keys: Range, marker: str) -> dict[str, str]:
    # A key without a version or an upload id stands for all of its versions or uploads.
    return ({"KeyMarker": keys.after} if keys.after else {}) | ({marker: keys.version} if keys.version else {})


def _end(page: dict[str, Any], marker: str) -> tuple[str, str] | None:
    return (page["NextKeyMarker"], page.get(marker, "")) if page["IsTruncated"] else None


def _storage_class(entry: dict[str, Any]) -> str:
    return str(entry.get("StorageClass", "STANDARD"))


def read_entries(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Parses the versions and delete markers in a response from S3 faster than botocore, as its handler.

    Botocore parses the rest of the response. If the response is unusual, botocore parses all of it.
    """
    head, *chunks = ENTRY.split(response_dict["body"])
    entries: dict[bytes, list[dict[str, Any]]] = {b"Version": [], b"DeleteMarker": []}
    for kind, chunk in zip(chunks[::2], chunks[1::2], strict=True):
        fields = {name: match[1].decode() for name, pattern in FIELDS.items() if (match := pattern.search(chunk))}
        if len(fields) < (len(FIELDS) if kind == b"Version" else 2):
            return
        entries[kind].append(fields | {"IsLatest": fields["IsLatest"] == "true", "Size": int(fields.get("Size", 0))})
    if chunks:
        customized_response_dict |= {"Versions": entries[b"Version"], "DeleteMarkers": entries[b"DeleteMarker"]}
        response_dict["body"] = head + chunks[-1].partition(b"</" + chunks[-2] + b">")[2]


def list_everything(tally: Tally, number: int, s3: Any, crew: Crew, now: datetime) -> None:
    """Lists the versions or the unfinished uploads in a key range until the range ends or time is nearly up."""
    while True:
        keys = tally.left[number]
        page = (list_uploads if keys.uploads else list_page)(s3, tally.name, keys)
        parts, rest = page.parts(keys), page.rest(keys)
        objects = sum(part.count for part in parts if part.kind == "current")
        tally.count(number, sum(part.bytes for part in parts), objects, rest, now, parts)
        if not rest or not crew.in_time():
            return
