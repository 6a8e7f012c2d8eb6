"""``python -m benchmarks.uploads`` compares reading and importing plain rows with the code of an older commit.

The older code records nothing for an undo. Both sides use the same file and the same MySQL tables, in turns. The first
import of the rows is compared, and an import that changes nothing.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import page
from benchmarks.compare import in_turns
from benchmarks.inventory import own_database

ROOT = Path(__file__).parents[1]
BEFORE = "1cd2b4e"
# An import of 100,000 new rows is the largest that can be undone.
ROWS = {"read": 500_000, "new": 100_000, "fill": 100_000, "same": 100_000}
HEADER = "supplier_name,type,product_name,price,description,quantity\n"
ROW = 'Supplier {supplier},Arabica,Bean {row},{price}.50,"Cocoa, toasted almond and a long finish",{row}\n'
# Either version of the code runs this, and prints the seconds.
WORK = """
import json, logging, sys, time
from chalicelib import clients, settings
from chalicelib.uploads import importing, rows
work, path, database = sys.argv[1:]
def imported(cursor, found):
    if hasattr(importing, "import_rows"):
        return importing.import_rows(cursor, found)
    return importing.import_staged(cursor, importing.stage(cursor, found, lock=True), "0" * 12)
with clients.mysql(settings.Database(**json.loads(database))) as connection, connection.cursor() as cursor:
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    with open(path, "rb") as file:
        began = time.perf_counter()
        found = rows.read_rows(iter(lambda: file.read(262_144), b""))
        count = sum(1 for _ in found) if work == "read" else imported(cursor, found).good
    connection.commit() if work == "fill" else connection.rollback()
    print(count, time.perf_counter() - began)
"""


def main() -> None:
    logging.disable(logging.INFO)
    print(page.HEAD)
    with TemporaryDirectory() as before, own_database() as database:
        subprocess.run(f"git archive {BEFORE} chalicelib | tar -x -C {before}", shell=True, check=True, cwd=ROOT)
        rows = [ROW.format(supplier=row % 1_000, row=row, price=row % 30) for row in range(max(ROWS.values()))]

        def seconds(code: str | Path, work: str) -> float:
            file = Path(before) / "inventory.csv"
            file.write_text("".join([HEADER, *rows[: ROWS[work]]]))
            command = [sys.executable, "-c", WORK, work, str(file), json.dumps(vars(database))]
            environment = {**os.environ, "PYTHONPATH": str(code)}
            done = subprocess.run(command, cwd=code, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            count, time = done.stdout.split()[-2:]
            if int(count) != ROWS[work]:
                raise AssertionError(f"{work}: {count} rows instead of {ROWS[work]}")
            return float(time)

        for name, work, goal in (
            ("reading", "read", 1.0),
            ("importing new", "new", 0.67),
            ("importing unchanged", "same", 0.67),
        ):
            if work == "same":
                seconds(ROOT, "fill")
            ours, peers = partial(seconds, ROOT, work), partial(seconds, before, work)
            print(
                page.line(in_turns(f"{name}, {ROWS[work]:,} rows", ours, f"commit {BEFORE}", peers, goal, 3)),
                flush=True,
            )


if __name__ == "__main__":
    main()
