"""From bytes to rows, and what needs no database. The import itself is in tests/system/test_import.py."""

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import uploads
from chalicelib.notifications import Notification
from chalicelib.uploads import BadRow, NotImported, Row, Upload, rows

HEADER = "supplier_name,type,product_name,price,description,quantity\n"


def parsed(text: str | bytes) -> list[Row | BadRow]:
    data = text if isinstance(text, bytes) else text.encode()
    return list(rows([data] if data else []))


def parsed_below_header(text: str) -> list[Row | BadRow]:
    return parsed(HEADER + text)


def refusal(text: str | bytes) -> str:
    with pytest.raises(NotImported) as caught:
        parsed(text)
    return str(caught.value)


# --- Files that are good ----------------------------------------------------------------------------------------------


def test_columns_come_in_any_order_and_any_case_with_space_around() -> None:
    text = " Quantity ,price,PRODUCT_NAME,type,description, supplier_name\n 7 ,1.50, Lima ,arabica,nutty,Altura \n"
    assert parsed(text) == [Row(2, "Altura", "arabica", "Lima", "1.50", "nutty", 7)]


def test_a_byte_order_mark_is_no_part_of_the_first_column() -> None:
    text = (HEADER + "Altura,arabica,Lima,1.50,nutty,7\n").encode("utf-8-sig")
    assert parsed(text) == [Row(2, "Altura", "arabica", "Lima", "1.50", "nutty", 7)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_is_read_and_the_last_may_be_missing(end: str) -> None:
    text = end.join([HEADER.strip(), "A,t,p,1,d,1", "A,t,q,1,d,2"])
    assert [row.line for row in parsed(text)] == [2, 3]


def test_a_quoted_newline_is_part_of_its_cell_and_counts_as_a_line() -> None:
    text = 'A,t,p,1,"two\nlines",1\nA,t,q,1,d,-1\n'
    good, bad = parsed_below_header(text)
    assert good == Row(2, "A", "t", "p", "1", "two\nlines", 1)
    assert bad.line == 4


def test_lines_without_content_are_no_rows() -> None:
    assert [row.line for row in parsed_below_header("\n  \nA,t,p,1,d,1\n,,,,,\n")] == [4]


def test_an_empty_price_or_description_is_not_known() -> None:
    assert parsed_below_header("A,t,p,,,1\n") == [Row(2, "A", "t", "p", None, None, 1)]


def test_one_bean_is_one_bean_whichever_way_its_accents_were_typed() -> None:
    composed, combining = parsed_below_header("Caf\u00e9,t,p,1,d,1\nCafe\u0301,t,p,1,d,1\n")
    assert composed[1:] == combining[1:]


def test_a_header_alone_is_an_inventory_without_rows() -> None:
    assert parsed(HEADER) == []


@pytest.mark.parametrize("quantity", [0, 2_147_483_647])
def test_a_quantity_may_be_all_that_the_column_holds(quantity: int) -> None:
    (row,) = parsed_below_header(f"A,t,p,1,d,{quantity}\n")
    assert row == Row(2, "A", "t", "p", "1", "d", quantity)


def test_rows_are_read_as_they_come_and_not_all_at_once() -> None:
    chunks = iter([HEADER.encode()] + [b"A,t,p,1,d,1\n"] * 1_000)
    assert isinstance(next(rows(chunks)), Row)
    assert len(list(chunks)) >= 998


# --- Rows that are bad ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantity", ["-1", "2147483648", "9" * 50, "1.5", "1,5", "many", "", "1_000", "٣", "1e3"])
def test_a_quantity_that_is_no_whole_number_in_range_is_named(quantity: str) -> None:
    (row,) = parsed_below_header(f'A,t,p,1,d,"{quantity}"\n')
    assert isinstance(row, BadRow)
    assert row.line == 2
    assert "quantity is" in row.reason
    assert "not a whole number from 0 to 2,147,483,647" in row.reason


def test_an_empty_name_is_named_with_every_other_problem_of_its_row() -> None:
    (row,) = parsed_below_header("A, ,,1,d,-1\n")
    assert isinstance(row, BadRow)
    assert row.reason.startswith("type is empty; product_name is empty; quantity is '-1'")


@pytest.mark.parametrize("column", ["supplier_name", "type", "product_name", "price", "description"])
def test_a_text_of_256_characters_is_too_long_and_one_of_255_is_not(column: str) -> None:
    for length, fits in ((255, True), (256, False)):
        cells = dict.fromkeys(uploads.COLUMNS, "1") | {column: "é" * length}
        (row,) = parsed_below_header(",".join(cells.values()) + "\n")
        assert (row == BadRow(2, f"{column} is longer than 255 characters")) is not fits


def test_a_row_with_too_few_or_too_many_cells_is_named() -> None:
    few, many = parsed_below_header("A,t,p,1,1\nA,t,p,1,d,1,\n")
    assert few == BadRow(2, "it has 5 cells and not 6")
    assert many == BadRow(3, "it has 7 cells and not 6")


def test_a_quote_that_is_never_closed_costs_one_row() -> None:
    text = 'A,t,p,1,d,1\nA,t,"q,1,d,2\n' + "A,t,r,1,d,3\n" * 2_000
    found = parsed_below_header(text)
    assert found[1] == BadRow(3, "a quote is not closed, or has text after it")
    assert [row.line for row in found] == list(range(2, 2_004))
    assert sum(isinstance(row, Row) for row in found) == 2_001


def test_a_quote_that_is_never_closed_is_not_sought_in_the_whole_file() -> None:
    chunks = iter([HEADER.encode()] + [b'x","\n'] * 10_000)
    assert isinstance(next(rows(chunks)), BadRow)
    assert len(list(chunks)) > 8_000


def test_a_quote_that_is_never_closed_near_the_end_costs_one_row() -> None:
    found = parsed_below_header('A,t,"q,1,d,2\nA,t,r,1,d,3\n')
    assert isinstance(found[0], BadRow)
    assert found[1] == Row(3, "A", "t", "r", "1", "d", 3)


def test_text_after_a_closing_quote_costs_one_row() -> None:
    found = parsed_below_header('A,t,"q"x,1,d,2\nA,t,r,1,d,3\n')
    assert [type(row) for row in found] == [BadRow, Row]


# --- Files that are no inventory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"\n\r\n  \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(text: bytes) -> None:
    assert refusal(text) == "the file is empty"


def test_a_file_without_a_header_is_refused() -> None:
    assert "line 1 must name the columns supplier_name" in refusal("A,t,p,1,d,1\n")


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("supplier_name,type,product_name,price,description", "missing: quantity"),
        ("supplier_name,type,product_name,price,description,quantity,colour", "unknown: 'colour'"),
        ("supplier_name,type,product_name,price,price,description,quantity", "repeated: price"),
        ("supplier_name;type;product_name;price;description;quantity", "with commas between"),
        ("Beans", "missing: supplier_name, type, product_name, price, description, quantity; unknown: 'beans'"),
        (",".join(f"column {number}" for number in range(5_000)), "column 8, column 9,…'"),
        ('supplier_name,"type,product_name,price,description,quantity', "missing: supplier_name, type"),
    ],
)
def test_a_header_with_missing_unknown_or_repeated_columns_is_refused_naming_them(header: str, problem: str) -> None:
    assert problem in refusal(header + "\nA,t,p,1,d,1\n")


