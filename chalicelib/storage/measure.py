"""The sizes of buckets, exact by listing or fast by daily metrics.

Both ways are many small pieces of work (a bucket each, or a region each), done at once until the time is nearly up.
A bucket that takes long is split into ranges of its keys. What is not measured is known as such, with its reason.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from threading import Condition, Lock
from typing import Any

import humanize
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.errors import StorageRefused, Unavailable, is_transient
from chalicelib.notifications import counted
from chalicelib.storage.ranges import Range, middle

# Listing waits for S3 far more than it works; the clients keep twice as many connections.
WORKERS = 16
# What rendering and storing the page may take, after the measuring has been stopped.
RESERVE_SECONDS = 30
# As many as one ListBuckets call gives.
BUCKETS_PER_PAGE = 10_000
# A bucket of more pages of 1,000 objects than this is split, where a worker has nothing to do.
PAGES_UNSPLIT = 25
# The daily figures come up to two days late, and a day may be missing.
LOOK_BACK = timedelta(days=4)
# As many as one GetMetricData call takes.
METRICS_PER_CALL = 500
ERROR_CHARACTERS = 300
# Of a listing's objects. What a key has of < is escaped, so only the elements themselves can match.
KEY = re.compile(rb"<Key>([^<]*)</Key>")
SIZE = re.compile(rb"<Size>(\d+)</Size>")
FIRST_OBJECT, LAST_OBJECT = b"<Contents>", b"</Contents>"

InRegion = Callable[[str], Any]
Deadline = Callable[[], float]
InTime = Callable[[], bool]


@dataclass(frozen=True)
class Bucket:
    """``objects`` is None in metrics mode. ``as_of`` is None where CloudWatch has no figure, which counts as 0."""

    name: str
    bytes: int
    objects: int | None
    as_of: datetime | None


@dataclass(frozen=True)
class Failure:
    """Why a bucket is not measured, or not to its end."""

    bucket: str
    error: str


@dataclass(frozen=True)
class Measurement:
    """All that is known: ``buckets``, largest first, and ``errors`` by name.

    ``partial`` says that the time ran out: what had been counted of an unfinished bucket by then is in ``buckets``,
    and the bucket is in ``errors`` too.
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
        """None in metrics mode."""
        return None if self.mode == "metrics" else sum(bucket.objects or 0 for bucket in self.buckets)

    @cached_property
    def as_of(self) -> datetime | None:
        """The oldest figure's time: nothing in the total is older. None where there is no figure at all."""
        return min((bucket.as_of for bucket in self.buckets if bucket.as_of), default=None)

    @cached_property
    def without_figure(self) -> int:
        """How many buckets CloudWatch knows nothing of: they are empty, or younger than two days."""
        return sum(bucket.as_of is None for bucket in self.buckets)

    @cached_property
    def total(self) -> str:
        """``Total size of all buckets: 114.2 GB``."""
        least = "at least " if self.partial else ""
        return f"Total size of all buckets: {least}{humanize.naturalsize(self.total_bytes)}"

    @cached_property
    def sentence(self) -> str:
        """``total``, and what has to be known beside it."""
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
    """What is known of one bucket so far: what is counted, and what of its keys is left to list.

    Several threads may list ranges of it. ``counted`` is None before the first answer.
    """

    name: str
    region: str | None
    counted: tuple[int, int | None] | None = None
    as_of: datetime | None = None
    error: str | None = None
    left: dict[int, Range] = field(default_factory=lambda: {0: Range()})
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def count(self, number: int, size: int, objects: int, rest: Range | None, now: datetime) -> None:
        """Adds what was in a range's next page, of which ``rest`` is left."""
        with self._lock:
            before = self.counted or (0, 0)
            self.counted, self.as_of = (before[0] + size, (before[1] or 0) + objects), now
            if rest:
                self.left[number] = rest
            else:
                del self.left[number]

    def split(self, number: int, key: str) -> int:
        """Cuts a range in two, and gives the number of the new one, which begins after ``key``."""
        with self._lock:
            rest, new = self.left[number], max(self.left) + 1
            self.left |= {number: Range(rest.after, key), new: Range(key, rest.until)}
            return new

    def add(self, part: Tally) -> None:
        """What another function has counted of it, and has left."""
        size, objects = part.counted or (0, 0)
        if part.counted:
            before = self.counted or (0, 0)
            self.counted = before[0] + size, (before[1] or 0) + (objects or 0)
        # Nothing in a total is older than its time.
        self.as_of = min((each for each in (self.as_of, part.as_of) if each), default=None)
        self.error = self.error or part.error
        self.left |= {len(self.left) + number: rest for number, rest in enumerate(part.left.values())}

    def now(self) -> Tally:
        """As it is at this moment: a call that hangs may still come back and write."""
        with self._lock:
            return replace(self, left=dict(self.left))


