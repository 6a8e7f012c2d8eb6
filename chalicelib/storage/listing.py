"""Measures buckets by listing their objects page by page, and splits long key ranges among idle threads."""

from __future__ import annotations

import re
from datetime import datetime
from functools import partial
from typing import Any

from chalicelib.storage.crew import Crew
from chalicelib.storage.measurement import Tally
from chalicelib.storage.ranges import Range, middle
from chalicelib.storage.versions import read_entries

# After this many pages of 1,000 objects, a key range is split if a thread is idle.
PAGES_UNSPLIT = 25
# These patterns match the key and size of an object in the XML response from S3. S3 escapes "<" in keys, so no pattern
# matches inside a key.
KEY = re.compile(rb"<Key>([^<]*)</Key>")
SIZE = re.compile(rb"<Size>(\d+)</Size>")
FIRST_OBJECT, LAST_OBJECT = b"<Contents>", b"</Contents>"


def list_range(tally: Tally, number: int, s3: Any, crew: Crew, now: datetime) -> None:
    """Lists the objects in key range ``number`` of a bucket until the range ends or time is nearly up."""

    def has_keys(keys: Range) -> bool:
        contents = s3.list_objects_v2(Bucket=tally.name, StartAfter=keys.after, MaxKeys=1).get("Contents", [])
        return any(each["Key"] in keys for each in contents)

    after = tally.left[number].after
    start = {"StartAfter": after} if after else {}
    pages = 0
    while True:
        page = s3.list_objects_v2(Bucket=tally.name, **start)
        keys, contents, rest = tally.left[number], page.get("Contents", []), None
        if contents and contents[-1]["Key"] not in keys:
            contents = [each for each in contents if each["Key"] in keys]
        elif page["IsTruncated"]:
            rest = Range(contents[-1]["Key"] if contents else keys.after, keys.until)
        tally.count(number, sum(each["Size"] for each in contents), len(contents), rest, now)
        pages += 1
        if not rest or not crew.in_time():
            return
        if pages % PAGES_UNSPLIT == 0 and crew.is_idle and (key := middle(rest, has_keys)):
            crew.add(partial(list_range, tally, tally.split(number, key), s3, crew, now), [tally])
        start = {"ContinuationToken": page["NextContinuationToken"]}


def for_sizes(s3: Any) -> Any:
    """Makes the client ``s3`` return only the ``Key`` and ``Size`` of each listed object. Returns the client.

    Botocore's parsing of the objects takes 80% of the time of a listing, so a faster parser replaces it.
    """
    s3.meta.events.register("before-parse.s3.ListObjectsV2", _read_contents, unique_id="storage")
    s3.meta.events.register("before-parse.s3.ListObjectVersions", read_entries, unique_id="versions")
    return s3


def _read_contents(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Parses the objects in an S3 response.

    Botocore parses the rest of the response, and adds ``customized_response_dict`` to the result.
    """
    body = response_dict["body"]
    keys, sizes = KEY.findall(body), SIZE.findall(body)
    # If the response is unusual or a key contains an escaped character, botocore also parses the objects.
    if not len(keys) == len(sizes) == body.count(FIRST_OBJECT) > 0 or any(b"&" in key for key in keys):
        return
    objects = zip(keys, sizes, strict=True)
    customized_response_dict["Contents"] = [{"Key": key.decode(), "Size": int(size)} for key, size in objects]
    response_dict["body"] = body[: body.index(FIRST_OBJECT)] + body[body.rindex(LAST_OBJECT) + len(LAST_OBJECT) :]
