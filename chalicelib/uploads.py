"""Uploads: each file is logged, an inventory is imported into MySQL, and a notification says what came of it.

Rows stream: from S3 through the CSV parser into a temporary table, a thousand at a time, so memory does not grow with
the file. From there three statements bring them into the inventory, in one transaction. The same transaction notes
the event in the ledger, the table ``uploads``: an event that comes twice or too late changes nothing.
"""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_plus

import humanize
from botocore.exceptions import ClientError

from chalicelib import correlation, metrics
from chalicelib.errors import CafeError, DatabaseRefused, aws_errors
from chalicelib.logs import logger
from chalicelib.notifications import Notification, Publish, counted, one_line
from chalicelib.upload_links import FILE_BYTES

if TYPE_CHECKING:
    from pymysql.connections import Connection
    from pymysql.cursors import Cursor

COLUMNS = ("supplier_name", "type", "product_name", "price", "description", "quantity")
IDENTITY = ("supplier_name", "type", "product_name")
# What the columns of the inventory's tables hold.
TEXT_CHARACTERS = 255
QUANTITY = 2**31 - 1

ROWS = 500_000
LINE_BYTES = 65_536
# Six cells of 255 characters that are all quotes need 3,072. What is longer has lost a quote.
RECORD_CHARACTERS = 8_192
# Each makes some lines be read twice, so a file of nothing else would take hours.
BROKEN_QUOTES = 1_000

CHUNK_BYTES = 262_144
ROWS_AT_ONCE = 1_000
BAD_ROWS_NAMED = 20
VALUE_CHARACTERS = 100

log = logger("uploads")


@dataclass(frozen=True)
class Upload:
    """One record of an S3 event. ``sequencer`` orders the events of one key."""

    key: str
    size: int
    etag: str
    sequencer: str
    event: str
    time: str
    correlation_id: str | None = None

    @classmethod
    def of(cls, record: dict[str, Any]) -> Upload:
        stored = record["s3"]["object"]
        return cls(
            key=unquote_plus(stored["key"]),
            size=stored["size"],
            etag=stored["eTag"],
            sequencer=stored["sequencer"],
            event=record["eventName"],
            time=record["eventTime"],
            correlation_id=correlation.of_upload(record),
        )

    def facts(self) -> dict[str, Any]:
        """For the log, under S3's names."""
        return {
            "key": self.key,
            "bytes": self.size,
            "eTag": self.etag,
            "sequencer": self.sequencer,
            "eventName": self.event,
            "eventTime": self.time,
        }

    @property
    def name(self) -> str:
        """The key as people may see it."""
        return one_line(self.key)

    def is_inventory(self) -> bool:
        return self.key.startswith("inventory/") and self.key.lower().endswith(".csv")

    def is_newer_than(self, sequencer: str) -> bool:
        """Sequencers are hexadecimal numbers of different lengths: they compare when both are padded on the left."""
        width = max(len(self.sequencer), len(sequencer))
        return self.sequencer.upper().rjust(width, "0") > sequencer.upper().rjust(width, "0")


class Row(NamedTuple):
    line: int
    supplier_name: str
    type: str
    product_name: str
    price: str | None
    description: str | None
    quantity: int


class BadRow(NamedTuple):
    """``line`` is the line of the file, counted from 1, on which the row begins."""

    line: int
    reason: str


class NotImported(CafeError):
    """The file as a whole cannot be imported; the message says why, and where."""


class Overwritten(CafeError):
    """The object is another one by now. Its own event is on its way."""


@dataclass
class Imported:
    """What came of an import: numbers of rows, and the first of the bad ones."""

    new: int = 0
    updated: int = 0
    unchanged: int = 0
    bad: int = 0
    bad_rows: list[BadRow] = field(default_factory=list)

    @property
    def good(self) -> int:
        return self.new + self.updated + self.unchanged


