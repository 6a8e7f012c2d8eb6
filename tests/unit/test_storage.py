"""Tests which objects the storage report counts, which failures it reports, and when it stops."""

import gzip
import json
import re
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError
from botocore.stub import Stubber

from chalicelib.clients import longest_call
from chalicelib.errors import InvalidRequest, StorageRefused, Unavailable
from chalicelib.storage import crew, figures, measure, page, refusals, report, shares, splitting
from chalicelib.storage.measurement import Bucket, Failure, Measurement, Tally, summarize
from chalicelib.storage.ranges import Range
from tests.unit.buckets import NOW, SESSION, Account, failure

TODAY = datetime(2026, 11, 21, tzinfo=UTC)


def test_the_objects_of_all_buckets_in_all_regions_count(account: Account) -> None:
    account.bucket("beans", 3, 4)
    account.bucket("cups", 500, region="eu-west-1")
    account.bucket("empty", region="ap-southeast-2")
    measurement = account.measure()
    assert measurement.buckets == [Bucket("cups", 500, 1, NOW), Bucket("beans", 7, 2, NOW), Bucket("empty", 0, 0, NOW)]
    assert measurement.sentence == "Total size of all buckets: 507 Bytes"
    assert (measurement.errors, measurement.partial) == ([], False)


def test_a_key_of_any_shape_counts(account: Account) -> None:
    keys = ("a//b", "/a", "a/./b", "a/../b", "folder/", "folder", "<Size>9</Size>", "<Key>", "&amp;", "a b+c", "\u4e00")
    account.bucket("beans")
    for number, key in enumerate(keys):
        account.s3.put_object(Bucket="beans", Key=key, Body=b"x" * 2**number)
    assert account.measure().buckets == [Bucket("beans", 2 ** len(keys) - 1, len(keys), NOW)]


