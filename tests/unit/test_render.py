"""Tests what the inventory report counts and shows, and how it escapes every cell."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tracemalloc
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.response import StreamingBody

from chalicelib.errors import Unavailable
from chalicelib.reports import files
from chalicelib.reports import render as rendering
from chalicelib.reports.comparison import Comparison
from chalicelib.reports.inventory import COLUMNS, neutralise
from chalicelib.reports.prices import parse_price
from chalicelib.reports.render import Page, render, render_report
from chalicelib.storage import page as storage_page
from chalicelib.storage.measurement import Bucket, Measurement
from tests.unit import answering
from tests.unit.answering import as_csv, in_utf8

BUCKET = "cafe-test-reports"
summarise = partial(rendering.summarise, low_stock=20)
MADE = "2026-11-21T03:14:15.123456Z"
PAGE = Page(
    "r1", MADE, "https://example.com/inventory.csv?X-Amz-Signature=1&x=2", 5_124, Comparison(None, BUCKET, None, 20)
)


def line(number: int = 1, /, **cells: Any) -> list[str]:
    """Returns the CSV line of a bean that has every field. The fields in ``cells`` replace the defaults."""
    whole = {
        **{"supplier_id": 7, "supplier": "Café Azul", "city": "Köln", "state": "NW", "email": "azul@example.com"},
        **{"phone": "555 0107", "bean_id": number, "type": "Arabica", "product_name": f"Bean {number}"},
        **{"price": "4.20", "quantity": 100, "description": "Bright and floral"},
        **cells,
    }
    cells = (neutralise(in_utf8(cell)) if isinstance(cell, str) else in_utf8(cell) for cell in whole.values())
    return [cell.decode() for cell in cells]


def orphan(number: int = 1, /, **cells: Any) -> list[str]:
    """Returns the CSV line of a bean without a supplier."""
    return line(number, **dict.fromkeys(("supplier_id", "supplier", "city", "state", "email", "phone")) | cells)


class Document(HTMLParser):
    """Parses a page into its elements, and its text outside ``style`` and ``script``."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, str] = {}
        self._inside = ""
        self._text: list[str] = []
        self.feed(html)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self._text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("style", "script"):
            self.raw[self._inside] = data
        else:
            self._text.append(data)

    def shape(self) -> list[tuple[str, ...]]:
        """Returns the page's elements in order, each with the names of its attributes."""
        return [(tag, *attributes) for tag, attributes in self.elements]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def document(rows: Iterable[list[str]]) -> Document:
    return Document("".join(render(summarise(rows), PAGE)))


def test_the_totals_count_every_bean_and_each_supplier_once() -> None:
    summary = summarise([line(1, price="2.50", quantity=4), line(2, supplier_id=8, price="$10", quantity=30)])
    assert (summary.beans, summary.suppliers, summary.quantity, summary.value) == (2, 2, 34, Decimal("310"))
    assert summarise([line(1), line(2), orphan(3)]).suppliers == 1
    summary = summarise([line(1, quantity=None), line(2, quantity=3)])
    assert (summary.quantity, summary.uncounted, summary.low) == (3, 1, 1)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        *(("4.20", "4.20"), ("$4.20", "4.20"), ("$ 4", "4"), ("4 $", "4"), ("12,50", "12.50"), ("0,125", "0.125")),
        *(("1,234.50", "1234.50"), ("1.234,50", "1234.50"), ("1\u202f234,50", "1234.50"), ("1’234.50", "1234.50")),
        *(("1.234.567", "1234567"), ("1,234,567.8", "1234567.8"), ("1234.567", "1234.567"), ("1,234.567", "1234.567")),
        *(("  7 ", "7"), ("0", "0"), ("\u200b16.40\u00a0", "16.40"), ("999999999", "999999999"), ("0.000", "0")),
        *(
            (text, None)
            for text in ("1,234", "1.234", "$1,234", "1,23,4", "1.234.50", "1,234,50", "1 234 5", "01,234.5")
        ),
        *((text, None) for text in ("-4.20", "€4.20", "4.20 EUR", "NaN", "1e5", "٤", "9" * 255, "4.2.0", "$4$", ".5")),
        *((text, None) for text in ("", "free", "$", "4.", "4,50 - 5,00", "1'234’567")),
    ],
)
def test_a_price_is_a_number_only_if_it_can_be_read_in_one_way(text: str, amount: str | None) -> None:
    assert parse_price(text) == (Decimal(amount) if amount else None)