def receive(
    event: dict[str, Any],
    *,
    s3: Any,
    connect: Callable[[], AbstractContextManager[Connection[Any]]],
    publish: Publish,
    bucket: str,
) -> None:
    """Handles each record of an S3 event. Raises ``Unavailable`` where S3, SNS or MySQL fail for now.

    ``connect`` gives a connection to MySQL and is only called for an inventory.
    """
    if "Records" not in event:
        log.info("no upload, but S3's word that its events arrive", extra={"event": event.get("Event")})
        return
    for upload in map(Upload.of, event["Records"]):
        with correlation.about(upload.correlation_id):
            log.info("upload received", extra=upload.facts())
            if upload.is_inventory():
                with connect() as connection:
                    _import_once(upload, connection, s3=s3, publish=publish, bucket=bucket)
            else:
                details = "It is kept for 90 days; only inventory/*.csv is imported."
                publish(_notification(upload, "received", details, {"outcome": "received"}))


def _import_once(upload: Upload, connection: Connection[Any], *, s3: Any, publish: Publish, bucket: str) -> None:
    imported = Imported()
    with connection.cursor() as cursor:
        # Without the gap locks of the default, two imports wait for each other's suppliers only.
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        if upload.is_newer_than(_lock(cursor, upload, publish)):
            try:
                imported, notification = _outcome(cursor, upload, s3, bucket)
                _store(cursor, upload, notification)
            except Overwritten:
                log.info("overwritten before it could be read; its own event follows", extra={"key": upload.key})
        else:
            log.info("event known already", extra={"key": upload.key, "sequencer": upload.sequencer})
        connection.commit()
        # Only now: what is not committed is tried again.
        metrics.emit({"RowsGood": imported.good, "RowsBad": imported.bad})
        # Under a lock of its own, so that of two deliveries at once one announces.
        _lock(cursor, upload, publish)
        connection.commit()


def _lock(cursor: Cursor, upload: Upload, publish: Publish) -> str:
    """Locks the key's entry in the ledger, announces what was stored but not announced, returns the last sequencer."""
    key = (upload.key.encode(),)
    # Unlike INSERT IGNORE this takes the exclusive lock at once, so two deliveries cannot deadlock on it.
    cursor.execute("INSERT INTO uploads (object_key) VALUES (%s) ON DUPLICATE KEY UPDATE object_key = object_key", key)
    cursor.execute("SELECT sequencer, outcome, announced FROM uploads WHERE object_key = %s FOR UPDATE", key)
    sequencer, outcome, announced = cursor.fetchone() or ("", None, True)
    if not announced:
        content = json.loads(outcome)
        # Those that were stored before there were such ids have none.
        content["correlation_ids"] = tuple(content.get("correlation_ids", ()))
        publish(Notification(**content))
        cursor.execute("UPDATE uploads SET announced = TRUE WHERE object_key = %s", key)
    return str(sequencer)


def _store(cursor: Cursor, upload: Upload, notification: Notification) -> None:
    cursor.execute(
        "UPDATE uploads SET sequencer = %s, etag = %s, outcome = %s, announced = FALSE WHERE object_key = %s",
        (upload.sequencer, upload.etag, json.dumps(asdict(notification)), upload.key.encode()),
    )


def _outcome(cursor: Cursor, upload: Upload, s3: Any, bucket: str) -> tuple[Imported, Notification]:
    try:
        with closing(_open(upload, s3, bucket)) as body:
            imported = _import(cursor, rows(_chunks(body)))
    except NotImported as error:
        log.warning("inventory not imported", extra={"key": upload.key, "reason": str(error)})
        details = f"Nothing was imported: {error}."
        return Imported(), _notification(upload, "not imported", details, {"outcome": "notImported"})
    counts = {"new": imported.new, "updated": imported.updated, "unchanged": imported.unchanged, "bad": imported.bad}
    log.info("inventory imported", extra={"key": upload.key, **counts})
    outcome = f"{counted(imported.good, 'row')} imported, {imported.bad:,} bad"
    return imported, _notification(upload, outcome, _report(imported), {"outcome": "imported", **counts})