@pytest.mark.parametrize(
    "listed",
    [
        "<Contents><Size>3</Size><Key>a</Key></Contents><Contents><Size>4</Size><Key>b</Key></Contents>",
        "<Contents> <Key>a&amp;</Key> <Size> 3 </Size> </Contents><Contents><Key>c&#13;</Key><Size>4</Size></Contents>",
        "<Contents><Key>a</Key><Size>3</Size></Contents><CommonPrefixes><Prefix>b</Prefix></CommonPrefixes>"
        "<Contents><Key>c</Key><Size>4</Size></Contents>",
    ],
    ids=["size first", "escaped, with spaces", "prefixes between"],
)
def test_a_listing_in_the_format_of_another_server_counts_too(account: Account, listed: str) -> None:
    account.bucket("beans")
    account.answer_listings(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>")
    assert account.measure().buckets == [Bucket("beans", 7, 2, NOW)]


# S3's API has special names for its two oldest regions.
@pytest.mark.parametrize(("location", "region"), [({}, "us-east-1"), ({"LocationConstraint": "EU"}, "eu-west-1")])
def test_buckets_come_in_pages_and_each_is_listed_in_its_own_region(
    account: Account, location: dict[str, str], region: str
) -> None:
    regions: list[str] = []

    def s3_in(region: str) -> Any:
        regions.append(region)
        client = SESSION.client("s3", region_name=region)
        empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
        account.answer_listings(200, empty, client)
        return client

    first = {"Buckets": [{"Name": "beans", "BucketRegion": "eu-central-1"}], "ContinuationToken": "more"}
    with Stubber(account.s3) as stubber:
        stubber.add_response("list_buckets", first, {"MaxBuckets": 10_000})
        stubber.add_response(
            "list_buckets", {"Buckets": [{"Name": "cups"}]}, {"MaxBuckets": 10_000, "ContinuationToken": "more"}
        )
        stubber.add_response("get_bucket_location", location, {"Bucket": "cups"})
        measurement = account.measure(s3_in=s3_in)
    assert [bucket.name for bucket in measurement.buckets] == ["beans", "cups"]
    assert sorted(regions) == ["eu-central-1", region]


@pytest.mark.parametrize(
    "keys",
    [
        [f"{number:03}" for number in range(30)],
        [f"year={number % 7}/month={number % 11}/{number:03}" for number in range(30)],
        [f"a/b/{chr(0x4E00 + number)}" for number in range(30)],
        [f"\U0001f600{number:03}" if number % 3 else f"{number}~" for number in range(30)],
    ],
    ids=["flat", "nested", "beyond ASCII", "mixed"],
)
def test_a_large_bucket_is_split(account: Account, monkeypatch: pytest.MonkeyPatch, keys: list[str]) -> None:
    monkeypatch.setattr(splitting, "MIN_KEYS", 1)
    account.bucket("beans")
    for number, key in enumerate(keys):
        account.s3.put_object(Bucket="beans", Key=key, Body=b"x" * number)
    starts: list[str] = []
    account.s3.meta.events.register(
        "provide-client-params.s3.ListObjectsV2",
        lambda params, **_: starts.append(params.get("StartAfter", "")) if "MaxKeys" not in params else None,
    )
    account.in_pages_of(4)
    assert account.measure().buckets == [Bucket("beans", sum(range(30)), 30, NOW)]
    assert len(set(starts)) > 2


def test_a_bucket_that_may_not_be_read_is_named_while_the_others_count(account: Account) -> None:
    account.bucket("beans", 7)
    account.bucket("secret", 1_000)
    account.refuse("secret")
    measurement = account.measure()
    assert measurement.buckets == [Bucket("beans", 7, 1, NOW)]
    assert measurement.errors == [Failure("secret", "AccessDenied: User: cafe is not authorized")]
    assert measurement.sentence == "Total size of all buckets: 7 Bytes; 1 bucket could not be read"
    assert not measurement.partial


@pytest.mark.parametrize("mode", ["listing", "metrics"])
@pytest.mark.parametrize(
    ("answer", "errors"),
    [
        ("beans", []),
        ("fast--use1-az4--x-s3", ["fast--use1-az4--x-s3: a directory bucket, which is not measured"]),
        (failure("AccessDenied", 403), ["directory buckets: cannot be listed: AccessDenied: no"]),
        # In a region without directory buckets, the endpoint does not exist.
        (EndpointConnectionError(endpoint_url="https://s3express"), []),
        (
            ConnectTimeoutError(endpoint_url="https://s3express"),
            ['directory buckets: cannot be listed: Connect timeout on endpoint URL: "https://s3express"'],
        ),
    ],
)
def test_directory_buckets_are_named_and_not_measured(
    account: Account, mode: str, answer: str | Exception, errors: list[str]
) -> None:
    urls: list[str] = []

    def send(params: dict[str, Any], **_: Any) -> Any:
        urls.append(params["url"])
        if isinstance(answer, Exception):
            raise answer
        return AWSResponse(params["url"], 200, {}, None), {"Buckets": [{"Name": answer}]}

    account.s3.meta.events.register("before-call.s3.ListDirectoryBuckets", send)
    account.bucket("reports", 5)
    account.figure("reports", "StandardIAStorage", TODAY - timedelta(days=1), 5)
    result = account.report({"mode": mode}, {"round": 0})
    summary = result["summary"]
    assert [f"{each['bucket']}: {each['error']}" for each in summary["errors"]] == errors
    assert summary["bucketCount"] == 1
    # Ordinary buckets that could not be read are counted, but not directory buckets.
    assert result["notice"]["subject"] == "Storage report: 5 Bytes in all buckets"
    # The listing changes its client, so another one reads the files.
    s3 = account.client("s3", "us-west-2")
    shown = s3.get_object(Bucket="reports", Key=result["reportKey"])["Body"].read().decode()
    assert ("missing from the total" in shown, "could not be read</h2>" in shown) == (False, False)
    assert shown.count("<h2>Directory buckets are not measured</h2>") == shown.count("<li><b>") == len(errors)
    [stored] = s3.list_objects_v2(Bucket="reports", Prefix="storage-sizes/")["Contents"]
    sizes = s3.get_object(Bucket="reports", Key=stored["Key"])["Body"].read()
    assert json.loads(gzip.decompress(sizes))["buckets"] == {"reports": 5}
    assert "could not be read" not in summary["message"]
    assert summary["message"].endswith("; directory buckets are not measured") == bool(errors)
    assert urls == ["https://s3express-control.us-east-1.amazonaws.com/"]


def test_a_page_counts_only_ordinary_buckets_as_unread() -> None:
    errors = [Failure("fast--use1-az4--x-s3", "not measured"), Failure("secret", "AccessDenied")]
    measurement = listed(Bucket("beans", 7, 1, NOW), errors=errors)
    assert measurement.title == "7 Bytes in 1 of 2 buckets"
    shown = page.render(measurement, "r-1")
    assert "<h2>Some buckets could not be read</h2>\n<p>1 bucket is missing" in shown
    assert "only partly counted. Directory buckets are not measured:</p>" in shown


def test_a_hanging_list_of_directory_buckets_leaves_time_for_the_page(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert longest_call("s3") < crew.RESERVE_SECONDS - measure.DIRECTORY_SECONDS
    monkeypatch.setattr(measure, "DIRECTORY_SECONDS", 0.1)
    answered = threading.Event()

    def hang(**_: Any) -> None:
        answered.wait(timeout=30)
        raise EndpointConnectionError(endpoint_url="https://s3express")

    account.s3.meta.events.register("before-call.s3.ListDirectoryBuckets", hang)
    account.bucket("beans")
    account.seconds_left = crew.RESERVE_SECONDS
    errors = account.measure().errors
    answered.set()
    assert errors[1:] == [Failure("directory buckets", "cannot be listed: time ran out")]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (failure("AccessDenied", 403), StorageRefused),
        (failure("SlowDown", 503), Unavailable),
        (EndpointConnectionError(endpoint_url="https://s3"), Unavailable),
    ],
    ids=repr,
)
def test_without_the_list_of_buckets_there_is_no_report(
    account: Account, error: Exception, expected: type[Exception]
) -> None:
    def fail(**_: Any) -> None:
        raise error

    account.s3.meta.events.register("before-call.s3.ListBuckets", fail)
    with pytest.raises(expected, match="the account's buckets cannot be listed: "):
        account.measure()


