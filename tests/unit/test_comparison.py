"""Tests how an inventory report finds the previous report, and what it says has changed."""

from __future__ import annotations

import io
import json
import tracemalloc
from itertools import islice
from typing import Any

import pytest
from botocore.response import StreamingBody

from chalicelib.reports import comparison as comparing
from chalicelib.reports import earlier
from chalicelib.reports.comparison import Comparison
from chalicelib.reports.inventory import COLUMNS
from chalicelib.reports.render import render_report
from tests.unit.test_render import BUCKET, EVIL, Document, line

# Collects pauses in seconds, without waiting.
PAUSES: list[float] = []
FIRST, SECOND, THIRD = (f"2026-11-2{day}T03:14:15.123456Z" for day in range(1, 4))


def csv_of(rows: list[list[str]], columns: list[str] | None = None) -> bytes:
    quoted = ([f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row] for row in [columns or [*COLUMNS], *rows])
    return "\r\n".join(map(",".join, [*quoted, []])).encode("utf-8-sig")


def store(s3: Any, name: str, rows: list[list[str]], **given: Any) -> str:
    key = f"inventory/{name}/inventory.csv"
    s3.put_object(Bucket=BUCKET, Key=key, Body=csv_of(rows, **given))
    return key


def report(s3: Any, name: str, generated_at: str, rows: list[list[str]], low_stock: int = 20) -> Any:
    """Renders a report about these rows, and returns its ``changes``."""
    event = {"reportId": name, "csvKey": store(s3, name, rows), "generatedAt": generated_at}
    return render_report(event, s3=s3, bucket=BUCKET, low_stock=low_stock, sleep=PAUSES.append)["changes"]


def page(s3: Any, name: str) -> Document:
    body = s3.get_object(Bucket=BUCKET, Key=f"inventory/{name}/report.html")["Body"].read()
    return Document(body.decode())


def compared(s3: Any, before: list[list[str]], after: list[list[str]], low_stock: int = 20) -> Comparison:
    """Compares two inventories without rendering a page."""
    comparison = Comparison(s3, BUCKET, {"csvKey": store(s3, "before", before), "generatedAt": FIRST}, low_stock)
    assert list(comparison.follow(after)) == after
    assert comparison.is_readable
    return comparison


def test_a_report_says_what_changed_since_the_report_before(s3: Any) -> None:
    beans = [line(1), line(2, quantity=40), line(4, quantity=50), line(5, quantity=21), line(6)]
    assert report(s3, "a", FIRST, beans) == {"since": None, "text": comparing.NOTHING_BEFORE}
    assert comparing.NOTHING_BEFORE in page(s3, "a").text
    beans = [line(1), line(2, quantity=15), line(3), line(4, quantity=60), line(5, quantity=20), line(7)]
    assert report(s3, "b", SECOND, beans) == {
        "since": FIRST,
        "text": "2 new ('Bean 3', 'Bean 7'), 1 gone ('Bean 6'), 1 with more in stock ('Bean 4'), "
        "2 with less in stock ('Bean 2', 'Bean 5'), 2 now low in stock ('Bean 2', 'Bean 5').",
    }
    text = page(s3, "b").text
    assert "Since the report of 21 November 2026, 03:14 UTC" in text
    assert "2 new Bean 3 Café Azul 100 Bean 7 Café Azul 100 1 gone Bean 6 Café Azul 100 1 with more" in text
    assert "2 now low in stock Bean 2 Café Azul 40 → 15 Bean 5 Café Azul 21 → 20" in text
    assert report(s3, "c", THIRD, beans) == {"since": SECOND, "text": "no changes."}
    assert "No changes." in page(s3, "c").text
    assert report(s3, "d", THIRD, [])["text"].startswith("6 gone")
    assert "6 gone" in page(s3, "d").text
    assert "and 1 more" in page(s3, "d").text