def test_the_header_is_named_by_its_line() -> None:
    assert "line 3 must name" in refusal("\n\nA,t,p,1,d,1\n")


def test_another_encoding_is_refused_naming_the_line_and_the_byte() -> None:
    text = (HEADER + "A,t,p,1,d,1\nCafé,t,p,1,d,1\n").encode("latin-1")
    assert "line 3 is not in UTF-8 (byte 4 of the line is 0xE9)" in refusal(text)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_utf_16_is_refused_on_its_first_line(encoding: str) -> None:
    assert "line 1 " in refusal((HEADER + "A,t,p,1,d,1\n").encode(encoding))


@pytest.mark.parametrize(
    "text",
    [
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
        b"PK\x03\x04\x14\x00\x06\x00\x08\x00",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        b"<!doctype html>\n<html>",
        b'{"supplier_name": "A"}',
        b"a" * 100_000,
        b'"' * 70_000,
    ],
)
def test_what_is_no_csv_at_all_is_refused_naming_a_line(text: bytes) -> None:
    assert "line 1 " in refusal(text)


def test_a_nul_byte_is_refused_naming_its_line() -> None:
    assert "line 2 has a NUL byte" in refusal(HEADER + "A,t,p\0,1,d,1\n")


def test_a_line_without_end_is_refused_without_reading_it() -> None:
    def endless() -> Iterator[bytes]:
        yield HEADER.encode()
        while True:
            yield b"a" * 1_000

    with pytest.raises(NotImported, match="line 2 is longer than 65,536 bytes"):
        list(rows(endless()))