def test_prices_may_have_only_the_cafes_own_currency() -> None:
    for currency, text in (
        ("€", "16,40 €"),
        ("CHF", "CHF 16.40"),
        ("zł", "16,40zł"),
        ("Fr.", "Fr. 16.40"),
        ("€", "16.4"),
    ):
        assert parse_price(text, currency) == Decimal("16.40")
        assert summarise([line(price=text, quantity=2)], currency).value == Decimal("32.80")
    assert parse_price("$16.40", "€") is None
    assert "€ 16.40 not a price" in document([line(price="€ 16.40")]).text


def test_beans_without_a_price_are_left_out_of_the_value_and_counted() -> None:
    summary = summarise([line(1, price="free"), line(2, price=None), line(3, price="-4.20"), line(4, price="2")])
    assert (summary.value, summary.unpriced) == (Decimal(200), 3)
    # A price that starts with a tab gets an apostrophe in the CSV file, but still counts as a price.
    assert neutralise(b"\t4.20") != b"\t4.20"
    assert summarise([line(price="\t4.20")]).value == Decimal(420)


def test_the_lowest_in_stock_come_first_and_unknown_quantities_last() -> None:
    quantities = [50, None, 20, 0, -3, 21]
    summary = summarise(line(number, quantity=quantity) for number, quantity in enumerate(quantities))
    assert [bean.quantity for bean in summary.neediest] == [-3, 0, 20]
    assert summary.low == 3
    assert [bean.quantity for bean in summary.groups[0]] == [-3, 0, 20, 21, 50, None]


def test_the_limit_for_low_stock_is_a_setting() -> None:
    for limit, low, named in ((0, 1, [0]), (2, 3, [0, 1, 2]), (10_000, 9, [0, 1, 2, 3, 4])):
        summary = summarise([line(n, quantity=n) for n in range(9)], low_stock=limit)
        assert [bean["quantity"] for bean in summary.lowest()["beans"]] == named
        assert (summary.low, summary.lowest()["count"], summary.lowest()["limit"]) == (low, low, limit)
        text = Document("".join(render(summary, PAGE))).text
        assert f"{limit:,} or fewer left" in text
        assert len(re.findall(r"\d (?:low|sold out)\b", text)) == low


def test_the_page_is_grouped_by_supplier_in_the_order_of_their_names() -> None:
    rows = [orphan(1), line(2, supplier="zulu", supplier_id=1), line(3, supplier="Alfa", supplier_id=2), orphan(4)]
    groups = summarise(rows).groups
    assert [[bean.row.bean_id for bean in group] for group in groups] == [["3"], ["2"], ["1", "4"]]


