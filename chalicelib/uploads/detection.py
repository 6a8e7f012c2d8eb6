"""Detects the encoding, the delimiter and the header of an uploaded inventory from the file's first bytes.

The delimiter is the one by which the header contains the six columns. Letter case, spaces, hyphens and underscores do
not matter in a header. Nothing is guessed: a file with two possible delimiters, or with none, is refused.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chalicelib.errors import CafeError
from chalicelib.names import fold, quoted

# The header must be within this many bytes.
HEAD_BYTES = 65_536
COLUMNS = ("supplier_name", "type", "product_name", "price", "description", "quantity")
# The CSV file of an inventory report has these columns instead, besides others that are not imported.
REPORT_COLUMNS = ("supplier", *COLUMNS[1:])
REPORT_MARKS = ("supplier_id", "bean_id")
DELIMITERS = (",", ";", "\t", "|")
# Excel reads the delimiter from a first line such as ``sep=;``.
SEP_LINE = re.compile(r"\"?sep=(.?).{0,9}", re.IGNORECASE)
OWN_DELIMITER = re.compile(r"\t|[^\w\s\"]")
IGNORED = re.compile("[ _\u2010-\u2015-]+")
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
SAVE = "save it as CSV UTF-8"
# The first bytes of files in other formats, what they are, and what to do. The first match counts.
OTHER_FORMATS = (
    (rb"PK\x03\x04.{26}mimetypeapplication/vnd\.oasis", f"an OpenDocument file: {SAVE}"),
    (rb"PK\x03\x04.{26}Index/", "a Numbers document: export it as CSV"),
    (rb"PK\x03\x04.{26}(?!\[Content|_rels|docProps|xl/)[\w-]", "a ZIP archive: upload the CSV file inside"),
    (rb"PK\x03\x04|\xd0\xcf\x11\xe0", f"an Excel workbook: {SAVE}"),
    (rb"\x1f\x8b", "a file compressed with gzip: upload the CSV file inside"),
    (rb"BZh\d1AY|\xfd7zXZ|\x28\xb5\x2f\xfd", "a compressed file (bzip2, xz or zstd): upload the CSV file inside"),
    (rb"7z\xbc\xaf|Rar!\x1a", "a 7z or RAR archive: upload the CSV file inside"),
    (rb"%PDF-", "a PDF document: export the table itself as CSV UTF-8"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|II\*\0|MM\0\*", "a picture: upload a table as CSV UTF-8"),
    (rb"SQLite format 3\0|PAR1", "a database file: export the table as CSV UTF-8"),
    (rb"(\xef\xbb\xbf)?\s*<\?xml", f"an XML file: open it in a spreadsheet program and {SAVE}"),
    (rb"(\xef\xbb\xbf)?\s*<", f"a web page (HTML): open it in a spreadsheet program and {SAVE}"),
    (rb"(\xef\xbb\xbf)?\s*[{\[]\s*[\"{\[]", "a JSON file: export the inventory as CSV UTF-8"),
    (rb"\{\\rtf", "a text document (RTF): export the table as CSV UTF-8"),
)


class NotImported(CafeError):
    """The uploaded file cannot be imported. The message contains the reason, and what to do.

    ``looks_like`` is ``cp1252`` if the file can be read as Windows-1252. ``cells`` then contains up to 20 cells as they
    would read.
    """

    def __init__(self, message: str, looks_like: str = "", cells: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.looks_like = looks_like
        self.cells = tuple(cells)


class Column(NamedTuple):
    """A column of the file. ``position`` starts at 1, and ``name`` may be empty."""

    position: int
    name: str


@dataclass(frozen=True)
class Format:
    """How to read a file, whose header ends after ``lines`` lines.

    ``mark`` is the byte order mark. ``columns`` contains all columns of the header, and ``order`` the indexes of
    ``COLUMNS`` among them. ``is_report`` is true for the CSV file of an inventory report.
    """

    encoding: str
    mark: bytes
    delimiter: str
    lines: int
    columns: tuple[Column, ...]
    order: tuple[int, ...]
    is_report: bool


class _Header(NamedTuple):
    """The first record of a file with one delimiter. ``missing`` lists the required columns that it lacks."""

    delimiter: str
    first_line: int
    last_line: int
    cells: list[str]
    is_report: bool
    missing: list[str]


def detect(head: bytes, encoding: str | None = None) -> Format:
    """Returns the format of a file that starts with ``head``. Raises ``NotImported`` if it is not an inventory.

    ``head`` must be the whole file or at least ``HEAD_BYTES`` long. ``encoding`` replaces the detected encoding.
    """
    for pattern, what in OTHER_FORMATS:
        if re.match(pattern, head, re.DOTALL):
            raise NotImported(f"this is {what}")
    mark, encodings = (b"", [encoding]) if encoding else _encodings(head)
    tried = []
    for each in encodings:
        lines = [*io.StringIO(head[len(mark) : HEAD_BYTES].decode(each, "replace"), newline="")]
        headers = [*_headers(lines)]
        match [header for header in headers if not header.missing]:
            case [header]:
                columns = tuple(Column(place, fold(cell)) for place, cell in enumerate(header.cells, 1))
                return Format(each, mark, header.delimiter, header.last_line, columns, _order(header), header.is_report)
            case [header, *_]:
                line = f"line {header.first_line:,}"
                raise NotImported(f"{line} is a header with commas as well as with another delimiter: {SAVE}")
        tried.append(headers)
    raise _refusal(head, tried[0])


def _encodings(head: bytes) -> tuple[bytes, list[str]]:
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return mark, [encoding]
    # Text in UTF-8 has no zero bytes, but a header in UTF-16 or UTF-32 does.
    return b"", ["utf-8", *([*MARKS.values()][1:] if b"\0" in head else [])]


def _headers(lines: list[str]) -> Iterator[_Header]:
    """Yields the first record that is not empty, once for each possible delimiter."""
    sep = SEP_LINE.fullmatch(lines[0].rstrip("\r\n")) if lines else None
    own = [sep[1]] if sep and OWN_DELIMITER.fullmatch(sep[1]) else []
    for delimiter in dict.fromkeys([*own, *DELIMITERS]):
        first_line = skipped = 1 if sep else 0
        reader = csv.reader(lines[skipped:], delimiter=delimiter, strict=True, skipinitialspace=True)
        try:
            for cells in reader:
                if any(map(fold, cells)):
                    yield _header(delimiter, first_line + 1, skipped + reader.line_num, cells)
                    break
                first_line = skipped + reader.line_num
        except csv.Error:
            yield _header(delimiter, first_line + 1, 0, [])


def _header(delimiter: str, first_line: int, last_line: int, cells: list[str]) -> _Header:
    keys = {_key(cell) for cell in cells}
    # A header that is incomplete is described as the format from which it differs less.
    formats = (COLUMNS, (*REPORT_COLUMNS, *REPORT_MARKS))
    lacks = [[name for name in names if _key(name) not in keys] for names in formats]
    is_report = len(lacks[1]) < len(lacks[0])
    return _Header(delimiter, first_line, last_line, cells, is_report, lacks[is_report])


def _order(header: _Header) -> tuple[int, ...]:
    keys = [_key(cell) for cell in header.cells]
    names = REPORT_COLUMNS if header.is_report else COLUMNS
    if repeated := [name for name in names if keys.count(_key(name)) > 1]:
        raise NotImported(
            f"line {header.first_line:,} names a column more than once ({', '.join(repeated)}): "
            "remove or rename the other columns"
        )
    return tuple(keys.index(_key(name)) for name in names)


def _key(name: str) -> str:
    return IGNORED.sub("", fold(name)).lower()


def _refusal(head: bytes, headers: list[_Header]) -> NotImported:
    """Returns the reason why a file has no header."""
    if not headers:
        empty = "the file is" if len(head) < HEAD_BYTES else f"the first {HEAD_BYTES:,} bytes of the file are"
        return NotImported(f"{empty} empty")
    if b"\0" in head:
        return NotImported(f"the file contains NUL bytes, so this is not a CSV file: {SAVE}")
    best = min(headers, key=lambda header: len(header.missing))
    found = f"; found: {quoted(', '.join(map(fold, best.cells)))}" if best.cells else ""
    return NotImported(
        f"line {best.first_line:,} must name the columns {', '.join(COLUMNS)}, in any order "
        f"(missing: {', '.join(best.missing)}{found})"
    )
