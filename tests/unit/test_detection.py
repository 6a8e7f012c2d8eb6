"""Tests how the format of an uploaded file is detected, with files as shop systems and spreadsheets write them."""

from __future__ import annotations

import gzip
import io
import re
import sys
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.names import MAYBE_UNFOLDED, fold
from chalicelib.uploads.detection import COLUMNS, HEAD_BYTES, Format, NotImported, detect
from chalicelib.uploads.links import FILE_BYTES
from chalicelib.uploads.rows import BadRow, Row, read_rows

HEADER = ",".join(COLUMNS)
BEAN = "Hangfarm,Arabica,A01,16.40,rund,40"
GOOD = ("Hangfarm", "Arabica", "A01", "16.40", "rund", 40)


def rows_of(data: str | bytes, encoding: str | None = None) -> tuple[list[Any], list[tuple[int, str]]]:
    """Returns the rows without their lines, the reasons of bad rows, and the unused columns."""
    reading = read_rows([data if isinstance(data, bytes) else data.encode()], encoding)
    rows = [row[1:] if isinstance(row, Row) else row.reason for row in reading]
    return rows, [tuple(column) for column in reading.unused_columns]


def refusal(data: bytes, encoding: str | None = None) -> NotImported:
    with pytest.raises(NotImported) as caught:
        list(read_rows([data], encoding))
    return caught.value


def text(*lines: str, end: str = "\n") -> str:
    return "".join(line + end for line in lines)