def test_the_chart_has_the_largest_suppliers_and_one_line_for_all_others() -> None:
    bars = summarise(line(n, supplier_id=n, supplier=f"Supplier {n}", quantity=n) for n in range(1, 13)).bars
    assert [bar.label for bar in bars[:2]] == ["Supplier 12", "Supplier 11"]
    assert [bar.percent for bar in bars[:2]] == [100, 91.67]
    assert bars[-1] == ("3 others", 6, None)
    assert len(bars) == rendering.BARS + 1
    assert summarise([line(quantity=0), line(2, supplier_id=8, quantity=-5), orphan(3, quantity=None)]).bars == []


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowers the limits of the report, which then shows only the neediest 5 beans if there are more than 50."""
    assert (rendering.WHOLE_INVENTORY, rendering.NEEDIEST_SHOWN) == (5_000, 500)
    monkeypatch.setattr(rendering, "WHOLE_INVENTORY", 50)
    monkeypatch.setattr(rendering, "NEEDIEST_SHOWN", 5)


def test_too_many_beans_are_all_counted_but_only_the_neediest_are_shown(small: None) -> None:
    whole = summarise(line(number) for number in range(50))
    assert (whole.is_whole, whole.shown) == (True, 50)
    summary = summarise([line(number, supplier_id=number % 3 + 1, quantity=50 - number) for number in range(51)])
    shown = [int(bean.row.quantity) for group in summary.groups for bean in group]
    assert sorted(shown) == list(range(5))
    assert not summary.is_whole
    assert (summary.beans, summary.quantity, summary.suppliers) == (51, sum(range(51)), 3)
    text = Document("".join(render(summary, PAGE))).text
    assert "The 5 beans lowest in stock" in text
    assert "count all 51 beans" in text


def test_memory_does_not_grow_with_the_number_of_beans(small: None) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        summarise(line(number, quantity=count - number) for number in range(count))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(4_000) < 1.2 * peak(1_000)


def test_the_page_names_its_time_and_source_and_links_to_the_whole_inventory() -> None:
    page = document([line()])
    assert "Made on 21 November 2026, 03:14 UTC from the suppliers’ inventory in MySQL." in page.text
    assert page.all("time") == [{"datetime": MADE}, {"datetime": "2026-11-21T04:14:15.123456+00:00"}]
    assert {"href": PAGE.csv_url} in page.all("a")
    assert "as CSV, 5.1 kB. The link works for 1 hour, until 21 November 2026, 04:14 UTC" in page.text


NOTHING = dict.fromkeys(("type", "product_name", "price", "quantity", "description"))
NEUTRALISED = line(product_name="=1+1", type="@home", description="'tis", supplier="-Minus-")


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        ([line(quantity=1_234_567, price="1000")], ["1.2 million 1,234,567", "1.2 billion 1,234,567,000.00"]),
        ([line(price="0.1255", quantity=30)], ["0.1255 30 3.76", "Stock value 3.76"]),
        ([line(price="12,50", quantity=2)], ["12.50 2 low 25.00"]),
        ([line(price="free"), line(price="-4.20")], ["free not a price", "-4.20 not a price"]),
        ([line(price="free")] * 3, ["3 with no readable price, not counted"]),
        ([line(quantity=None)], ["1 with no quantity, not counted"]),
        ([orphan(5, **NOTHING)], ["No supplier on record 1 bean, 0 in stock", "Unnamed bean #5 unknown unknown"]),
        ([line(quantity=number) for number in (0, -2, 20)], ["0 sold out", "−2 below zero", "20 low"]),
        ([line(quantity=21)], ["No bean is low in stock."]),
        ([NEUTRALISED], ["=1+1", "-Minus-: 100"]),
        ([], ["The inventory is empty"]),
    ],
    ids=lambda value: value[0] if value and isinstance(value[0], str) else "",
)
def test_the_page_shows_every_value_in_plain_words(lines: list[list[str]], shown: list[str]) -> None:
    text = document(lines).text
    assert all(each in text for each in shown)
    assert not [each for each in ("None", "'=", "''tis", "'-Minus-", "21 low") if each in text]


@pytest.mark.parametrize("nothing", [None, "", "   ", "\u200b", " \u2060\ufeff ", "\u200f", "\x00"])
def test_a_name_that_is_missing_or_invisible_is_shown_as_unnamed(nothing: str | None) -> None:
    text = document([line(product_name=nothing, supplier=nothing)]).text
    assert "Unnamed bean" in text
    assert "Unnamed supplier 7" in text


def test_screen_readers_can_read_the_table_and_the_chart() -> None:
    page = document([line(price="12,50")])
    assert {"data-value": "12.50", "title": "On record as “12,50”"} in page.all("td")
    assert [head.get("scope") for head in page.all("th")] == ["col"] * 6 + ["rowgroup"]
    assert page.all("th")[0]["aria-sort"] == "ascending"
    assert page.all("svg")[0]["aria-labelledby"] == "chart-title chart-text"
    assert "Café Azul: 100" in page.text
    assert page.all("html") == [{"lang": "en"}]


EVIL = [
    *("<script>alert(1)</script>", "</script></style><img src=x onerror=alert(1)>", "{{ 7 * 7 }}{% raw %}"),
    *('" onmouseover="alert(1)" x=\'', "' onfocus='alert(1)", "javascript:alert(1)", 'x@y.z"><b>', "<!-- ", "]]>"),
]
TEXTS = [name for name in COLUMNS if name not in ("supplier_id", "bean_id", "quantity")]


@pytest.mark.parametrize("evil", EVIL)
def test_no_cell_becomes_markup(evil: str) -> None:
    for column in TEXTS:
        harmless = document([line(quantity=5, **{column: "harmless text"}), orphan(2)])
        page = document([line(quantity=5, **{column: evil}), orphan(2)])
        assert page.shape() == harmless.shape()
        assert page.raw == harmless.raw
        assert evil in page.text


@pytest.mark.parametrize("column", ["supplier", "type", "product_name", "price", "description"])
def test_a_cell_is_shown_whole_and_its_direction_controls_are_replaced(column: str) -> None:
    text = document([line(**{column: "a\u202e\u2066אב\u0301☕👩\u200d\U0010ffff\u202c\u2069 z"})]).text
    assert "a\ufffd\ufffdאב\u0301☕👩\u200d\U0010ffff\ufffd\ufffd z" in text
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", text)


def test_adjacent_texts_are_isolated_from_each_other() -> None:
    """Without isolation, a Hebrew name or a name that begins with a number would reorder the adjacent text."""
    text = "אספרסו"
    html = "".join(render(summarise([line(quantity=5, **dict.fromkeys(TEXTS, text))]), PAGE))
    beside = re.findall(rf"<(\w+)[^>]*>{text}</", html.split("<dl", 1)[1])
    assert set(beside) == {"bdi", "td", "p", "span", "text"}
    assert f"<bdi>{text}, {text}</bdi>" in html
    # Besides the isolated elements, only the chart's description for screen readers contains the text.
    assert html.count(text) == len(beside) + 2 + 1


def test_only_a_plain_address_becomes_a_mail_link() -> None:
    assert {"href": "mailto:azul+1@example.com"} in document([line(email="azul+1@example.com")]).all("a")
    for email in ("a@b.c?bcc=d@e.f", 'a@b.c" x', "a b@c.d", "javascript:alert(1)", "nobody"):
        page = document([line(email=email)])
        assert len(page.all("a")) == 1
        assert email in page.text


@pytest.mark.parametrize(
    "html",
    [
        "".join(render(summarise([line()]), PAGE)),
        storage_page.render(Measurement("listing", [Bucket("beans", 1, 1, datetime.now(UTC))], [], False), "r1"),
    ],
    ids=["inventory", "storage"],
)
def test_a_page_loads_nothing_and_runs_only_its_own_script(html: str) -> None:
    page = Document(html)
    [policy] = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    for name in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.raw[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert not [attributes for _, attributes in page.elements if {"src", "style"} & attributes.keys()]
    assert all(str(link["href"]).startswith("data:") for link in page.all("link"))
    assert "url(" not in html
    assert "@import" not in html


def report(s3: Any) -> dict[str, Any]:
    event = {"reportId": "r1", "csvKey": "inventory/r1/inventory.csv", "generatedAt": MADE}
    return render_report(event, s3=s3, bucket=BUCKET, low_stock=20)


def test_the_report_is_a_page_beside_the_csv(s3: Any) -> None:
    rows: list[answering.Row] = [
        (7, "Café Azul", "", None, "", "", 1, "Arabica", "Peaberry\r\nround", "4.20", 5, None),
        (None, None, None, None, None, None, 2, "", "", "", 7, ""),
    ]
    body = as_csv(rows)
    s3.put_object(Bucket=BUCKET, Key="inventory/r1/inventory.csv", Body=body)
    totals = {"rows": 2, "suppliers": 1, "quantity": 12, "generatedAt": MADE}
    low = [
        {"name": "Peaberry\r\nround", "supplier": "Café Azul", "quantity": 5},
        {"name": "Unnamed bean", "supplier": "No supplier on record", "quantity": 7},
    ]
    figures = {
        "low": {"count": 2, "limit": 20, "beans": low},
        "changes": {"since": None, "text": "No previous report to compare with yet."},
    }
    assert report(s3) == {"reportKey": "inventory/r1/report.html", **totals, **figures}
    found = s3.get_object(Bucket=BUCKET, Key="inventory/r1/report.html")
    assert found["ContentType"] == "text/html; charset=utf-8"
    html = found["Body"].read().decode()
    assert "Café Azul" in html
    assert list(rendering.Row._fields) == list(COLUMNS)
    [link] = Document(html).all("a")
    assert "/inventory/r1/inventory.csv?X-Amz-Algorithm=AWS4-HMAC-SHA256" in str(link["href"])
    assert "X-Amz-Expires=3600" in str(link["href"])


def test_a_truncated_csv_makes_no_report_and_can_be_retried(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    half = as_csv([tuple(range(12))])
    body = StreamingBody(io.BytesIO(half), len(half) + 1)
    monkeypatch.setattr(s3, "get_object", lambda **_: {"Body": body, "ContentLength": len(half) + 1})
    with pytest.raises(Unavailable):
        report(s3)
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)


def test_the_time_for_a_page_does_not_grow_with_the_square_of_its_suppliers() -> None:
    class Groups(list[Any]):
        passes = 0

        def __iter__(self) -> Iterator[Any]:
            self.passes += 1
            return super().__iter__()

    summary = summarise(line(number, supplier_id=number) for number in range(1, 50))
    groups = summary.groups = Groups(summary.groups)
    assert "".join(render(summary, PAGE)).count("<tbody>") == 49
    assert groups.passes < 5


def test_a_csv_file_is_read_in_few_large_blocks() -> None:
    class Body(io.BytesIO):
        reads = 0

        def readinto(self, buffer: Any) -> int:
            self.reads += 1
            return super().readinto(buffer)

    body = Body(b"a,b\r\n" * 200_000)
    s3 = SimpleNamespace(get_object=lambda **_: {"Body": body, "ContentLength": 1_000_000})
    with files.open_text(s3, BUCKET, "key") as (text, _):
        assert sum(1 for _ in text) == 200_000
    assert body.reads < 10
