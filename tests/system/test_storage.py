"""Tests the storage report (flow 4) from the state machine to the inbox.

The function measure_buckets reads sizes from S3 or CloudWatch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.system.reports import execution_arn, start, states
from tests.system.system import System, new_id


@pytest.fixture
def bucket(system: System) -> Iterator[str]:
    """Creates a bucket with two objects, 1,000,000 bytes in total. No other test uses this bucket.

    The bucket's name contains dots, which cannot be part of the local cloud's host name.
    """
    s3, name = system.aws("s3"), new_id("with.dots")
    s3.create_bucket(Bucket=name)
    objects = {"flat": b"x" * 12_345, "deep/er/object": b"y" * 987_655}
    for key, body in objects.items():
        s3.put_object(Bucket=name, Key=key, Body=body)
    yield name
    for key in objects:
        s3.delete_object(Bucket=name, Key=key)
    s3.delete_bucket(Bucket=name)


@pytest.fixture
def versioned(system: System) -> Iterator[str]:
    """Creates a bucket with old versions, a deleted object and two unfinished uploads, 31,111,111 bytes in total."""
    s3, name = system.aws("s3"), new_id("versions")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="first", Body=b"x")
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for key, size, storage_class in (
        *(("first", 10, "STANDARD"), ("a&b <c>", 100, "GLACIER"), ("a&b <c>", 1_000, "STANDARD_IA")),
        *(("gone", 10_000, "STANDARD"), ("gone", 100_000, "GLACIER")),
    ):
        s3.put_object(Bucket=name, Key=key, Body=b"x" * size, StorageClass=storage_class)
    s3.delete_object(Bucket=name, Key="gone")
    uploads = []
    for sizes in ((10_000_000, 1_000_000), (20_000_000,)):
        upload = {"Bucket": name, "Key": "new"}
        upload["UploadId"] = s3.create_multipart_upload(**upload, StorageClass="GLACIER")["UploadId"]
        uploads.append(upload)
        for number, size in enumerate(sizes, start=1):
            s3.upload_part(**upload, PartNumber=number, Body=b"x" * size)
    yield name
    for upload in uploads:
        s3.abort_multipart_upload(**upload)
    listed = s3.list_object_versions(Bucket=name)
    for each in [*listed["Versions"], *listed["DeleteMarkers"]]:
        s3.delete_object(Bucket=name, Key=each["Key"], VersionId=each["VersionId"])
    s3.delete_bucket(Bucket=name)


def publish(system: System, bucket: str, **sizes: int) -> datetime:
    """Publishes today's size of a bucket by storage type, as S3 does once a day. Returns the day."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for kind, size in sizes.items():
        dimensions = [{"Name": "BucketName", "Value": bucket}, {"Name": "StorageType", "Value": kind}]
        metric = {"MetricName": "BucketSizeBytes", "Dimensions": dimensions, "Timestamp": day, "Unit": "Bytes"}
        system.aws("cloudwatch").put_metric_data(Namespace="AWS/S3", MetricData=[{**metric, "Value": size}])
    return day


def measured(summary: dict[str, Any], bucket: str) -> tuple[int, int | None]:
    """Checks the total size of all buckets. Returns the size in bytes and the number of objects of one bucket."""
    assert summary["totalBytes"] == sum(each["bytes"] for each in summary["buckets"])
    [found] = [each for each in summary["buckets"] if each["name"] == bucket]
    return found["bytes"], found["objects"]


def test_a_listing_gives_the_exact_total_and_its_page_opens(system: System, bucket: str) -> None:
    report = system.report({"kind": "storage"})
    assert report["status"] == "SUCCEEDED", report["error"]
    summary = report["summary"]
    assert measured(summary, bucket) == (1_000_000, 2)
    assert {each["name"] for each in summary["buckets"]} >= {system.env["UPLOADS_BUCKET"], system.env["REPORTS_BUCKET"]}
    assert summary["message"] == f"Total size of all buckets: {summary['totalBytes'] / 1e6:.1f} MB"
    assert (summary["errors"], summary["mode"], summary["partial"]) == ([], "listing", False)
    assert bucket in system.request("GET", report["url"]).text
    notification = system.notification(report["reportId"], "storage")
    assert summary["message"] in notification["message"]
    assert notification["facts"]["totalBytes"] == summary["totalBytes"]
    system.aws("s3").put_object(Bucket=bucket, Key="flat", Body=b"x" * 22_345)
    growth = system.report({"kind": "storage"})["summary"]["growth"]
    assert growth["lastReport"] > report["startedAt"]
    assert [each["sinceLast"] for each in growth["buckets"] if each["name"] == bucket] == [10_000]


