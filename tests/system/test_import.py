"""Tests imports of inventory files into a real MariaDB server. Each test has its own database."""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from chalicelib import clients
from chalicelib.database import grant_access, migrate, split
from chalicelib.errors import DatabaseRefused, Unavailable
from chalicelib.notifications import Notification
from chalicelib.settings import Database
from chalicelib.uploads import receiving, stock
from chalicelib.uploads.jobs import Jobs
from chalicelib.uploads.records import Records
from tests.system.events import Event, s3_event
from tests.system.inventory import HEADER
from tests.system.system import LOOSE_TABLES
from tests.system.waiting import at_once

BUCKET = "uploads"
KEY = "inventory/may.csv"


class MemoryRecords(Records):
    """Keeps the records of uploads in memory instead of DynamoDB."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}

    def _update(self, identifier: str, now: datetime, allowed: Any = None, **values: Any) -> bool:
        stored = self.items.get(identifier, {})
        if allowed is not None and stored.get("status") not in allowed:
            return False
        self.items[identifier] = {"uploadId": identifier, "rowsRead": 0, **stored, **values}
        return True

    def progress(self, identifier: str, rows: int) -> None:
        self.items[identifier]["rowsRead"] = rows

    def get(self, identifier: str) -> dict[str, Any]:
        return self.items[identifier]


class Cafe:
    """The uploads flow with a real database, files in memory, and a list of published notifications."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.files: dict[str, bytes] = {}
        self.published: list[Notification] = []
        self.records = MemoryRecords()
        self.lock_seconds = 50
        self._uploads = 0

    def upload(self, rows: str | bytes, key: str = KEY, header: str = HEADER) -> Event:
        """Stores the file. Returns the event record that S3 would send."""
        self.files[key] = rows if isinstance(rows, bytes) else (header + rows).encode()
        self._uploads += 1
        [record] = s3_event("uploads", key, "0", f"{self._uploads:X}", len(self.files[key]))["Records"]
        return record

    def head_object(self, Key: str, **_: str) -> dict[str, Any]:  # noqa: N803 - botocore's own name
        """Returns the ETag of a file, which is the file's size in these tests."""
        return {"ETag": f'"{len(self.files[Key])}"'}

    def get_object(self, **given: Any) -> dict[str, Any]:
        """Returns a file in the format of an S3 response."""
        return {"Body": io.BytesIO(self.files[given["Key"]])}

    def put_object(self, **given: Any) -> None:
        self.files[given["Key"]] = given["Body"]

    @contextmanager
    def connect(self) -> Iterator[Any]:
        with clients.mysql(self.database) as connection, connection.cursor() as cursor:
            cursor.execute("SET innodb_lock_wait_timeout = %s", (self.lock_seconds,))
            yield connection

    def receive(self, *records: Event, publish: Callable[[Notification], None] | None = None) -> None:
        receiving.receive({"Records": [*records]}, self.jobs(publish or self.published.append))

    def jobs(self, publish: Callable[[Notification], None]) -> Jobs:
        open_stock = partial(stock.open_stock, self.connect)
        return Jobs(self, open_stock, publish, self.records, "uploads", "reports", lambda: datetime.now(UTC))

    def query(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement, arguments)
            connection.commit()
            return list(cursor.fetchall())

    def inventory(self) -> list[tuple[Any, ...]]:
        return self.query(
            "SELECT name, type, product_name, price, description, quantity FROM beans "
            "JOIN suppliers ON suppliers.id = supplier_id ORDER BY beans.id"
        )

    def messages(self) -> list[str]:
        """Returns the published messages without the first line about the received file."""
        return [notification.message.partition("\n")[2] for notification in self.published]


@pytest.fixture
def cafe(database: Database) -> Cafe:
    return Cafe(database)


def down(_: Notification) -> None:
    raise Unavailable("SNS is down")


# --- Imports