def test_an_error_of_aws_is_shown_up_to_300_characters() -> None:
    for length in (300, 301):
        assert len(refusals.describe(failure("Code", 403, "x" * (length - len("Code: "))))) == 300


def test_the_figures_of_the_newest_day_count_over_every_storage_type(account: Account) -> None:
    account.bucket("beans", region="eu-west-1")
    # All Glacier objects moved elsewhere yesterday, so CloudWatch has no Glacier size for today.
    of_ia = [("StandardIA", days, size) for days, size in ((2, 10), (1, 20), (0, 30))]
    for kind, days, size in (*of_ia, ("DeepArchive", 0, 1_000), ("Glacier", 1, 5_000)):
        account.figure("beans", f"{kind}Storage", TODAY - timedelta(days=days), size, "eu-west-1")
    measurement = account.measure("metrics")
    assert measurement.buckets == [Bucket("beans", 1_030, None, TODAY)]
    assert measurement.sentence == ("Total size of all buckets: 1.0 kB (CloudWatch's daily figures as of 2026-11-21)")


@pytest.mark.parametrize("newest_first", [True, False])
def test_the_newest_figure_is_found_in_any_order_and_over_several_pages(account: Account, newest_first: bool) -> None:
    account.bucket("beans")
    # Timestamps from CloudWatch are in the local time zone, because botocore converts them.
    local = timezone(timedelta(hours=-10))
    days = [(TODAY - timedelta(days=days)).astimezone(local) for days in (1, 2, 3)]
    points = sorted(zip(days, (30.0, 20.0, 10.0), strict=True), reverse=newest_first)
    names = {"BucketName": "beans", "StorageType": "StandardStorage"}
    metric = {"Dimensions": [{"Name": name, "Value": value} for name, value in names.items()]}
    with Stubber(account.client("cloudwatch")) as stubber:
        stubber.add_response("list_metrics", {"Metrics": [metric]})
        for status, part, more in (("PartialData", points[:1], {"NextToken": "more"}), ("Complete", points[1:], {})):
            moments, values = zip(*part, strict=True)
            result = {"Id": "m0", "StatusCode": status, "Timestamps": moments, "Values": values}
            stubber.add_response("get_metric_data", {"MetricDataResults": [result], **more})
        measurement = account.measure("metrics")
    assert measurement.buckets == [Bucket("beans", 30, None, TODAY - timedelta(days=1))]
    assert "as of 2026-11-20" in measurement.sentence


