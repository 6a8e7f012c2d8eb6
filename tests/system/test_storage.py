"""Flow 4, whole: state machine -> measure_buckets -> S3 or CloudWatch -> SNS -> inbox."""

import json
import secrets
from datetime import UTC, datetime

from tests.system.system import System


def test_the_total_is_exact_by_listing_and_its_page_opens(system: System) -> None:
    system.upload(f"storage-test/{secrets.token_hex(4)}", b"x" * 12_345)
    s3 = system.aws("s3")
    s3.create_bucket(Bucket="another-bucket")
    s3.put_object(Bucket="another-bucket", Key="deep/er/object", Body=b"y" * 1_000_000)

    # Its own page is written after measuring; so nothing else changes between the two.
    before = {bucket["Name"]: listed(s3, bucket["Name"]) for bucket in s3.list_buckets()["Buckets"]}
    report = system.report({"kind": "storage"})
    summary = report["summary"]
    assert report["status"] == "SUCCEEDED", report["error"]
    assert {each["name"]: (each["bytes"], each["objects"]) for each in summary["buckets"]} == before
    assert summary["totalBytes"] == sum(size for size, _ in before.values())
    assert summary["message"] == f"Total size of all buckets: {summary['totalBytes'] / 1e6:.1f} MB"
    assert (summary["errors"], summary["mode"], summary["partial"]) == ([], "listing", False)
    assert "another-bucket" in system.request("GET", report["url"]).text

    told = system.notification(report["reportId"], "storage")
    assert summary["message"] in told["message"]


def listed(s3: object, bucket: str) -> tuple[int, int]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)  # type: ignore[attr-defined]
    sizes = [each["Size"] for page in pages for each in page.get("Contents", [])]
    return sum(sizes), len(sizes)


def test_the_total_is_fast_by_daily_metrics_over_every_storage_type(system: System) -> None:
    bucket = system.env["UPLOADS_BUCKET"]
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for kind, size in (("StandardStorage", 5_000_000), ("GlacierStorage", 7_000_000)):
        system.aws("cloudwatch").put_metric_data(
            Namespace="AWS/S3",
            MetricData=[
                {
                    "MetricName": "BucketSizeBytes",
                    "Dimensions": [{"Name": "BucketName", "Value": bucket}, {"Name": "StorageType", "Value": kind}],
                    "Timestamp": day,
                    "Value": size,
                    "Unit": "Bytes",
                }
            ],
        )
    summary = system.report({"kind": "storage", "mode": "metrics"})["summary"]
    assert summary["totalBytes"] == 12_000_000
    assert {"name": bucket, "bytes": 12_000_000, "objects": None} in summary["buckets"]
    assert summary["asOf"].startswith(f"{day:%Y-%m-%d}")
    assert "12.0 MB" in summary["message"]


def test_it_starts_from_the_command_line_with_an_empty_input(system: System) -> None:
    sfn = system.aws("stepfunctions")
    started = sfn.start_execution(stateMachineArn=system.env["STORAGE_REPORT_ARN"], input="{}")
    name = started["executionArn"].rsplit(":", 1)[1]
    report = system.ended(name)
    assert report["status"] == "SUCCEEDED", report["error"]
    assert report["summary"]["message"].startswith("Total size of all buckets")
    output = json.loads(sfn.describe_execution(executionArn=started["executionArn"])["output"])
    assert output["summary"] == report["summary"]
    assert system.notification(name, "storage")


def test_what_is_too_much_for_one_function_is_dealt_out_and_added_up(system: System) -> None:
    """Here the first function has no time at all, and so all buckets are shares."""
    s3 = system.aws("s3")
    for number in range(30):
        s3.put_object(Bucket=system.env["UPLOADS_BUCKET"], Key=f"shares/{number}", Body=b"z" * 1_000)
    # The shares themselves are in the reports bucket.
    others = [each["Name"] for each in s3.list_buckets()["Buckets"] if each["Name"] != system.env["REPORTS_BUCKET"]]
    before = {name: listed(s3, name) for name in others}
    sfn = system.aws("stepfunctions")
    name = f"storage-{secrets.token_hex(4)}"
    started = sfn.start_execution(
        stateMachineArn=system.env["STORAGE_REPORT_ARN"], name=name, input='{"aloneSeconds": 0}'
    )
    report = system.ended(name)
    assert report["status"] == "SUCCEEDED", report["error"]
    summary = report["summary"]
    found = {each["name"]: (each["bytes"], each["objects"]) for each in summary["buckets"]}
    assert {each: found[each] for each in others} == before
    assert (summary["errors"], summary["partial"]) == ([], False)
    assert system.notification(name, "storage")["message"].startswith(summary["message"])
    history = sfn.get_execution_history(executionArn=started["executionArn"])["events"]
    entered = [each["stateEnteredEventDetails"]["name"] for each in history if "stateEnteredEventDetails" in each]
    assert {"MeasureShares", "AddUpShares"} <= set(entered)


def test_a_bucket_that_refuses_is_named_while_the_others_count(system: System) -> None:
    s3 = system.aws("s3")
    s3.create_bucket(Bucket="closed-bucket")
    s3.put_object(Bucket="closed-bucket", Key="secret", Body=b"x")
    role = system.env["MEASURE_BUCKETS_ROLE_ARN"]
    refuse = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": {"AWS": role},
                "Action": "s3:ListBucket",
                "Resource": "arn:aws:s3:::closed-bucket",
            }
        ],
    }
    s3.put_bucket_policy(Bucket="closed-bucket", Policy=json.dumps(refuse))
    try:
        report = system.report({"kind": "storage"})
    finally:
        s3.delete_bucket_policy(Bucket="closed-bucket")
        s3.delete_object(Bucket="closed-bucket", Key="secret")
        s3.delete_bucket(Bucket="closed-bucket")
    summary = report["summary"]
    assert [each["bucket"] for each in summary["errors"]] == ["closed-bucket"]
    assert "denied" in summary["errors"][0]["error"].lower()
    assert system.env["UPLOADS_BUCKET"] in [each["name"] for each in summary["buckets"]]
    assert "closed-bucket" in system.notification(report["reportId"], "storage")["message"]


def test_an_unknown_mode_fails_with_the_modes_that_there_are(system: System) -> None:
    sfn = system.aws("stepfunctions")
    name = f"storage-{secrets.token_hex(4)}"
    sfn.start_execution(stateMachineArn=system.env["STORAGE_REPORT_ARN"], name=name, input='{"mode": "guess"}')
    report = system.ended(name)
    assert report["status"] == "FAILED"
    assert "listing" in report["error"]
    assert "metrics" in report["error"]
    assert report["error"] in system.notification(name, "storage")["message"]