def test_beans_are_known_by_their_ids_and_not_by_their_names(s3: Any) -> None:
    same = [line(number, product_name="House") for number in (1, 2, 3)]
    renamed = [line(1, product_name="House"), line(2, product_name="Home", supplier="Z"), line(3, product_name="House")]
    assert not compared(s3, same, renamed).counts
    fewer = compared(s3, same, [same[0], same[2]])
    assert (fewer.counts, fewer.text()) == ({"gone": 1}, "1 gone ('House').")
    unnamed = [line(4, product_name="=1+1"), line(5, product_name=None, supplier_id=None)]
    added = compared(s3, same, [*same, *unnamed])
    assert added.text() == "2 new ('=1+1', 'Unnamed bean')."
    assert [change.supplier for change in added.named("new")] == ["Café Azul", "No supplier on record"]


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        (None, 30, {}),
        (None, 3, {"low": 1}),
        (3, None, {}),
        (30, 20, {"down": 1, "low": 1}),
        (20, 3, {"down": 1}),
        (-5, 0, {"up": 1}),
        (None, None, {}),
    ],
)
def test_unknown_quantities_are_neither_more_nor_less(s3: Any, before: Any, after: Any, counts: dict[str, int]) -> None:
    assert compared(s3, [line(quantity=before)], [line(quantity=after)]).counts == counts


def test_the_limit_of_today_judges_both_reports(s3: Any) -> None:
    before, after = [line(1, quantity=40), line(2, quantity=90)], [line(1, quantity=30), line(2, quantity=50)]
    assert "low" not in compared(s3, before, after, low_stock=40).counts
    assert compared(s3, before, after, low_stock=50).text().endswith("1 now low in stock ('Bean 2').")


def test_the_page_names_the_largest_changes_and_the_lowest_stock(s3: Any) -> None:
    before = [line(number, quantity=100) for number in range(1, 31)]
    after = [line(number, quantity=100 - number * 3) for number in range(1, 31)]
    comparison = compared(s3, before, after)
    assert [change.quantity for change in comparison.named("low")] == [10, 13, 16, 19]
    assert [change.name for change in comparison.named("down")] == [f"Bean {n}" for n in (30, 29, 28, 27, 26)]
    assert "30 with less in stock ('Bean 30', 'Bean 29' and 28 more)" in comparison.text()


@pytest.mark.parametrize("evil", [*EVIL, "\u202egnp.exe", "a\nb\x00", "http://evil.example/a", "=1+1", "x" * 255])
def test_no_name_becomes_markup_or_a_link_or_hides(s3: Any, evil: str) -> None:
    harmless, hostile = (line(2, product_name=name, supplier=name) for name in ("harmless", evil))
    for name, bean in (("harmless", harmless), ("hostile", hostile)):
        s3.delete_object(Bucket=BUCKET, Key=earlier.KEY)
        report(s3, f"{name}-1", FIRST, [line(1), bean])
        text = report(s3, f"{name}-2", SECOND, [line(1)])["text"]
        assert text.isprintable()
        assert "://" not in text
        assert len(text) < 100
    assert page(s3, "hostile-2").shape() == page(s3, "harmless-2").shape()


# --- The previous report ----------------------------------------------------------------------------------------------


def test_a_repeated_report_is_compared_with_the_same_report_again(s3: Any) -> None:
    report(s3, "a", FIRST, [line(1)])
    changes = report(s3, "c", THIRD, [line(1), line(2)])
    assert changes["since"] == FIRST
    # An older report ends later.
    assert report(s3, "b", SECOND, [line(1)]) == {"since": FIRST, "text": "no changes."}
    for _ in range(2):
        assert report(s3, "c", THIRD, [line(1), line(2)]) == changes
    assert report(s3, "d", "2026-11-24", [line(1), line(2)]) == {"since": THIRD, "text": "no changes."}


