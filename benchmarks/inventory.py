"""The inventory report, from MySQL to its CSV and its page in S3, against the obvious way to make the same two files.

The obvious way is one function that keeps everything in memory: PyMySQL's default cursor and ``fetchall``, one
``csv.writer`` over all rows, the totals in one loop, the lowest in stock by sorting all rows, one ``render`` of the
same template, and one ``put_object`` for each file. Ours are two functions, and the second reads the first one's file.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import resource
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.cloud import empty_cloud
from benchmarks.compare import ROUNDS, Row, compare
from chalicelib import clients, settings
from chalicelib.database import migrate
from chalicelib.reports import inventory, render, report_key
from chalicelib.timeline import timestamp
from local.database import Database
from local.processes import free_ports

BUCKET = "reports"
PEER = "fetchall, one render, one put_object each"
SUPPLIERS = 1_000
MOMENT = datetime(2026, 11, 21, 3, 14, 15, tzinfo=UTC)
GENERATED_AT = timestamp(MOMENT)
LINK_SECONDS = 3_600
# A larger inventory shall need as much memory as a small one, and 20 % are noise.
SAME_MEMORY = 1 / 1.2
FORMULA_STARTS = frozenset("=+-@＝＋－＠\t\r\n'")


@dataclass(frozen=True)
class Peak:
    """A line of the table for memory: of each, the most that a process of its own held."""

    work: str
    ours: float
    peer: str
    peers: float
    goal: float

    def __str__(self) -> str:
        return (
            f"| {self.work}, peak memory | {self.ours:.0f} MB | {self.peer} | {self.peers:.0f} MB "
            f"| {self.peers / self.ours:.2f} | | {self.goal:.2f} |"
        )


def run() -> Iterator[Row | Peak]:
    # The functions' own records would stand between the lines of the table.
    logging.disable(logging.INFO)
    with empty_cloud(), _database() as database:
        clients.aws("s3").create_bucket(Bucket=BUCKET)
        # Memory first: on Linux a new process inherits the peak of the one that starts it.
        _fill(database, 10_000)
        small = [_peak(_read, database), _peak(_render)]
        _fill(database, 1_000_000)
        large = [_peak(_read, database), _peak(_render)]
        for name, few, many in zip(("read_inventory", "render_report"), small, large, strict=True):
            yield Peak(f"{name}, 1,000,000 rows", many, "the same with 10,000", few, SAME_MEMORY)
        yield Peak("either function, 1,000,000 rows", max(large), PEER, _peak(_obvious, database), 1.0)
        # Twice at the very least, and three times because the query is still a plain SELECT.
        for beans, rounds, goal in ((1_000, ROUNDS, 1.0), (10_000, ROUNDS, 1.0), (100_000, ROUNDS, 3.0)):
            _fill(database, beans)
            yield _compared(database, beans, rounds, goal)
        _fill(database, 1_000_000)
        yield _compared(database, 1_000_000, 2, 1.0)


def _compared(database: settings.Database, beans: int, rounds: int, goal: float) -> Row:
    def ours() -> int:
        rows = _read(database)
        _render()
        return rows

    row = compare(f"inventory report, {beans:,} rows", ours, PEER, lambda: _obvious(database), goal, rounds)
    if _files("ours") != _files("peer"):
        raise AssertionError(f"{row.work}: the files of ours and of {PEER} differ")
    return row


def _files(report_id: str) -> list[bytes]:
    """A report's CSV, and its page without what is its own: its id, and the signature of its link."""
    keys = (f"inventory/{report_id}/inventory.csv", report_key("inventory", report_id))
    found = [clients.aws("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys]
    return [re.sub(rb"X-Amz-[^\"]*", b"", body).replace(report_id.encode(), b"id") for body in found]


def _read(database: settings.Database) -> int:
    with clients.mysql(database) as connection:
        answer = inventory.read_inventory(connection, clients.aws("s3"), BUCKET, "ours", MOMENT)
    rows: int = answer["rows"]
    return rows


def _render() -> None:
    event = {"reportId": "ours", "csvKey": "inventory/ours/inventory.csv", "generatedAt": GENERATED_AT}
    render.render_report(event, s3=clients.aws("s3"), bucket=BUCKET)


def _obvious(database: settings.Database) -> int:
    s3, key = clients.aws("s3"), "inventory/peer/inventory.csv"
    with clients.mysql(database) as connection, connection.cursor() as cursor:
        cursor.execute(inventory.QUERY)
        rows = cursor.fetchall()
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(inventory.COLUMNS)
    writer.writerows([[_neutral(cell) for cell in row] for row in rows])
    body = ("\ufeff" + text.getvalue()).encode()
    s3.put_object(Bucket=BUCKET, Key=key, Body=body, ContentType="text/csv; charset=utf-8")
    link = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": key}, ExpiresIn=LINK_SECONDS)
    page = render.Page("peer", GENERATED_AT, link, len(body), LINK_SECONDS)
    html = render._environment().get_template("inventory.html").render(summary=_summary(rows), page=page)
    s3.put_object(
        Bucket=BUCKET, Key=report_key("inventory", "peer"), Body=html.encode(), ContentType="text/html; charset=utf-8"
    )
    return len(rows)


def _neutral(cell: Any) -> Any:
    return "'" + cell if isinstance(cell, str) and cell and cell[0] in FORMULA_STARTS else cell


def _summary(rows: tuple[tuple[Any, ...], ...]) -> render.Summary:
    summary = render.Summary(beans=len(rows))
    stock: dict[str, int] = defaultdict(int)
    for row in rows:
        amount, quantity = render._amount(row[9] or ""), row[10] or 0
        summary.quantity += quantity
        summary.uncounted += row[10] is None
        summary.low += render.is_low(row[10])
        if amount is None:
            summary.unpriced += 1
        else:
            summary.value += amount * quantity
        stock[f"{row[0] or ''},{row[1] or ''}"] += quantity
    shown = sorted(rows, key=lambda row: (row[10] is None, row[10]))
    if len(shown) > render.WHOLE_INVENTORY:
        shown = shown[: render.NEEDIEST_SHOWN]
    groups: dict[str, list[render.Bean]] = defaultdict(list)
    for row in shown:
        cells = render.Row._make(render.plain("" if cell is None else str(cell)) for cell in row)
        bean = render.Bean(cells, render.parse_price(cells.price), row[10])
        groups[cells.supplier_id].append(bean)
        if render.is_low(bean.quantity) and len(summary.neediest) < render.LOW_STOCK_SHOWN:
            summary.neediest.append(bean)
    summary.suppliers = len(stock) - (render.NO_SUPPLIER in stock)
    summary.bars = render._bars(stock)
    summary.groups = sorted(groups.values(), key=lambda group: render._by_name(group[0].row))
    return summary


def _peak(work: Callable[..., object], *database: settings.Database) -> float:
    """The most megabytes that a new process needs for ``work``, Python and boto3 included."""
    arguments = json.dumps([vars(each) for each in database])
    command = [sys.executable, "-m", "benchmarks.inventory", work.__name__, arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _measure(name: str, arguments: str) -> None:
    globals()[name](*(settings.Database(**each) for each in json.loads(arguments)))
    print(_most_memory() / 1_000_000)


def _most_memory() -> int:
    """The bytes that this process held at most. Linux's rusage would have those of the process that started it too."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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
            server.empty()
            functions, admin = server.secrets.values()
            database = settings.Database.of_secret(functions).logged_in(admin)
            with clients.mysql(database) as connection:
                migrate(connection)
            yield database
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