def test_a_line_may_have_65_536_bytes_and_no_more() -> None:
    fitting = "A,t,p,1,d,1" + "x" * (uploads.LINE_BYTES - len("A,t,p,1,d,1\n")) + "\n"
    assert isinstance(parsed_below_header(fitting)[0], BadRow)
    assert "line 2 is longer than 65,536 bytes" in refusal(HEADER + "x" + fitting)


def test_a_record_over_several_lines_may_have_8_192_characters_and_no_more() -> None:
    def record(size: int) -> str:
        line = 'A,t,p,1,"\n' + " " * (size - len('A,t,p,1,"\nd",1\n')) + 'd",1\n'
        assert len(line) == size
        return line

    assert parsed_below_header(record(uploads.RECORD_CHARACTERS)) == [Row(2, "A", "t", "p", "1", "d", 1)]
    assert isinstance(parsed_below_header(record(uploads.RECORD_CHARACTERS + 1))[0], BadRow)


def test_1_000_rows_may_have_broken_quotes_and_no_more() -> None:
    assert len(parsed_below_header('A,"t"x,p,1,d,1\n' * uploads.BROKEN_QUOTES)) == uploads.BROKEN_QUOTES
    assert "more than 1,000 rows have broken quotes" in refusal(
        HEADER + 'A,"t"x,p,1,d,1\n' * (uploads.BROKEN_QUOTES + 1)
    )


def test_a_value_is_shown_up_to_100_characters() -> None:
    for length, end in ((100, "x'"), (101, "…'")):
        (row,) = parsed_below_header(f"A,t,p,1,d,{'x' * length}\n")
        assert isinstance(row, BadRow)
        shown = row.reason.removeprefix("quantity is ").partition(" and not")[0]
        assert shown.endswith(end)
        assert len(shown) == 102


def test_a_file_of_50_mb_is_read_and_a_larger_one_is_not() -> None:
    class S3:
        def get_object(self, **_: Any) -> dict[str, Any]:
            return {"Body": "the file"}

    for size in (uploads.FILE_BYTES, uploads.FILE_BYTES + 1):
        upload = Upload.of(event("inventory/a.csv", size=size))
        if size == uploads.FILE_BYTES:
            assert uploads._open(upload, S3(), "uploads") == "the file"
        else:
            with pytest.raises(NotImported, match=r"^the file is larger than 50\.0 MB, upload it in parts$"):
                uploads._open(upload, S3(), "uploads")


def test_more_rows_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "ROWS", 2)
    assert len(parsed_below_header("A,t,p,1,d,1\n" * 2)) == 2
    assert "more than 2 rows" in refusal(HEADER + "A,t,p,1,d,1\n" * 3)


def test_a_file_of_nothing_but_broken_quotes_is_refused_before_it_costs_much() -> None:
    assert "more than 1,000 rows have broken quotes" in refusal(HEADER + 'x","\n' * 100_000)


