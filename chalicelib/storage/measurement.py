"""Defines a ``Tally`` for the results from one bucket, and a ``Measurement`` for the results from the whole account."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from threading import Lock

import humanize

from chalicelib.notifications import counted
from chalicelib.storage.ranges import Range

# The names of all directory buckets end with this suffix, and no other names do.
DIRECTORY_SUFFIX = "--x-s3"
# A failure has this name in place of a bucket's if the directory buckets cannot be listed.
DIRECTORY_BUCKETS = "directory buckets"
# The kinds of parts of a bucket, and what one of them is called.
KINDS = {
    "current": "current object",
    "noncurrent": "old version",
    "deleteMarkers": "delete marker",
    "unfinishedUploads": "unfinished upload",
}


@dataclass(frozen=True)
class Part:
    """The content of a bucket of one kind and storage class. Delete markers have no storage class.

    ``oldest`` is the time at which the oldest unfinished upload began.
    """

    kind: str
    storage_class: str | None
    bytes: int = 0
    count: int = 0
    oldest: datetime | None = None


def merge(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Adds up the parts of each kind and storage class, and sorts the sums by size, largest first."""
    sums: dict[tuple[str, str | None], tuple[int, int, datetime | None]] = {}
    for part in parts:
        size, count, oldest = sums.get((part.kind, part.storage_class), (0, 0, None))
        oldest = min(oldest, part.oldest) if oldest and part.oldest else oldest or part.oldest
        sums[part.kind, part.storage_class] = size + part.bytes, count + part.count, oldest
    merged = [Part(kind, storage_class, *amounts) for (kind, storage_class), amounts in sums.items()]
    return tuple(sorted(merged, key=lambda part: (-part.bytes, part.kind, part.storage_class or "")))


def by_kind(parts: Iterable[Part]) -> dict[str, Part]:
    """Adds up the parts of each kind over all storage classes. The result is keyed by kind, and contains every kind."""
    empty = [Part(kind, None) for kind in KINDS]
    return {part.kind: part for part in merge([*empty, *(replace(part, storage_class=None) for part in parts)])}


def other_parts_clause(parts: Iterable[Part]) -> str:
    """Returns the end of a sentence that names the size of everything but current objects."""
    sums = by_kind(parts)
    old, uploads = (humanize.naturalsize(sums[kind].bytes) for kind in ("noncurrent", "unfinishedUploads"))
    return f", of which {old} are old versions and {uploads} unfinished uploads"


@dataclass(frozen=True)
class Bucket:
    """A measured bucket.

    ``objects`` is None in metrics mode. If CloudWatch has no figure, ``as_of`` is None and ``bytes`` is 0. ``parts`` is
    None if only current objects were listed. Otherwise, ``bytes`` is the sum of the parts.
    """

    name: str
    bytes: int
    objects: int | None
    as_of: datetime | None
    parts: tuple[Part, ...] | None = None


@dataclass(frozen=True)
class Failure:
    """States why a bucket was not measured or was only partly measured."""

    bucket: str
    error: str

    @property
    def is_directory(self) -> bool:
        """True if this is about directory buckets, which a report never measures."""
        return self.bucket.endswith(DIRECTORY_SUFFIX) or self.bucket == DIRECTORY_BUCKETS


@dataclass(frozen=True)
class Measurement:
    """The sizes of all buckets in the account.

    ``buckets`` is sorted by size, largest first, and ``errors`` is sorted by bucket name. ``partial`` is true if time
    ran out before all buckets were measured. A partly counted bucket is in both ``buckets`` and ``errors``.
    """

    mode: str
    buckets: list[Bucket]
    errors: list[Failure]
    partial: bool
    versions: bool = False

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The parts of all buckets, by kind and storage class."""
        return merge(part for bucket in self.buckets for part in bucket.parts or ())

    @cached_property
    def total_bytes(self) -> int:
        return sum(bucket.bytes for bucket in self.buckets)

    @cached_property
    def total_objects(self) -> int | None:
        """The number of objects in all buckets, or None in metrics mode."""
        return None if self.mode == "metrics" else sum(bucket.objects or 0 for bucket in self.buckets)

    @cached_property
    def figure(self) -> int | None:
        """The total size in bytes, or None if no bucket has a figure."""
        return self.total_bytes if self.as_of else None

    @cached_property
    def as_of(self) -> datetime | None:
        """The time of the oldest figure in the total, or None if there are no figures."""
        return min((bucket.as_of for bucket in self.buckets if bucket.as_of), default=None)

    @cached_property
    def without_figure(self) -> int:
        """The number of buckets without a CloudWatch figure, because they are empty or less than two days old."""
        return sum(bucket.as_of is None for bucket in self.buckets)

    @cached_property
    def size(self) -> str:
        """The total size as text, such as ``114.2 GB`` or ``at least 7 Bytes``, ``unknown`` or ``none``."""
        if self.figure is None:
            return "unknown" if self.buckets or self.errors else "none"
        partly_read = {bucket.name for bucket in self.buckets} & {failure.bucket for failure in self.errors}
        return f"{'at least ' if partly_read or self.partial else ''}{humanize.naturalsize(self.figure)}"

    @cached_property
    def title(self) -> str:
        """The total size and the buckets that it covers, such as ``7 Bytes in 1 of 2 buckets``."""
        if self.figure is None:
            return "size unknown" if self.buckets or self.errors else "no buckets"
        every = {bucket.name for bucket in self.buckets} | {failure.bucket for failure in self.unread}
        measured = len(self.buckets) - self.without_figure
        covered = "all buckets" if measured == len(every) else f"{measured:,} of {counted(len(every), 'bucket')}"
        return f"{self.size} in {covered}"

    @cached_property
    def sentence(self) -> str:
        """The total size, the date of CloudWatch's figures, and the reasons why the total may be incomplete."""
        is_dated = self.mode == "metrics" and self.as_of
        return self._sentence(f" (CloudWatch's daily figures as of {self.as_of:%Y-%m-%d})" if is_dated else "")

    @cached_property
    def short_sentence(self) -> str:
        """The same as ``sentence``, but without the date. An SMS contains this text."""
        return self._sentence("")

    def _sentence(self, date: str) -> str:
        text = f"Total size of all buckets: {self.size}{date}"
        if self.versions and self.figure is not None:
            text += other_parts_clause(self.parts)
        if self.size == "none":
            text += "; the account has no buckets"
        if self.without_figure:
            text += f"; CloudWatch has no figure for {counted(self.without_figure, 'bucket')} (empty or new)"
        if self.partial:
            text += f"; time ran out, with {counted(len(self.unread), 'bucket')} not fully measured"
        elif self.unread:
            text += f"; {counted(len(self.unread), 'bucket')} could not be read"
        if len(self.unread) < len(self.errors):
            text += "; directory buckets are not measured"
        return text

    @cached_property
    def unread(self) -> list[Failure]:
        """The errors of ordinary buckets. Directory buckets are never counted as buckets."""
        return [failure for failure in self.errors if not failure.is_directory]


