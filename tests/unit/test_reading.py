"""Tests uploads with random content: the CSV file of a report, and files that are built from real parts."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.names import clean, fold
from chalicelib.uploads.detection import COLUMNS, NotImported
from chalicelib.uploads.rows import BadRow, Row, read_rows
from tests.unit.answering import as_csv

# --- The CSV file of a report

HOSTILE = st.text(st.sampled_from("=+-@＝＋－＠'\"\t\r\n,; |aé☕\u0301\u200b\ufeff\u2028\x1c"), max_size=6)
TEXTS = HOSTILE | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=260)
NAMES = TEXTS.map(fold).filter(lambda name: 0 < len(name) <= 255)
VALUES = TEXTS.map(clean).filter(lambda value: len(value) <= 255).map(lambda value: value or None)
BEANS = st.tuples(NAMES, NAMES, NAMES, VALUES, VALUES, st.integers(0, 2**31 - 1))
Bean = tuple[str, str, str, str | None, str | None, int]


def report(beans: list[Bean]) -> bytes:
    """Returns the CSV file of an inventory report."""
    return as_csv(
        (*(7, supplier, "Köln", None, "=a@example.com", "+1 555", number), type_, product, price, quantity, description)
        for number, (supplier, type_, product, price, description, quantity) in enumerate(beans)
    )


def saved_again(data: bytes) -> bytes:
    """Returns a CSV file as a European spreadsheet program saves it."""
    out = io.StringIO(newline="")
    rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    csv.writer(out, delimiter=";").writerows(rows)
    return out.getvalue().encode("utf-16")


@given(st.lists(BEANS, max_size=5))
def test_the_csv_of_a_report_can_be_uploaded_again_and_changes_nothing(beans: list[Bean]) -> None:
    for file in (report(beans), saved_again(report(beans))):
        rows = list(read_rows([file]))
        assert [row[1:] for row in rows] == beans


def test_rows_of_a_report_without_a_supplier_or_a_quantity_are_named() -> None:
    header, complete = report([("A", "t", "'=p", "-1", "'tis", 5)]).decode().splitlines()
    rows = [complete, ",,,,,,2,t,p,1,5,d", "7,A,,,,,3,t,p,1,,d", "8,,,,,,4,t,p,1,-5,d"]
    reading = read_rows(["\r\n".join([header, *rows]).encode()])
    assert list(reading) == [
        Row(2, "A", "t", "'=p", "-1", "'tis", 5),
        BadRow(3, "supplier is empty"),
        BadRow(4, "quantity is empty"),
        BadRow(5, "supplier is empty; quantity is '-5' but must be a whole number from 0 to 2,147,483,647"),
    ]
    unused = ["supplier_id", "city", "state", "email", "phone", "bean_id"]
    assert [column.name for column in reading.unused_columns] == unused


def test_an_apostrophe_is_removed_only_from_a_report_and_only_if_the_report_added_it() -> None:
    (row,) = read_rows([(",".join(COLUMNS) + "\n'=A,'-t,'p,'+1,'@d,1\n").encode()])
    assert row[1:] == ("'=A", "'-t", "'p", "'+1", "'@d", 1)
    # Someone edited this report, removed the columns that an import does not need, and typed an apostrophe.
    header = "supplier_id,Supplier,bean_id,type,product_name,price,quantity,description"
    (row,) = read_rows([f"{header}\n1,'=A,2,'-t,'p,'+1,1,'tis\n".encode()])
    assert row[1:] == ("=A", "-t", "'p", "+1", "'tis", 1)


# --- Files built from real parts

CELLS = (
    *("Hangfarm", "Arabica", "A01", "Café Crème", "Cafe\u0301", "Röst & Söhne", "咖啡 ☕", "Ñandú  Azul", "a\u00a0b"),
    *("16.40", "16,40", "1.234,50", "$4", "12 €", "free", "40", "40.0", "1,200", "1 200", "0", "-3", "2147483648"),
    *("", "", "", " ", "\u200b", "\u00a0", "\t", "\ufeff", "'=1+1", "=SUM(A1)", "NULL", "nan", "#N/A", "\x1a", "\0"),
    *('12" plate', '"', '""', "two\nlines", "two\r\nlines", "a;b", "a,b", "a|b", "\u2028", "\x85", "☕" * 256),
)
EXTRA_COLUMNS = ("", "", " ", "sku", "Größe", "supplier", "Unnamed: 0", "id", "notes\nmore", '"', "价格")
ENCODINGS = (
    *("utf-8",) * 6,
    *("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "mac_roman", "cp1251", "gb18030"),
)
DAMAGE = (b"", b'"', b"\0", b"\xff", b"\r", b"\xe9\n", b"\xf0\x9f")
LINE_ENDS = ("\n",) * 3 + ("\r\n",) * 3 + ("\r", "\n\n", "\r\r\n")


def spelled(name: str, random: Random) -> str:
    return random.choice(
        [name, name, name, name.title(), name.upper(), name.replace("_", " "), f" {name}\u00a0", name.replace("_", "")]
    )


def header(random: Random) -> list[str]:
    if random.random() < 0.1:
        names = ["supplier_id", "supplier", "city", "bean_id", *COLUMNS[1:]]
    else:
        names = [spelled(name, random) for name in COLUMNS]
    if random.random() < 0.3:
        random.shuffle(names)
    for _ in range(random.choice([0, 0, 0, 1, 1, 2, 3])):
        names.insert(random.choice([0, len(names), random.randrange(len(names))]), random.choice(EXTRA_COLUMNS))
    if random.random() < 0.05:
        names[random.randrange(len(names))] = random.choice(names)
    return names


def line(cells: list[str], delimiter: str, random: Random) -> str:
    style = random.random()
    if style < 0.1:
        return delimiter.join(cells)
    quoting = csv.QUOTE_ALL if style < 0.2 else csv.QUOTE_MINIMAL
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator="").writerow(cells)
    return out.getvalue()


def built_file(random: Random) -> bytes:
    delimiter = random.choice(",,,;;\t|")
    names = header(random)
    lines = [random.choice(["", " ", delimiter * 5])] * random.choice([0, 0, 0, 1])
    lines += [random.choice([f"sep={delimiter}", "sep=;", '"sep=,"', "SEP=", "sep=\\t"])] * random.choice([0, 0, 0, 1])
    lines.append(line(names, delimiter, random))
    for _ in range(random.randrange(8)):
        good = ["Hangfarm", "Arabica", f"A{random.randrange(5)}", "16.40", "rund", "40"] * 3
        size = len(names) + random.choice([0, 0, 0, 0, -1, 1, -len(names), 3])
        cells = [random.choice(CELLS) if random.random() < 0.2 else good[place] for place in range(max(0, size))]
        lines.append(line(cells, random.choice([delimiter] * 9 + [",", ";"]), random))
    end = random.choice(LINE_ENDS)
    data = bytearray((end.join(lines) + random.choice(["", end])).encode(random.choice(ENCODINGS), "replace"))
    for _ in range(random.choice([0, 0, 0, 0, 1, 2])):
        place = random.randrange(len(data) + 1)
        data[place : place + random.randrange(4)] = random.choice(
            [b"", b'"', b"\0", b"\xff", b"\r", random.randbytes(3)]
        )
    return bytes(data)


def outcome(data: bytes, encoding: str | None, size: int) -> list[Any]:
    parts: Iterator[bytes] = (data[start : start + size] for start in range(0, len(data), size))
    found: list[Any] = []
    try:
        found.extend(read_rows(parts, encoding))
    except NotImported as error:
        found.append((str(error), error.looks_like, error.cells))
    return found


@pytest.mark.parametrize("files", [300, pytest.param(30_000, marks=pytest.mark.fuzz)])
def test_any_file_ends_in_rows_bad_rows_or_a_refusal(files: int) -> None:
    kinds: Counter[type] = Counter()
    for seed in range(files):
        random = Random(seed)
        data = built_file(random)
        for encoding in (None, "cp1252"):
            found = outcome(data, encoding, len(data) + 1)
            kinds.update(map(type, found))
            assert found == outcome(data, encoding, random.randrange(1, 99)), (seed, data)
            for row in found:
                if isinstance(row, Row):
                    assert [*map(fold, row[1:4])] == [*row[1:4]], (seed, data)
                    assert all(0 < len(name) <= 255 for name in row[1:4]), (seed, data)
                    assert 0 <= row.quantity < 2**31, (seed, data)
                elif not isinstance(row, BadRow):
                    message, looks_like, cells = row
                    assert message.splitlines() == [message], (seed, data)
                    assert bool(cells) <= bool(looks_like), (seed, data)
    assert min(kinds[Row], kinds[BadRow], kinds[tuple]) > files / 4