# A bucket's name with one of its metrics.
_Metric = tuple[str, dict[str, Any]]


def measure_buckets(
    mode: str, *, s3: Any, s3_in: InRegion, cloudwatch_in: InRegion, deadline: Deadline, now: datetime
) -> Measurement:
    """The size of every bucket of the account, as far as ``deadline`` (the seconds left) allows.

    ``listing`` adds up the current objects of each bucket, and is exact; the clients that ``s3_in`` makes are kept
    for that, for they stop reading dates. ``metrics`` reads what CloudWatch has measured once a day, which counts old
    versions and unfinished uploads too. Raises ``StorageRefused`` where the buckets may not even be listed, and
    ``Unavailable`` where that fails for now.
    """
    return measured(mode, tallies(mode, s3=s3, s3_in=s3_in, cloudwatch_in=cloudwatch_in, deadline=deadline, now=now))


def tallies(
    mode: str, *, s3: Any, s3_in: InRegion, cloudwatch_in: InRegion, deadline: Deadline, now: datetime
) -> list[Tally]:
    """The same as ``measure_buckets``, with what is left of each bucket."""
    found = _find(s3)
    if mode == "metrics":
        return _read_figures(found, s3=s3, cloudwatch_in=cloudwatch_in, deadline=deadline, now=now)
    return list_objects(found, s3=s3, s3_in=s3_in, deadline=deadline, now=now)


def list_objects(tallies: list[Tally], *, s3: Any, s3_in: InRegion, deadline: Deadline, now: datetime) -> list[Tally]:
    """Lists what is left of each bucket's keys, as far as ``deadline`` allows."""
    regions = _by_region(tallies, s3, deadline)
    clients = {region: _for_sizes(s3_in(region)) for region in regions}
    crew = _Crew(deadline)
    for region, found in regions.items():
        for tally in found:
            for number in list(tally.left):
                crew.add(partial(_list, tally, number, clients[region], crew, now), [tally])
    crew.finish()
    # Copies, for a call that hangs may still come back and write.
    return [tally.now() for tally in tallies]


def _read_figures(
    tallies: list[Tally], *, s3: Any, cloudwatch_in: InRegion, deadline: Deadline, now: datetime
) -> list[Tally]:
    regions = _by_region(tallies, s3, deadline)
    crew = _Crew(deadline)
    for region, found in regions.items():
        crew.add(partial(_read_metrics, found, cloudwatch_in(region), now, crew.in_time), found)
    crew.finish()
    return [tally.now() for tally in tallies]


def _by_region(tallies: list[Tally], s3: Any, deadline: Deadline) -> dict[str, list[Tally]]:
    # Only S3 look-alikes leave out the region of a bucket.
    if homeless := [tally for tally in tallies if tally.region is None]:
        crew = _Crew(deadline)
        for tally in homeless:
            crew.add(partial(_locate, tally, s3), [tally])
        crew.finish()
    found: dict[str, list[Tally]] = defaultdict(list)
    for tally in tallies:
        if tally.region:
            found[tally.region].append(tally)
    return found


def _find(s3: Any) -> list[Tally]:
    """All buckets of the account, with nothing counted yet."""
    pages = s3.get_paginator("list_buckets").paginate(PaginationConfig={"PageSize": BUCKETS_PER_PAGE})
    try:
        return [Tally(found["Name"], found.get("BucketRegion")) for page in pages for found in page["Buckets"]]
    except (ClientError, BotoCoreError) as error:
        raise translated(error, "the account's buckets cannot be listed") from error


def _locate(tally: Tally, s3: Any) -> None:
    constraint = s3.get_bucket_location(Bucket=tally.name).get("LocationConstraint")
    # The two oldest regions have names of their own here.
    tally.region = {None: "us-east-1", "EU": "eu-west-1"}.get(constraint, constraint)