@pytest.mark.parametrize(
    "file",
    [
        text(HEADER + ",,", BEAN + ",,"),
        text(HEADER, BEAN + ","),
        text(HEADER + ",", BEAN + ","),
        text(HEADER + ",", BEAN),
        text("Supplier Name,TYPE,product-name, Price ,Description,Quantity", BEAN),
        text("\u00a0SupplierName,ty\u200bpe,Product\u2011Name,price,description,\ufeffquantity", BEAN),
        *(text(HEADER.replace(",", each), BEAN.replace(",", each), end="\r\n") for each in ";\t|"),
        *(
            text(f"sep={each}", HEADER.replace(",", each), BEAN.replace(",", each), end="\r\n")
            for each in (",", ";", "\t", "^", "§")
        ),
        text("sep=;", HEADER, BEAN),
        text('"sep=,"', "", HEADER, BEAN),
        text(";;;;;", HEADER.replace(",", ";"), ";;;;;", BEAN.replace(",", ";")),
        text(*(",".join(f'"{cell}"' for cell in line.split(",")) for line in (HEADER, BEAN))),
        *((text(HEADER, BEAN, end=end)[: -len(end)]) for end in ("\r", "\r\n")),
        text(HEADER, "Hangfarm,Arabica,\u00a0A01\u00a0,16.40,rund,\u00a040\u00a0"),
        text(HEADER, "Hang\u200bfarm\ufeff,Arabica ,\u2060A01,16.40,rund,40\u200b"),
        text(HEADER, "Hangfarm,Arabica,A01,16.40,rund,40.0"),
        *(text(HEADER, BEAN).encode(each) for each in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        b"\xfe\xff" + text("", HEADER, BEAN).replace(",", "\t").encode("utf-16-be"),
    ],
)
def test_an_unambiguous_file_is_read(file: str | bytes) -> None:
    assert rows_of(file) == ([GOOD], [])


@pytest.mark.parametrize(
    ("header", "rows", "expected", "unused"),
    [
        ("sku," + HEADER, ["HU-1," + BEAN], [GOOD], [(1, "sku")]),
        ("sku," + HEADER + ",Lager Ort ", ["," + BEAN + ","], [GOOD], [(1, "sku"), (8, "Lager Ort")]),
        ("," + HEADER, ["0," + BEAN, BEAN], [GOOD, "it has 6 cells instead of 7"], [(1, "")]),
        ("," + HEADER, ["," + BEAN, "\u200b," + BEAN], [GOOD, GOOD], []),
        (HEADER.replace(",", ",,", 1), [BEAN, BEAN.replace(",", ",,", 1)], ["it has 6 cells instead of 7", GOOD], []),
        (HEADER + ",,", [BEAN, BEAN + ",,x", BEAN + ",,,x"], [GOOD, GOOD, "it has 9 cells instead of 8"], [(8, "")]),
        (HEADER + ",note", [BEAN], ["it has 6 cells instead of 7"], [(7, "note")]),
        ("supplier," + HEADER, ["x," + BEAN], [GOOD], [(1, "supplier")]),
    ],
)
def test_other_columns_are_not_used_and_a_row_with_fewer_cells_than_columns_is_bad(
    header: str, rows: list[str], expected: list[Any], unused: list[tuple[int, str]]
) -> None:
    assert rows_of(text(header, *rows)) == (expected, unused)


def test_ambiguous_quantities_are_bad_and_prices_are_stored_as_written() -> None:
    lines = ['A,t,p,16.40,d,"1,200"', "A,t,p,1,d,", 'A,t,p,"1.234,50 €",d,1']
    bad, empty, row = rows_of(text(HEADER, *lines))[0]
    assert bad.startswith("quantity is '1,200' but must be a whole number")
    assert empty == "quantity is empty"
    assert row[3] == "1.234,50 €"
    assert rows_of(text(HEADER.replace(",", ";"), "A;t;p;16,40;d;1"))[0] == [("A", "t", "p", "16,40", "d", 1)]


def test_a_format_says_how_a_file_is_read() -> None:
    data = "\ufeff" + text("sep=;", '"sku', 'code";' + HEADER.replace(",", ";"))
    found = detect(data.encode("utf-16-le"))
    columns = tuple(enumerate(("sku code", *COLUMNS), 1))
    assert found == Format("utf-16-le", b"\xff\xfe", ";", 3, columns, (1, 2, 3, 4, 5, 6), False)


# --- Refused files


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name in names:
            made.writestr(name, "application/vnd.oasis.opendocument.spreadsheet")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (archive("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook: save it as CSV UTF-8"),
        (b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0" + bytes(40), "an Excel workbook: save it as CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "an Excel workbook: save it as CSV UTF-8"),
        (archive("mimetype"), "an OpenDocument file: save"),
        (archive("Index/Document.iwa"), "a Numbers document"),
        (archive("beans.csv"), "a ZIP archive: upload the CSV file inside"),
        (gzip.compress(text(HEADER, BEAN).encode()), "gzip: upload the CSV file inside"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a picture"),
        (b"\n<!doctype html>\n<table>", "a web page (HTML): open it"),
        (b'<?xml version="1.0"?>', "an XML file: open it"),
        (b'[\n  {"supplier_name": "A"}]', "a JSON file: export"),
        (b"{\\rtf1\\ansi", "a text document (RTF)"),
        (b"PAR1\x15\x04", "a database file"),
        (bytes(range(256)) * 9, "NUL bytes"),
    ],
)
def test_another_format_is_named_with_what_to_do(data: bytes, format: str) -> None:
    assert format in str(refusal(data))


def test_a_file_in_windows_1252_is_refused_with_the_cells_that_it_changes_and_can_be_read_on_request() -> None:
    rows = ["Hangfarm,Arabica,A04 Café Crème,16.40,rund,40", 'Röst,Arabica,x,16 €,"a\nß",1', "Röst,t,p,1,d,few"]
    data = text(HEADER, *rows).encode("cp1252")
    error = refusal(data)
    assert error.looks_like == "cp1252"
    assert error.cells == ("A04 Café Crème", "Röst", "16 €", "a ß")
    assert re.fullmatch(
        r"line 2 is not in UTF-8 \(byte 25 of the line is 0xE9\): the file looks like Windows-1252, in which it reads "
        "'A04 Café Crème'; save it as CSV UTF-8, or preview it as Windows-1252",
        str(error),
    )
    reading = read_rows([data], "cp1252")
    names = [(row.supplier_name, row.product_name) for row in reading if isinstance(row, Row)]
    assert names == [("Hangfarm", "A04 Café Crème"), ("Röst", "x")]
    many = text(HEADER, *(f"A,t,{'é' * 200}{number},1,d,1" for number in range(500))).encode("cp1252")
    assert len(refusal(many).cells) == 1
    many = text(HEADER, *(f"A,t,é{number},1,d,1" for number in range(500))).encode("cp1252")
    assert refusal(many).cells == tuple(f"é{number}" for number in range(20))


@pytest.mark.parametrize(
    "data",
    [
        (HEADER + "\nA,t,Café,1,d,1\n").encode() + "A,t,Crème,1,d,1\n".encode("cp1252"),
        (HEADER + "\nA,t,Café,1,d,1\n").encode("cp1252") + "A,t,Crème,1,d,1\n".encode(),
        b"\xef\xbb\xbf" + (HEADER + "\nA,t,Café,1,d,1\n").encode("cp1252"),
        HEADER.encode() + b"\nA,t,\x81\xe9,1,d,1\n",
        HEADER.encode() + b"\nA,t,\x05\xe9,1,d,1\n",
    ],
    ids=["UTF-8 before", "UTF-8 after", "a byte order mark", "an undefined byte", "a control character"],
)
def test_a_file_that_windows_1252_would_garble_does_not_look_like_it(data: bytes) -> None:
    error = refusal(data)
    assert (error.looks_like, error.cells) == ("", ())
    assert re.search("line [23] is not in UTF-8 .*; save it as CSV UTF-8$", str(error))


def test_a_file_that_is_not_in_the_encoding_of_its_start_is_refused() -> None:
    assert "is not in Windows-1252 after line 0" in str(refusal(HEADER.encode() + b"\n\x81", "cp1252"))
    half = text(HEADER, BEAN).encode("utf-16")[:-1]
    assert "is not in UTF-16-LE" in str(refusal(half))
    assert "missing: supplier_name" in str(refusal(("\ufeff" + HEADER).encode(), "cp1252"))


# --- Names


def test_folding_ignores_spaces_invisible_characters_and_the_form_of_accents() -> None:
    for name in (
        "Cafe\u0301  Azul",
        "\u200bCafé\u00a0Azul\u2003",
        "Caf\u200de\u200b\u0301\t\u3000Azul\ufeff",
        "Café\nAzul",
    ):
        assert fold(name) == "Café Azul"
    assert fold("\u200b \u00a0\u2060") == ""


@given(
    st.text(max_size=8)
    | st.text(st.sampled_from(" a\u00a0\u200b\u0301e\u1100\u1161\u11a8\u0327\u2000\u212b|\t"), max_size=8)
)
def test_folding_twice_changes_nothing_and_the_sql_pattern_finds_every_name_that_folding_changes(name: str) -> None:
    assert fold(fold(name)) == fold(name)
    joined = f"a|{name}|b"
    if fold(name) != name:
        assert re.search(MAYBE_UNFOLDED, name)
        assert re.search(MAYBE_UNFOLDED, joined)


def test_the_sql_pattern_leaves_out_only_characters_that_never_change_or_combine() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    parts = [unicodedata.decomposition(character).split() for character in everything]
    combining = {chr(int(pair[1], 16)) for pair in parts if len(pair) == 2 and pair[0][0] != "<"}
    vowels_and_finals = {chr(code) for code in range(0x1161, 0x1200)}
    kept = re.sub(MAYBE_UNFOLDED.rpartition("|")[2], "", everything)
    assert len(kept) > 30_000
    assert fold(kept) == kept[1:]
    assert not any(map(unicodedata.combining, kept))
    assert not set(kept) & (combining | vowels_and_finals)


# --- Size


def chunks(size: int, encoding: str) -> Iterator[bytes]:
    """Yields a file of ``size`` bytes whose rows are as long as an import allows."""
    yield text(HEADER).encode(encoding)
    row = ",".join([*["☕" * 255] * 5, "1"]) + "\n"
    chunk = (row * 60).encode(encoding)
    for _ in range(size // len(chunk)):
        yield chunk


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_a_large_file_needs_no_more_memory_than_a_small_one(encoding: str) -> None:
    def peak(size: int) -> int:
        tracemalloc.start()
        try:
            count = sum(isinstance(row, Row) for row in read_rows(chunks(size, encoding)))
            assert count > size / 5_000
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(FILE_BYTES) < 1.1 * peak(FILE_BYTES // 20)


def test_only_the_start_of_a_file_is_searched_for_a_header() -> None:
    blank = b"\n" * (HEAD_BYTES - 500)
    assert list(read_rows([blank, text(HEADER, BEAN).encode()])) == [Row(HEAD_BYTES - 500 + 2, *GOOD)]
    assert "the first 65,536 bytes of the file are empty" in str(refusal(blank * 2 + HEADER.encode()))
    assert not [row for row in read_rows([text(HEADER).encode()]) if isinstance(row, BadRow)]
