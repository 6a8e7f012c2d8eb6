"""Tests how a storage report counts old versions, delete markers and unfinished uploads."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chalicelib.storage import crew, measure, page, report, shares, splitting
from chalicelib.storage.measurement import Bucket, Failure, Measurement, Part, Tally, merge
from chalicelib.storage.ranges import Range
from tests.unit.buckets import NOW, Account, Versions

# Two keys have more versions or uploads than a page has entries.
KEYS = ["a", "b/1", "b/2", "z", "\u4e00", "\U0001f600"]
# Each version has its key, its id, its size or None for a delete marker, and its storage class. The newest version of a
# key has one byte, and older versions are larger.
VERSIONS = [
    (key, f"{key}-{number}", None if number % 5 == 3 else 10**number, ("STANDARD", "GLACIER")[number % 2])
    for key, count in zip(KEYS, (1, 5, 2, 7, 1, 3), strict=True)
    for number in range(count)
]
UPLOADS = [
    (key, f"{key}-{number}", [2**number, 5], "STANDARD_IA")
    for key, count in zip(KEYS, (1, 0, 4, 2, 5, 1), strict=True)
    for number in range(count)
]
PARTS = merge(
    [
        *(Part("noncurrent" if size > 1 else "current", name, size, 1) for _, _, size, name in VERSIONS if size),
        *(Part("deleteMarkers", None, 0, 1) for _, _, size, _ in VERSIONS if size is None),
        *(Part("unfinishedUploads", name, sum(sizes), 1, NOW) for _, _, sizes, name in UPLOADS),
    ]
)
BEANS = Bucket("beans", sum(part.bytes for part in PARTS), len(KEYS), NOW, PARTS)


def counted(*buckets: Bucket) -> Measurement:
    return Measurement("listing", list(buckets), [], partial=False, versions=True)


@pytest.fixture
def beans(account: Account) -> Versions:
    account.bucket("beans")
    account.clients["s3", "us-east-1"] = Versions(account.s3, VERSIONS, UPLOADS)
    return account.s3


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("cuts", [[], ["b/1"], ["b", "z"], KEYS], ids=len)
def test_each_version_and_upload_counts_once(
    account: Account, beans: Versions, monkeypatch: pytest.MonkeyPatch, size: int, cuts: list[str]
) -> None:
    # Idle threads split even small ranges.
    monkeypatch.setattr(splitting, "MIN_KEYS", 1)
    beans.page = size
    assert account.measure(versions=True).buckets == [BEANS]
    ranges = [Range(after, until) for after, until in zip(["", *cuts], [*cuts, None], strict=True)]
    left = dict(enumerate([*ranges, *(replace(each, uploads=True) for each in ranges)]))
    tally = Tally("beans", "us-east-1", left=left, parts=())
    [tally] = measure.list_objects([tally], s3=beans, s3_in=lambda _: beans, deadline=lambda: 900, now=NOW)
    assert (tally.parts, tally.counted, tally.left) == (PARTS, (BEANS.bytes, BEANS.objects), {})


# Botocore parses a response that contains an escaped key.
@pytest.mark.parametrize("key", ["a b", "a&b"])
def test_old_versions_that_s3_describes_are_counted_by_storage_class(account: Account, key: str) -> None:
    account.bucket("beans")
    account.bucket("empty")
    s3 = account.s3
    s3.put_object(Bucket="beans", Key="before", Body=b"x" * 1_000_000)
    s3.put_bucket_versioning(Bucket="beans", VersioningConfiguration={"Status": "Enabled"})
    for name, size, storage_class in ((key, 1, "GLACIER"), (key, 10, "STANDARD"), ("before", 100, "GLACIER")):
        s3.put_object(Bucket="beans", Key=name, Body=b"x" * size, StorageClass=storage_class)
    s3.delete_object(Bucket="beans", Key="before")
    upload = s3.create_multipart_upload(Bucket="beans", Key="new")
    s3.upload_part(Bucket="beans", Key="new", UploadId=upload["UploadId"], PartNumber=1, Body=b"x" * 1000)
    [beans, empty] = account.measure(versions=True).buckets
    assert (beans.bytes, beans.objects, empty) == (1_001_111, 1, Bucket("empty", 0, 0, NOW, ()))
    assert {(part.kind, part.storage_class, part.bytes, part.count) for part in beans.parts or ()} == {
        ("current", "STANDARD", 10, 1),
        ("noncurrent", "STANDARD", 1_000_000, 1),
        ("noncurrent", "GLACIER", 101, 2),
        ("deleteMarkers", None, 0, 1),
        ("unfinishedUploads", "STANDARD", 1000, 1),
    }
    # Without versions, only current objects count, as before.
    assert account.measure().buckets == [Bucket("beans", 10, 1, NOW), Bucket("empty", 0, 0, NOW)]


def test_an_upload_that_ends_meanwhile_is_left_out(account: Account, beans: Versions) -> None:
    beans.ended = {"b/2-3", "z-0"}
    [found] = account.measure(versions=True).buckets
    assert found.bytes == BEANS.bytes - (8 + 5) - (1 + 5)


def test_a_bucket_whose_uploads_may_not_be_listed_is_named(account: Account) -> None:
    account.bucket("beans", 7)

    def refuse(**_: Any) -> None:
        raise account.s3.exceptions.ClientError({"Error": {"Code": "AccessDenied"}}, "ListMultipartUploads")

    account.s3.meta.events.register("before-call.s3.ListMultipartUploads", refuse)
    measurement = account.measure(versions=True)
    assert measurement.errors == [Failure("beans", "AccessDenied: no message")]
    assert measurement.title == "at least 7 Bytes in all buckets"


@pytest.mark.parametrize("seconds", [0, 120], ids=["no time for the first function", "time for one page each"])
def test_other_functions_continue_where_the_first_one_stopped(
    account: Account, beans: Versions, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    account.bucket("reports")
    monkeypatch.setattr(shares, "SHARES", 3)
    monkeypatch.setattr(report, "ROUNDS", 100)
    if seconds:
        # A page may end between two versions of a key.
        beans.listed = lambda: setattr(account, "seconds_left", crew.RESERVE_SECONDS)
    answer, rounds = account.in_rounds(900, versions=True, aloneSeconds=seconds)
    [found] = [each for each in answer["summary"]["buckets"] if each["name"] == "beans"]
    assert found == page.summary(counted(BEANS))["buckets"][0]
    assert rounds > (4 if seconds else 0)


def test_the_report_names_old_versions_and_unfinished_uploads(account: Account, beans: Versions) -> None:
    parts = (
        Part("current", "STANDARD", 2_000_000, 2),
        Part("noncurrent", "GLACIER", 2_000_000, 1_000),
        Part("unfinishedUploads", "STANDARD", 1_000_000, 1, NOW - timedelta(days=19)),
        Part("deleteMarkers", None, 0, 4),
    )
    measurement = counted(Bucket("beans", 5_000_000, 2, NOW, parts), Bucket("empty", 0, 0, NOW, ()))
    which = ", of which 2.0 MB are old versions and 1.0 MB unfinished uploads"
    assert measurement.sentence == f"Total size of all buckets: 5.0 MB{which}"
    assert f"5.0 MB  beans{which}\n   0 Bytes  empty\n" in page.notice(measurement, "r-1")["message"]
    shown = page.render(measurement, "r-1")
    assert re.findall("<li>(.*)</li>", shown) == [
        *("2 current objects, STANDARD: 2.0 MB", "1,000 old versions, GLACIER: 2.0 MB"),
        *("1 unfinished upload, STANDARD: 1.0 MB, the oldest is 19 days old", "4 delete markers"),
    ]
    total = '<dd>1.0 MB</dd><dd class="note">1 unfinished upload, the oldest is 19 days old</dd>'
    assert all(each in shown for each in (total, "Old versions and unfinished uploads are included."))
    # If no bucket was measured, no part is shown as 0 bytes.
    unknown = Measurement("listing", [], [Failure("beans", "AccessDenied")], False, versions=True)
    assert unknown.sentence == "Total size of all buckets: unknown; 1 bucket could not be read"
    assert "0 Bytes" not in page.render(unknown, "r-1")


def test_the_summary_keeps_600_parts_and_fits_into_a_state() -> None:
    parts = tuple(Part("unfinishedUploads", f"INTELLIGENT_TIERING{each}", 10**15, 10**9, NOW) for each in range(24))
    buckets = [Bucket(f"bucket-{number:056}", 24 * 10**15, number, NOW, parts) for number in range(100)]
    failures = [Failure(f"refused-{number:055}", "x" * 300) for number in range(100)]
    summary = page.summary(Measurement("listing", buckets, failures, False, versions=True))
    assert [len(each["parts"] or ()) for each in summary["buckets"]] == [24] * 25 + [0] * 75
    assert len(json.dumps(summary)) < 200_000
    assert page.render(counted(*buckets), "r-1").count("<li>") == 2400