def _for_sizes(s3: Any) -> Any:
    """``s3``, from now on listing objects with ``Key`` and ``Size`` only.

    All that botocore does stays but its reading of each object's element, which takes four fifths of a listing.
    """
    s3.meta.events.register("before-parse.s3.ListObjectsV2", _read_contents, unique_id="storage")
    return s3


def _read_contents(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """botocore puts ``customized_response_dict`` over what it reads in the body by itself."""
    body = response_dict["body"]
    keys, sizes = KEY.findall(body), SIZE.findall(body)
    # Written otherwise than S3 writes it, which leaves nothing in a key to escape, it is left to botocore.
    if not len(keys) == len(sizes) == body.count(FIRST_OBJECT) > 0 or any(b"&" in key for key in keys):
        return
    objects = zip(keys, sizes, strict=True)
    customized_response_dict["Contents"] = [{"Key": key.decode(), "Size": int(size)} for key, size in objects]
    response_dict["body"] = body[: body.index(FIRST_OBJECT)] + body[body.rindex(LAST_OBJECT) + len(LAST_OBJECT) :]


def _list(tally: Tally, number: int, s3: Any, crew: _Crew, now: datetime) -> None:
    """Lists one range of a bucket's keys, to its end or until the time is up, and shares it with idle workers."""

    def has(keys: Range) -> bool:
        contents = s3.list_objects_v2(Bucket=tally.name, StartAfter=keys.after, MaxKeys=1).get("Contents", [])
        return any(found["Key"] in keys for found in contents)

    after = tally.left[number].after
    start = {"StartAfter": after} if after else {}
    pages = 0
    while True:
        page = s3.list_objects_v2(Bucket=tally.name, **start)
        keys, contents, rest = tally.left[number], page.get("Contents", []), None
        if contents and contents[-1]["Key"] not in keys:
            contents = [found for found in contents if found["Key"] in keys]
        elif page["IsTruncated"]:
            rest = Range(contents[-1]["Key"] if contents else keys.after, keys.until)
        tally.count(number, sum(found["Size"] for found in contents), len(contents), rest, now)
        pages += 1
        if not rest or not crew.in_time():
            return
        if pages % PAGES_UNSPLIT == 0 and crew.idle and (key := middle(rest, has)):
            crew.add(partial(_list, tally, tally.split(number, key), s3, crew, now), [tally])
        start = {"ContinuationToken": page["NextContinuationToken"]}


def _read_metrics(tallies: list[Tally], cloudwatch: Any, now: datetime, in_time: InTime) -> None:
    """All buckets of a region: of each, the figures of all storage types on its newest day, added up.

    A type that the bucket has no longer stops with its last figure, which must not count beside those of later days.
    """
    by_name = {tally.name: tally for tally in tallies}
    metrics = _storage_metrics(cloudwatch, by_name)
    sizes: dict[str, dict[datetime, int]] = defaultdict(lambda: defaultdict(int))
    whole = True
    for start in range(0, len(metrics), METRICS_PER_CALL):
        if not in_time():
            whole = False
            break
        for name, status, points in _figures(cloudwatch, metrics[start : start + METRICS_PER_CALL], now):
            if status != "Complete":
                by_name[name].error = f"CloudWatch gives no figure: {status}"
            for moment, value in points:
                sizes[name][moment.astimezone(UTC)] += int(value)
    for tally in tallies:
        if tally.name in sizes:
            # By its time: not every endpoint sends the newest first.
            tally.as_of, size = max(sizes[tally.name].items())
            tally.counted = size, None
        elif whole and not tally.error:
            tally.counted = 0, None
        if whole:
            tally.left = {}


def _storage_metrics(cloudwatch: Any, names: Iterable[str]) -> list[_Metric]:
    """One metric for each bucket and storage type, of the buckets in ``names``: CloudWatch remembers deleted ones."""
    metrics: dict[tuple[str, str], _Metric] = {}
    pages = cloudwatch.get_paginator("list_metrics").paginate(Namespace="AWS/S3", MetricName="BucketSizeBytes")
    for page in pages:
        for metric in page["Metrics"]:
            dimensions = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
            if dimensions.keys() == {"BucketName", "StorageType"} and dimensions["BucketName"] in names:
                metrics[dimensions["BucketName"], dimensions["StorageType"]] = (dimensions["BucketName"], metric)
    return list(metrics.values())


def _figures(
    cloudwatch: Any, metrics: list[_Metric], now: datetime
) -> Iterator[tuple[str, str, list[tuple[datetime, float]]]]:
    """The bucket, the status and the last days' figures of each metric."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    pages = cloudwatch.get_paginator("get_metric_data").paginate(
        MetricDataQueries=[
            {"Id": f"m{index}", "MetricStat": {"Metric": metric, "Period": 86_400, "Stat": "Average"}}
            for index, (_, metric) in enumerate(metrics)
        ],
        StartTime=midnight - LOOK_BACK,
        EndTime=midnight + timedelta(days=1),
    )
    # One metric's figures may come in several pages, of which the last one has the status that counts.
    statuses: dict[str, str] = {}
    points: dict[str, list[tuple[datetime, float]]] = defaultdict(list)
    for page in pages:
        for result in page["MetricDataResults"]:
            statuses[result["Id"]] = result["StatusCode"]
            points[result["Id"]] += zip(result["Timestamps"], result["Values"], strict=True)
    for index, (name, _) in enumerate(metrics):
        yield name, statuses[f"m{index}"], points[f"m{index}"]


class _Crew:
    """At most ``WORKERS`` threads, for as long as there is time; a piece of their work may add others."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="storage")
        self._changed = Condition()
        self._unfinished = 0
        self._ended = False
        self._mistakes: list[BaseException] = []

    def in_time(self) -> bool:
        return self._deadline() > RESERVE_SECONDS

    @property
    def idle(self) -> bool:
        """Whether a worker has nothing to do."""
        return self._unfinished < WORKERS

    def add(self, do: Callable[[], None], tallies: list[Tally]) -> None:
        """``do`` is done in its turn. Where AWS fails it, the ``tallies`` get the error."""
        with self._changed:
            # After the end nobody waits for it, and what it would have done is left.
            if not self._ended:
                self._unfinished += 1
                self._pool.submit(self._try, do, tallies).add_done_callback(self._finished)

    def finish(self) -> None:
        """Waits until all is done or the time is nearly up. Raises what is no error of AWS."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unfinished, max(0.0, self._deadline() - RESERVE_SECONDS))
            self._ended = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for mistake in self._mistakes:
            raise mistake

    def _try(self, do: Callable[[], None], tallies: list[Tally]) -> None:
        if not self.in_time():
            return
        try:
            do()
        except (ClientError, BotoCoreError) as error:
            for tally in tallies:
                tally.error = _readable(error)

    def _finished(self, future: Future[None]) -> None:
        if not future.cancelled() and (mistake := future.exception()):
            self._mistakes.append(mistake)
        with self._changed:
            self._unfinished -= 1
            self._changed.notify_all()


def measured(mode: str, tallies: list[Tally]) -> Measurement:
    """All that the tallies know. What is left of them is named, and makes it ``partial``."""
    buckets = [Bucket(tally.name, *tally.counted, as_of=tally.as_of) for tally in tallies if tally.counted is not None]
    late = [tally for tally in tallies if tally.left and not tally.error]
    errors = [Failure(tally.name, tally.error) for tally in tallies if tally.error]
    errors += [Failure(tally.name, _out_of_time(tally)) for tally in late]
    return Measurement(
        mode,
        sorted(buckets, key=lambda bucket: (-bucket.bytes, bucket.name)),
        sorted(errors, key=lambda failure: failure.bucket),
        partial=bool(late),
    )


def _out_of_time(tally: Tally) -> str:
    if tally.counted is None:
        return "not measured: out of time"
    return f"not measured to its end: out of time after {humanize.naturalsize(tally.counted[0])}, which count"


def _readable(error: ClientError | BotoCoreError) -> str:
    if isinstance(error, ClientError):
        text = f"{_code(error)}: {error.response.get('Error', {}).get('Message') or 'no message'}"
    else:
        text = str(error)
    return text[:ERROR_CHARACTERS]


def translated(error: ClientError | BotoCoreError, what: str) -> StorageRefused | Unavailable:
    text = f"{what}: {_readable(error)}"
    return StorageRefused(text) if isinstance(error, ClientError) and not is_transient(error) else Unavailable(text)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "Unknown"))
