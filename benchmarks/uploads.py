"""``python -m benchmarks.uploads`` compares the import of 500,000 plain rows with the import of an older commit.

Both sides read the same file into the same MySQL tables, in turns.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import page
from benchmarks.compare import in_turns
from benchmarks.inventory import own_database
from benchmarks.results import Result
from chalicelib.settings import Database

ROOT = Path(__file__).parents[1]
BEFORE = "1cd2b4e"
ROWS = 500_000
ROUNDS = 3
# Runs with either version of the code, and prints the seconds.
WORK = """
import json, logging, sys, time
from chalicelib import clients, settings
from chalicelib.uploads import importing, rows
logging.disable(logging.INFO)
work, path, database = sys.argv[1:]
def chunks():
    with open(path, "rb") as file:
        while chunk := file.read(262_144):
            yield chunk
with clients.mysql(settings.Database(**json.loads(database))) as connection, connection.cursor() as cursor:
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    began = time.perf_counter()
    if work == "read":
        count = sum(1 for _ in rows.read_rows(chunks()))
    else:
        count = importing.import_rows(cursor, rows.read_rows(chunks())).good
        connection.commit() if work == "fill" else connection.rollback()
    print(count, time.perf_counter() - began)
"""


def run() -> Iterator[Result]:
    logging.disable(logging.INFO)
    with TemporaryDirectory() as folder, own_database() as database:
        subprocess.run(f"git archive {BEFORE} chalicelib | tar -x -C {folder}", shell=True, check=True, cwd=ROOT)
        file = Path(folder) / "inventory.csv"
        file.write_text("".join(_lines()))
        for work, name in (("read", "reading"), ("new", "importing new rows"), ("same", "importing unchanged rows")):
            if work == "same":
                _seconds(ROOT, "fill", file, database)
            ours = partial(_seconds, ROOT, work, file, database)
            peers = partial(_seconds, Path(folder), work, file, database)
            yield in_turns(f"{name}, {ROWS:,} rows", ours, f"commit {BEFORE}", peers, 1.0, ROUNDS)


def _lines() -> Iterator[str]:
    yield "supplier_name,type,product_name,price,description,quantity\n"
    for row in range(ROWS):
        kind = ("Arabica", "Robusta", "Liberica")[row % 3]
        price, text = f"{6 + row * 7919 % 3600 / 100:.2f}", '"Cocoa, toasted almond and a long finish"'
        yield f"Supplier {row % 1_000},{kind},Bean {row},{price},{text},{row * 7919 % 400}\n"


def _seconds(code: Path, work: str, file: Path, database: Database) -> float:
    command = [sys.executable, "-c", WORK, work, str(file), json.dumps(vars(database))]
    environment = {**os.environ, "PYTHONPATH": str(code)}
    done = subprocess.run(command, cwd=code, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    count, seconds = done.stdout.split()[-2:]
    if int(count) != ROWS:
        raise AssertionError(f"{work}: {count} rows instead of {ROWS}")
    return float(seconds)


if __name__ == "__main__":
    print(page.HEAD)
    for result in run():
        print(page.line(result), flush=True)
