"""Stands in for DynamoDB: stores items, and answers each call after a delay. Any number of calls can wait at once."""

from __future__ import annotations

import json
import multiprocessing
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.cloud import selected

# AWS promises single-digit milliseconds for DynamoDB.
SECONDS = 0.005

Item = dict[str, Any]
# Maps each table's name to its items by their ids. A table exists as soon as it is used.
tables: dict[str, dict[str, Item]] = defaultdict(dict)


def put(table: str, item: Item) -> bool:
    """Stores ``item`` and returns True, or returns False if the table has an item with the same id."""
    return tables[table].setdefault(item["orderID"]["S"], item) is item


def insert(statement: Item) -> Item:
    table, *names = re.findall(r"""INSERT INTO "(\w+)"|'(\w+)': \?""", statement["Statement"])
    item = dict(zip((name for _, name in names), statement["Parameters"], strict=True))
    return {} if put(table[0], item) else {"Error": {"Code": "DuplicateItem"}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        due = time.monotonic() + SECONDS
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = 200, Item()
        match self.headers["X-Amz-Target"].rpartition(".")[2]:
            case "PutItem":
                if not put(given["TableName"], given["Item"]):
                    status, answer = 400, {"__type": "ConditionalCheckFailedException"}
            case "BatchExecuteStatement":
                answer = {"Responses": [insert(each) for each in given["Statements"]]}
            case "Scan":
                answer = {"Items": list(tables[given["TableName"]].values())}
        body = json.dumps(answer).encode()
        time.sleep(max(0, due - time.monotonic()))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def stand_in() -> Iterator[None]:
    """Runs the stand-in in a process of its own, and selects it as ``selected`` does."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        process = multiprocessing.get_context("fork").Process(target=server.serve_forever)
        process.start()
        try:
            with selected(f"http://127.0.0.1:{server.server_port}"):
                yield
        finally:
            process.terminate()
            process.join()