def test_daily_metrics_give_the_total_over_every_storage_type(system: System, bucket: str) -> None:
    day = publish(system, bucket, StandardStorage=5_000_000, GlacierStorage=7_000_000)
    summary = system.report({"kind": "storage", "mode": "metrics"})["summary"]
    assert measured(summary, bucket) == (12_000_000, None)
    assert summary["asOf"].startswith(f"{day:%Y-%m-%d}")
    assert f"{summary['totalBytes'] / 1e6:.1f} MB" in summary["message"]


def test_a_storage_report_can_be_started_by_hand_with_an_empty_input(system: System) -> None:
    name = start(system, "storage")
    report = system.ended(name)
    assert report["status"] == "SUCCEEDED", report["error"]
    assert report["requestedBy"] is None
    output = system.aws("stepfunctions").describe_execution(executionArn=execution_arn(system, name))["output"]
    assert json.loads(output)["summary"] == report["summary"]
    message = system.notification(name, "storage")["message"]
    assert message.startswith("Total size of all buckets")
    assert message.endswith(f" {system.env['CAFE_API_URL']}/#reports/storage~{name}/")


def test_too_much_work_for_one_function_is_split_into_shares_and_added_up(system: System, bucket: str) -> None:
    """If ``aloneSeconds`` is 0, the first function measures no bucket, and parallel invocations measure all buckets."""
    name = start(system, "storage", '{"aloneSeconds": 0}')
    report = system.ended(name)
    assert report["status"] == "SUCCEEDED", report["error"]
    summary = report["summary"]
    assert measured(summary, bucket) == (1_000_000, 2)
    assert (summary["errors"], summary["partial"]) == ([], False)
    assert system.notification(name, "storage")["message"].startswith(summary["message"])

    found = states(system, name)
    assert found["MeasureShare"]["parent"] == "MeasureShares"
    assert found["MeasureShare"]["tries"] >= 2
    for state in ("MeasureShares", "MeasureShare", "AddUpShares", "IsAnythingLeft", "NotifyStorage"):
        assert found[state]["status"] == "succeeded", state
    assert found["MeasureShares"]["tries"] == found["AddUpShares"]["tries"]
    assert found["IsAnythingLeft"]["tries"] == found["AddUpShares"]["tries"] + 1


def test_the_parts_of_a_versioned_bucket_add_up_to_what_was_stored(system: System, versioned: str) -> None:
    report = system.report({"kind": "storage", "versions": True})
    assert (report["status"], report["mode"], report["versions"]) == ("SUCCEEDED", "listing", True), report["error"]
    summary = report["summary"]
    assert measured(summary, versioned) == (31_111_111, 2)
    [parts] = [each["parts"] for each in summary["buckets"] if each["name"] == versioned]
    assert {(each["kind"], each["storageClass"], each["bytes"], each["count"]) for each in parts} == {
        ("current", "STANDARD", 10, 1),
        ("current", "STANDARD_IA", 1_000, 1),
        ("noncurrent", "STANDARD", 10_001, 2),
        ("noncurrent", "GLACIER", 100_100, 2),
        ("deleteMarkers", None, 0, 1),
        ("unfinishedUploads", "GLACIER", 31_000_000, 2),
    }
    assert [each["kind"] for each in parts if each["oldest"]] == ["unfinishedUploads"]
    message = system.notification(report["reportId"], "storage")["message"]
    assert "31.1 MB  " + versioned + ", of which 110.1 kB are old versions and 31.0 MB unfinished uploads" in message
    assert "2 unfinished uploads, GLACIER: 31.0 MB" in system.request("GET", report["url"]).text

    # The figure that CloudWatch would have is the sum of the parts, and several functions find the same parts.
    publish(system, versioned, StandardStorage=10_011, GlacierStorage=100_100, GlacierStagingStorage=31_001_000)
    assert measured(system.report({"kind": "storage", "mode": "metrics"})["summary"], versioned) == (31_111_111, None)
    shared = system.ended(start(system, "storage", '{"versions": true, "aloneSeconds": 0}'))["summary"]
    assert [each["parts"] for each in shared["buckets"] if each["name"] == versioned] == [parts]
