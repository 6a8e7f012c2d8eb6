"""Tests the storage report (flow 4) under faults.

Every accepted report must end, be announced once, and list each bucket or an error for it.
"""

from tests.faults.cases import SOME, Case, cases, invoking, killing, publishing, together, wire
from tests.faults.conftest import Record
from tests.faults.counting import count_reports, count_scheduled_report, reports_in, wait_for_reports
from tests.system.calls import Call
from tests.system.faults import cut_after, cut_before, denied, failed, failed_after, throttled, unavailable
from tests.system.reports import start
from tests.system.stack import Faulty

READY, FAILURE = "Subject=Storage+report%3A", "Subject=Storage+report+failed"
# The number of faults is small, because each bucket gets only two attempts. After two failed attempts, the report lists
# the bucket as an error.
FEW = 3
LISTING, METRICS = {"kind": "storage"}, {"kind": "storage", "mode": "metrics"}


def uploads(call: Call) -> bool:
    return "uploads" in call.path


def shares(call: Call) -> bool:
    return "/round-" in call.path


@cases(
    {
        "S3 throttles the list of buckets": wire("s3:ListBuckets", throttled, first=SOME),
        "S3 throttles the lists of objects": wire("s3:ListObjectsV2", throttled, first=FEW),
        "the connection is cut before a list of objects": wire("s3:ListObjectsV2", cut_before, first=FEW),
        "S3 returns 500 for the page": wire("s3:PutObject", failed, caller="measure_buckets", first=SOME),
        "Lambda refuses MeasureBuckets once": invoking("measure_buckets", failed, first=1),
        "MeasureBuckets succeeds, but its response is lost": invoking("measure_buckets", cut_after, first=1),
        "SNS throttles NotifyStorage": publishing(READY, throttled, first=SOME),
        "SNS accepts the notification but returns 500": publishing(READY, failed_after, first=2),
        "SNS accepts the notification, but its response is lost": publishing(READY, cut_after, first=2),
        "one bucket refuses": wire("s3:ListObjectsV2", denied, when=uploads),
        "one bucket returns 500": wire("s3:ListObjectsV2", failed, when=uploads),
        "one call in five fails": wire("(s3|sns|states|lambda):.*", failed, share=0.2),
    },
    in_short=["one bucket refuses", "SNS accepts the notification, but its response is lost"],
)
def test_storage_reports_requested_during_this_fault_succeed(system: Faulty, case: Case, record: Record) -> None:
    accepted = reports_in(system, case, **LISTING)
    record(count_reports(system, accepted, wanted="SUCCEEDED"))
    for each in accepted:
        # The report lists every bucket, including those that could not be read.
        summary = system.get(f"/reports/{each}")["summary"]
        named = {bucket["name"] for bucket in summary["buckets"]} | {bucket["bucket"] for bucket in summary["errors"]}
        assert named >= {system.env["UPLOADS_BUCKET"], system.env["REPORTS_BUCKET"]}


@cases(
    {
        "CloudWatch throttles": wire("cloudwatch:ListMetrics", throttled, first=FEW),
        "CloudWatch returns 500": wire("cloudwatch:.*", failed, first=FEW),
        "CloudWatch refuses": wire("cloudwatch:.*", denied),
        "CloudWatch cannot be reached": wire("cloudwatch:.*", cut_before),
    },
    in_short=["CloudWatch refuses"],
)
def test_storage_reports_from_metrics_end_despite_this_fault(system: Faulty, case: Case, record: Record) -> None:
    record(count_reports(system, reports_in(system, case, **METRICS)))


@cases(
    {
        "Lambda refuses MeasureBuckets every time": invoking("measure_buckets", failed),
        "S3 refuses the list of buckets": wire("s3:ListBuckets", denied),
        "the reports bucket refuses the page": wire("s3:PutObject", unavailable, caller="measure_buckets"),
        "SNS refuses NotifyStorage every time": publishing(READY, throttled),
        "S3 refuses and SNS throttles NotifyFailure": together(
            wire("s3:ListBuckets", denied), publishing(FAILURE, throttled, first=2)
        ),
        "SNS refuses every notification": publishing("Subject=Storage+report", throttled),
    },
)
def test_storage_reports_that_cannot_succeed_are_announced_as_failed(
    system: Faulty, case: Case, record: Record
) -> None:
    record(count_reports(system, reports_in(system, case, **LISTING), wanted="FAILED"))


@cases(
    {
        "S3 is unavailable to a scheduled report": wire("s3:.*", unavailable, caller="measure_buckets"),
        "SNS throttles every notification of a scheduled report": publishing("Subject=Storage+report", throttled),
    }
)
def test_a_scheduled_storage_report_outlasts_this_fault(system: Faulty, case: Case, record: Record) -> None:
    record(count_scheduled_report(system, case, "storage", "storage"))


@cases(
    {
        "Lambda refuses a share": invoking("measure_buckets", failed, first=3),
        "S3 throttles the shares' files": wire("s3:(Get|Put)Object", throttled, when=shares, first=SOME),
        "a share's file is stored, but the response is lost": wire("s3:PutObject", cut_after, when=shares, first=FEW),
        "the first function's response is lost": invoking("measure_buckets", cut_after, first=1),
    },
    in_short=["Lambda refuses a share"],
)
def test_storage_reports_in_shares_succeed_despite_this_fault(system: Faulty, case: Case, record: Record) -> None:
    """If ``aloneSeconds`` is 0, the first function measures no bucket, and parallel invocations measure all buckets."""
    with case(system):
        accepted = [start(system, "storage", '{"aloneSeconds": 0}') for _ in range(2)]
        wait_for_reports(system, accepted)
    record(count_reports(system, accepted, wanted="SUCCEEDED"))
    for each in accepted:
        summary = system.get(f"/reports/{each}")["summary"]
        assert (summary["errors"], summary["partial"]) == ([], False)
        named = {bucket["name"] for bucket in summary["buckets"]}
        assert named >= {system.env["UPLOADS_BUCKET"], system.env["REPORTS_BUCKET"]}


def test_measure_buckets_is_killed_before_its_page_is_stored(system: Faulty, record: Record) -> None:
    record(count_reports(system, reports_in(system, killing("s3:PutObject", "measure_buckets"), **LISTING)))
