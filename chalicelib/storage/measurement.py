"""The results of measuring: a tally for each bucket being measured, and a measurement of the whole account."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from threading import Lock

import humanize

from chalicelib.notifications import counted
from chalicelib.storage.ranges import Range


@dataclass(frozen=True)
class Bucket:
    """A measured bucket.

    ``objects`` is None in metrics mode. ``as_of`` is None if CloudWatch has no figure, and ``bytes`` is then 0.
    """

    name: str
    bytes: int
    objects: int | None
    as_of: datetime | None


@dataclass(frozen=True)
class Failure:
    """The reason why a bucket was not measured, or only partly."""

    bucket: str
    error: str


@dataclass(frozen=True)
class Measurement:
    """The sizes of all buckets: ``buckets`` with the largest first, and ``errors`` sorted by bucket name.

    ``partial`` is true if the time ran out. A partly counted bucket is in both ``buckets`` and ``errors``.
    """

    mode: str
    buckets: list[Bucket]
    errors: list[Failure]
    partial: bool

    @cached_property
    def total_bytes(self) -> int:
        return sum(bucket.bytes for bucket in self.buckets)

    @cached_property
    def total_objects(self) -> int | None:
        """The number of objects, or None in metrics mode."""
        return None if self.mode == "metrics" else sum(bucket.objects or 0 for bucket in self.buckets)

    @cached_property
    def as_of(self) -> datetime | None:
        """The time of the oldest figure in the total, or None if there are no figures."""
        return min((bucket.as_of for bucket in self.buckets if bucket.as_of), default=None)

    @cached_property
    def without_figure(self) -> int:
        """The number of buckets without a CloudWatch figure. Such buckets are empty, or less than two days old."""
        return sum(bucket.as_of is None for bucket in self.buckets)

    @cached_property
    def total(self) -> str:
        """The total as text: ``Total size of all buckets: 114.2 GB``."""
        least = "at least " if self.partial else ""
        return f"Total size of all buckets: {least}{humanize.naturalsize(self.total_bytes)}"

    @cached_property
    def sentence(self) -> str:
        """``total``, followed by the reasons why it may be incomplete."""
        text = self.total
        if self.mode == "metrics" and self.as_of:
            text += f" (CloudWatch's daily figures as of {self.as_of:%Y-%m-%d})"
        if self.without_figure:
            text += f"; {counted(self.without_figure, 'bucket')} without a figure, empty or new, counted as 0"
        if self.partial:
            text += f"; the time ran out, {counted(len(self.errors), 'bucket')} not fully measured"
        elif self.errors:
            text += f"; {counted(len(self.errors), 'bucket')} could not be read"
        return text


@dataclass
class Tally:
    """A bucket being measured: the count so far, and the key ranges that are ``left`` to list.

    Several threads may list its ranges. ``counted`` contains bytes and objects, and is None before the first response.
    """

    name: str
    region: str | None
    counted: tuple[int, int | None] | None = None
    as_of: datetime | None = None
    error: str | None = None
    left: dict[int, Range] = field(default_factory=lambda: {0: Range()})
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def count(self, number: int, size: int, objects: int, rest: Range | None, now: datetime) -> None:
        """Adds the next page of the range ``number``. ``rest`` is the part of the range still to be listed."""
        with self._lock:
            before = self.counted or (0, 0)
            self.counted, self.as_of = (before[0] + size, (before[1] or 0) + objects), now
            if rest:
                self.left[number] = rest
            else:
                del self.left[number]

    def split(self, number: int, key: str) -> int:
        """Splits a range after ``key``, and returns the number of the second part."""
        with self._lock:
            rest, new = self.left[number], max(self.left) + 1
            self.left |= {number: Range(rest.after, key), new: Range(key, rest.until)}
            return new

    def add(self, part: Tally) -> None:
        """Adds another function's count of this bucket, and the ranges that it did not finish."""
        size, objects = part.counted or (0, 0)
        if part.counted:
            before = self.counted or (0, 0)
            self.counted = before[0] + size, (before[1] or 0) + (objects or 0)
        # A total is only as recent as its oldest part.
        self.as_of = min((each for each in (self.as_of, part.as_of) if each), default=None)
        self.error = self.error or part.error
        self.left |= {len(self.left) + number: rest for number, rest in enumerate(part.left.values())}

    def snapshot(self) -> Tally:
        """Returns a copy, because a hanging request may still finish and change the original."""
        with self._lock:
            return replace(self, left=dict(self.left))


def summarize(mode: str, tallies: list[Tally]) -> Measurement:
    """Adds the tallies up to a measurement, which is ``partial`` if a bucket has ranges left."""
    buckets = [Bucket(tally.name, *tally.counted, as_of=tally.as_of) for tally in tallies if tally.counted is not None]
    late = [tally for tally in tallies if tally.left and not tally.error]
    errors = [Failure(tally.name, tally.error) for tally in tallies if tally.error]
    errors += [Failure(tally.name, _late_message(tally)) for tally in late]
    return Measurement(
        mode,
        sorted(buckets, key=lambda bucket: (-bucket.bytes, bucket.name)),
        sorted(errors, key=lambda failure: failure.bucket),
        partial=bool(late),
    )


def _late_message(tally: Tally) -> str:
    if tally.counted is None:
        return "not measured: out of time"
    return f"not fully measured: out of time after {humanize.naturalsize(tally.counted[0])}, which are in the total"