def _open(upload: Upload, s3: Any, bucket: str) -> Any:
    """The object of the event as a stream, and no other that may have taken its key."""
    if upload.size > FILE_BYTES:
        limit = humanize.naturalsize(FILE_BYTES)
        raise NotImported(f"the file is larger than {limit}, upload it in parts")
    try:
        with aws_errors():
            return s3.get_object(Bucket=bucket, Key=upload.key, IfMatch=f'"{upload.etag}"')["Body"]
    except ClientError as error:
        match error.response["Error"]["Code"]:
            case "NoSuchKey":
                raise NotImported("the file was deleted before it could be read") from error
            case "PreconditionFailed":
                raise Overwritten(upload.key) from error
        raise


def _chunks(body: Any) -> Iterator[bytes]:
    while True:
        with aws_errors():
            chunk = body.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


# --- From bytes to rows


def rows(chunks: Iterable[bytes]) -> Iterator[Row | BadRow]:
    """The rows of an inventory in CSV, good and bad, in the file's order. Raises ``NotImported`` for any other file.

    Cells lose the white space around them. Lines without any content are no rows.
    """
    records = ((line, cells) for line, cells in _records(_lines(chunks)) if not isinstance(cells, list) or any(cells))
    header = next(records, None)
    if header is None:
        raise NotImported("the file is empty")
    order = _header(*header)
    for count, (line, cells) in enumerate(records, 1):
        if count > ROWS:
            raise NotImported(f"the file has more than {ROWS:,} rows, upload it in parts")
        yield BadRow(line, cells) if isinstance(cells, str) else _row(line, cells, order)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a text in UTF-8, with or without a byte order mark, each with its end."""
    for number, line in enumerate(_split(chunks), 1):
        if len(line) > LINE_BYTES:
            raise NotImported(f"line {number:,} is longer than {LINE_BYTES:,} bytes, so this is no inventory")
        if b"\0" in line:
            raise NotImported(f"line {number:,} has a NUL byte, so this is no CSV in UTF-8")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            bad = line[error.start]
            raise NotImported(
                f"line {number:,} is not in UTF-8 (byte {error.start + 1:,} of the line is 0x{bad:02X}); "
                "save the file as CSV UTF-8"
            ) from error


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        lines = (rest + chunk).splitlines(keepends=True)
        # The last may go on in the next chunk, if only with the second half of its CR LF.
        rest = lines.pop() if lines else b""
        yield from lines
        if len(rest) > LINE_BYTES:
            break
    if rest:
        yield rest


def _records(lines: Iterator[str]) -> Iterator[tuple[int, list[str] | str]]:
    """Each record of a CSV with the line on which it begins: its cells or, where its quotes are broken, the reason.

    After a record with broken quotes the next line begins a new one, so that one lost quote costs one row.
    """
    again: deque[str] = deque()
    record: list[str] = []

    def feed() -> Iterator[str]:
        size = 0
        while (line := again.popleft() if again else next(lines, None)) is not None:
            size = size + len(line) if record else len(line)
            record.append(line)
            if len(record) > 1 and size > RECORD_CHARACTERS:
                raise csv.Error
            yield line

    number = 1
    broken = 0
    while True:
        try:
            for cells in csv.reader(feed(), strict=True, skipinitialspace=True):
                yield number, [_clean(cell) for cell in cells]
                number += len(record)
                record.clear()
        except csv.Error:
            broken += 1
            if broken > BROKEN_QUOTES:
                raise NotImported(
                    f"more than {BROKEN_QUOTES:,} rows have broken quotes, the last on line {number:,}"
                ) from None
            yield number, "a quote is not closed, or has text after it"
            again.extendleft(reversed(record[1:]))
            record.clear()
            number += 1
        else:
            return


def _clean(cell: str) -> str:
    # An accent may be a letter's part or a character of its own: one bean, whichever way its name was typed.
    return unicodedata.normalize("NFC", cell.strip())


def _header(line: int, cells: list[str] | str) -> list[int]:
    """Where each of ``COLUMNS`` is."""
    names = [cell.lower() for cell in cells] if isinstance(cells, list) else []
    unknown = ", ".join(name for name in names if name not in COLUMNS)
    problems = {
        "missing": ", ".join(name for name in COLUMNS if name not in names),
        "unknown": _shown(unknown) if unknown else "",
        "repeated": ", ".join(name for name in COLUMNS if names.count(name) > 1),
    }
    if any(problems.values()):
        text = "; ".join(f"{problem}: {names}" for problem, names in problems.items() if names)
        raise NotImported(
            f"line {line:,} must name the columns {', '.join(COLUMNS)}, in any order and with commas between ({text})"
        )
    return [names.index(name) for name in COLUMNS]


def _row(line: int, cells: list[str], order: list[int]) -> Row | BadRow:
    if len(cells) != len(order):
        return BadRow(line, f"it has {len(cells)} cells and not {len(order)}")
    supplier_name, type_, product_name, price, description, quantity = (cells[index] for index in order)
    texts = (supplier_name, type_, product_name, price, description)
    problems = [f"{name} is empty" for name, text in zip(IDENTITY, texts, strict=False) if not text]
    problems += [
        f"{name} is longer than {TEXT_CHARACTERS} characters"
        for name, text in zip(COLUMNS, texts, strict=False)
        if len(text) > TEXT_CHARACTERS
    ]
    if not re.fullmatch("[0-9]{1,10}", quantity) or int(quantity) > QUANTITY:
        problems.append(f"quantity is {_shown(quantity)} and not a whole number from 0 to {QUANTITY:,}")
    if problems:
        return BadRow(line, "; ".join(problems))
    return Row(line, supplier_name, type_, product_name, price or None, description or None, int(quantity))


def _shown(text: str) -> str:
    """``text`` in quotes, on one line and not longer than a message bears."""
    return repr(text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…")


# --- From rows to MySQL

STAGING = """
    CREATE TEMPORARY TABLE upload_rows (
        line INT NOT NULL,
        supplier_name VARCHAR(255) NOT NULL,
        type VARCHAR(255) NOT NULL,
        product_name VARCHAR(255) NOT NULL,
        price VARCHAR(255),
        description VARCHAR(255),
        quantity INT NOT NULL,
        earlier_line INT,
        PRIMARY KEY (supplier_name, type, product_name)
    ) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