def test_a_bucket_without_a_figure_counts_as_nothing_and_a_deleted_one_not_at_all(account: Account) -> None:
    account.bucket("beans")
    account.bucket("new", region="eu-west-1")
    for name in ("beans", "long-gone"):
        account.figure(name, "StandardIAStorage", TODAY - timedelta(days=1), 5)
    with Stubber(account.client("cloudwatch", "eu-west-1")) as stubber:
        stubber.add_response("list_metrics", {"Metrics": []})
        measurement = account.measure("metrics")
    assert measurement.buckets == [Bucket("beans", 5, None, TODAY - timedelta(days=1)), Bucket("new", 0, None, None)]
    assert measurement.sentence.endswith("; CloudWatch has no figure for 1 bucket (empty or new)")
    assert "no figure" in page.render(measurement, "r-1")


def test_buckets_in_a_region_whose_figures_cannot_be_read_are_named(account: Account) -> None:
    account.bucket("beans")
    account.bucket("cups", region="eu-west-1")
    account.figure("cups", "StandardIAStorage", TODAY - timedelta(days=1), 5, "eu-west-1")
    with Stubber(account.client("cloudwatch")) as stubber:
        stubber.add_client_error("list_metrics", "AccessDenied", "No cloudwatch:ListMetrics.", 403)
        measurement = account.measure("metrics")
    assert [bucket.name for bucket in measurement.buckets] == ["cups"]
    assert measurement.errors == [Failure("beans", "AccessDenied: No cloudwatch:ListMetrics.")]


def test_a_figure_that_cloudwatch_fails_to_return_is_an_error_and_not_0(account: Account) -> None:
    account.bucket("beans")
    account.figure("beans", "StandardIAStorage", TODAY - timedelta(days=1), 5)

    def fail(parsed: dict[str, Any], **_: Any) -> None:
        for result in parsed["MetricDataResults"]:
            result.update(StatusCode="InternalError", Timestamps=[], Values=[])

    account.client("cloudwatch").meta.events.register("after-call.cloudwatch.GetMetricData", fail)
    measurement = account.measure("metrics")
    assert measurement.errors == [Failure("beans", "CloudWatch returned no figure: InternalError")]
    assert measurement.buckets == []


def test_when_time_runs_out_the_remaining_buckets_are_named(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "WORKERS", 1)
    account.bucket("a-large", *[100] * 11)
    account.in_pages_of(10)
    account.out_of_time_after("s3", "ListObjectsV2")
    account.bucket("b-small", 5)
    measurement = account.measure()
    assert measurement.partial
    assert measurement.buckets == [Bucket("a-large", 1_000, 10, NOW)]
    assert measurement.errors == [
        Failure("a-large", "not fully measured: time ran out, and the total includes only 1.0 kB"),
        Failure("b-small", "not measured: time ran out"),
    ]
    assert measurement.sentence.endswith(": at least 1.0 kB; time ran out, with 2 buckets not fully measured")


def test_a_call_that_hangs_does_not_delay_the_report(account: Account) -> None:
    account.bucket("hangs", 7)
    answered = threading.Event()

    def hang(**_: Any) -> None:
        answered.wait(timeout=30)
        raise EndpointConnectionError(endpoint_url="https://s3.amazonaws.com")

    account.s3.meta.events.register("before-call.s3.ListObjectsV2", hang)
    account.seconds_left = crew.RESERVE_SECONDS + 0.1
    measurement = account.measure()
    answered.set()
    assert measurement.partial
    assert measurement.errors == [Failure("hangs", "not measured: time ran out")]


