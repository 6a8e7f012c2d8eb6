"""Compares a staged file with the stock, and keeps the differences in S3 as pages.

A page is an object with up to ``PAGE`` changes in JSON. The API reads the pages, because it cannot reach MySQL.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from chalicelib.errors import InvalidRequest, NotFound, Problem, aws_errors
from chalicelib.rest import Page
from chalicelib.uploads.detection import COLUMNS
from chalicelib.uploads.rows import IDENTITY

if TYPE_CHECKING:
    from pymysql.cursors import Cursor

PAGE = 1_000
KINDS = ("changed", "new", "bad", "notMentioned")
VALUES = COLUMNS[len(IDENTITY) :]
DIFFERENCES_NAMED = 20

# The join order and keys are fixed for the reason that importing.py gives.
COMPARE = """
    SELECT incoming.line, incoming.supplier_name, incoming.type, incoming.product_name,
        incoming.price, incoming.description, incoming.quantity,
        existing.id IS NOT NULL, existing.price, existing.description, existing.quantity
    FROM upload_rows AS incoming
    LEFT JOIN suppliers FORCE INDEX (suppliers_name) ON suppliers.name = incoming.supplier_name
    LEFT JOIN beans AS existing FORCE INDEX (beans_identity) ON existing.supplier_id = suppliers.id
        AND existing.type = incoming.type AND existing.product_name = incoming.product_name
    WHERE existing.id IS NULL OR NOT (existing.price <=> incoming.price
        AND existing.description <=> incoming.description AND existing.quantity <=> incoming.quantity)
    ORDER BY incoming.line
"""
# MySQL cannot use a temporary table twice in one query.
CREATE_MENTIONED = """
    CREATE TEMPORARY TABLE mentioned_suppliers (supplier_name VARCHAR(255) NOT NULL PRIMARY KEY)
    ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin SELECT DISTINCT supplier_name FROM upload_rows
"""
NOT_MENTIONED = """
    SELECT suppliers.name, beans.type, beans.product_name, beans.price, beans.description, beans.quantity
    FROM mentioned_suppliers AS mentioned
    STRAIGHT_JOIN suppliers FORCE INDEX (suppliers_name) ON suppliers.name = mentioned.supplier_name
    STRAIGHT_JOIN beans FORCE INDEX (beans_identity) ON beans.supplier_id = suppliers.id
    LEFT JOIN upload_rows AS incoming ON incoming.supplier_name = suppliers.name
        AND incoming.type = beans.type AND incoming.product_name = beans.product_name
    WHERE incoming.line IS NULL ORDER BY suppliers.name, beans.type, beans.product_name
"""

Change = dict[str, Any]


def changes(cursor: Cursor, *, lock: bool = False) -> Iterator[Change]:
    """Yields each staged row that would add or change a bean, in the order of the file's lines.

    ``lock`` locks the beans until the end of the transaction.
    """
    cursor.execute(COMPARE + " FOR UPDATE" * lock)
    while rows := cursor.fetchmany(PAGE):
        for line, *rest in rows:
            after, exists, before = rest[3:6], rest[6], rest[7:]
            change = {"change": "changed" if exists else "new", "line": line, **dict(zip(IDENTITY, rest, strict=False))}
            if exists:
                change["before"] = dict(zip(VALUES, before, strict=True))
            yield {**change, "after": dict(zip(VALUES, after, strict=True))}


def not_mentioned(cursor: Cursor) -> Iterator[Change]:
    """Yields the beans of the file's suppliers that the file does not mention."""
    cursor.execute(CREATE_MENTIONED)
    cursor.execute(NOT_MENTIONED)
    while rows := cursor.fetchmany(PAGE):
        for row in rows:
            names = dict(zip(IDENTITY, row, strict=False))
            yield {"change": "notMentioned", **names, "before": dict(zip(VALUES, row[3:], strict=True))}


