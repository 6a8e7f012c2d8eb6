"""Lists everything that S3 stores in a bucket: all versions of objects, and unfinished uploads."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from botocore.compat import unquote_str

from chalicelib.storage.listing import SAMPLE, Listed
from chalicelib.storage.measurement import Part, merge
from chalicelib.storage.ranges import Range

# Each upload takes at least one ListParts call. With short pages, the listing records its position every few seconds.
UPLOADS_PER_PAGE = 10
# S3 escapes "<" in keys, so these patterns do not match inside a key. If a key contains an escaped character, no
# pattern matches, and botocore parses the page.
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
    token: None = None

    def within(self, keys: Range) -> Listed:
        """Returns the content of the page that lies in the range. Another thread may have shortened the range."""
        entries = [(key, part) for key, part in self.entries if _has(keys, key)]
        parts, listed = merge(part for _, part in entries), sorted({key for key, _ in entries})
        end = self.end if self.end and (keys.until is None or self.end[0] <= keys.until) else None
        rest = replace(keys, after=end[0], version=end[1]) if end else None
        objects = sum(part.count for part in parts if part.kind == "current")
        return Listed(listed[:-1:SAMPLE] + listed[-1:], sum(part.bytes for part in parts), objects, rest, parts)


def fetch_versions(s3: Any, bucket: str, keys: Range, _token: str | None) -> Page:
    """Lists the start of a key range with a client from ``with_version_parser``."""
    return (_list_uploads if keys.uploads else _list_versions)(s3, bucket, keys)


def _list_versions(s3: Any, bucket: str, keys: Range) -> Page:
    """Lists up to 1,000 versions and delete markers from the start of a key range. Some may be after its end."""
    page = s3.list_object_versions(Bucket=bucket, **_start(keys, "VersionIdMarker"))
    kinds = {True: "current", False: "noncurrent"}
    entries = [
        (each["Key"], Part(kinds[each["IsLatest"]], each.get("StorageClass", "STANDARD"), each["Size"], 1))
        for each in page.get("Versions", [])
    ]
    entries += [(each["Key"], Part("deleteMarkers", None, 0, 1)) for each in page.get("DeleteMarkers", [])]
    return Page(entries, _end(page, "NextVersionIdMarker"))


def _list_uploads(s3: Any, bucket: str, keys: Range) -> Page:
    """Lists up to ten unfinished uploads from the start of a key range, with the sizes of their parts."""
    start = _start(keys, "UploadIdMarker")
    page = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=UPLOADS_PER_PAGE, EncodingType="url", **start)
    # Botocore decodes the keys of objects and versions, but not those of uploads.
    decode = unquote_str if page.get("EncodingType") == "url" else str
    uploads = [{**each, "Key": decode(each["Key"])} for each in page.get("Uploads", [])]
    entries = [
        (each["Key"], Part("unfinishedUploads", each.get("StorageClass", "STANDARD"), size, 1, each["Initiated"]))
        for each in uploads
        if _has(keys, each["Key"]) and (size := _uploaded(s3, bucket, each)) is not None
    ]
    end = _end(page, "NextUploadIdMarker")
    return Page(entries, end and (decode(end[0]), end[1]))


def _uploaded(s3: Any, bucket: str, upload: dict[str, Any]) -> int | None:
    """Returns the number of bytes uploaded so far, or None if the upload has ended since it was listed."""
    pages = s3.get_paginator("list_parts").paginate(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    try:
        return sum(int(part["Size"]) for page in pages for part in page.get("Parts", []))
    except s3.exceptions.NoSuchUpload:
        return None


def _has(keys: Range, key: str) -> bool:
    return key in keys or (key == keys.after and keys.version != "")


def _start(keys: Range, marker: str) -> dict[str, str]:
    # If the marker is only a key, S3 skips all versions or uploads of that key.
    return ({"KeyMarker": keys.after} if keys.after else {}) | ({marker: keys.version} if keys.version else {})


def _end(page: dict[str, Any], marker: str) -> tuple[str, str] | None:
    return (page["NextKeyMarker"], page.get(marker, "")) if page["IsTruncated"] else None


def with_version_parser(s3: Any) -> Any:
    """Makes the client ``s3`` parse listed versions faster than botocore does. Returns the client."""
    s3.meta.events.register("before-parse.*.ListObjectVersions", _read_entries, unique_id="versions")
    return s3


def _read_entries(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Parses the versions and delete markers in a response from S3.

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