"""
STAGE = """
    INSERT INTO upload_rows (line, supplier_name, type, product_name, price, description, quantity)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
    ON DUPLICATE KEY UPDATE earlier_line = line, line = VALUES(line), price = VALUES(price),
        description = VALUES(description), quantity = VALUES(quantity)
"""
REPEATED = "SELECT earlier_line, line FROM upload_rows WHERE earlier_line IS NOT NULL ORDER BY earlier_line LIMIT %s"
# Makes the suppliers that are missing, and locks all of them, in one order, so that two imports with the same beans
# come one after the other and do not deadlock.
SUPPLIERS = """
    INSERT INTO suppliers (name) SELECT DISTINCT supplier_name FROM upload_rows ORDER BY supplier_name
    ON DUPLICATE KEY UPDATE suppliers.name = suppliers.name
"""
# Tables of elsewhere may take two spellings for one name, which their keys then forbid.
MISSING_SUPPLIER = """
    SELECT wanted.supplier_name FROM (SELECT DISTINCT supplier_name FROM upload_rows) AS wanted
    LEFT JOIN suppliers FORCE INDEX (suppliers_name) ON suppliers.name = wanted.supplier_name
    WHERE suppliers.id IS NULL LIMIT 1
"""
# The order and the keys are given, since MySQL knows nothing of a table that was just filled: with another plan it
# may lock all suppliers, or read all beans for each row.
UPDATE = """
    UPDATE upload_rows AS incoming
    STRAIGHT_JOIN suppliers FORCE INDEX (suppliers_name) ON suppliers.name = incoming.supplier_name
    STRAIGHT_JOIN beans FORCE INDEX (beans_identity) ON beans.supplier_id = suppliers.id
        AND beans.type = incoming.type AND beans.product_name = incoming.product_name
    SET beans.price = incoming.price, beans.description = incoming.description, beans.quantity = incoming.quantity
    WHERE NOT (beans.price <=> incoming.price AND beans.description <=> incoming.description
        AND beans.quantity <=> incoming.quantity)