def test_when_time_runs_out_the_figures_are_partial_too(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    # CloudWatch accepts at most 500 metrics per call.
    assert figures.METRICS_PER_CALL == 500
    monkeypatch.setattr(figures, "METRICS_PER_CALL", 1)
    account.bucket("beans")
    account.figure("beans", "GlacierStorage", TODAY - timedelta(days=1), 5)
    account.figure("beans", "StandardIAStorage", TODAY - timedelta(days=1), 5)
    account.out_of_time_after("cloudwatch", "GetMetricData")
    measurement = account.measure("metrics")
    assert measurement.partial
    assert measurement.total_bytes == 5
    assert measurement.errors == [
        Failure("beans", "not fully measured: time ran out, and the total includes only 5 Bytes")
    ]


def listed(*buckets: Bucket, errors: list[Failure] | None = None, partial: bool = False) -> Measurement:
    return Measurement("listing", list(buckets), errors or [], partial)


def test_the_summary_has_the_100_largest_buckets_and_fits_into_a_state() -> None:
    buckets = [Bucket(f"bucket-{number:056}", 10**15 - number, number, NOW) for number in range(1_000)]
    errors = [Failure(f"refused-{number:055}", "x" * refusals.ERROR_CHARACTERS) for number in range(1_000)]
    # A month of daily sizes is the largest possible growth.
    growth = {"buckets": [{"name": "x" * 63, "sinceLast": 1, "sinceMonth": 1, "sizes": [10**18] * 31}] * 100}
    summary = page.summary(listed(*buckets, errors=errors), growth)
    assert [bucket["name"] for bucket in summary["buckets"]] == [bucket.name for bucket in buckets[:100]]
    assert len(summary["errors"]) == 100
    assert (summary["bucketCount"], summary["errorCount"]) == (1_000, 1_000)
    assert len(json.dumps(summary)) < 100_000
    # Unlike the summary, the report's page shows all buckets and errors.
    shown = page.render(listed(*buckets, errors=errors), "r-1")
    assert (shown.count("<tr>"), shown.count("<li>")) == (1_001, 1_000)
    assert all(f">{buckets[number].name}<" in shown for number in (0, 500, 999))


def test_the_summary_has_the_fields_of_the_api() -> None:
    measurement = listed(Bucket("beans", 1_500, 2, NOW), errors=[Failure("secret", "AccessDenied: no")])
    assert page.summary(measurement) == {
        "message": "Total size of all buckets: 1.5 kB; 1 bucket could not be read",
        **{"totalBytes": 1_500, "totalObjects": 2, "bucketCount": 1, "bucketsWithoutFigure": 0, "errorCount": 1},
        "buckets": [
            {"name": "beans", "bytes": 1_500, "objects": 2, "asOf": "2026-11-21T03:30:00.000000Z", "parts": None}
        ],
        "errors": [{"bucket": "secret", "error": "AccessDenied: no"}],
        **{"mode": "listing", "versions": False, "asOf": "2026-11-21T03:30:00.000000Z"},
        **{"partial": False, "growth": None},
    }


EMPTY, NEW = Bucket("empty", 0, 0, NOW), Bucket("new", 0, None, None)
SECRET = [Failure("secret", "AccessDenied")]
NO_FIGURE = "unknown; CloudWatch has no figure for 1 bucket (empty or new)"
UNREAD = "1 bucket could not be read"


@pytest.mark.parametrize(
    ("measurement", "title", "text"),
    [
        (Measurement("metrics", [NEW], [], False), "size unknown", NO_FIGURE),
        (Measurement("metrics", [NEW], SECRET, False), "size unknown", f"{NO_FIGURE}; {UNREAD}"),
        (Measurement("listing", [], SECRET, False), "size unknown", f"unknown; {UNREAD}"),
        (Measurement("listing", [], [], False), "no buckets", "none; the account has no buckets"),
        (Measurement("metrics", [], [], False), "no buckets", "none; the account has no buckets"),
    ],
)
def test_a_total_without_figures_is_never_0_bytes(
    account: Account, monkeypatch: pytest.MonkeyPatch, measurement: Measurement, title: str, text: str
) -> None:
    account.bucket("reports")
    monkeypatch.setattr(report, "summarize", lambda *_: measurement)
    result = account.report({"reportId": "r-1"})
    notice, summary = result["notice"], result["summary"]
    assert notice["subject"] == f"Storage report: {title}"
    assert notice["sms"] == summary["message"] == f"Total size of all buckets: {text}"
    assert (notice["message"].split("\n")[0], summary["asOf"]) == (notice["sms"], None)
    assert all(each["asOf"] is None for each in summary["buckets"])
    shown = account.s3.get_object(Bucket="reports", Key=result["reportKey"])["Body"].read().decode()
    assert f"<title>Storage, {title}</title>" in shown
    assert not re.search("0 bytes|0 Bytes|0.0 %", shown + json.dumps(notice))


def test_a_total_of_0_bytes_that_was_counted_is_a_figure(account: Account) -> None:
    account.bucket("empty")
    assert account.measure().sentence == "Total size of all buckets: 0 Bytes"
    assert listed(EMPTY, errors=SECRET).title == "0 Bytes in 1 of 2 buckets"
    assert page.summary(listed(EMPTY))["buckets"][0]["asOf"]


def test_a_bucket_that_fails_after_its_first_page_makes_the_total_a_minimum() -> None:
    assert (
        listed(Bucket("beans", 5, 1, NOW), errors=[Failure("beans", "SlowDown")]).title
        == "at least 5 Bytes in all buckets"
    )


@pytest.mark.parametrize(("error", "left"), [("SlowDown", {}), (None, {1: Range("k")})])
def test_a_bucket_of_which_only_empty_ranges_are_listed_has_no_size(error: str | None, left: dict[int, Range]) -> None:
    measurement = summarize("listing", [Tally("beans", "us-east-1", (0, 0), NOW, error, left)], False)
    assert (measurement.buckets, measurement.size) == ([], "unknown")
    assert [each.error for each in measurement.errors] == [error or "not measured: time ran out"]


def test_the_page_says_that_there_are_no_buckets_or_that_the_size_is_partial() -> None:
    assert "This account has no buckets yet." in page.render(listed(), "r-1")
    late = [Failure("beans", "out of time")]
    shown = page.render(listed(Bucket("beans", 1_500, 2, NOW), errors=late, partial=True), "r-1")
    assert ("At least 1.5 kB" in shown, "≥ 1.5 kB" in shown) == (True, True)


def test_the_page_escapes_its_texts_and_loads_nothing() -> None:
    errors = [Failure("<b>", "<script>alert(1)</script>")]
    shown = page.render(listed(Bucket("<img src=x>", 1, 1, NOW), errors=errors), "<i>id</i>")
    assert "<img" not in shown
    assert all(each in shown for each in ("&lt;script&gt;alert(1)&lt;/script&gt;", "&lt;i&gt;id&lt;/i&gt;"))
    assert "default-src 'none'; img-src data:;" in shown
    assert re.findall(r"(?:src|href)=.{5}|url\(", shown) == ['href="data', "src=x&gt;"]


def test_a_report_stores_its_page_and_returns_the_notice_to_publish(account: Account) -> None:
    account.bucket("reports")
    account.bucket("beans", 1_500)
    for number in range(page.NOTICE_LINES + 1):
        account.bucket(f"secret-{number:02}", 9)
    account.refuse("secret")
    result = account.report({"reportId": "nightly-1", "mode": "listing"})
    assert (result["reportId"], result["reportKey"]) == ("nightly-1", "storage/nightly-1/report.html")
    assert result["summary"]["totalBytes"] == 1_500
    assert result["notice"]["subject"] == "Storage report: 1.5 kB in 2 of 13 buckets"
    assert result["notice"]["sms"] == "Total size of all buckets: 1.5 kB; 11 buckets could not be read"
    address = "GET /reports/storage~nightly-1 returns"
    for part in (address, result["summary"]["message"], "1.5 kB  beans", "- secret-09: AccessDenied: User: cafe"):
        assert part in result["notice"]["message"]
    stored = account.s3.get_object(Bucket="reports", Key=result["reportKey"])
    assert stored["ContentType"] == "text/html; charset=utf-8"
    assert b"nightly-1" in stored["Body"].read()


def test_a_notice_names_some_buckets_and_counts_the_rest() -> None:
    for count, rest in ((page.NOTICE_LINES, False), (page.NOTICE_LINES + 1, True)):
        buckets = [Bucket(f"beans-{number:02}", 1, 1, NOW) for number in range(count)]
        errors = [Failure(f"secret-{number:02}", "AccessDenied") for number in range(count)]
        message = page.notice(listed(*buckets, errors=errors), "r-1")["message"]
        assert "beans-09" in message
        assert "- secret-09: AccessDenied" in message
        more = ["            and 1 bucket more", "- and 1 more"] if rest else []
        assert [line for line in message.split("\n") if line.endswith(" more")] == more


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        *(({"mode": mode}, "mode: must be one of listing, metrics") for mode in ("guess", ["listing"])),
        *(({"reportId": each}, "reportId: must be a string of 1 to 80") for each in ("a/b", "", "a" * 81)),
        *(({"versions": each}, "versions: must be true or false") for each in (1, "true", None)),
        ({"mode": "metrics", "versions": True}, "versions: is allowed only for storage reports that list objects"),
        ({"reportId": 7, "mode": "x"}, "reportId: .*; mode: "),
        *(({"aloneSeconds": each}, "aloneSeconds: must be a number from 0 to 120") for each in (-1, 121, "1", True)),
    ],
)
def test_an_invalid_payload_says_what_is_wrong(account: Account, payload: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        account.report(payload)


def test_a_bucket_that_does_not_have_what_is_needed_is_named_in_the_error(account: Account) -> None:
    with pytest.raises(StorageRefused, match="the page cannot be stored in reports: NoSuchBucket"):
        account.report({})
    account.bucket("reports")
    with pytest.raises(StorageRefused, match="the remaining work cannot be read from reports: NoSuchKey"):
        account.report({"reportId": "r-1"}, {"round": 1, "id": "x", "share": 0})


def test_buckets_that_take_long_are_shared_out_and_added_up(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "SHARES", 3)
    account.bucket("reports")
    for number in range(7):
        account.bucket(f"beans-{number}", *[10] * number, region=("us-east-1", "eu-west-1")[number % 2])
    account.bucket("secret", 1_000)
    account.refuse("secret")
    answer, rounds = account.in_rounds(900, aloneSeconds=0)
    assert rounds == 1
    summary = answer["summary"]
    # The reports bucket is left out, because it also contains temporary files of the report.
    sizes = {each["name"]: each["bytes"] for each in summary["buckets"] if each["name"] != "reports"}
    assert sizes == {f"beans-{number}": 10 * number for number in range(7)}
    assert [each["bucket"] for each in summary["errors"]] == ["secret"]
    assert (summary["partial"], summary["asOf"]) == (False, "2026-11-21T03:30:00.000000Z")
    # Without a state machine, a single invocation measures buckets until its time is up.
    assert account.report({"aloneSeconds": 0})["summary"]["partial"] is False


def test_a_large_bucket_continues_in_the_next_function(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.bucket("beans", *[1] * 45)
    account.bucket("reports")
    account.in_pages_of(10)
    # Each invocation has time for only one page of objects.
    account.out_of_time_after("s3", "ListObjectsV2")
    monkeypatch.setattr(report, "ROUNDS", 20)
    answer, rounds = account.in_rounds(900)
    assert rounds > 3
    assert [each["bytes"] for each in answer["summary"]["buckets"] if each["name"] == "beans"] == [45]
    assert answer["summary"]["partial"] is False


def test_after_the_last_round_the_other_buckets_are_named(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "SHARES", 2)
    account.bucket("beans", 5)
    account.bucket("reports")
    answer, rounds = account.in_rounds(crew.RESERVE_SECONDS)
    assert rounds == report.ROUNDS
    assert answer["summary"]["partial"] is True
    assert {each["bucket"] for each in answer["summary"]["errors"]} == {"beans", "reports"}