@dataclass
class Pages:
    """Writes a preview's changes to S3 as pages of each kind. Each preview has its own ``folder``."""

    s3: Any
    bucket: str
    folder: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def __post_init__(self) -> None:
        self._open: dict[str, list[Change]] = {kind: [] for kind in KINDS}

    def add(self, change: Change) -> None:
        kind = change["change"]
        self._open[kind].append(change)
        self.counts[kind] += 1
        if len(self._open[kind]) == PAGE:
            self._write(kind)

    def close(self) -> None:
        """Writes the last page of each kind, which has fewer than ``PAGE`` changes and may be empty."""
        for kind in KINDS:
            self._write(kind)

    def _write(self, kind: str) -> None:
        page, self._open[kind] = self._open[kind], []
        with aws_errors():
            self.s3.put_object(
                Bucket=self.bucket,
                Key=page_key(self.folder, kind, (self.counts[kind] - len(page)) // PAGE),
                Body=json.dumps(page, ensure_ascii=False).encode(),
                ContentType="application/json",
            )


def page_key(folder: str, kind: str, number: int) -> str:
    return f"{folder}/{kind}-{number:05}.json"


def read_page(folder: str, kind: str, number: int, s3: Any, bucket: str) -> list[Change]:
    """Returns a page of changes. Raises ``NotFound`` if the page has expired."""
    try:
        with aws_errors():
            body = s3.get_object(Bucket=bucket, Key=page_key(folder, kind, number))["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            raise NotFound("preview of upload", folder.split("/")[1]) from error
        raise
    page: list[Change] = json.loads(body)
    return page


def shown(stored: Mapping[str, Any], page: Page, s3: Any, bucket: str) -> tuple[list[Change], str | None]:
    """Returns the changes that a request asks for, and the token of the next page or None.

    A token is the number of the first change to show. Raises ``InvalidRequest`` if a parameter is invalid.
    """
    kind, token = page.filters.get("change"), page.next or "0"
    problems = [] if kind in (*KINDS, None) else [Problem("change", f"must be one of {', '.join(KINDS)}")]
    if not (token.isascii() and token.isdigit() and len(token) < 8):
        problems.append(
            Problem("next", "is not a `next` value from this list; leave it out to start with the first page")
        )
    if problems:
        raise InvalidRequest(problems)
    result, start = stored.get("result", {}), int(token)
    total = result.get("pages", {}).get(kind, 0)
    end = min(start + page.limit, total)
    changes: list[Change] = []
    for number in range(start // PAGE, -(-end // PAGE)):
        changes += read_page(result["folder"], str(kind), number, s3, bucket)
    offset = start % PAGE
    return changes[offset : offset + end - start] if end > start else [], str(end) if end < total else None


def differences(folder: str, present: Iterator[Change], s3: Any, bucket: str) -> list[Change]:
    """Returns the first beans whose stock has changed since the preview, with their values then and now.

    A row that is missing from a list of changes has the file's own values.
    """

    def previewed(kind: str) -> Iterator[Change]:
        for number in count():
            page = read_page(folder, kind, number, s3, bucket)
            yield from page
            if len(page) < PAGE:
                return

    then = (("then", each) for each in heapq.merge(*map(previewed, ("changed", "new")), key=_line))
    now = (("now", each) for each in present)
    found: list[Change] = []
    for _, group in groupby(heapq.merge(then, now, key=lambda pair: _line(pair[1])), key=lambda pair: _line(pair[1])):
        pair = dict(group)
        row = next(iter(pair.values()))
        values = {moment: pair[moment].get("before") if moment in pair else row["after"] for moment in ("then", "now")}
        if values["then"] != values["now"]:
            found.append({"line": row["line"], **{name: row[name] for name in IDENTITY}, **values})
        if len(found) == DIFFERENCES_NAMED:
            break
    return found


def _line(change: Change) -> int:
    line: int = change["line"]
    return line
