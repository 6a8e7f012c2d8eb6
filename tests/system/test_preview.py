"""Tests previews, their application and undo against a real MariaDB server. Each test has its own database."""

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.errors import Unavailable
from chalicelib.rest import Page
from chalicelib.uploads import comparing
from chalicelib.uploads.records import Status, shown
from chalicelib.uploads.upload import Upload
from tests.system.events import Event
from tests.system.test_import import Cafe, cafe, down  # noqa: F401 - a fixture

KEY = "previews/2026-11-29-0123456789ab/may.csv"
ID = "0123456789ab"
STOCK = "A,t,p,1,d,7\nA,t,q,1,d,7\nB,t,p,1,d,7\n"


@pytest.fixture
def stocked(cafe: Cafe) -> Cafe:  # noqa: F811 - a fixture
    cafe.receive(cafe.upload(STOCK))
    return cafe


def preview(cafe: Cafe, rows: str, status: Status = Status.PREVIEWED) -> Event:  # noqa: F811
    record = cafe.upload(rows, key=KEY)
    cafe.receive(record)
    assert state(cafe)["status"] == status
    return record


def state(cafe: Cafe) -> dict[str, Any]:  # noqa: F811
    return shown(cafe.records.get(ID))


def changes(cafe: Cafe, kind: str) -> list[dict[str, Any]]:  # noqa: F811
    return comparing.shown(cafe.records.get(ID), Page(100, None, {"change": kind}), cafe, "reports")[0]


def request(cafe: Cafe, record: Event, event: str, begun: Status) -> None:  # noqa: F811
    """Does what the API does: sets the status, and sends the function the request."""
    cafe.records.items[ID] |= {"status": begun, "undo": {"requestedBy": "ana"}}
    cafe.receive(replace(Upload.from_record(record), event=event).to_record())


def test_a_preview_shows_every_kind_of_change_and_changes_nothing(stocked: Cafe) -> None:
    before = stocked.inventory()
    preview(stocked, "A,t,p,2,d,7\nA,t,new,,,1\nB,t,p,1,d,7\nB,t,bad,1,d,few\n")
    assert stocked.inventory() == before
    assert state(stocked)["counts"] == {"new": 1, "updated": 1, "unchanged": 1, "bad": 1, "notMentioned": 1}
    names = {"supplier_name": "A", "type": "t"}
    values = {"description": "d", "quantity": 7}
    assert changes(stocked, "changed") == [
        {"change": "changed", "line": 2, **names, "product_name": "p", "before": {"price": "1", **values}}
        | {"after": {"price": "2", **values}}
    ]
    new = {"price": None, "description": None, "quantity": 1}
    assert changes(stocked, "new") == [{"change": "new", "line": 3, **names, "product_name": "new", "after": new}]
    assert [(each["line"], each["change"]) for each in changes(stocked, "bad")] == [(5, "bad")]
    [missing] = changes(stocked, "notMentioned")
    assert (missing["product_name"], missing["before"]["quantity"]) == ("q", 7)


def test_an_applied_preview_imports_the_file_once_even_if_it_is_requested_again(stocked: Cafe) -> None:
    record = preview(stocked, "A,t,p,2,d,9\n")
    for _ in range(2):
        request(stocked, record, "Cafe:Apply", Status.IMPORTING)
        assert state(stocked)["status"] == Status.IMPORTED
    assert ("A", "t", "p", "2", "d", 9) in stocked.inventory()
    assert [message.partition(":")[0] for message in stocked.messages()] == ["3 rows imported", "1 row imported"]


