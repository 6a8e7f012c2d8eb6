"""Tests uploads (flow 3) from the bucket to the inbox.

The function receive_upload writes to CloudWatch Logs and MySQL, and publishes to SNS.
"""

from __future__ import annotations

import json

import pytest

from tests.system.events import s3_event
from tests.system.inventory import HEADER, stock
from tests.system.system import System, logged, new_id


def key(suffix: str = ".csv", folder: str = "inventory") -> str:
    return f"{folder}/{new_id('u')}{suffix}"


def test_an_inventory_is_logged_imported_and_announced_with_its_bad_rows(system: System) -> None:
    name, rows = new_id("Supplier"), "{0},Arabica,Good,12.50,,5\n{0},Arabica,Bad,1,,-5\n{0},Arabica,Worse,1,,many\n"
    uploaded = system.upload(key(), HEADER + rows.format(name))
    entry = system.notification(uploaded, "upload")
    assert stock(system, name) == {"Good": 5}
    assert "line 3" in entry["message"]
    assert "line 4" in entry["message"]
    counts = {"new": 1, "updated": 0, "unchanged": 0, "bad": 2}
    form = {"encoding": "utf-8", "delimiter": ",", "unusedColumns": []}
    assert {"key": uploaded, "outcome": "imported", **counts, **form, "undoable": True}.items() <= entry[
        "facts"
    ].items()
    assert logged(system, "receive_upload", uploaded)[0]["key"] == uploaded


@pytest.mark.parametrize("part", ["a+b 100% %2F über-漢字 a&b=c 'quoted'", "two\nlines \x07"])
def test_a_key_with_any_characters_is_found(system: System, part: str) -> None:
    name = new_id("Supplier")
    uploaded = system.upload(f"inventory/{name} {part}.csv", HEADER + f"{name},x,y,1,,3\n")
    # The notification shows unprintable characters as escape sequences.
    system.notification(uploaded if uploaded.isprintable() else json.dumps(uploaded), "upload")
    assert stock(system, name) == {"y": 3}


def test_a_malformed_inventory_is_refused_and_any_other_file_is_only_received(system: System) -> None:
    name = new_id("Bäcker")
    refused = system.upload(key(), HEADER.encode() + f"{name},x,y,1,,5\n".encode("latin-1"))
    assert "UTF-8" in system.notification(refused, "upload")["message"]
    assert stock(system, name) == {}
    received = system.upload(key(".jpg", "photos"), b"no picture")
    assert "received" in system.notification(received, "upload")["message"]


def test_an_object_deleted_before_it_is_read_is_announced_as_deleted(system: System) -> None:
    gone = key()
    system.call("receive_upload", s3_event(system.env["UPLOADS_BUCKET"], gone, "0" * 32))
    assert "deleted before it could be read" in system.notification(gone, "upload")["message"]