@dataclass
class Tally:
    """The current counts for one bucket, and the key ranges that are ``left`` to list.

    Several threads may list the key ranges of a bucket. ``counted`` contains the number of bytes and the number of
    objects, or is None before the first response from AWS. ``parts`` is None if only current objects are listed.
    """

    name: str
    region: str | None
    counted: tuple[int, int | None] | None = None
    as_of: datetime | None = None
    error: str | None = None
    left: dict[int, Range] = field(default_factory=lambda: {0: Range()})
    parts: tuple[Part, ...] | None = None
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def count(
        self, number: int, size: int, objects: int, rest: Range | None, now: datetime, parts: Sequence[Part] = ()
    ) -> None:
        """Adds the counts from one page of key range ``number``.

        ``rest`` is the unlisted part of the key range, or None.
        """
        with self._lock:
            before = self.counted or (0, 0)
            self.counted, self.as_of = (before[0] + size, (before[1] or 0) + objects), now
            self.parts = merge([*(self.parts or ()), *parts]) if parts else self.parts
            if rest:
                self.left[number] = rest
            else:
                del self.left[number]

    def split(self, number: int, key: str) -> int:
        """Splits key range ``number`` after ``key``, and returns the number of the second part."""
        with self._lock:
            rest, new = self.left[number], max(self.left) + 1
            self.left |= {number: replace(rest, until=key), new: replace(rest, after=key, version="")}
            return new

    def add(self, part: Tally) -> None:
        """Adds the counts from another Lambda function, and the key ranges that the function did not finish."""
        size, objects = part.counted or (0, 0)
        if part.counted:
            before = self.counted or (0, 0)
            self.counted = before[0] + size, (before[1] or 0) + (objects or 0)
        # The time of a total is the time of its oldest count.
        self.as_of = min((each for each in (self.as_of, part.as_of) if each), default=None)
        self.error = self.error or part.error
        self.left |= {len(self.left) + number: rest for number, rest in enumerate(part.left.values())}
        self.parts = merge([*(self.parts or ()), *part.parts]) if part.parts else self.parts

    def snapshot(self) -> Tally:
        """Returns a copy of the tally, because a hanging S3 request may still finish and change the original."""
        with self._lock:
            return replace(self, left=dict(self.left))


def summarize(mode: str, tallies: list[Tally], versions: bool) -> Measurement:
    """Combines the tallies into a measurement.

    The measurement is ``partial`` if any bucket has key ranges left to list.
    """
    # If a listing has not finished and has found no keys yet, the bucket's size is unknown, not 0.
    tallies = [
        each if any(each.counted or ()) or not (each.left or each.error) else replace(each, counted=None)
        for each in tallies
    ]
    buckets = [
        Bucket(tally.name, *tally.counted, tally.as_of, tally.parts) for tally in tallies if tally.counted is not None
    ]
    late = [tally for tally in tallies if tally.left and not tally.error]
    errors = [Failure(tally.name, tally.error) for tally in tallies if tally.error]
    errors += [Failure(tally.name, _late_message(tally)) for tally in late]
    return Measurement(
        mode,
        sorted(buckets, key=lambda bucket: (-bucket.bytes, bucket.name)),
        sorted(errors, key=lambda failure: failure.bucket),
        partial=bool(late),
        versions=versions,
    )


def _late_message(tally: Tally) -> str:
    if tally.counted is None:
        return "not measured: time ran out"
    return f"not fully measured: time ran out, and the total includes only {humanize.naturalsize(tally.counted[0])}"