"""
# INSERT … ON DUPLICATE KEY UPDATE would do for both, but spend an id on every row of every import.
INSERT = """
    INSERT INTO beans (supplier_id, type, product_name, price, description, quantity)
    SELECT suppliers.id, incoming.type, incoming.product_name, incoming.price, incoming.description, incoming.quantity
    FROM upload_rows AS incoming
    STRAIGHT_JOIN suppliers FORCE INDEX (suppliers_name) ON suppliers.name = incoming.supplier_name
    LEFT JOIN beans AS known FORCE INDEX (beans_identity) ON known.supplier_id = suppliers.id
        AND known.type = incoming.type AND known.product_name = incoming.product_name
    WHERE known.id IS NULL
"""


def _import(cursor: Cursor, parsed: Iterable[Row | BadRow]) -> Imported:
    """Brings the good rows into the inventory, in the transaction at hand. Of a repeated bean the last row counts."""
    imported = Imported()
    batch: list[Row] = []
    read = 0
    cursor.execute(STAGING)
    for row in parsed:
        if isinstance(row, BadRow):
            imported.bad += 1
            if imported.bad <= BAD_ROWS_NAMED:
                imported.bad_rows.append(row)
            continue
        read += 1
        batch.append(row)
        if len(batch) == ROWS_AT_ONCE:
            cursor.executemany(STAGE, batch)
            batch.clear()
    cursor.executemany(STAGE, batch)

    cursor.execute("SELECT COUNT(*) FROM upload_rows")
    (staged,) = cursor.fetchone() or (0,)
    cursor.execute(REPEATED, (BAD_ROWS_NAMED,))
    repeated = [BadRow(line, f"the same bean is on line {later:,}, which counts") for line, later in cursor.fetchall()]
    imported.bad += read - staged
    imported.bad_rows = sorted([*imported.bad_rows, *repeated])[:BAD_ROWS_NAMED]

    cursor.execute(SUPPLIERS)
    cursor.execute(MISSING_SUPPLIER)
    if missing := cursor.fetchone():
        raise DatabaseRefused(f"the suppliers' table takes {_shown(missing[0])} for another spelling that it has")
    imported.updated = cursor.execute(UPDATE)
    imported.new = cursor.execute(INSERT)
    imported.unchanged = staged - imported.new - imported.updated
    return imported


# --- From the outcome to the notification


def _notification(upload: Upload, outcome: str, details: str, facts: dict[str, Any]) -> Notification:
    size = humanize.naturalsize(upload.size)
    short = f"Upload: {outcome} ({upload.name})"
    return Notification(
        kind="upload",
        key=f"upload/{upload.name}/{upload.sequencer}",
        subject=short,
        message=f"{upload.name} ({size}) was received at {upload.time}.\n{details}",
        sms=short,
        correlation_ids=(upload.correlation_id,) if upload.correlation_id else (),
        facts={"key": upload.key, **facts},
    )


def _report(imported: Imported) -> str:
    lines = [
        f"{counted(imported.good, 'row')} imported: {imported.new:,} new, {imported.updated:,} updated, "
        f"{imported.unchanged:,} unchanged."
    ]
    if imported.bad:
        lines.append(f"{counted(imported.bad, 'row')} left out:")
        lines += [f"- line {line:,}: {reason}" for line, reason in imported.bad_rows]
    if imported.bad > len(imported.bad_rows):
        lines.append(f"and {imported.bad - len(imported.bad_rows):,} more")
    return "\n".join(lines)
