"""Tests how storage reports find out the growth of buckets, and how they show it."""

import gzip
import io
import json
import re
import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from chalicelib.clients import longest_call
from chalicelib.storage import growth, page, report
from chalicelib.storage.growth import Sizes, growth_since
from chalicelib.storage.measurement import Bucket, Failure, Measurement
from chalicelib.storage.shares import ShareFiles
from chalicelib.timeline import timestamp
from tests.unit.buckets import NOW, Account
from tests.unit.logged import records


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def grown(earlier: dict[float, Sizes], sizes: Sizes) -> dict[str, Any] | None:
    """Returns the growth since earlier reports. The keys of ``earlier`` are days before this report."""
    return growth_since(
        {
            f"{timestamp(days_ago(days))}~x": gzip.compress(json.dumps({"buckets": earlier[days]}).encode())
            for days in sorted(earlier, reverse=True)
        },
        sizes,
        NOW,
    )


@pytest.mark.parametrize(
    ("earlier", "sizes", "totals", "buckets"),
    [
        ({1: {"a": 5}}, {"a": 7}, (2, None), {"a": (2, None)}),
        ({1: {}}, {"new": 7}, (7, None), {"new": (7, None)}),
        ({1: {"gone": 7}}, {}, (-7, None), {"gone": (-7, None)}),
        ({1: {"a": 5, "same": 1}}, {"a": None, "same": 1}, (0, None), {}),
        ({1: {"a": None}}, {"a": 5}, (None, None), {}),
        ({30: {"a": 1}, 1: {"a": 5}}, {"a": 7}, (2, 6), {"a": (2, 6)}),
        ({29.9: {"a": 1}}, {"a": 7}, (6, None), {"a": (6, None)}),
        ({44: {"a": 1}, 31: {"a": 2}, 1: {"a": None}}, {"a": 7}, (None, 5), {"a": (None, 5)}),
        (
            {31: {"a": 1, "b": 9, "c": 1, "d": 1, "e": 5}, 1: {"a": 2, "b": 8, "c": 1, "d": 3, "e": 5}},
            {"a": 4, "b": 1, "c": 9, "d": 3, "e": 5},
            (3, 5),
            {"c": (8, 8), "a": (2, 3), "d": (0, 2), "b": (-7, -8)},
        ),
    ],
)
def test_the_largest_growth_is_first_and_unknown_sizes_are_never_0(
    earlier: dict[float, Sizes], sizes: Sizes, totals: tuple[Any, Any], buckets: dict[str, tuple[Any, Any]]
) -> None:
    found = grown(earlier, sizes)
    assert found
    assert (found["sinceLast"], found["sinceMonth"]) == totals
    assert [(each["name"], (each["sinceLast"], each["sinceMonth"])) for each in found["buckets"]] == [*buckets.items()]
    months = [days for days in earlier if days >= 30]
    assert found["lastReport"] == timestamp(days_ago(min(earlier)))
    assert found["monthReport"] == (timestamp(days_ago(min(months))) if months else None)


def test_each_day_has_its_last_size_and_a_day_without_one_is_a_gap() -> None:
    earlier = {4.1: {"a": 9}, 4: {"a": 1}, 2: {"a": None}, 1: {}, 0.1: {"a": 8}}
    found = grown(earlier, {"a": 5})
    assert found
    assert found["days"] == [f"2026-11-{day}" for day in range(17, 22)]
    assert found["buckets"][0]["sizes"] == [1, None, None, 0, 5]
    path = page.render(Measurement("listing", [], [], False), "r", found)
    assert 'd="M0 23.2h0M30 28.0h0L40 4.0h0"' in path
    # A line starts at most 30 days before the report.
    assert len((grown({40: {"a": 1}, 30: {"a": 2}, 31: {"a": 3}}, {"a": 5}) or {})["days"]) == 31
    assert (grown({31: {"a": 1}}, {"a": 5}) or {})["days"] == ["2026-11-21"]


@pytest.mark.parametrize(
    "body",
    [b"", b"no gzip", gzip.compress(b"[]"), gzip.compress(b"{"), gzip.compress(b"{}")[:9]],
    ids=["empty", "no gzip", "a list", "no JSON", "cut off"],
)
def test_a_report_whose_sizes_are_not_readable_is_no_earlier_report(body: bytes) -> None:
    newest = {f"{timestamp(days_ago(1))}~x": body}
    assert growth_since(newest, {"a": 1}, NOW) is None
    before = {f"{timestamp(days_ago(2))}~x": gzip.compress(b'{"buckets": {"a": 3}}')}
    assert (growth_since(newest | before, {"a": 5}, NOW) or {})["sinceLast"] == 2


