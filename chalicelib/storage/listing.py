"""Measures buckets by listing their objects page by page. Idle threads take over parts of the largest key ranges."""

from __future__ import annotations

import random
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from threading import Lock
from typing import Any, Protocol

from botocore.compat import unquote_str
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.errors import is_transient
from chalicelib.storage.crew import WORKERS, Crew
from chalicelib.storage.measurement import Part, Tally
from chalicelib.storage.ranges import Range
from chalicelib.storage.splitting import Splitter

# These patterns match the key and size of an object in the XML response from S3. S3 escapes "<" in keys, so no pattern
# matches inside a key.
KEY = re.compile(rb"<Key>([^<]*)</Key>")
SIZE = re.compile(rb"<Size>(\d+)</Size>")
FIRST_OBJECT, LAST_OBJECT = b"<Contents>", b"</Contents>"
# A call that S3 refuses temporarily is made this often. The pause is doubled each time.
ATTEMPTS, PAUSE_SECONDS = 4, 0.5
# Every 50th key of a page is a sample, which shows how keys are distributed.
SAMPLE = 50


@dataclass(frozen=True)
class Listed:
    """The part of a page that belongs to a key range.

    ``sample`` contains the first key, the last key and some keys between them. ``rest`` is the part of the range that
    follows, or None. ``parts`` is empty if only objects are listed.
    """

    sample: Sequence[str]
    bytes: int
    objects: int
    rest: Range | None
    parts: Sequence[Part] = ()


class Page(Protocol):
    """The answer to one call that lists the beginning of a key range. The next call needs its ``token``, if any."""

    @property
    def token(self) -> str | None: ...

    def within(self, keys: Range) -> Listed:
        """Returns the content of the page that lies in the range. Another thread may have shortened the range."""


# Fetch is a function that lists one page of a key range, from its start or from the token of the previous page.
Fetch = Callable[[Any, str, Range, str | None], Page]


class Listing:
    """Lists key ranges of many buckets with the threads of a crew, and splits ranges while threads are idle."""

    def __init__(self, crew: Crew, fetch: Fetch, now: datetime) -> None:
        self._crew = crew
        self._fetch = fetch
        self._now = now
        self._lock = Lock()
        # The splitters and clients of the buckets that are not completely listed, by the id of the splitter.
        self._open: dict[int, tuple[Splitter, Any]] = {}

    def add(self, tally: Tally, s3: Any) -> None:
        """Makes the crew list the rest of a bucket, with one task for each key range."""
        splitter = Splitter(tally, WORKERS)
        for number in list(tally.left):
            self._crew.add(partial(self._list, splitter, number, s3), [tally])

    def _list(self, splitter: Splitter, number: int, s3: Any) -> None:
        """Lists key range ``number`` of a bucket until the range ends, a call fails or time is nearly up."""
        tally, token = splitter.tally, None
        while True:
            try:
                page = self._fetch_page(s3, tally.name, tally.left[number], token)
            except (ClientError, BotoCoreError):
                # The bucket cannot be measured completely, so no thread takes over more of it.
                with self._lock:
                    self._open.pop(id(splitter), None)
                raise
            with self._lock:
                # Another thread may have taken over a part of the range during the call.
                listed = page.within(tally.left[number])
                tally.count(number, listed.bytes, listed.objects, listed.rest, self._now, listed.parts)
                splitter.record_page(number, listed.sample)
                if tally.left and not tally.error:
                    self._open[id(splitter)] = splitter, s3
                else:
                    self._open.pop(id(splitter), None)
                self._steal_work()
            if not listed.rest or tally.error or not self._crew.in_time():
                return
            token = page.token

    def _fetch_page(self, s3: Any, bucket: str, keys: Range, token: str | None) -> Page:
        """Fetches a page. If S3 is busy, the call is repeated after a pause."""
        attempts = 0
        while True:
            try:
                return self._fetch(s3, bucket, keys, token)
            except ClientError as error:
                attempts += 1
                if attempts == ATTEMPTS or not is_transient(error) or not self._crew.in_time():
                    raise
            # The pause is random, because many threads call S3 at the same time.
            time.sleep(random.uniform(0.5, 1) * PAUSE_SECONDS * 2**attempts)  # noqa: S311  # nosec B311

    def _steal_work(self) -> None:
        """Gives parts of the largest key ranges to idle threads."""
        while self._crew.is_idle and self._crew.in_time() and self._open:
            splitter, s3 = max(self._open.values(), key=lambda each: each[0].largest)
            if not splitter.largest:
                return
            if (number := splitter.split()) is not None:
                self._crew.add(partial(self._list, splitter, number, s3), [splitter.tally])


# --- Objects ----------------------------------------------------------------------------------------------------------


def fetch_objects(s3: Any, bucket: str, keys: Range, token: str | None) -> Page:
    """Lists objects with a client from ``with_object_parser``."""
    start = {"ContinuationToken": token} if token else {"StartAfter": keys.after} if keys.after else {}
    answer = s3.list_objects_v2(Bucket=bucket, **start)
    token = answer.get("NextContinuationToken") if answer["IsTruncated"] else None
    if "Objects" in answer:
        found, sizes = answer["Objects"]
        return ObjectPage(found, sizes, unquote_str if answer.get("EncodingType") == "url" else str, token)
    contents = answer.get("Contents", [])
    return ObjectPage([each["Key"] for each in contents], [each["Size"] for each in contents], str, token)


@dataclass(frozen=True)
class ObjectPage:
    """A page of objects. ``decode`` decodes a key."""

    keys: list[str]
    sizes: list[int]
    decode: Callable[[str], str]
    token: str | None

    def within(self, keys: Range) -> Listed:
        count, last = len(self.keys), self.decode(self.keys[-1]) if self.keys else keys.after
        rest = Range(last, keys.until) if self.token and keys.until != last else None
        if self.keys and last not in keys:
            count, rest = bisect_right(self.keys, keys.until or "", key=self.decode), None
        sample = [self.decode(key) for key in self.keys[: max(0, count - 1) : SAMPLE] + self.keys[count - 1 : count]]
        return Listed(sample, sum(self.sizes[:count]), count, rest)


def with_object_parser(s3: Any) -> Any:
    """Makes the client ``s3`` return only the keys and sizes of listed objects, as ``Objects``. Returns the client.

    Botocore parses every answer twice, which takes 80% of the processor time of a listing. This parser is faster.
    """
    # Botocore calls the handlers of this pattern before its own handler, which parses the answer to look for an error.
    s3.meta.events.register("before-parse.*.ListObjectsV2", _read_objects, unique_id="storage")
    return s3


def _read_objects(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Parses the objects in an S3 response.

    Botocore parses the rest of the response, and adds ``customized_response_dict`` to the result.
    """
    body = response_dict["body"]
    keys, sizes = KEY.findall(body), SIZE.findall(body)
    # If the response is unusual or a key contains an escaped character, botocore also parses the objects.
    if not len(keys) == len(sizes) == body.count(FIRST_OBJECT) > 0 or b"&" in b"".join(keys):
        return
    customized_response_dict["Objects"] = b"<".join(keys).decode().split("<"), list(map(int, sizes))
    response_dict["body"] = body[: body.index(FIRST_OBJECT)] + body[body.rindex(LAST_OBJECT) + len(LAST_OBJECT) :]
