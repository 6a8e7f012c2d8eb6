"""Compares the project's inventory report with a plain function that writes the same CSV file and web page to S3.

The plain function holds the whole inventory in memory. The plain function uses PyMySQL's default cursor and
``fetchall``, one ``csv.writer`` and one ``render`` of the same template. A loop computes the totals, a sort finds the
lowest stock, and one ``put_object`` call writes each file. In the project, two functions create the report. The second
function reads the CSV file that the first function wrote.
"""

from __future__ import annotations

import csv
import gc
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
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.cloud import empty_cloud
from benchmarks.compare import ROUNDS, compare
from benchmarks.results import Point, Result
from chalicelib import clients, settings
from chalicelib.database import migrate
from chalicelib.reports import inventory, prices, render, report_key, texts
from chalicelib.reports.comparison import Comparison
from chalicelib.timeline import timestamp
from local.database import Database
from local.processes import free_ports

BUCKET = "reports"
QUERY = f"""SELECT {", ".join(inventory.COLUMNS.values())}
    FROM beans LEFT JOIN suppliers ON suppliers.id = beans.supplier_id ORDER BY beans.id"""
PEER = "fetchall, one render, one put_object each"
SUPPLIERS = 1_000
MOMENT = datetime(2026, 11, 21, 3, 14, 15, tzinfo=UTC)
GENERATED_AT = timestamp(MOMENT)
LINK_SECONDS = 3_600
# A large inventory may need up to 20 % more memory than a small inventory, because measurements vary.
SAME_MEMORY = 1 / 1.2
MOST_MEMORY = 128
parse_price = lru_cache(10_000)(prices.parse_price)
# A cell that starts with one of these characters could be a formula in a spreadsheet.
FORMULA_STARTS = frozenset("=+-@＝＋－＠\t\r\n'")


def run() -> Iterator[Result]:
    # Logging is disabled, because log records would appear between the lines of the printed table.
    logging.disable(logging.INFO)
    with empty_cloud(), own_database() as database:
        clients.aws("s3").create_bucket(Bucket=BUCKET)
        # Memory is measured first, because on Linux a new process inherits its parent's peak memory.
        fill(database, 10_000)
        small = [_peak(_read, database), _peak(_render)]
        fill(database, 1_000_000)
        large = [_peak(_read, database), _peak(_render)]
        for name, few, many in zip(("read_inventory", "render_report"), small, large, strict=True):
            ours, peers = Point("MB", name, 1_000_000, many), Point("MB", name, 10_000, few)
            yield _memory(ours, "the same with 10,000 rows", peers, SAME_MEMORY)
        ours = Point("MB", "either function", 1_000_000, max(large))
        yield _memory(ours, PEER, Point("MB", PEER, 1_000_000, _peak(_plain, database)), 1.0)
        limit = Point("MB", "limit", 1_000_000, MOST_MEMORY)
        yield replace(_memory(ours, "limit", limit, 1.0), points=())
        # None of these reports has a previous report, so neither side compares anything.
        for beans, rounds, goal in ((1_000, ROUNDS, 0.9), (10_000, ROUNDS, 1.0), (100_000, ROUNDS, 3.0)):
            fill(database, beans)
            yield _compared(database, beans, rounds, goal)
        fill(database, 1_000_000)
        yield _compared(database, 1_000_000, 2, 3.0)


def _memory(ours: Point, peer: str, peers: Point, goal: float) -> Result:
    """Compares the peak memory of two processes."""
    return Result(
        f"{ours.curve}, {ours.size:,} rows, peak memory",
        f"{ours.value:.0f} MB",
        peer,
        f"{peers.value:.0f} MB",
        peers.value / ours.value,
        goal,
        points=(ours, peers),
    )


def _compared(database: settings.Database, beans: int, rounds: int, goal: float) -> Result:
    def ours() -> int:
        threshold = gc.get_threshold()
        gc.set_threshold(settings.GARBAGE_THRESHOLD)
        rows = _read(database)
        _render()
        gc.set_threshold(*threshold)
        return rows

    result = compare(f"inventory report, {beans:,} rows", ours, PEER, lambda: _plain(database), goal, rounds, beans)
    if _files("ours") != _files("peer"):
        raise AssertionError(f"{result.work}: our code and the peer wrote different files")
    return result


