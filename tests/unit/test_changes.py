"""Tests that orders change only as they may, that no change is lost or made twice, and that the lists show changes."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import ReadTimeoutError
from chalice.test import HTTPResponse

from chalicelib import timeline
from chalicelib.orders import changes
from chalicelib.orders.listing import LISTED
from chalicelib.orders.order import STATUSES
from tests.unit.api import Api, refused
from tests.unit.cloud import ENVIRONMENT, Aws
from tests.unit.ordering import messages, order, store

PLACED, READY = {"from": "PLACED", "status": "READY"}, {"from": "READY", "status": "SERVED"}
TEA = [{"item": "Tea", "quantity": 2}]
BAD = ("0].item", "1].size", "1].item")
ALLOWED = {(old, new) for old, following in STATUSES.items() for new in following}


@pytest.fixture
def placed(api: Api, aws: Aws) -> Api:
    """Stores order o-1, with one Lima and no note."""
    store(aws, messages(order()))
    return api


def change(api: Api, body: Any, **headers: str) -> dict[str, Any]:
    response = api.patch("/orders/o-1", body, **headers)
    assert response.status_code == 200, response.body
    shown: dict[str, Any] = response.json_body
    assert shown == api.get("/orders/o-1").json_body
    return shown


def conflict(response: HTTPResponse, **present: Any) -> str:
    """Checks a 409 that shows the present order, and returns its message."""
    message = refused(response, 409, "Conflict")
    assert response.json_body["Order"].items() >= present.items()
    return message


@pytest.mark.parametrize("new", STATUSES)
@pytest.mark.parametrize("old", STATUSES)
def test_a_status_changes_only_to_one_that_may_follow(placed: Api, aws: Aws, old: str, new: str) -> None:
    for status in {"SERVED": ("READY", "SERVED"), "PLACED": ()}.get(old, (old,)):
        change(placed, {"from": placed.get("/orders/o-1").json_body["status"], "status": status})
    before = aws.stored()["o-1"]
    if (old, new) in ALLOWED:
        shown = change(placed, {"from": old, "status": new})
        assert (shown["status"], shown["changedBy"], shown["changes"][-1]["change"]) == (new, "mia", new)
        assert aws.stored()["o-1"]["lastChange"] == {"S": new}
    else:
        message = refused(placed.patch("/orders/o-1", {"from": old, "status": new}), 400, "InvalidRequest")
        assert message.startswith(f"status: must be {' or '.join(STATUSES[old])}, because" if STATUSES[old] else "from")
        assert aws.stored()["o-1"] == before


def test_a_change_from_another_status_or_version_is_refused_with_the_present_order(placed: Api) -> None:
    refusal = conflict(placed.patch("/orders/o-1", READY), status="PLACED", version=0, changes=[])
    assert refusal == "from: the order is now PLACED, not READY"
    shown = change(placed, PLACED | {"version": 0})
    assert (shown["version"], shown["changedAt"]) == (1, shown["changes"][0]["at"])
    for body in (PLACED, {"items": TEA}):
        assert "is now READY, not PLACED" in conflict(placed.patch("/orders/o-1", body), **shown)
    stale = placed.patch("/orders/o-1", READY | {"version": 0})
    assert conflict(stale, status="READY") == "version: the order now has version 1, not 0"
    assert placed.get("/orders/o-1").json_body == shown


def test_a_corrected_order_keeps_what_it_was_and_is_still_the_order_that_was_placed(placed: Api, aws: Aws) -> None:
    first = aws.stored()["o-1"]
    change(placed.sent_by("ana", "staff"), {"items": TEA})
    # The order already has these items and no note, so its version stays the same.
    assert change(placed, {"items": TEA, "note": None})["version"] == 1
    shown = change(placed.sent_by("ben", "staff"), {"note": "two\nlines ☕", "version": 1})
    lima = [{"item": "Lima", "quantity": 1}]
    told = [(each["by"], each["change"], each["before"]) for each in shown["changes"]]
    assert told == [
        ("ana", "CORRECTED", {"items": lima, "note": None}),
        ("ben", "CORRECTED", {"items": TEA, "note": None}),
    ]
    assert (shown["items"], shown["note"], shown["changedBy"], shown["requestedBy"]) == (
        *(TEA, "two\nlines ☕", "ben"),
        None,
    )
    assert {**aws.stored()["o-1"], **first} == {**aws.stored()["o-1"], "items": first["items"], "note": first["note"]}
    again = {"orderID": "o-1", "customerID": "c-1", "item": "Lima"}
    assert placed.post("/orders", again).status_code == 202
    assert aws.queued() == []
    refused(placed.post("/orders", {"orderID": "o-1", "customerID": "c-1", "items": TEA}), 409, "Conflict")


def test_a_redelivered_message_never_turns_an_order_back(placed: Api, aws: Aws) -> None:
    change(placed, {"items": TEA})
    change(placed, PLACED)
    before = aws.stored()
    assert store(aws, messages(order(), order())) == []
    assert aws.stored() == before


def test_a_repeated_request_is_recognised_even_after_another_change(placed: Api) -> None:
    change(placed, PLACED, idempotency_key="tap")
    assert change(placed, PLACED, idempotency_key="tap")["version"] == 1
    change(placed, READY)
    shown = change(placed, PLACED, idempotency_key="tap")
    assert (shown["status"], shown["version"]) == ("SERVED", 2)
    other = placed.patch("/orders/o-1", {"from": "PLACED", "status": "CANCELLED"}, idempotency_key="tap")
    assert "Idempotency-Key: tap was used for another request" in refused(other, 409, "Conflict")


@pytest.mark.parametrize("body", [PLACED, {"note": "hot"}])
def test_a_change_whose_response_was_lost_is_made_once(placed: Api, aws: Aws, body: Any) -> None:
    # Without a response, botocore sends each request twice.
    tried = aws.calls(aws.dynamodb, "UpdateItem")
    sent: list[int] = []

    def retry(attempts: int, **_: Any) -> int | None:
        sent.append(attempts)
        return 0 if attempts == 1 else None

    aws.hook(aws.dynamodb, "needs-retry.dynamodb.UpdateItem", retry)
    assert change(placed, body)["version"] == 1
    assert (len(tried), sent) == (1, [1, 2])


@pytest.mark.parametrize("mine", [PLACED, {"items": TEA}])
@pytest.mark.parametrize("times", [1, changes.TRIES - 1, changes.TRIES])
def test_only_a_status_is_tried_again_on_an_order_that_others_have_corrected(
    placed: Api, aws: Aws, times: int, mine: Any
) -> None:
    others = [{"note": f"note {number}"} for number in range(times)]

    def overtake(params: dict[str, Any], **_: Any) -> None:
        if others and ":note" not in params["ExpressionAttributeValues"]:
            change(placed.sent_by("ana", "staff"), others.pop())

    aws.hook(aws.dynamodb, "provide-client-params.dynamodb.UpdateItem", overtake)
    response = placed.patch("/orders/o-1", mine)
    shown = placed.get("/orders/o-1").json_body
    if mine is not PLACED:
        assert conflict(response, **shown) == "version: the order now has version 1, not 0"
    elif times < changes.TRIES:
        assert (response.json_body, shown["status"], shown["note"]) == (shown, "READY", "note 0")
    else:
        assert "try again in a moment" in refused(response, 503, "Unavailable")
    assert (shown["version"], shown["items"][0]["item"]) == (len(shown["changes"]), "Lima")


def test_a_key_whose_claim_has_expired_can_make_another_change(placed: Api, aws: Aws) -> None:
    change(placed, PLACED, idempotency_key="tap")
    aws.dynamodb.delete_item(
        TableName=ENVIRONMENT["REQUESTS_TABLE"], Key={"requestKey": {"S": "PATCH /orders/{order_id} tap"}}
    )
    assert change(placed, READY, idempotency_key="tap")["status"] == "SERVED"


def test_a_request_that_ends_without_a_response_from_dynamodb_can_be_repeated(placed: Api, aws: Aws) -> None:
    lost = [ReadTimeoutError(endpoint_url="dynamodb")]

    def lose(**_: Any) -> None:
        if lost:
            raise lost.pop()

    aws.hook(aws.dynamodb, "after-call.dynamodb.UpdateItem", lose)
    refused(placed.patch("/orders/o-1", PLACED, idempotency_key="tap"), 503, "Unavailable")
    assert change(placed, PLACED, idempotency_key="tap")["version"] == 1


def test_an_order_has_room_for_a_limited_number_of_corrections_and_then_for_its_statuses(placed: Api) -> None:
    for number in range(changes.CORRECTIONS):
        change(placed, {"note": str(number)})
    refusal = conflict(placed.patch("/orders/o-1", {"note": "x"}), version=changes.CORRECTIONS)
    assert refusal.startswith("note: cannot be corrected again, because the order is full")
    change(placed, PLACED)
    change(placed, READY)


def test_an_order_never_outgrows_an_item_of_dynamodb(placed: Api, aws: Aws) -> None:
    """The test uses characters of four bytes, so the order has the largest possible size."""
    made = 0
    while True:
        body = {"items": [{"item": chr(0x1F600 + made) * 200, "quantity": 10_000}] * 100, "note": "😀" * 500}
        response = placed.patch("/orders/o-1", body)
        if response.status_code != 200:
            break
        made += 1
    assert made == 2
    assert "items: cannot be corrected again, because" in conflict(response)
    assert 150_000 < len(json.dumps(aws.stored()["o-1"], ensure_ascii=False).encode()) < 256_000
    change(placed, PLACED)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["from", "status"]),
        ({"from": "placed", "status": "READY", "x": 1, "version": "1"}, ["x", "version", "from"]),
        ({"from": "READY", "status": "SERVED", "items": TEA}, ["status", "from"]),
        ({"items": [{"item": "\u200b"}, {"size": 1}], "note": "\x1b[2J"}, [f"items[{at}" for at in BAD] + ["note"]),
    ],
)
def test_every_invalid_field_is_named(placed: Api, aws: Aws, body: Any, fields: list[str]) -> None:
    response = placed.patch("/orders/o-1", body)
    refused(response, 400, "InvalidRequest")
    assert [each["field"] for each in response.json_body["Problems"]] == fields
    assert "changes" not in aws.stored()["o-1"]


def test_orders_are_listed_by_status_customer_and_time(api: Api, aws: Aws) -> None:
    for number in range(6):
        body = {"orderID": f"o-{number}", "customerID": f"c-{number % 2}", "item": "Tea"}
        api.post("/orders", body)
        store(aws, {"Records": [each for text in aws.queued() for each in messages(json.dumps(text))["Records"]]})
    for number in (0, 1, 5):
        assert api.patch(f"/orders/o-{number}", PLACED).status_code == 200
    times = [api.get(f"/orders/o-{number}").json_body["placedAt"] for number in range(6)]

    def listed(query: str) -> list[list[str]]:
        pages, following = [], ""
        while following is not None:
            page = api.get(f"/orders?{query}{following}").json_body
            pages.append([each["orderID"] for each in page["orders"]])
            following = page["next"] and f"&next={page['next']}"
        return pages

    assert listed("status=READY") == [["o-5", "o-1", "o-0"]]
    assert listed("status=PLACED,READY&limit=4") == [["o-5", "o-4", "o-3", "o-2"], ["o-1", "o-0"]]
    assert listed("status=READY&customerID=c-1&limit=1") == [["o-5"], ["o-1"]]
    assert listed("status=CANCELLED") == listed("status=SERVED&customerID=c-1") == [[]]
    # The range includes its first moment, and excludes its last.
    for customer, numbers in (("", (3, 2, 1)), ("&customerID=c-1", (3, 1))):
        assert listed(f"since={times[1]}&until={times[4]}{customer}") == [[f"o-{number}" for number in numbers]]
        assert listed(f"since={times[4]}&until={times[1]}{customer}") == [[]]
        assert listed(f"since={times[2]}&until={times[2]}{customer}") == [[]]
        assert listed(f"since={times[2]}&until={times[3]}&status=READY{customer}") == [[]]
    with patch.object(timeline, "EXAMINED", 2):
        for query in ("status=READY", "status=READY&customerID=c-1&limit=1"):
            found = [each for page in listed(query) for each in page]
            assert found == (["o-5", "o-1"] if "c-1" in query else ["o-5", "o-1", "o-0"])


@pytest.mark.parametrize("customer", ["", "&customerID=c-1"])
def test_a_filtered_page_costs_a_bounded_number_of_reads(api: Api, aws: Aws, customer: str) -> None:
    store(aws, messages(*(order(f"o-{number}") for number in range(300))))
    queries = aws.calls(aws.dynamodb, "Query")
    assert api.get(f"/orders?status=READY&limit=1{customer}").json_body == {"orders": [], "next": None}
    assert len(queries) <= 2 * timeline.SHARDS
    assert all(each["Limit"] == timeline.AHEAD + 1 for each in queries)
    assert api.get("/orders.csv").status_code == 200
    assert all(set(each["ProjectionExpression"].split(", ")) == {f"#{name}" for name in LISTED} for each in queries)