def test_growth_leaves_time_to_store_the_page(account: Account) -> None:
    account.bucket("reports")
    account.report({"reportId": "r-1"})
    account.seconds_left = longest_call("s3") + growth.PAGE_SECONDS
    calls: list[str] = []
    account.s3.meta.events.register("before-call.s3.PutObject", lambda params, **_: calls.append(params["url_path"]))
    account.report({"reportId": "r-2"})
    assert [call.rsplit("/", 1)[-1] for call in calls] == ["report.html"]


def test_each_step_of_the_growth_checks_the_remaining_time(account: Account) -> None:
    account.bucket("reports")
    s3 = reports_s3(account)
    seconds = iter([longest_call("s3") + growth.PAGE_SECONDS + 30, longest_call("s3") + growth.PAGE_SECONDS])
    files = ShareFiles(s3, "reports", "r")
    assert (
        growth.store_and_compare(files, "listing", Measurement("listing", [], [], False), NOW, seconds.__next__) is None
    )
    assert list(seconds) == []
    assert "Contents" not in s3.list_objects_v2(Bucket="reports", Prefix="storage-sizes/")


def test_a_total_names_the_number_of_buckets_with_unknown_size() -> None:
    measurement = Measurement("listing", [Bucket("a", 5, 1, NOW)], [Failure("secret", "AccessDenied")], False)
    found = grown({31: {"a": 3, "b": None, "secret": 1}, 1: {"a": 5, "secret": 1}}, {"a": 5, "secret": None})
    assert found
    message = page.notice(measurement, "r", found)["message"]
    assert "Growth since 2026-11-20: no change (without 1 bucket of unknown size)\n" in message
    assert "Growth since 2026-10-21: +2 Bytes (without 2 buckets of unknown size); a +2 Bytes\n" in message
    shown = page.render(measurement, "r", found)
    assert "All buckets: no change (without 1 bucket of unknown size) since the last report of <time" in shown
    assert "+2 Bytes (without 2 buckets of unknown size) since <time" in shown
    assert "unknown" not in page.summary(measurement, found)["growth"]
    # A total that is unknown needs no explanation.
    nothing = grown({1: {"secret": None}}, {"secret": None})
    assert nothing
    assert "All buckets: unknown since" in page.render(measurement, "r", nothing)


def test_the_page_and_the_summary_have_the_buckets_that_grew_most() -> None:
    sizes: Sizes = {f"{number:03}": number for number in range(1, 202)}
    found = grown({1: {}}, sizes)
    assert found
    measurement = Measurement("listing", [Bucket(name, size or 0, 1, NOW) for name, size in sizes.items()], [], False)
    assert [each["name"] for each in page.summary(measurement, found)["buckets"]][:1] == ["001"]
    names = [f"{number:03}" for number in range(201, 0, -1)]
    assert [each["name"] for each in page.summary(measurement, found)["growth"]["buckets"]] == names[:20]
    assert page.render(measurement, "r", found).count("<svg class") == len(found["buckets"]) == 100
    message = page.notice(measurement, "r", found)["message"]
    assert "\nGrowth since 2026-11-20: +20.3 kB; 201 +201 Bytes, 200 +200 Bytes, 199 +199 Bytes\n" in message


def test_the_page_says_what_is_deleted_or_unknown() -> None:
    buckets = [Bucket("emptied", 0, 0, NOW), Bucket("new", 2_000, 1, NOW)]
    measurement = Measurement("listing", buckets, [Failure("secret", "AccessDenied")], False)
    past: dict[float, Sizes] = {31: {"new": 0}, 1: {"emptied": 7_000, "gone": 1, "secret": 5, "new": None}}
    found = grown(past, {"emptied": 0, "new": 2_000, "secret": None})
    shown = page.render(measurement, "r", found)
    table = re.findall(r"<tr><td>(.*?)</tr>", shown.partition("By bucket")[0], re.DOTALL)
    cells = [re.findall(r"<td>([^<]*)</td>", row) for row in table]
    assert cells == [["unknown", "+2.0 kB"], ["−1 Byte", "no change"], ["−7.0 kB", "no change"]]
    assert ["no longer there" in row for row in table] == [False, True, False]
    assert 'aria-label="From 2026-11-20 to 2026-11-21 between 0 Bytes and 7.0 kB, now 0 Bytes"' in table[2]
    assert "−7.0 kB (without 2 buckets of unknown size) since the last report of <time" in shown
    assert "<p>Unknown, because no earlier report" in page.render(measurement, "r")
    nothing = Measurement("listing", [], [Failure("secret", "AccessDenied")], False)
    assert "<dt>Objects</dt><dd>Unknown</dd>" in page.render(nothing, "r")