def test_a_report_that_is_tried_again_replaces_its_first_entry(s3: Any) -> None:
    report(s3, "a", FIRST, [line(1)])
    report(s3, "b", SECOND, [line(1)])
    # The second try of the first report reads MySQL again, into the same CSV file.
    again = report(s3, "a", THIRD, [line(1), line(2)])
    assert again == {"since": SECOND, "text": "1 new ('Bean 2')."}
    assert report(s3, "a", THIRD, [line(1), line(2)]) == again
    # A late end of the first try changes nothing.
    earlier.record(s3, BUCKET, {"reportId": "a", "csvKey": "k", "generatedAt": FIRST}, None, PAUSES.append)
    reports, _ = earlier._read(s3, BUCKET)
    assert [(each["reportId"], each["generatedAt"]) for each in reports] == [("b", SECOND), ("a", THIRD)]
    # The newest entry is its own.
    assert report(s3, "a", "2026-11-24", [line(1)])["since"] == SECOND


def test_an_unknown_report_before_is_looked_for_again(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    report(s3, "a", FIRST, [line(1)])
    with monkeypatch.context() as patch:
        patch.setattr(earlier, "find", lambda *_: earlier.UNKNOWN)
        unknown = {"since": None, "text": comparing.UNREADABLE.capitalize()}
        assert report(s3, "b", SECOND, [line(1)]) == unknown
    assert unknown["text"] in page(s3, "b").text
    assert report(s3, "b", SECOND, [line(1)])["since"] == FIRST


def test_concurrent_reports_both_stay_in_the_list(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put, others = s3.put_object, iter(range(earlier.TRIES - 1))

    def put_after_another(**given: Any) -> Any:
        if given["Key"] == earlier.KEY and (number := next(others, None)) is not None:
            entry = {"reportId": f"other-{number}", "csvKey": "k", "generatedAt": SECOND, "before": None}
            body = json.dumps([*earlier._read(s3, BUCKET)[0], entry]).encode()
            put(Bucket=BUCKET, Key=earlier.KEY, Body=body)
        return put(**given)

    monkeypatch.setattr(s3, "put_object", put_after_another)
    assert report(s3, "a", FIRST, [line(1)])["since"] is None
    assert len(set(PAUSES[-earlier.TRIES :])) == earlier.TRIES
    reports, _ = earlier._read(s3, BUCKET)
    assert [each["reportId"] for each in reports] == ["a", *(f"other-{n}" for n in range(earlier.TRIES - 1))]
    # A report that was made at the same moment is never its own predecessor.
    assert report(s3, "b", FIRST, [line(1)])["since"] == FIRST


def test_the_list_keeps_only_the_newest_reports(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert earlier.KEPT == 100
    monkeypatch.setattr(earlier, "KEPT", 3)
    for number in (5, 1, 4, 2, 3):
        entry = {"reportId": f"r{number}", "csvKey": "k", "generatedAt": f"{number}"}
        earlier.record(s3, BUCKET, entry, None, PAUSES.append)
    assert [each["reportId"] for each in earlier._read(s3, BUCKET)[0]] == ["r3", "r4", "r5"]


def broken(s3: Any, monkeypatch: pytest.MonkeyPatch, body: bytes, length: int = 0) -> None:
    """Makes S3 answer with ``body`` for the CSV file of the report ``a``, of which it sends ``length`` bytes."""
    get = s3.get_object

    def answer(**given: Any) -> Any:
        if given["Key"] != "inventory/a/inventory.csv":
            return get(**given)
        return {"Body": StreamingBody(io.BytesIO(body[: length or len(body)]), len(body)), "ContentLength": len(body)}

    monkeypatch.setattr(s3, "get_object", answer)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s3, _: s3.delete_object(Bucket=BUCKET, Key="inventory/a/inventory.csv"),
        lambda s3, patch: broken(s3, patch, csv_of([line(1)] * 900), 9_000),
        lambda s3, patch: broken(s3, patch, csv_of([line(2), line(1)])),
        lambda s3, patch: broken(s3, patch, csv_of([line("seven")])),
        lambda s3, patch: broken(s3, patch, csv_of([["1"]], ["bean"])),
        lambda s3, patch: broken(s3, patch, b"\xff\xfe\x00"),
        lambda s3, patch: broken(s3, patch, csv_of([["1"]])),
    ],
    ids=["expired", "cut off", "unsorted", "no id", "other columns", "not UTF-8", "short row"],
)
def test_a_report_before_that_cannot_be_read_never_fails_a_report(
    s3: Any, monkeypatch: pytest.MonkeyPatch, spoil: Any
) -> None:
    report(s3, "a", FIRST, [line(1)])
    with monkeypatch.context() as patch:
        spoil(s3, patch)
        assert report(s3, "b", SECOND, [line(1), line(2)]) == {"since": FIRST, "text": comparing.UNREADABLE}
    assert "The changes are unknown" in page(s3, "b").text
    assert "Bean 2" in page(s3, "b").text
    assert report(s3, "c", THIRD, [line(1), line(2)]) == {"since": SECOND, "text": "no changes."}


def test_a_csv_file_with_more_columns_in_another_order_is_compared(s3: Any) -> None:
    columns = ["quantity", "more", "bean_id", "supplier", "supplier_id", "product_name"]
    key = store(s3, "a", [["100", "x", "1", "S", "7", "Bean 1"], ["9", "x", "2", "S", "7", "Gone"]], columns=columns)
    comparison = Comparison(s3, BUCKET, {"csvKey": key, "generatedAt": FIRST}, 20)
    list(comparison.follow([line(1)]))
    assert comparison.text() == "1 gone ('Gone')."


@pytest.mark.parametrize("body", [b"", b"[", b"{}", b"[1]", b'[{"reportId": "a"}]', b"\xff"])
def test_an_unreadable_list_is_replaced(s3: Any, body: bytes) -> None:
    s3.put_object(Bucket=BUCKET, Key=earlier.KEY, Body=body)
    assert report(s3, "a", FIRST, [line(1)])["since"] is None
    assert report(s3, "b", SECOND, [line(1)])["since"] == FIRST


@pytest.mark.parametrize("code", ["AccessDenied", "SlowDown", "PreconditionFailed"])
@pytest.mark.parametrize("operation", ["get_object", "put_object"])
def test_an_unavailable_list_never_fails_a_report_and_loses_no_entry(
    s3: Any, monkeypatch: pytest.MonkeyPatch, operation: str, code: str
) -> None:
    a, b = ({"reportId": name, "csvKey": "k", "generatedAt": FIRST} for name in "ab")
    earlier.record(s3, BUCKET, a, None, PAUSES.append)

    def refuse(**_: Any) -> Any:
        raise s3.exceptions.ClientError({"Error": {"Code": code}}, operation)

    with monkeypatch.context() as patch:
        patch.setattr(s3, operation, refuse)
        assert earlier.find(s3, BUCKET, b) == (a if operation == "put_object" else earlier.UNKNOWN)
        earlier.record(s3, BUCKET, b, None, PAUSES.append)
    assert [each["reportId"] for each in earlier._read(s3, BUCKET)[0]] == ["a"]


def test_memory_does_not_grow_with_the_number_of_changes(s3: Any) -> None:
    def peak(count: int) -> int:
        key = store(s3, "a", [line(n, quantity=100) for n in range(1, count)])
        body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        comparison = Comparison(_Stored(body), BUCKET, {"csvKey": key, "generatedAt": FIRST}, 20)
        tracemalloc.start()
        for _ in comparison.follow(line(n, quantity=n) for n in islice(range(2, 2 * count), 0, None, 2)):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert comparison.counts["gone"] + comparison.counts["new"] >= count - 1
        return most

    peak(10)
    assert peak(6_000) < 1.2 * peak(2_000) + 100_000


class _Stored:
    """An S3 client whose only object is held outside the measured memory."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def get_object(self, **_: Any) -> Any:
        return {"Body": StreamingBody(io.BytesIO(self.body), len(self.body)), "ContentLength": len(self.body)}
