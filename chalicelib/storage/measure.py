"""Measures all S3 buckets, either exactly by listing objects or quickly from CloudWatch's daily figures.

In both modes, threads run many small tasks until time is nearly up. Each task covers one bucket or one region. A large
bucket is split into key ranges. Several threads can then list the bucket. The result names every bucket that was not
measured, with the reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

from chalicelib.storage.crew import RESERVE_SECONDS, Crew, Deadline
from chalicelib.storage.figures import read_figures
from chalicelib.storage.listing import Listing, fetch_objects, with_object_parser
from chalicelib.storage.measurement import DIRECTORY_BUCKETS, DIRECTORY_SUFFIX, Measurement, Tally, summarize
from chalicelib.storage.ranges import Range
from chalicelib.storage.refusals import describe, translate
from chalicelib.storage.versions import fetch_versions, with_version_parser

# After the time for the measurement is up, the report waits this long for the list of directory buckets. The page can
# still be stored after that.
DIRECTORY_SECONDS = 4
# ListBuckets returns at most this many buckets per call.
BUCKETS_PER_PAGE = 10_000

# InRegion is a function that returns an AWS client for a region.
InRegion = Callable[[str], Any]


def measure_buckets(
    mode: str, versions: bool, *, s3: Any, s3_in: InRegion, cloudwatch_in: InRegion, deadline: Deadline, now: datetime
) -> Measurement:
    """Measures as many buckets in the account as possible within the ``deadline``.

    The mode ``listing`` adds up the sizes of the current objects in each bucket, and is exact. If ``versions`` is true,
    it also adds up old versions and unfinished uploads, as parts. In listing mode, the clients from ``s3_in`` are
    changed to parse only what is counted. The mode ``metrics`` reads CloudWatch's daily figures. The figures include
    old versions and unfinished uploads. Raises ``StorageRefused`` if the function is not allowed to list the buckets.
    Raises ``Unavailable`` if listing the buckets fails temporarily.
    """
    tallies = tally_buckets(mode, versions, s3=s3, s3_in=s3_in, cloudwatch_in=cloudwatch_in, deadline=deadline, now=now)
    return summarize(mode, tallies, versions)


def tally_buckets(
    mode: str, versions: bool, *, s3: Any, s3_in: InRegion, cloudwatch_in: InRegion, deadline: Deadline, now: datetime
) -> list[Tally]:
    """Measures buckets like ``measure_buckets``, but returns tallies. Tallies also contain the unlisted key ranges."""
    # This list takes no extra time, because it is read while the buckets are measured.
    pool = ThreadPoolExecutor(1)
    directories = pool.submit(_find_directory_buckets, s3)
    pool.shutdown(wait=False)
    tallies = _find_buckets(s3)
    if mode == "metrics":
        tallies = _read_metrics(tallies, s3=s3, cloudwatch_in=cloudwatch_in, deadline=deadline, now=now)
    else:
        if versions:
            for tally in tallies:
                tally.parts, tally.left[1] = (), Range(uploads=True)
        tallies = list_objects(tallies, s3=s3, s3_in=s3_in, deadline=deadline, now=now)
    try:
        return tallies + directories.result(max(0, deadline() - RESERVE_SECONDS + DIRECTORY_SECONDS))
    except TimeoutError:
        return [*tallies, Tally(DIRECTORY_BUCKETS, None, error="cannot be listed: time ran out", left={})]


def list_objects(tallies: list[Tally], *, s3: Any, s3_in: InRegion, deadline: Deadline, now: datetime) -> list[Tally]:
    """Lists as many of the remaining key ranges as possible within the ``deadline``."""
    regions = _by_region(tallies, s3, deadline)
    crew = Crew(deadline)
    includes_versions = any(tally.parts is not None for tally in tallies)
    listing = Listing(crew, fetch_versions if includes_versions else fetch_objects, now)
    for region, members in regions.items():
        client = (with_version_parser if includes_versions else with_object_parser)(s3_in(region))
        for tally in members:
            listing.add(tally, client)
    crew.finish()
    return [tally.snapshot() for tally in tallies]


def _read_metrics(
    tallies: list[Tally], *, s3: Any, cloudwatch_in: InRegion, deadline: Deadline, now: datetime
) -> list[Tally]:
    regions = _by_region(tallies, s3, deadline)
    crew = Crew(deadline)
    for region, members in regions.items():
        crew.add(partial(read_figures, members, cloudwatch_in(region), now, crew.in_time), members)
    crew.finish()
    return [tally.snapshot() for tally in tallies]


def _by_region(tallies: list[Tally], s3: Any, deadline: Deadline) -> dict[str, list[Tally]]:
    # S3 lists buckets with their regions, but some S3-compatible services leave out the regions.
    if unlocated := [tally for tally in tallies if tally.region is None]:
        crew = Crew(deadline)
        for tally in unlocated:
            crew.add(partial(_locate, tally, s3), [tally])
        crew.finish()
    regions: dict[str, list[Tally]] = defaultdict(list)
    for tally in tallies:
        if tally.region:
            regions[tally.region].append(tally)
    return regions


def _find_buckets(s3: Any) -> list[Tally]:
    """Returns a new tally for each bucket in the account."""
    pages = s3.get_paginator("list_buckets").paginate(PaginationConfig={"PageSize": BUCKETS_PER_PAGE})
    try:
        return [Tally(each["Name"], each.get("BucketRegion")) for page in pages for each in page["Buckets"]]
    except (ClientError, BotoCoreError) as error:
        raise translate(error, "the account's buckets cannot be listed") from error


def _find_directory_buckets(s3: Any) -> list[Tally]:
    """Returns a tally with an error for each directory bucket in the function's region, because none is measured."""
    try:
        pages = s3.get_paginator("list_directory_buckets").paginate()
        names = [each["Name"] for page in pages for each in page.get("Buckets", [])]
    except EndpointConnectionError:
        # S3 has no such endpoint in regions without directory buckets.
        return []
    except (ClientError, BotoCoreError) as error:
        return [Tally(DIRECTORY_BUCKETS, None, error=f"cannot be listed: {describe(error)}", left={})]
    # S3-compatible servers may return general purpose buckets too.
    reason = "a directory bucket, which is not measured"
    return [Tally(name, None, error=reason, left={}) for name in names if name.endswith(DIRECTORY_SUFFIX)]


def _locate(tally: Tally, s3: Any) -> None:
    constraint = s3.get_bucket_location(Bucket=tally.name).get("LocationConstraint")
    # S3 uses legacy names for its two oldest regions.
    tally.region = {None: "us-east-1", "EU": "eu-west-1"}.get(constraint, constraint)
