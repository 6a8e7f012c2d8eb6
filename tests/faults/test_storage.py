"""Flow 4: every accepted storage report ends, its end is announced once, and no bucket is silently missing."""

from tests.faults.conftest import Record
from tests.faults.counting import count_reports, reports_in, wait_for_reports
from tests.faults.weather import SOME, Weather, cases, invoking, killing, publishing, together, wire
from tests.system.calls import Call
from tests.system.faults import cut_after, cut_before, denied, failed, failed_after, throttled, unavailable
from tests.system.reports import start
from tests.system.stack import Faulty

READY, FAILURE = "Subject=Storage+report%3A", "Subject=Storage+report+failed"
# Few faults, because a bucket has only two tries. After that, the report lists it as an error.
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
        "S3 answers 500 to the page": wire("s3:PutObject", failed, caller="measure_buckets", first=SOME),
        "Lambda refuses MeasureBuckets once": invoking("measure_buckets", failed, first=1),
        "MeasureBuckets is done and the answer is lost": invoking("measure_buckets", cut_after, first=1),
        "SNS throttles NotifyStorage": publishing(READY, throttled, first=SOME),
        "SNS takes the notification and says 500": publishing(READY, failed_after, first=2),
        "SNS takes the notification and the answer is lost": publishing(READY, cut_after, first=2),
        "one bucket refuses": wire("s3:ListObjectsV2", denied, when=uploads),
        "one bucket does not answer for now": wire("s3:ListObjectsV2", failed, when=uploads),
        "one of five calls fails": wire("(s3|sns|states|lambda):.*", failed, share=0.2),
    },
    in_short=["one bucket refuses", "SNS takes the notification and the answer is lost"],
)
def test_storage_reports_requested_in_this_weather_succeed(system: Faulty, weather: Weather, record: Record) -> None:
    accepted = reports_in(system, weather, **LISTING)
    record(count_reports(system, accepted, wanted="SUCCEEDED"))
    for each in accepted:
        # The report lists every bucket, including those that could not be read.
        summary = system.get(f"/reports/{each}")["summary"]
        named = {bucket["name"] for bucket in summary["buckets"]} | {bucket["bucket"] for bucket in summary["errors"]}
        assert named >= {system.env["UPLOADS_BUCKET"], system.env["REPORTS_BUCKET"]}


@cases(
    {
        "CloudWatch throttles": wire("cloudwatch:ListMetrics", throttled, first=FEW),
        "CloudWatch answers 500": wire("cloudwatch:.*", failed, first=FEW),
        "CloudWatch refuses": wire("cloudwatch:.*", denied),
        "CloudWatch cannot be reached": wire("cloudwatch:.*", cut_before),
    },
    in_short=["CloudWatch refuses"],
)
def test_storage_reports_of_metrics_in_this_weather_end(system: Faulty, weather: Weather, record: Record) -> None:
    record(count_reports(system, reports_in(system, weather, **METRICS)))


@cases(
    {
        "Lambda refuses MeasureBuckets for ever": invoking("measure_buckets", failed),
        "S3 refuses the list of buckets": wire("s3:ListBuckets", denied),
        "the reports bucket refuses the page": wire("s3:PutObject", unavailable, caller="measure_buckets"),
        "SNS refuses NotifyStorage for ever": publishing(READY, throttled),
        "S3 refuses and SNS throttles NotifyFailure": together(
            wire("s3:ListBuckets", denied), publishing(FAILURE, throttled, first=2)
        ),
        "SNS refuses for ever": publishing("Subject=Storage+report", throttled),
    },
)
def test_storage_reports_that_cannot_succeed_are_announced_as_failed(
    system: Faulty, weather: Weather, record: Record
) -> None:
    record(count_reports(system, reports_in(system, weather, **LISTING), wanted="FAILED"))


@cases(
    {
        "Lambda refuses a share": invoking("measure_buckets", failed, first=3),
        "S3 throttles the files of the shares": wire("s3:(Get|Put)Object", throttled, when=shares, first=SOME),
        "a share's file is stored and the answer is lost": wire("s3:PutObject", cut_after, when=shares, first=FEW),
        "the answer of the first function is lost": invoking("measure_buckets", cut_after, first=1),
    },
    in_short=["Lambda refuses a share"],
)
def test_storage_reports_in_shares_in_this_weather_succeed(system: Faulty, weather: Weather, record: Record) -> None:
    """The first function gets no time to measure alone, so it splits all buckets into shares."""
    with weather(system):
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