def reports_s3(account: Account) -> Any:
    """Returns another client than the one that lists objects, because the listing changes its client."""
    return account.client("s3", "us-west-2")


def run(account: Account, report_id: str, now: datetime = NOW, mode: str = "listing") -> dict[str, Any] | None:
    """Runs a report and returns its growth."""
    collaborators = {**account.collaborators, "s3": reports_s3(account), "now": now}
    payload = {"reportId": report_id, **({"versions": True} if mode == "versions" else {"mode": mode})}
    summary = report.report(payload, {"round": 0}, bucket="reports", **collaborators)["summary"]
    found: dict[str, Any] | None = summary["growth"]
    return found


def test_a_report_is_compared_with_earlier_ones_of_its_series_but_not_with_itself(account: Account) -> None:
    account.bucket("reports")
    account.bucket("beans", 5)
    account.bucket("secret", 9)
    for days in (31, 2):
        run(account, f"r-{days}", days_ago(days))
    assert run(account, "tomorrow", days_ago(-1))
    account.s3.put_object(Bucket="beans", Key="more", Body=b"xx")
    account.refuse("secret")
    # A report of 46 days ago is too old.
    for mode in ("metrics", "versions"):
        assert [run(account, f"{mode}-{days}", days_ago(days), mode) for days in (46, 0)] == [None, None]
    for now in (days_ago(0.1), NOW):
        found = run(account, "again", now)
        assert found
        assert (found["lastReport"], found["monthReport"]) == (timestamp(days_ago(2)), timestamp(days_ago(31)))
        [beans] = [each for each in found["buckets"] if each["name"] != "reports"]
        assert (beans["sinceLast"], beans["sinceMonth"], beans["sizes"]) == (2, 2, [5, None, 7])


def test_only_the_last_step_stores_sizes(account: Account) -> None:
    account.bucket("reports")
    payload = {"reportId": "r", "aloneSeconds": 0}
    answer = account.report(payload, {"round": 0})
    stored = {"Bucket": "reports", "Prefix": "storage-sizes/"}
    s3 = reports_s3(account)
    assert "Contents" not in s3.list_objects_v2(**stored)
    account.report(payload, {**answer["spread"], "share": 0})
    account.report(payload, answer["spread"])
    [stored] = s3.list_objects_v2(**stored)["Contents"]
    body = s3.get_object(Bucket="reports", Key=stored["Key"])["Body"].read()
    assert json.loads(gzip.decompress(body))["buckets"].keys() == {"reports"}


@pytest.mark.parametrize(
    ("operation", "known", "stored"), [("ListObjectsV2", False, 2), ("GetObject", False, 2), ("PutObject", True, 1)]
)
@pytest.mark.parametrize("hangs", [False, True])
def test_a_failure_never_fails_the_report(
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    log_lines: io.StringIO,
    hangs: bool,
    operation: str,
    known: bool,
    stored: int,
) -> None:
    account.bucket("reports")
    run(account, "first", days_ago(1))
    released, s3 = threading.Event(), reports_s3(account)
    monkeypatch.setattr(growth, "S3_SECONDS", 0.5 if hangs else 30)

    def fail(params: dict[str, Any], **_: Any) -> None:
        if "storage-sizes" in str(params):
            if hangs:
                released.wait(30)
            raise EndpointConnectionError(endpoint_url="https://s3")

    s3.meta.events.register(f"provide-client-params.s3.{operation}", fail)
    found = run(account, "second")
    released.set()
    s3.meta.events.unregister(f"provide-client-params.s3.{operation}", fail)
    assert bool(found) is known
    assert len(s3.list_objects_v2(Bucket="reports", Prefix="storage-sizes/")["Contents"]) == stored
    [logged] = records(log_lines, "sizes not read or not stored")
    assert logged["reason"] == ("no answer in time" if hangs else 'Could not connect to the endpoint URL: "https://s3"')
