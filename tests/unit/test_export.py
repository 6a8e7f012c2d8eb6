"""Tests that the export is one CSV file with every order, which spreadsheets read and never run."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from chalicelib.orders import export
from chalicelib.orders.order import Item, Order
from tests.unit.api import Api, app
from tests.unit.cloud import Aws
from tests.unit.ordering import messages, store

TEN = [f"o-{number}" for number in range(10)]


def moment(number: int) -> str:
    return f"{app.now():%Y-%m-%d}T00:00:{number:02}.000000Z"


def placed(number: int, *items: Item, note: str | None = None, customer: str = "ada") -> Order:
    return Order(f"o-{number}", customer, items or (Item("Tea", 1),), note, moment(number), "ana")


def exported(api: Api, query: str = "") -> list[str]:
    """Follows ``X-Next`` to the end, and returns the text of each page."""
    texts, following = [], ""
    while True:
        response = api.get(f"/orders.csv?{query}{following}")
        assert (response.status_code, response.headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
        texts.append(response.body.decode())
        if "X-Next" not in response.headers:
            return texts
        following = f"&next={response.headers['X-Next']}"


def rows(text: str) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


def test_the_file_has_a_row_for_each_order(api: Api, aws: Aws) -> None:
    items = (Item('Flat "white"', 2), Item("Croissant, warm", 1))
    store(aws, messages(placed(1), placed(2, *items, note="two\nlines ☕")))
    changed = api.patch("/orders/o-1", {"from": "PLACED", "status": "READY"}).json_body
    [text] = exported(api.sent_by("sam", "staff"))
    head, second, first, end = text.replace("two\nlines", "two lines").split("\r\n")
    assert head == "\ufefforderID,customerID,placedAt,status,items,quantity,note,requestedBy,changedAt,changedBy"
    assert second == f'o-2,ada,{moment(2)},PLACED,"2 x Flat ""white"" + Croissant, warm",3,"two lines ☕",ana,,'
    assert first == f"o-1,ada,{moment(1)},READY,Tea,1,,ana,{changed['changedAt']},mia"
    assert end == ""
    assert rows(text)[0]["note"] == "two\nlines ☕"


def test_all_pages_are_one_file_and_a_range_excludes_its_end(
    api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ROWS", 3)
    store(aws, messages(*map(placed, range(10))))
    pages = exported(api)
    assert len(pages) == 4
    assert [each["orderID"] for each in rows("".join(pages))] == TEN[::-1]
    assert "".join(pages).count("\ufeff") == "".join(pages).count("orderID") == 1
    found = rows("".join(exported(api, f"since={moment(2)}&until={moment(7)}")))
    assert [each["orderID"] for each in found] == TEN[6:1:-1]
    assert len(exported(api, f"since={moment(7)}&until={moment(2)}")[0].split("\r\n")) == 2


def test_a_page_is_far_smaller_than_the_limit_of_lambda(api: Api, aws: Aws) -> None:
    store(aws, messages(*(placed(number, *[Item("☕" * 200, 10_000)] * 100) for number in range(12))))
    pages = exported(api)
    assert len(pages) > 1
    assert max(len(page.encode()) for page in pages) < 1_500_000
    assert len(rows("".join(pages))) == 12


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\u3000＝1", "＋1", "－1", "＠x", "\u200b=1"])
def test_no_cell_is_a_formula(api: Api, aws: Aws, text: str) -> None:
    store(aws, messages(placed(1, Item(text, 1), note=f"\t{text}", customer=text), placed(2, note="\nhot")))
    [breaks, found] = rows("".join(exported(api)))
    assert [found[name] for name in ("items", "customerID", "note")] == [f"'{text}", f"'{text}", f"'\t'{text}"]
    assert breaks["note"] == "'\nhot"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_no_part_of_a_cell_is_a_formula_whatever_separates_cells(api: Api, aws: Aws, separator: str) -> None:
    starts = ["=1+1", ' "=1"', "＠x", '""+1', "-1"]
    notes = [f"hello{end}{start}" for end in (";", "\t", "\n", ";\n", '";') for start in starts]
    orders = [placed(number, Item(" ".join(note.split()), 2), note=note) for number, note in enumerate(notes, 10)]
    store(aws, messages(*orders))
    found = [*csv.reader(io.StringIO("".join(exported(api)), newline=""), delimiter=separator)]
    cells = [cell.strip(' "') for row in found for cell in row]
    assert len(found) >= len(notes)
    assert [cell for cell in cells if cell[:1] in {*"=+-@＠"}] == []


@pytest.mark.parametrize("text", ["1+1", "a=b", "Té -1", "'=1"])
def test_other_cells_are_unchanged(api: Api, aws: Aws, text: str) -> None:
    store(aws, messages(placed(1, Item(text, 1), note=text, customer=text)))
    [found] = rows("".join(exported(api)))
    assert [found[name] for name in ("items", "customerID", "note")] == [text] * 3


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("", "orders.csv"),
        ("since=2026-11-28T00:00:00%2B01:00&until=2026-11-29T00:00:00%2B01:00", "orders-2026-11-28.csv"),
        ("since=2026-11-01T00:00:00-05:00&until=2026-12-01T00:00:00-05:00", "orders-from-2026-11-01-to-2026-11-30.csv"),
        ("since=2026-11-31T00:00:00Z", "orders-from-2026-12-01.csv"),
    ],
)
def test_the_file_is_named_after_its_days(api: Api, aws: Aws, query: str, name: str) -> None:
    header = api.get(f"/orders.csv?{query}").headers["Content-Disposition"]
    assert header == f'attachment; filename="{name}"'
