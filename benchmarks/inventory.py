"""The inventory report's two functions, against the plain way to write each, and their memory at a million rows.

The plain way keeps all rows in memory: PyMySQL's default cursor and one ``put_object``, or a list of dictionaries.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.cloud import empty_cloud
from benchmarks.compare import Row, compare
from chalicelib import clients, settings
from chalicelib.reports import inventory, render
from local.database import Database
from local.processes import free_ports

BUCKET = "reports"
READ_PEER = "PyMySQL's default cursor"
RENDER_PEER = "csv.DictReader, totals only"
SUPPLIERS = 1_000


@dataclass(frozen=True)
class Peak:
    """A line of the table for memory: of each, the most that a process of its own held."""

    work: str
    ours: float
    peer: str
    peers: float

    def __str__(self) -> str:
        return (
            f"| {self.work}, peak memory | {self.ours:.0f} MB | {self.peer} | {self.peers:.0f} MB "
            f"| {self.peers / self.ours:.2f} | | |"
        )


def run() -> Iterator[Row | Peak]:
    # The functions' own records would stand between the lines of the table.
    logging.disable(logging.INFO)
    with empty_cloud(), _database() as database:
        clients.aws("s3").create_bucket(Bucket=BUCKET)
        # Memory first: on Linux a new process inherits the peak of the one that starts it.
        _fill(database, 1_000_000)
        yield Peak("read_inventory, 1,000,000 rows", _peak(_read, database), READ_PEER, _peak(_read_all, database))
        yield Peak("render_report, 1,000,000 rows", _peak(_render), RENDER_PEER, _peak(_render_all))
        _fill(database, 100_000)
        yield compare(
            "read_inventory, 100,000 rows", lambda: _read(database), READ_PEER, lambda: _read_all(database), 1.0
        )
        yield compare("render_report, 100,000 rows", _render, RENDER_PEER, _render_all, 1.0)


def _read(database: settings.Database) -> int:
    with clients.mysql(database) as connection:
        answer = inventory.read_inventory(connection, clients.aws("s3"), BUCKET, "ours", datetime.now(UTC))
    rows: int = answer["rows"]
    return rows


def _read_all(database: settings.Database) -> int:
    with clients.mysql(database) as connection, connection.cursor() as cursor:
        cursor.execute(inventory.QUERY)
        rows = cursor.fetchall()
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(inventory.COLUMNS)
    writer.writerows(rows)
    clients.aws("s3").put_object(Bucket=BUCKET, Key="peer.csv", Body=text.getvalue().encode())
    return len(rows)


def _render() -> tuple[int, int, int]:
    answer = render.render_report(
        clients.aws("s3"), BUCKET, "ours", "inventory/ours/inventory.csv", "2026-11-21T03:14:15.123456Z", "MySQL", 3600
    )
    return answer["rows"], answer["suppliers"], answer["quantity"]


def _render_all() -> tuple[int, int, int]:
    body = clients.aws("s3").get_object(Bucket=BUCKET, Key="inventory/ours/inventory.csv")["Body"].read()
    rows = list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline="")))
    suppliers = {row["supplier_id"] for row in rows}
    return len(rows), len(suppliers), sum(int(row["quantity"]) for row in rows)


def _peak(work: Callable[..., object], *database: settings.Database) -> float:
    """The most megabytes that a new process needs for ``work``, Python and boto3 included."""
    arguments = json.dumps([vars(each) for each in database])
    command = [sys.executable, "-m", "benchmarks.inventory", work.__name__, arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _measure(name: str, arguments: str) -> None:
    globals()[name](*(settings.Database(**each) for each in json.loads(arguments)))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in kilobytes, macOS in bytes.
    print(most / (1_000_000 if sys.platform == "darwin" else 1_000))


@contextmanager
def _database() -> Iterator[settings.Database]:
    """A MariaDB of the benchmark's own, with the project's tables."""
    [port] = free_ports(1)
    with TemporaryDirectory() as folder:
        server = Database(Path(folder), port)
        if not server.installed:
            server.install()
        server.prepare()
        server.start()
        try:
            server.fill()
            known = server.variables
            yield settings.Database(
                known["DB_HOST"], port, known["DB_NAME"], known["DB_ADMIN_USER"], known["DB_ADMIN_PASSWORD"]
            )
        finally:
            server.stop()


def _fill(database: settings.Database, beans: int) -> None:
    statements = [
        "DELETE FROM beans",
        "DELETE FROM suppliers",
        f"""INSERT INTO suppliers (id, name, city, state, email, phone)
            SELECT seq, CONCAT('Supplier ', seq), 'Portland', 'OR', CONCAT('orders', seq, '@example.com'), '+1 555 0100'
            FROM seq_1_to_{SUPPLIERS}""",
        f"""INSERT INTO beans (supplier_id, type, product_name, price, description, quantity)
            SELECT 1 + seq % {SUPPLIERS}, ELT(1 + seq % 3, 'Arabica', 'Robusta', 'Liberica'), CONCAT('Bean ', seq),
            ROUND(6 + seq * 7919 % 3600 / 100, 2), 'Cocoa, toasted almond and a long finish', seq * 7919 % 400
            FROM seq_1_to_{beans}""",
    ]
    with clients.mysql(database) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        connection.commit()


if __name__ == "__main__":
    _measure(*sys.argv[1:])