# --- Any file ---------------------------------------------------------------------------------------------------------


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(str.strip)
beans = st.tuples(cells, cells, cells, cells, cells, st.integers(0, 2**31 - 1))


def in_chunks(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    stream = io.BytesIO(data)
    for size in sizes:
        if chunk := stream.read(size):
            yield chunk
    if rest := stream.read():
        yield rest


@given(st.lists(beans), st.permutations(uploads.COLUMNS), st.booleans(), st.lists(st.integers(1, 40)))
def test_every_inventory_that_can_be_written_is_read_back(
    table: list[tuple[Any, ...]], order: list[str], mark: bool, sizes: list[int]
) -> None:
    out = io.StringIO()
    writer = csv.DictWriter(out, order, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(dict(zip(uploads.COLUMNS, bean, strict=True)) for bean in table)
    data = out.getvalue().encode("utf-8-sig" if mark else "utf-8")
    expected = [tuple(uploads._clean(str(cell)) for cell in bean) for bean in table]
    assert [tuple(map(str, row[1:])) for row in rows(in_chunks(data, sizes))] == expected


@given(st.binary(), st.lists(st.integers(1, 40)))
def test_any_bytes_are_rows_or_a_refusal(data: bytes, sizes: list[int]) -> None:
    try:
        found = list(rows(in_chunks(HEADER.encode() + data, sizes)))
    except NotImported:
        return
    assert [row.line for row in found] == sorted({row.line for row in found})


def outcome(chunks: Iterable[bytes]) -> list[Any]:
    found: list[Any] = []
    try:
        found.extend(rows(chunks))
    except NotImported as error:
        found.append(str(error))
    return found


@given(
    st.binary() | st.text(st.sampled_from('",\n\r aA1é\u2028\x85\ufeff\x0b')).map(str.encode),
    st.booleans(),
    st.lists(st.integers(1, 9)),
)
def test_the_rows_are_the_same_however_the_bytes_arrive(data: bytes, below_header: bool, sizes: list[int]) -> None:
    data = (HEADER.encode() if below_header else b"") + data
    assert outcome(in_chunks(data, sizes)) == outcome([data]) == outcome(bytes([byte]) for byte in data)


@given(
    st.lists(
        st.one_of(beans.map(lambda bean: (*bean[:5], str(bean[5]))), st.tuples(*[cells] * 5, st.just("few"))),
        min_size=1,
    )
)
def test_of_good_and_bad_rows_the_good_are_read_and_the_bad_are_named_by_their_line(
    table: list[tuple[str, ...]],
) -> None:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(table)
    # A cell may have lines of its own.
    lines = [2]
    for record in table:
        one = io.StringIO()
        csv.writer(one, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(record)
        lines.append(lines[-1] + len(one.getvalue().encode().splitlines()))
    expected = {line: record[5] == "few" for line, record in zip(lines, table, strict=False)}
    assert {row.line: isinstance(row, BadRow) for row in parsed_below_header(out.getvalue())} == expected


@given(st.text(st.sampled_from('",\n\r aA1é'), max_size=200))
def test_any_broken_text_is_rows_good_or_bad_each_on_a_line_of_its_own(text: str) -> None:
    lines = len(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    found = [row.line for row in parsed_below_header(text)]
    assert found == sorted(set(found))
    assert all(2 <= line <= lines + 1 for line in found)


# --- Events -----------------------------------------------------------------------------------------------------------


def event(key: str, size: int = 3, sequencer: str = "0055AED6DCD90281E5") -> dict[str, Any]:
    """A record as S3 sends it."""
    return {
        "eventName": "ObjectCreated:Put",
        "eventTime": "2026-11-21T03:14:15.926Z",
        "s3": {
            "bucket": {"name": "uploads"},
            "object": {"key": quote_plus(key, safe="/"), "size": size, "eTag": "abc", "sequencer": sequencer},
        },
    }


def no_connection() -> AbstractContextManager[Any]:
    raise AssertionError("MySQL is only for inventories")


def received(*records: dict[str, Any]) -> list[Notification]:
    sent: list[Notification] = []
    uploads.receive({"Records": [*records]}, s3=None, connect=no_connection, publish=sent.append, bucket="uploads")
    return sent


def test_a_file_that_is_no_inventory_is_announced_as_received() -> None:
    (sent,) = received(event("photos/counter.jpg", size=4_200_000))
    assert sent == Notification(
        kind="upload",
        key="upload/photos/counter.jpg/0055AED6DCD90281E5",
        subject="Upload: received (photos/counter.jpg)",
        message="photos/counter.jpg (4.2 MB) was received at 2026-11-21T03:14:15.926Z.\n"
        "It is kept for 90 days; only inventory/*.csv is imported.",
        sms="Upload: received (photos/counter.jpg)",
    )


@pytest.mark.parametrize("key", ["red flower.jpg", "a+b.jpg", "100%.jpg", "50%25.jpg", "café/ñandú 咖啡.jpg"])
def test_a_key_is_read_as_it_was_given_to_s3(key: str) -> None:
    (sent,) = received(event(key))
    assert sent.key == f"upload/{key}/0055AED6DCD90281E5"
    assert sent.message.startswith(f"{key} (")


@given(
    st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda key: len(key.encode()) <= 1_024),
    st.sampled_from(["", "/", "/*-._~"]),
)
def test_any_key_that_s3_permits_comes_back_from_its_form(key: str, safe: str) -> None:
    """S3 says which characters it leaves as they are for some only. A plus is always escaped, for it means a space."""
    given = event("x")
    given["s3"]["object"]["key"] = quote_plus(key, safe=safe)
    assert Upload.of(given).key == key


def test_a_key_with_line_breaks_cannot_pretend_to_be_more_lines() -> None:
    (sent,) = received(event("a\nAll is well.jpg"))
    assert sent.message.splitlines()[0].startswith(r"'a\nAll is well.jpg' (3 Bytes) was received")


def test_every_record_of_an_event_is_handled() -> None:
    assert len(received(event("one.jpg"), event("two.jpg"))) == 2


def test_one_structured_record_is_logged_for_each_upload(caplog: pytest.LogCaptureFixture) -> None:
    received(event("one two.jpg", size=12))
    (record,) = caplog.records
    facts = ("key", "bytes", "eTag", "sequencer", "eventName", "eventTime")
    assert [getattr(record, name) for name in facts] == [
        "one two.jpg",
        12,
        "abc",
        "0055AED6DCD90281E5",
        "ObjectCreated:Put",
        "2026-11-21T03:14:15.926Z",
    ]
    assert "one two.jpg" not in record.getMessage()


def test_the_test_event_of_s3_is_logged_and_done(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Notification] = []
    test_event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-21T03:14:15.926Z", "Bucket": "b"}
    uploads.receive(test_event, s3=None, connect=no_connection, publish=sent.append, bucket="uploads")
    assert sent == []
    assert [record.__dict__["event"] for record in caplog.records] == ["s3:TestEvent"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("inventory/may.csv", True),
        ("inventory/2026/May 1.CSV", True),
        ("inventory/may.xlsx", False),
        ("inventory/", False),
        ("old/inventory/may.csv", False),
        ("inventory.csv", False),
    ],
)
def test_only_csv_files_under_inventory_are_imported(key: str, expected: bool) -> None:
    assert Upload.of(event(key)).is_inventory() is expected


@pytest.mark.parametrize(
    ("sequencer", "last", "newer"),
    [
        ("0A", "", True),
        ("0A", "0A", False),
        ("0A", "A", False),
        ("0B", "A", True),
        ("100", "FF", True),
        ("FF", "100", False),
        ("a1", "A0", True),
    ],
)
def test_sequencers_are_compared_padded_on_the_left(sequencer: str, last: str, newer: bool) -> None:
    assert Upload.of(event("a.csv", sequencer=sequencer)).is_newer_than(last) is newer