@pytest.mark.parametrize(
    ("meanwhile", "then", "now"),
    [
        ("UPDATE beans SET quantity = 5 WHERE product_name = 'q'", 7, 5),
        ("DELETE FROM beans WHERE product_name = 'q'", 7, None),
        ("UPDATE beans SET quantity = 9 WHERE product_name = 'q'", 7, 9),
        ("UPDATE beans SET product_name = 'new' WHERE product_name = 'p'", None, 7),
    ],
    ids=["a changed bean", "a deleted bean", "a bean with the values of the file", "a bean that was new"],
)
def test_a_preview_of_a_stock_that_has_changed_is_not_applied(
    stocked: Cafe, meanwhile: str, then: int | None, now: int | None
) -> None:
    record = preview(stocked, "A,t,q,1,d,9\nA,t,new,1,d,7\nB,t,p,1,d,7\n")
    stocked.query(meanwhile)
    before = stocked.inventory()
    request(stocked, record, "Cafe:Apply", Status.IMPORTING)
    assert stocked.inventory() == before
    assert state(stocked)["status"] == Status.OUTDATED
    found = state(stocked)["differences"][0]
    assert [found[moment] and found[moment]["quantity"] for moment in ("then", "now")] == [then, now]


def test_a_change_of_another_bean_does_not_outdate_a_preview(stocked: Cafe) -> None:
    record = preview(stocked, "A,t,p,1,d,9\n")
    stocked.query("UPDATE beans SET quantity = 5 WHERE product_name = 'q'")
    request(stocked, record, "Cafe:Apply", Status.IMPORTING)
    assert state(stocked)["status"] == Status.IMPORTED


def test_an_undo_restores_every_value_removes_what_was_new_and_keeps_what_someone_changed(stocked: Cafe) -> None:
    before = stocked.inventory()
    record = preview(stocked, "A,t,p,2,,9\nA,t,q,1,d,8\nA,t,new,1,d,1\nNew supplier,t,p,1,d,1\n")
    request(stocked, record, "Cafe:Apply", Status.IMPORTING)
    stocked.query("UPDATE beans SET quantity = 5 WHERE product_name = 'q'")
    for _ in range(2):
        request(stocked, record, "Cafe:Undo", Status.UNDOING)
        assert state(stocked)["status"] == Status.UNDONE
    undo = state(stocked)["undo"]
    kept = {"supplier_name": "A", "type": "t", "product_name": "q"}
    assert (undo["restored"], undo["kept"], undo["keptBeans"]) == (3, 1, [kept])
    assert stocked.inventory() == [bean if bean[2] != "q" else (*bean[:5], 5) for bean in before]
    assert stocked.query("SELECT name FROM suppliers ORDER BY name") == [("A",), ("B",)]
    assert stocked.query("SELECT COUNT(*) FROM upload_changes WHERE upload_id = %s", ID) == [(0,)]


def test_an_undo_is_announced_once_although_sns_is_down_at_first(stocked: Cafe) -> None:
    record = preview(stocked, "A,t,p,2,d,9\n")
    request(stocked, record, "Cafe:Apply", Status.IMPORTING)
    stocked.records.items[ID] |= {"status": Status.UNDOING, "undo": {"requestedBy": "ana"}}
    undo = replace(Upload.from_record(record), event="Cafe:Undo").to_record()
    with pytest.raises(Unavailable):
        stocked.receive(undo, publish=down)
    for _ in range(2):
        stocked.receive(undo)
    assert stocked.messages()[2:] == ["The import was undone for 1 bean."]


def test_a_file_that_cannot_be_imported_is_refused_with_its_reason(cafe: Cafe) -> None:  # noqa: F811
    record = preview(cafe, "Caf\u00e9,t,p,1,d,7\n".encode("cp1252").decode("latin-1"), Status.PREVIEWED)
    assert record
    cafe.files[KEY] = b"supplier_name,type,product_name,price,description,quantity\nCaf\xe9,t,p,1,d,7\n"
    request(cafe, record, "Cafe:Preview", Status.PREVIEWING)
    refused = state(cafe)
    assert (refused["status"], refused["looksLike"], refused["samples"]) == (
        Status.REFUSED,
        "windows-1252",
        ["Caf\u00e9"],
    )
    cafe.records.items[ID] |= {"status": Status.PREVIEWING}
    again = replace(Upload.from_record(record), event="Cafe:Preview", encoding="windows-1252").to_record()
    cafe.receive(again)
    assert changes(cafe, "new")[0]["supplier_name"] == "Caf\u00e9"
    request(cafe, record, "Cafe:Apply", Status.IMPORTING)
    assert cafe.inventory()[0][0] == "Caf\u00e9"
