"""``python -m benchmarks.uploads`` compares the import of 500,000 plain rows with the import of an older commit.

Both sides read the same file into the same MySQL tables, in turns. The first import of the rows is compared, and a
repeated one.
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
ROWS = 500_000
ROW = 'Supplier {supplier},Arabica,Bean {row},{price}.50,"Cocoa, toasted almond and a long finish",{row}\n'
# Either version of the code runs this, and prints the seconds.
WORK = """
import json, logging, sys, time
from chalicelib import clients, settings
from chalicelib.uploads import importing, rows
work, path, database = sys.argv[1:]
with clients.mysql(settings.Database(**json.loads(database))) as connection, connection.cursor() as cursor:
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    with open(path, "rb") as file:
        began = time.perf_counter()
        found = rows.read_rows(iter(lambda: file.read(262_144), b""))
        count = sum(1 for _ in found) if work == "read" else importing.import_rows(cursor, found).good
    connection.commit() if work == "fill" else connection.rollback()
    print(count, time.perf_counter() - began)
"""


def main() -> None:
    logging.disable(logging.INFO)
    print(page.HEAD)
    with TemporaryDirectory() as before, own_database() as database:
        subprocess.run(f"git archive {BEFORE} chalicelib | tar -x -C {before}", shell=True, check=True, cwd=ROOT)
        file = Path(before) / "inventory.csv"
        rows = (ROW.format(supplier=row % 1_000, row=row, price=row % 30) for row in range(ROWS))
        file.write_text("".join(["supplier_name,type,product_name,price,description,quantity\n", *rows]))

        def seconds(code: str | Path, work: str) -> float:
            command = [sys.executable, "-c", WORK, work, str(file), json.dumps(vars(database))]
            environment = {**os.environ, "PYTHONPATH": str(code)}
            done = subprocess.run(command, cwd=code, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            count, time = done.stdout.split()[-2:]
            if int(count) != ROWS:
                raise AssertionError(f"{work}: {count} rows instead of {ROWS}")
            return float(time)

        for name, work in (("reading", "read"), ("importing new", "new"), ("importing unchanged", "same")):
            if work == "same":
                seconds(ROOT, "fill")
            ours, peers = partial(seconds, ROOT, work), partial(seconds, before, work)
            print(page.line(in_turns(f"{name}, {ROWS:,} rows", ours, f"commit {BEFORE}", peers, 1.0, 3)), flush=True)


if __name__ == "__main__":
    main()
