"""Exports orders as CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from chalice.app import Response

from chalicelib import rest
from chalicelib.errors import InvalidRequest, Problem, aws_errors
from chalicelib.orders.listing import LISTED, shown, span
from chalicelib.orders.order import BLANK
from chalicelib.timeline import Timeline

PARAMETERS = ("since", "until", "next")
COLUMNS = (
    *("orderID", "customerID", "placedAt", "status", "items", "quantity"),
    *("note", "requestedBy", "changedAt", "changedBy"),
)
# A page also ends after about 1 MB, which is well below Lambda's limit of 6 MB.
ROWS = 1_000
# Spreadsheets recognise UTF-8 by this mark.
BYTE_ORDER_MARK = "\ufeff"
# Depending on its settings, a spreadsheet begins a new cell here, even inside of a cell of this file.
SEPARATOR = re.compile("([;\t\r\n])")


@aws_errors()
def page(given: Mapping[str, str], created: date, *, dynamodb: Any, table: str, now: datetime) -> Response:
    """Returns a page of the orders from ``since`` to ``until`` as CSV, newest first.

    The header ``X-Next`` has the token of the next page. Only the first page has a header row and a byte order mark, so
    all pages together are one file. Raises ``InvalidRequest`` if a parameter is invalid.
    """
    problems: list[Problem] = []
    first, until = span(given, created, problems)
    if problems:
        raise InvalidRequest(problems)
    following = given.get("next")
    items, token = Timeline(dynamodb, table, LISTED).page("orders", first, ROWS, following, now, until=until)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if following is None:
        text.write(BYTE_ORDER_MARK)
        writer.writerow(COLUMNS)
    writer.writerows(_row(shown(item)) for item in items)
    headers: dict[str, str | list[str]] = {
        "Content-Type": "text/csv; charset=utf-8",
        "Content-Disposition": f'attachment; filename="{_filename(given)}"',
        **({"X-Next": token} if token else {}),
    }
    return Response(text.getvalue(), headers)


def _row(order: dict[str, Any]) -> list[Any]:
    pairs = [(each["quantity"], each["item"]) for each in order["items"]]
    lines = " + ".join(item if quantity == 1 else f"{quantity} x {item}" for quantity, item in pairs)
    values = {**order, "items": lines, "quantity": sum(quantity for quantity, _ in pairs)}
    return [_cell(values[name]) for name in COLUMNS]


def _cell(value: Any) -> Any:
    """Returns a value that no spreadsheet runs as a formula. Each part that could be one starts with an apostrophe."""
    if not isinstance(value, str):
        return value
    cell = "".join(map(_disarmed, SEPARATOR.split(value)))
    return f"'{cell}" if SEPARATOR.match(cell) else cell


def _disarmed(part: str) -> str:
    # Spreadsheets may ignore invisible characters, and treat full-width ones as the usual ones (NFKC).
    # After a separator, they also remove quotation marks.
    start = unicodedata.normalize("NFKC", BLANK.sub("", part.replace('"', ""), count=1)[:1])
    return f"'{part}" if start in {*"=+-@"} else part


def _filename(given: Mapping[str, str]) -> str:
    """Returns a name with the first and the last day, in the time zones of ``since`` and ``until``."""
    days = []
    if "since" in given:
        days.append(f"from-{rest.moment('since', given['since']).date()}")
    if "until" in given:
        days.append(f"to-{(rest.moment('until', given['until']) - timedelta(microseconds=1)).date()}")
    if len({day.partition("-")[2] for day in days}) < len(days):
        days = [days[0].removeprefix("from-")]
    return "-".join(["orders", *days]) + ".csv"
