"""Tests how uploads are parsed into rows, and how S3's events are read.

The tests in tests/system/test_import.py cover the import into a database.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock, call
from urllib.parse import quote_plus

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import facts, names
from chalicelib.notifications import Notification
from chalicelib.uploads import lines, outcomes, receiving, rows
from chalicelib.uploads.detection import COLUMNS, NotImported
from chalicelib.uploads.importing import Imported
from chalicelib.uploads.jobs import Jobs
from chalicelib.uploads.links import FILE_BYTES
from chalicelib.uploads.rows import BadRow, Row, read_rows
from chalicelib.uploads.upload import Overwritten, Upload, is_current, open_file
from tests.unit.logged import records

HEADER = "supplier_name,type,product_name,price,description,quantity\n"


GOOD = "A,t,p,1,d,1\n"
TWO = [Row(2, "A", "t", "p", "1", "d", 1), Row(3, "A", "t", "q", "1", "d", 2)]


def parsed(text: str | bytes) -> list[Row | BadRow]:
    data = text if isinstance(text, bytes) else text.encode()
    return list(read_rows([data] if data else []))


def parsed_below_header(text: str) -> list[Row | BadRow]:
    return parsed(HEADER + text)


def refusal(text: str | bytes) -> str:
    with pytest.raises(NotImported) as caught:
        parsed(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            " Quantity ,price,PRODUCT_NAME,type,description, supplier_name\n 7 ,1.50, Lima ,arabica,nutty,Altura \n",
            [Row(2, "Altura", "arabica", "Lima", "1.50", "nutty", 7)],
        ),
        ("\ufeff" + HEADER + "A,t,p,1,d,7\n", [Row(2, "A", "t", "p", "1", "d", 7)]),
        (
            HEADER + 'A,t,p,1,"two\nlines",1\nA,t,q,1,d,2\n',
            [Row(2, "A", "t", "p", "1", "two\nlines", 1), Row(4, "A", "t", "q", "1", "d", 2)],
        ),
        *((f"{HEADER.strip()}{end}A,t,p,1,d,1{end}A,t,q,1,d,2", TWO) for end in ("\n", "\r\n", "\r")),
        (HEADER + "A,t,p,,,1\n", [Row(2, "A", "t", "p", None, None, 1)]),
        (HEADER + "A,t,p,1,d,0\n", [Row(2, "A", "t", "p", "1", "d", 0)]),
        (HEADER + "A,t,p,1,d,2147483647\n", [Row(2, "A", "t", "p", "1", "d", 2_147_483_647)]),
        (HEADER + "\n  \nA,t,p,1,d,1\n,,,,,\n", [Row(4, "A", "t", "p", "1", "d", 1)]),
        (HEADER, []),
        (HEADER + "Caf\u00e9,t,p,1,d,1\n", [Row(2, "Caf\u00e9", "t", "p", "1", "d", 1)]),
        (HEADER + "Cafe\u0301,t,p,1,d,1\n", [Row(2, "Caf\u00e9", "t", "p", "1", "d", 1)]),
    ],
    ids=[
        *("columns in another order and case", "a byte order mark", "a line break in quotes", "LF", "CR LF", "CR"),
        *("no price", "none", "the largest quantity", "empty lines", "no rows", "composed accents", "other accents"),
    ],
)
def test_good_rows_are_read(text: str, expected: list[Row]) -> None:
    assert parsed(text) == expected


@pytest.mark.parametrize(
    "quantity", ["-1", "2147483648", "9" * 50, "1.5", "1,5", "many", "1_000", "٣", "1e3", "40.000", "1,200"]
)
def test_a_quantity_that_is_not_a_whole_number_in_range_is_named(quantity: str) -> None:
    (row,) = parsed_below_header(f'A,t,p,1,d,"{quantity}"\n')
    assert isinstance(row, BadRow)
    assert row.line == 2
    assert "quantity is" in row.reason
    assert "must be a whole number from 0 to 2,147,483,647" in row.reason


@pytest.mark.parametrize("quantity", ["40.0", "40,00", "40.0000", " 40 ", "\u00a040\u202f", "4\u200b0", "0040"])
def test_a_quantity_without_a_fraction_is_whole_however_it_is_written(quantity: str) -> None:
    (row,) = parsed_below_header(f'A,t,p,1,d,"{quantity}"\n')
    assert isinstance(row, Row)
    assert row.quantity == 40


def test_spaces_may_separate_thousands_because_they_cannot_mean_anything_else() -> None:
    found = parsed_below_header("A,t,p,1,d,1 200\nA,t,p,1,d,1\u202f200\u00a0000.0\nA,t,p,1,d,12 00\nA,t,p,1,d,\n")
    assert [row.quantity if isinstance(row, Row) else row.reason.partition(" but")[0] for row in found] == [
        *(1_200, 1_200_000, "quantity is '12 00'", "quantity is empty")
    ]


def test_an_empty_name_is_named_with_every_other_problem_of_its_row() -> None:
    (row,) = parsed_below_header("A, ,,1,d,-1\n")
    assert isinstance(row, BadRow)
    assert row.reason.startswith("type is empty; product_name is empty; quantity is '-1'")


@pytest.mark.parametrize("column", ["supplier_name", "type", "product_name", "price", "description"])
def test_a_string_may_have_255_characters(column: str) -> None:
    for length, fits in ((255, True), (256, False)):
        cells = dict.fromkeys(COLUMNS, "1") | {column: "é" * length}
        (row,) = parsed_below_header(",".join(cells.values()) + "\n")
        assert (row == BadRow(2, f"{column} is longer than 255 characters")) is not fits


def test_a_row_with_too_few_or_too_many_cells_is_named() -> None:
    assert parsed_below_header("A,t,p,1,1\nA,t,p,1,d,1,x\nA,t,p,1,d,1, ,\n\u200b\n,,,,,,x\n") == [
        BadRow(2, "it has 5 cells instead of 6"),
        BadRow(3, "it has 7 cells instead of 6"),
        Row(4, "A", "t", "p", "1", "d", 1),
        BadRow(6, "it has 7 cells instead of 6"),
    ]


def test_an_unclosed_quote_or_text_after_a_quote_loses_only_one_row() -> None:
    for broken in ('A,t,"q,1,d,2\n', 'A,t,"q"x,1,d,2\n'):
        good = "".join(f"A,t,r,1,d,{number}\n" for number in range(2_000))
        found = parsed_below_header("A,t,p,1,d,1\n" + broken + good)
        assert found[1] == BadRow(3, "a quotation mark is not closed or is followed by text")
        assert [row.line for row in found] == list(range(2, 2_004))
        assert [row.quantity for row in found if isinstance(row, Row)] == [1, *range(2_000)]
        # The second file ends soon after the broken quote.
        found = parsed_below_header(broken + "A,t,r,1,d,3\n")
        assert isinstance(found[0], BadRow)
        assert found[1] == Row(3, "A", "t", "r", "1", "d", 3)


def test_rows_are_read_one_by_one_and_a_quotes_end_is_not_sought_in_the_whole_file() -> None:
    for line, kind, rest in ((b'x","\n' * 10, BadRow, 7_000), (GOOD.encode() * 4, Row, 8_500)):
        chunks = iter([HEADER.encode()] + [line] * 10_000)
        assert isinstance(next(iter(read_rows(chunks))), kind)
        assert len(list(chunks)) > rest


def test_a_value_is_shown_up_to_100_characters() -> None:
    for length, end in ((100, "x'"), (101, "…'")):
        (row,) = parsed_below_header(f"A,t,p,1,d,{'x' * length}\n")
        assert isinstance(row, BadRow)
        shown = row.reason.removeprefix("quantity is ").partition(" but must")[0]
        assert shown.endswith(end)
        assert len(shown) == 102


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        *((content, "the file is empty") for content in ("", "\n\r\n  \n", "\ufeff")),
        (GOOD, "line 1 must name the columns supplier_name"),
        ("\n\n" + GOOD, "line 3 must name"),
        ("supplier_name,type,product_name,price,description\n" + GOOD, "missing: quantity"),
        ("Price,supplier_name,type,product_name,price,description,quantity\n" + GOOD, "more than once (price)"),
        (HEADER.strip() + ",;" + HEADER.replace(",", ";"), "commas as well as with another delimiter"),
        ("Beans\n" + GOOD, "quantity; found: 'Beans'"),
        (",".join(f"column {number}" for number in range(5_000)) + "\n" + GOOD, "column 8, column 9,…'"),
        (HEADER.replace("type", '"type') + GOOD, "missing: supplier_name, type"),
        *((b"a" * 100_000, "line 1 "), (b'"' * 70_000, "line 1 "), (b"\n" * 70_000, "first 65,536 bytes")),
        (HEADER + "A,t,p\0,1,d,1\n", "line 2 contains a NUL byte"),
        (HEADER + 'x","\n' * 3_000, "more than 1,000 rows have broken quotes"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "bytes",
)
def test_a_file_that_is_not_an_inventory_is_refused_naming_the_line(content: str | bytes, problem: str) -> None:
    assert problem in refusal(content)


def test_an_endless_line_is_refused_without_reading_all_of_it() -> None:
    def endless() -> Iterator[bytes]:
        yield HEADER.encode()
        while True:
            yield b"a" * 1_000

    with pytest.raises(NotImported, match="line 2 is longer than 65,536 bytes"):
        list(read_rows(endless()))


def test_a_line_may_have_65_536_bytes_and_no_more() -> None:
    fitting = "A,t,p,1,d,1" + "x" * (lines.LINE_BYTES - len(GOOD)) + "\n"
    assert isinstance(parsed_below_header(fitting)[0], BadRow)
    assert "line 2 is longer than 65,536 bytes" in refusal(HEADER + "x" + fitting)


def test_a_record_over_several_lines_may_have_8_192_characters_and_no_more() -> None:
    def record(size: int) -> str:
        line = 'A,t,p,1,"\n' + " " * (size - len('A,t,p,1,"\nd",1\n')) + 'd",1\n'
        assert len(line) == size
        return line

    assert parsed_below_header(record(rows.RECORD_CHARACTERS)) == [Row(2, "A", "t", "p", "1", "d", 1)]
    assert isinstance(parsed_below_header(record(rows.RECORD_CHARACTERS + 1))[0], BadRow)


def test_rows_and_broken_quotes_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (rows.ROWS, rows.BROKEN_QUOTES) == (500_000, 1_000)
    monkeypatch.setattr(rows, "BROKEN_QUOTES", 3)
    assert len(parsed_below_header('A,"t"x,p,1,d,1\n' * 3)) == 3
    assert "more than 3 rows have broken quotes" in refusal(HEADER + 'A,"t"x,p,1,d,1\n' * 4)
    monkeypatch.setattr(rows, "ROWS", 2)
    assert len(parsed_below_header(GOOD * 2)) == 2
    assert "more than 2 rows" in refusal(HEADER + GOOD * 3)


def test_a_file_of_50_mb_is_read_and_a_larger_one_is_not() -> None:
    s3 = SimpleNamespace(get_object=lambda **_: {"Body": "the file"})
    assert open_file(Upload.from_record(event("inventory/a.csv", size=FILE_BYTES)), s3, "uploads") == "the file"
    with pytest.raises(NotImported, match=r"^the file is larger than 50\.0 MB; split it into smaller files$"):
        open_file(Upload.from_record(event("inventory/a.csv", size=FILE_BYTES + 1)), s3, "uploads")


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(names.fold)
beans = st.tuples(cells, cells, cells, cells, cells, st.integers(0, 2**31 - 1))


def in_chunks(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    stream = io.BytesIO(data)
    for size in sizes:
        if chunk := stream.read(size):
            yield chunk
    if rest := stream.read():
        yield rest


@given(st.lists(beans), st.permutations(COLUMNS), st.booleans(), st.lists(st.integers(1, 40)))
def test_every_inventory_is_read_back(
    table: list[tuple[Any, ...]], order: list[str], mark: bool, sizes: list[int]
) -> None:
    out = io.StringIO()
    writer = csv.DictWriter(out, order, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(dict(zip(COLUMNS, bean, strict=True)) for bean in table)
    data = out.getvalue().encode("utf-8-sig" if mark else "utf-8")
    fold, clean = names.fold, names.clean
    expected = [(*map(fold, bean[:3]), *map(clean, bean[3:5]), str(bean[5])) for bean in table]
    assert [tuple(map(str, row[1:])) for row in read_rows(in_chunks(data, sizes))] == expected


def outcome(chunks: Iterable[bytes]) -> list[Any]:
    found: list[Any] = []
    try:
        found.extend(read_rows(chunks))
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


def test_unused_columns_are_named_up_to_20() -> None:
    header = ",".join(f"{'🫘' * 120}{number}" for number in range(25)) + "," + HEADER
    reading = read_rows([header.encode()])
    assert list(reading) == []
    sent = reading.facts | {"key": "é" * 1_024}
    assert [column["position"] for column in sent["unusedColumns"]] == [*range(1, 21)]
    assert "facts" in facts.sns_attribute(sent)
    text = outcomes._details(Imported(undoable=True), reading.unused_columns)
    assert text.count("…'") == 20
    assert text.endswith(" and 5 more.")


def event(key: str, size: int = 3, sequencer: str = "0055AED6DCD90281E5") -> dict[str, Any]:
    """Returns one record of an S3 event, as S3 sends it."""
    return {
        "eventName": "ObjectCreated:Put",
        "eventTime": "2026-11-21T03:14:15.926Z",
        "s3": {
            "bucket": {"name": "uploads"},
            "object": {"key": quote_plus(key, safe="/"), "size": size, "eTag": "abc", "sequencer": sequencer},
        },
    }


# AWS's own example of a deleted object's record, which has no size and no ETag.
REMOVED = {
    "eventName": "ObjectRemoved:Delete",
    "s3": {"bucket": {"name": "uploads"}, "object": {"key": "inventory/a.csv", "sequencer": "0055AED6DCD90281E5"}},
}


def no_connection() -> AbstractContextManager[Any]:
    raise AssertionError("MySQL is only for inventories")


def received(*records: dict[str, Any]) -> list[Notification]:
    sent: list[Notification] = []
    jobs = Jobs(None, no_connection, sent.append, cast(Any, None), "uploads", "reports", lambda: datetime.now(UTC))
    receiving.receive({"Records": [*records]}, jobs)
    return sent


def test_a_file_that_is_no_inventory_is_announced_as_received() -> None:
    (sent, other) = received(event("photos/counter.jpg", size=4_200_000), event("a\nAll is well.jpg"))
    assert sent == Notification(
        kind="upload",
        key="upload/photos/counter.jpg/0055AED6DCD90281E5",
        subject="Upload: received (photos/counter.jpg)",
        message="photos/counter.jpg (4.2 MB) was received at 2026-11-21T03:14:15.926Z.\n"
        "The file is kept for 90 days. Only inventory/*.csv files are imported.",
        sms="Upload: received (photos/counter.jpg)",
        facts={"key": "photos/counter.jpg", "outcome": "received"},
    )
    assert other.message.splitlines()[0].startswith(r'"a\nAll is well.jpg" (3 Bytes) was received')


def test_the_facts_of_an_upload_that_an_older_version_imported_are_known() -> None:
    upload = Upload("inventory/a.csv", 1, "e", "0A", "ObjectCreated:Put", "now")
    of_0_1_0 = Notification("upload", "upload/inventory/a.csv/0A", "Upload: 1 row imported, 0 bad (a)", "m", "s")
    refused, of_0_2_0 = replace(of_0_1_0, subject="Upload: not imported (a)"), {"outcome": "imported", "new": 1}
    assert outcomes.known_facts(upload, of_0_1_0) == {"outcome": "imported"}
    assert outcomes.known_facts(upload, refused) == {"outcome": "notImported"}
    assert outcomes.known_facts(upload, replace(of_0_1_0, facts=of_0_2_0)) == of_0_2_0
    # Another file has the same key.
    assert outcomes.known_facts(replace(upload, sequencer="0B"), of_0_1_0) == {}


def test_folders_and_removed_objects_are_logged_and_nobody_is_notified(log_lines: io.StringIO) -> None:
    others = [received(REMOVED, event("inventory/2027/", size=0), event("photos/", size=1))]
    assert [[each.facts["key"] for each in sent] for sent in others] == [["photos/"]]
    assert [each["key"] for each in records(log_lines, "folder ignored")] == ["inventory/2027/"]
    [ignored] = records(log_lines, "S3 event ignored")
    assert (ignored["eventName"], ignored["key"]) == ("ObjectRemoved:Delete", "inventory/a.csv")


@given(
    st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda key: len(key.encode()) <= 1_024),
    st.sampled_from(["", "/", "/*-._~"]),
)
def test_any_key_that_s3_permits_is_decoded_from_its_escaped_form(key: str, safe: str) -> None:
    """S3 does not document all the characters that it escapes in an event.

    A plus sign is always escaped, because an unescaped plus means a space.
    """
    given = event("x")
    given["s3"]["object"]["key"] = quote_plus(key, safe=safe)
    assert Upload.from_record(given).key == key


@pytest.mark.parametrize(
    ("key", "job"),
    [
        *((key, "import_file") for key in ("inventory/may.csv", "inventory/2026/May 1.CSV")),
        *((key, "preview") for key in ("previews/may.csv", "previews/2026/May 1.CSV")),
        *((key, "publish") for key in ("inventory/may.xlsx", "inventory/", "old/inventory/may.csv", "inventory.csv")),
        *((key, "publish") for key in ("previews/may.xlsx", "old/previews/may.csv")),
    ],
)
def test_only_csv_files_under_inventory_are_imported_and_only_those_under_previews_compared(key: str, job: str) -> None:
    jobs = MagicMock()
    receiving.receive({"Records": [event(key)]}, jobs)
    assert [name for name, _, _ in jobs.mock_calls] == [job]


@pytest.mark.parametrize("action", ["preview", "apply", "undo"])
def test_a_request_of_the_api_runs_its_job_with_the_uploaded_file(action: str) -> None:
    jobs = MagicMock()
    upload = Upload("previews/été 1.csv", 3, "abc", "0A", f"Cafe:{action.title()}", "now", "id-1", "windows-1252")
    receiving.receive({"Records": [json.loads(json.dumps(upload.to_record()))]}, jobs)
    assert jobs.mock_calls == [getattr(call, action)(upload)]


@pytest.mark.parametrize(("code", "error"), [("PreconditionFailed", Overwritten), ("NoSuchKey", NotImported)])
def test_only_the_object_in_the_event_is_read(code: str, error: type[Exception]) -> None:
    def get_object(IfMatch: str, **_: str) -> None:  # noqa: N803 - botocore's own name
        assert IfMatch == '"abc"'
        raise ClientError({"Error": {"Code": code}}, "GetObject")

    with pytest.raises(error, match="file"):
        open_file(Upload.from_record(event("a.csv")), SimpleNamespace(get_object=get_object), "uploads")


@pytest.mark.parametrize(
    ("sequencer", "handled", "new"),
    [
        *(("0A", "", True), ("0B", "0A", True), ("a1", "A0", True), ("0A", "0A", False), ("0a", "0B", False)),
        # Only the object itself can tell which of two sequencers with different lengths is newer.
        *(("0B", "A", None), ("A", "0B", None), ("100", "FF", None), ("0C", "100 0B", None)),
        # A known event is not handled again after an event with a longer sequencer.
        *(("FF", "100 FF", False), ("100", "FF 100", False)),
    ],
)
def test_sequencers_are_compared_if_they_have_the_same_length(sequencer: str, handled: str, new: bool | None) -> None:
    upload = Upload.from_record(event("a.csv", sequencer=sequencer))
    for current in (True, False):
        assert upload.is_new(handled, lambda current=current: current) is (current if new is None else new)


def test_the_ledger_has_the_newest_sequencer_of_each_length_as_far_as_it_has_space() -> None:
    def with_handled(sequencer: str, handled: str) -> str:
        return Upload.from_record(event("a.csv", sequencer=sequencer)).with_handled(handled)

    assert with_handled("A2", "") == with_handled("A2", "A1") == "A2"
    assert with_handled("B1", with_handled("C00", "A1")) == "B1 C00"
    assert with_handled("A" * 64, "B") == "A" * 64


@pytest.mark.parametrize(
    ("stored", "expected"), [("abc", True), ("other", False), ("404", False), ("NoSuchKey", False), ("403", None)]
)
def test_an_upload_is_current_while_s3_has_its_object(stored: str, expected: bool | None) -> None:
    def head_object(**_: str) -> dict[str, str]:
        if stored in ("abc", "other"):
            return {"ETag": f'"{stored}"'}
        raise ClientError({"Error": {"Code": stored}}, "HeadObject")

    upload, s3 = Upload.from_record(event("a.csv")), SimpleNamespace(head_object=head_object)
    if expected is None:
        with pytest.raises(ClientError):
            is_current(upload, s3, "uploads")
    else:
        assert is_current(upload, s3, "uploads") is expected