def test_an_import_is_stored_counted_and_announced_once_even_if_sns_is_down_at_first(
    cafe: Cafe, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("cafe").addHandler(caplog.handler)
    try:
        record = cafe.upload("Altura,arabica,Lima,1,d,1\nAltura,arabica,Cusco,1,d,2\nAltura,arabica,Puno,1,d,few\n")
        with pytest.raises(Unavailable):
            cafe.receive(record, publish=down)
        # The import's result is already stored, so the retry does not need the file.
        cafe.files.clear()
        for _ in range(2):
            cafe.receive(record)
        cafe.receive(cafe.upload("no,header\n", header=""))
    finally:
        logging.getLogger("cafe").removeHandler(caplog.handler)
    counted = [each.msg for each in caplog.records if each.name == "cafe.metrics"]
    assert [(each.get("RowsGood"), each.get("RowsBad")) for each in counted] == [(2, 1)]
    assert [message.partition(":")[0] for message in cafe.messages()] == ["2 rows imported", "Nothing was imported"]


def test_an_inventory_is_imported_and_announced(cafe: Cafe) -> None:
    cafe.receive(cafe.upload('Café Altura,arabica,Lima,18.50,"nutty,\nround",7\nCafé Altura,robusta,Ñandú,,,0\n'))
    assert cafe.inventory() == [
        ("Café Altura", "arabica", "Lima", "18.50", "nutty,\nround", 7),
        ("Café Altura", "robusta", "Ñandú", None, None, 0),
    ]
    assert cafe.published == [
        Notification(
            kind="upload",
            key=f"upload/{KEY}/1",
            subject=f"Upload: 2 rows imported, 0 bad ({KEY})",
            message=f"{KEY} (141 Bytes) was received at 2026-11-21T08:00:00.000Z.\n"
            "2 rows imported: 2 new, 0 updated, 0 unchanged.",
            sms=f"Upload: 2 rows imported, 0 bad ({KEY})",
            facts=cafe.published[0].facts,
        )
    ]
    facts = {"key": KEY, "outcome": "imported", "new": 2, "updated": 0, "unchanged": 0, "bad": 0, "encoding": "utf-8"}
    assert facts.items() <= cafe.published[0].facts.items()


def test_an_import_sets_the_quantity_and_never_adds_to_it(cafe: Cafe) -> None:
    cafe.receive(cafe.upload("A,t,p,1,d,7\nA,t,q,1,d,7\nA,t,r,1,d,7\n"))
    cafe.receive(cafe.upload("A,t,p,1,d,7\nA,t,q,2,,5\nB,t,p,1,d,1\n", key="inventory/june.csv"))
    assert cafe.inventory() == [
        ("A", "t", "p", "1", "d", 7),
        ("A", "t", "q", "2", None, 5),
        ("A", "t", "r", "1", "d", 7),
        ("B", "t", "p", "1", "d", 1),
    ]
    assert cafe.messages()[1] == "3 rows imported: 1 new, 1 updated, 1 unchanged."


def test_long_names_fit_and_names_that_differ_in_case_or_accent_are_different_beans(cafe: Cafe) -> None:
    cafe.query("INSERT INTO suppliers (name, city) VALUES ('Café', 'Lima')")
    long = "咖" * 255
    cafe.receive(cafe.upload(f"Cafe,t,p,1,d,1\nCafé,t,p,1,d,2\ncafe,t,p,1,d,3\n{long},{long},{long},{long},{long},4\n"))
    assert [(row[0], row[5]) for row in cafe.inventory()] == [("Cafe", 1), ("Café", 2), ("cafe", 3), (long, 4)]
    # The import must not change other columns of a supplier.
    assert cafe.query("SELECT city FROM suppliers WHERE name = 'Café'") == [("Lima",)]


def test_twenty_bad_rows_are_named_and_the_others_counted(cafe: Cafe) -> None:
    cafe.receive(cafe.upload("A,t,p,1,d,1\n" + "A,t,q,1,d,x\n" * 5_000))
    lines = cafe.messages()[0].splitlines()
    assert lines[1] == "5,000 rows left out:"
    assert len(lines) == 2 + 20 + 1
    assert lines[-1] == "and 4,980 more"


def test_the_last_row_of_a_repeated_bean_counts_and_earlier_rows_are_named(cafe: Cafe) -> None:
    cafe.receive(cafe.upload("A,t,p,1,d,1\nA,t,q,1,d,x\nA,t,p,2,e,2\nA,t,r,1,d,3\n"))
    assert cafe.inventory() == [("A", "t", "p", "2", "e", 2), ("A", "t", "r", "1", "d", 3)]
    assert cafe.messages()[0].splitlines()[:3] == [
        "2 rows imported: 2 new, 0 updated, 0 unchanged.",
        "2 rows left out:",
        "- line 2: line 4 has the same bean and replaces this row",
    ]


def test_a_large_inventory_is_imported_completely_and_an_unchanged_one_uses_no_ids(cafe: Cafe) -> None:
    rows = "".join(f"S{n % 7},t,p{n},1,d,{n}\n" for n in range(2_500))
    for _ in range(3):
        cafe.receive(cafe.upload(rows))
    assert cafe.query("SELECT COUNT(*), SUM(quantity) FROM beans") == [(2_500, 2_499 * 2_500 // 2)]
    cafe.receive(cafe.upload("A,t,new,1,d,1\n"))
    assert cafe.query("SELECT MAX(id) - MIN(id) < 5000 FROM beans") == [(1,)]


def test_keys_as_long_as_s3_allows_have_their_own_entries(cafe: Cafe) -> None:
    for last in "12":
        key = "inventory/" + "é" * 500 + f"{last:>10}.csv"
        assert len(key.encode()) == 1_024
        cafe.receive(cafe.upload("A,t,p,1,d,1\n", key=key))
    assert len(cafe.published) == 2


# --- Names that differ only in spaces and invisible characters

NBSP = "Caf\u00e9\u00a0Azul"
UNFOLDED = [NBSP, "Cafe\u0301 Azul", "Caf\u00e9\u200b Azul", " Caf\u00e9 Azul", "Caf\u00e9  Azul", "Caf\u00e9 Azul "]


def store(cafe: Cafe, *beans: tuple[str, str, str]) -> None:
    """Stores beans with these suppliers, types and product names, as another program would."""
    for supplier, type_, product in beans:
        cafe.query("INSERT IGNORE INTO suppliers (name) VALUES (%s)", supplier)
        insert = "INSERT INTO beans (supplier_id, type, product_name, quantity) SELECT id, %s, %s, 1 FROM suppliers"
        cafe.query(f"{insert} WHERE name = %s", type_, product, supplier)


@pytest.mark.parametrize("name", UNFOLDED)
def test_a_stored_name_that_differs_only_in_invisible_characters_is_found_and_kept(cafe: Cafe, name: str) -> None:
    store(cafe, (name, "a", "b"), ("Folded", name, name), ("Other", name, name))
    cafe.receive(cafe.upload("Café Azul,a,b,,,7\nCafé Azul,new \u00a0 type,c,,,8\nFolded,Café Azul,Café Azul,,,9\n"))
    assert {(*row[:3], row[5]) for row in cafe.inventory()} == {
        *((name, "a", "b", 7), (name, "new type", "c", 8), ("Folded", name, name, 9), ("Other", name, name, 1))
    }
    assert cafe.query("SELECT COUNT(*) FROM suppliers") == [(3,)]
    assert cafe.messages() == ["3 rows imported: 1 new, 2 updated, 0 unchanged."]


@pytest.mark.parametrize("other", ["Caf\u00e9 Azul", "Caf\u00e9\u2003Azul"], ids=["folded", "unfolded"])
def test_a_row_that_fits_two_stored_names_is_bad_and_names_both(cafe: Cafe, other: str) -> None:
    beans = [("A", "t", NBSP), ("A", "t", other), ("A", other, "p"), ("A", NBSP, "q")]
    store(cafe, *beans, (NBSP, "t", "p"), (other, "t", "q"))
    rows = ["A,t,Café Azul", "Café Azul,t,p", "Café Azul,t,new", "A,Café Azul,p", "A,Café Azul,q"]
    before = cafe.inventory()
    cafe.receive(cafe.upload("".join(f"{row},,,5\n" for row in rows)))
    assert [(*row[:3], row[5]) for row in cafe.inventory()] == [
        (*row[:3], 5 if row[2] in "pq" and row[0] == "A" else 1) for row in before
    ]
    text, count, *bad = cafe.messages()[0].splitlines()
    assert text == "2 rows imported: 0 new, 2 updated, 0 unchanged."
    assert count == "3 rows left out:"
    shown = sorted(each.replace("\u2003", "\\u2003").replace("\u00a0", "\\u00a0") for each in (NBSP, other))
    for line, thing, prefix in ((2, "bean", "t "), (3, "supplier", ""), (4, "supplier", "")):
        [row] = [each for each in bad if each.startswith(f"- line {line}: ")]
        assert f"the stock has two such {thing}s, " in row
        assert all(f"'{prefix}{each}' (" in row for each in shown)


def test_the_functions_user_may_match_names(cafe: Cafe) -> None:
    store(cafe, ("A", "t", NBSP), ("A", "t", UNFOLDED[4]), (NBSP, "t", "p"))
    user = replace(cafe.database, user=cafe.database.name, password="functions")
    with cafe.connect() as connection:
        grant_access(connection, user)
    try:
        functions = Cafe(user)
        functions.receive(functions.upload("A,t,Café Azul,,,5\nCafé Azul,t,p,,,5\n"))
    finally:
        cafe.query(f"DROP USER '{user.user}'@'%%'")
    assert functions.messages()[0].startswith("1 row imported: 0 new, 1 updated, 0 unchanged.\n1 row left out:")


def test_unused_columns_and_rows_that_a_report_cannot_bring_back_are_named(cafe: Cafe) -> None:
    cafe.receive(cafe.upload("0,A,t,p,1,d,1,x\n1,A,t,q,1,d,1,\n", header="," + HEADER.strip() + ",Lager\u200bort\n"))
    (sent,) = cafe.published
    assert sent.facts["unusedColumns"] == [{"position": 1, "name": ""}, {"position": 8, "name": "Lagerort"}]
    assert cafe.messages()[0].splitlines()[1] == "Columns that were not used: column 1 without a name, 'Lagerort'."
    header = "supplier_id;supplier;bean_id;type;product_name;price;quantity;description\n"
    cafe.receive(cafe.upload("1;A;1;t;p;1;5;'=d\n;;2;t;q;1;5;d\n1;A;3;t;r;1;;d\n", header=header))
    assert cafe.inventory() == [("A", "t", "p", "1", "=d", 5), ("A", "t", "q", "1", "d", 1)]
    assert cafe.messages()[1].splitlines()[2:] == [
        *("2 rows left out:", "- line 3: supplier is empty", "- line 4: quantity is empty")
    ]


# --- Rejected files


def test_a_file_with_a_malformed_last_line_changes_nothing(cafe: Cafe) -> None:
    rows = "".join(f"A,t,p{n},1,d,1\n" for n in range(1_500))
    cafe.receive(cafe.upload((HEADER + rows + "Café").encode("latin-1")))
    assert cafe.inventory() == []
    assert cafe.published[0].subject == f"Upload: not imported ({KEY})"
    assert cafe.messages()[0].startswith(
        "Nothing was imported: line 1,502 is not in UTF-8 (byte 4 of the line is 0xE9): the file looks like Windows"
    )
    facts = {"key": KEY, "outcome": "notImported", "looksLike": "cp1252", "cells": ["Café"]}
    assert facts.items() <= cafe.published[0].facts.items()


# --- Events that arrive twice, late or out of order


def test_an_unannounced_import_is_announced_before_the_next_import_of_its_key(cafe: Cafe) -> None:
    with pytest.raises(Unavailable):
        cafe.receive(cafe.upload("A,t,p,1,d,1\n"), publish=down)
    cafe.receive(cafe.upload("A,t,p,1,d,2\n"))
    assert [sent.key for sent in cafe.published] == [f"upload/{KEY}/1", f"upload/{KEY}/2"]


@pytest.mark.parametrize(("first", "second"), [("0F", "010"), ("010", "0F")])
def test_the_current_object_is_imported_once_whatever_the_lengths_of_the_sequencers(
    cafe: Cafe, first: str, second: str
) -> None:
    """AWS's pages disagree on which of the two sequencers is older."""
    events = []
    for sequencer, quantity in ((first, 1), (second, 22)):
        size = cafe.upload(f"A,t,p,1,d,{quantity}\n")["s3"]["object"]["size"]
        events += s3_event("uploads", KEY, str(size), sequencer, size)["Records"]
        cafe.receive(events[-1])
    assert [row[5] for row in cafe.inventory()] == [22]
    cafe.query("UPDATE beans SET quantity = 3")
    cafe.receive(*events, *events)
    assert [row[5] for row in cafe.inventory()] == [3]
    assert len(cafe.published) == 2


def test_simultaneous_deliveries_of_one_event_import_and_announce_it_once(cafe: Cafe) -> None:
    record = cafe.upload("".join(f"A,t,p{n},1,d,1\n" for n in range(500)))
    at_once(cafe.receive, record, times=6)
    assert cafe.messages() == ["500 rows imported: 500 new, 0 updated, 0 unchanged."]


def test_simultaneous_imports_of_the_same_beans_wait_for_each_other(cafe: Cafe) -> None:
    rows = [f"S{n % 40:02},t,p{n},1,d," for n in range(800)]
    files = [
        cafe.upload("".join(f"{row}{n}\n" for row in (rows if n % 2 else reversed(rows))), key=f"inventory/{n}.csv")
        for n in range(6)
    ]
    at_once(cafe.receive, *files, times=6)
    assert len(cafe.published) == 6
    assert cafe.query("SELECT COUNT(*), COUNT(DISTINCT quantity), COUNT(DISTINCT supplier_id) FROM beans") == [
        (800, 1, 40)
    ]


def test_simultaneous_imports_of_new_suppliers_do_not_block_each_other(cafe: Cafe) -> None:
    files = [
        cafe.upload("".join(f"S{n} {m},t,p{m % 50},1,d,1\n" for m in range(400)), key=f"inventory/{n}.csv")
        for n in range(6)
    ]
    at_once(cafe.receive, *files, times=6)
    assert cafe.query("SELECT COUNT(*) FROM beans") == [(2_400,)]


def test_an_import_deletes_the_expired_records_of_another_import_and_no_others(cafe: Cafe) -> None:
    for name in ("old", "new", "last"):
        cafe.receive(cafe.upload(f"{name},t,p,1,d,1\n", key=f"inventory/{name}.csv"))
        for table in ("upload_changes", "upload_suppliers"):
            if name == "old":
                cafe.query(f"UPDATE {table} SET imported_at = NOW() - INTERVAL 91 DAY")
            elif name == "new":
                cafe.query(f"UPDATE {table} SET imported_at = NOW() - INTERVAL 89 DAY")
    assert cafe.query("SELECT supplier_name FROM upload_changes ORDER BY supplier_name") == [("last",), ("new",)]
    assert cafe.query("SELECT COUNT(*) FROM upload_suppliers") == [(2,)]


def test_an_import_locks_only_its_own_suppliers_and_beans(cafe: Cafe) -> None:
    cafe.lock_seconds = 1
    rows = [f"S{n % 40:02},t,p{n},1,d,{n}\n" for n in range(400)]
    cafe.receive(cafe.upload("".join(rows)))
    with cafe.connect() as holder, holder.cursor() as cursor:
        cursor.execute("SELECT * FROM suppliers JOIN beans ON supplier_id = suppliers.id WHERE name = 'S07' FOR UPDATE")
        cafe.receive(cafe.upload("".join(row for row in rows if not row.startswith("S07"))))
    assert cafe.messages()[1] == "390 rows imported: 0 new, 0 updated, 390 unchanged."


# --- another system's tables ------------------------------------------------------------------------------------------


@pytest.fixture(params=["utf8mb4", "latin1"])
def elsewhere(request: pytest.FixtureRequest, empty_database: Database) -> Cafe:
    """Returns the uploads flow on tables of another system with a case-insensitive collation."""
    cafe = Cafe(empty_database)
    for statement in split(LOOSE_TABLES.format(charset=request.param)):
        cafe.query(statement)
    cafe.query("INSERT INTO suppliers (name, city) VALUES ('Hill', 'Peebles'), (NULL, NULL)")
    cafe.query(
        "INSERT INTO beans (supplier_id, type, product_name, quantity) VALUES (1, 'arabica', 'Café', 3), (9, '', '', 1)"
    )
    with cafe.connect() as connection:
        assert migrate(connection)["missing"] == []
    return cafe


def test_an_upload_is_imported_into_tables_that_already_existed(elsewhere: Cafe) -> None:
    record = elsewhere.upload("Hill,arabica,Café,1,d,7\nHill,arabica,Huila,1,d,8\nDale,robusta,Sul,2,,9\n")
    elsewhere.receive(record)
    elsewhere.receive(record)
    assert elsewhere.messages() == ["3 rows imported: 2 new, 1 updated, 0 unchanged."]
    assert {row[:3] + row[5:] for row in elsewhere.inventory()} == {
        ("Hill", "arabica", "Café", 7),
        ("Hill", "arabica", "Huila", 8),
        ("Dale", "robusta", "Sul", 9),
    }
    assert elsewhere.query("SELECT COUNT(*), MAX(city) FROM suppliers") == [(3, "Peebles")]


def test_names_are_folded_in_such_tables_too(elsewhere: Cafe) -> None:
    elsewhere.query("UPDATE suppliers SET name = ' Hill\u00a0Side' WHERE id = 1")
    elsewhere.query("UPDATE beans SET product_name = 'Caf\u00e9  Azul' WHERE id = 1")
    elsewhere.receive(elsewhere.upload("Hill Side,arabica,Café Azul,1,d,7\n"))
    assert elsewhere.messages() == ["1 row imported: 0 new, 1 updated, 0 unchanged."]


@pytest.mark.parametrize("row", ["hill,arabica,Huila,1,d,8\n", "Hill,Arabica,Café,1,d,8\n"], ids=["supplier", "bean"])
def test_two_spellings_that_such_tables_do_not_distinguish_stop_the_import_without_changes(
    elsewhere: Cafe, row: str
) -> None:
    record = elsewhere.upload("Dale,robusta,Sul,2,,9\n" + row)
    with pytest.raises(DatabaseRefused, match=r"'hill' as another spelling of a stored name|Duplicate entry"):
        elsewhere.receive(record)
    assert elsewhere.published == []
    assert [row[0] for row in elsewhere.inventory()] == ["Hill"]