def _files(report_id: str) -> list[bytes]:
    """Returns the CSV file of a report, and its web page without the report id and the link signature."""
    keys = (f"inventory/{report_id}/inventory.csv", report_key("inventory", report_id))
    bodies = [clients.aws("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys]
    return [re.sub(rb"X-Amz-[^\"]*", b"", body).replace(report_id.encode(), b"id") for body in bodies]


def _read(database: settings.Database) -> int:
    with clients.mysql(database) as connection:
        answer = inventory.read_inventory(connection, clients.aws("s3"), BUCKET, "ours", MOMENT)
    rows: int = answer["rows"]
    return rows


def _render() -> None:
    event = {"reportId": "ours", "csvKey": "inventory/ours/inventory.csv", "generatedAt": GENERATED_AT}
    render.render_report(event, s3=clients.aws("s3"), bucket=BUCKET, low_stock=settings.LOW_STOCK)


def _plain(database: settings.Database) -> int:
    s3, key = clients.aws("s3"), "inventory/peer/inventory.csv"
    with clients.mysql(database) as connection, connection.cursor() as cursor:
        cursor.execute(QUERY)
        rows = cursor.fetchall()
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(inventory.COLUMNS)
    writer.writerows([[_neutralized(cell) for cell in row] for row in rows])
    body = ("\ufeff" + text.getvalue()).encode()
    s3.put_object(Bucket=BUCKET, Key=key, Body=body, ContentType="text/csv; charset=utf-8")
    link = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": key}, ExpiresIn=LINK_SECONDS)
    page = render.Page("peer", GENERATED_AT, link, len(body), Comparison(s3, BUCKET, None, settings.LOW_STOCK))
    html = render._environment().get_template("inventory.html").render(summary=_summary(rows), page=page)
    s3.put_object(
        Bucket=BUCKET, Key=report_key("inventory", "peer"), Body=html.encode(), ContentType="text/html; charset=utf-8"
    )
    return len(rows)


def _neutralized(cell: Any) -> Any:
    return "'" + cell if isinstance(cell, str) and cell and cell[0] in FORMULA_STARTS else cell


def _summary(rows: tuple[tuple[Any, ...], ...]) -> render.Summary:
    summary = render.Summary(settings.LOW_STOCK, len(rows))
    stock: dict[str, int] = defaultdict(int)
    for row in rows:
        amount, quantity = parse_price(row[9] or ""), row[10] or 0
        summary.quantity += quantity
        summary.uncounted += row[10] is None
        summary.low += summary.is_low(row[10])
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
        cells = render.Row._make(texts.plain("" if cell is None else str(cell)) for cell in row)
        bean = render.Bean(cells, parse_price(cells.price), row[10])
        groups[cells.supplier_id].append(bean)
        if summary.is_low(bean.quantity) and len(summary.neediest) < render.LOW_STOCK_SHOWN:
            summary.neediest.append(bean)
    summary.suppliers = len(stock) - (render.NO_SUPPLIER in stock)
    summary.bars = render._bars(stock)
    summary.groups = sorted(groups.values(), key=lambda group: render._by_name(group[0].row))
    return summary


def _peak(work: Callable[..., object], *database: settings.Database) -> float:
    """Returns the peak memory in MB of a new process that does ``work``, including Python and boto3."""
    arguments = json.dumps([vars(each) for each in database])
    command = [sys.executable, "-m", "benchmarks.inventory", work.__name__, arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _measure(name: str, arguments: str) -> None:
    globals()[name](*(settings.Database(**each) for each in json.loads(arguments)))
    print(_most_memory() / 1_000_000)


def _most_memory() -> int:
    """Returns this process's peak memory in bytes. On Linux, ``getrusage`` would include the parent process's peak."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextmanager
def own_database() -> Iterator[settings.Database]:
    """Starts a separate MariaDB server with the project's tables."""
    [port] = free_ports(1)
    with TemporaryDirectory() as folder:
        server = Database(Path(folder), port)
        if not server.installed:
            server.install()
        server.create_passwords()
        server.start()
        try:
            server.recreate()
            functions, admin = server.secrets.values()
            database = settings.Database.of_secret(functions).logged_in(admin)
            with clients.mysql(database) as connection:
                migrate(connection)
            yield database
        finally:
            server.stop()


def fill(database: settings.Database, beans: int) -> None:
    """Replaces the inventory with ``beans`` generated beans."""
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
