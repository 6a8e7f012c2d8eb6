"""Tests that dead letters are listed with their reasons, put back once, and kept if a redrive fails."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.events import failed_batch, records, undelivered
from tests.system.letters import Letters, failed_upload, messages, order_message, own_letters
from tests.system.system import System, logged, stored, wait_for
from tests.system.waiting import at_once


@pytest.fixture
def letters(system: System) -> Iterator[Letters]:
    with own_letters(system) as letters:
        yield letters


def said(system: System, function: str, message: str, about: str) -> int:
    """Counts how often the function logged this message about an item."""
    return sum(record["message"] == message for record in logged(system, function, about))


def placed(system: System, order_id: str) -> str:
    system.post("/orders", {"orderID": order_id, "customerID": "Zoë", "item": "Mocha"}, X_Request_Id=order_id)
    return order_id


def test_a_poison_message_is_a_dead_letter_at_its_first_try_and_again_after_a_redrive(
    system: System, letters: Letters
) -> None:
    poison = "{" + letters.new_id("poison")
    neighbour = letters.new_id("o")
    letters.put("ORDERS_QUEUE_URL", poison)
    placed(system, neighbour)
    stored(system, neighbour)

    def dead() -> list[str]:
        return [each["MessageId"] for each in messages(system, "ORDERS_DEAD_LETTER_URL") if each["Body"] == poison]

    [first] = wait_for(dead, "the dead letter")
    [shown] = letters.listed(first)
    assert (shown["kind"], shown["what"], shown["tries"]) == ("order", "a message that is not an order", 1)
    assert "is not JSON" in shown["why"]
    assert letters.redrive(first)["redriven"] == 1
    [second] = wait_for(dead, "the dead letter's return")
    assert second != first


def test_an_order_stays_on_the_stream_while_sns_refuses_access(system: System, letters: Letters) -> None:
    order_id = letters.new_id()
    with system.without("announce_orders", "sns:Publish"):
        placed(system, order_id)
        wait_for(lambda: said(system, "announce_orders", "orders not announced", order_id) > 1, "two tries")
    system.notification(order_id, "order")
    assert letters.listed(order_id) == []


def test_an_event_that_the_code_cannot_handle_is_a_dead_letter_after_its_tries(
    system: System, letters: Letters
) -> None:
    event = {"Records": [{"s3": {"object": {"key": (key := letters.new_id())}}}]}
    arn = failed_upload(system, key)["requestContext"]["functionArn"]
    system.aws("lambda").invoke(FunctionName=arn, InvocationType="Event", Payload=json.dumps(event))
    found = letters.one(key)
    assert (found["kind"], found["what"], found["tries"]) == ("upload", f"upload {key}", 3)
    assert "has an error in its code" in found["why"]
    [message] = [each for each in messages(system, "FAILURES_QUEUE_URL") if each["MessageId"] == found["id"]]
    assert json.loads(message["Body"])["requestContext"]["condition"] == "RetriesExhausted"


def envelope(system: System, key: str) -> dict[str, Any]:
    message = f"It opens for an hour: https://example.com/{key}?X-Amz-Signature=secret"
    attributes = {"kind": "report", "key": f"report/{key}"}
    return undelivered(system.env["TOPIC_ARN"], f"Report {key} ready", message, **attributes)


def test_an_undelivered_notification_is_in_the_inbox_once_even_after_two_redrives(
    system: System, letters: Letters
) -> None:
    key = letters.new_id()
    for _ in range(2):
        dead = letters.put("FAILURES_QUEUE_URL", envelope(system, key))
        found = letters.one(key)
        assert found["what"] == f"notification 'Report {key} ready'"
        assert "secret" not in json.dumps(found)
        assert letters.redrive(dead)["redriven"] == 1
        assert "X-Amz-Signature=secret" in system.notification(key, "report")["message"]
    wait_for(lambda: said(system, "record_notification", "notification kept already", key), "the second delivery")
    assert said(system, "record_notification", "notification kept", key) == 1
    assert len(system.notifications(key)) == 1


def test_a_failed_batch_is_read_again_from_its_position_on_the_stream(system: System, letters: Letters) -> None:
    order_id = placed(system, letters.new_id())
    system.notification(order_id, "order")
    stream = system.env["ORDERS_STREAM_ARN"]
    changes = [(shard, each["dynamodb"]) for shard, each in records(system.aws("dynamodbstreams"), stream)]
    [(shard, number)] = [
        (shard, each["SequenceNumber"]) for shard, each in changes if each["Keys"] == {"orderID": {"S": order_id}}
    ]
    dead, gone, broken = (
        letters.put("FAILURES_QUEUE_URL", failed_batch(stream, shard, start, number))
        for start in (number, "1".zfill(21), "1")
    )
    result = letters.redrive(dead, gone, broken)
    assert result["redriven"] == 1, result
    kept = {each["id"]: each["why"] for each in result["kept"]}
    assert kept.keys() == {gone, broken}
    assert "24 hours" in kept[gone]
    assert "AWS rejects its content" in kept[broken]
    wait_for(lambda: said(system, "announce_orders", "order announced", order_id) == 2, "the second announcement")


def test_ten_simultaneous_redrives_put_each_dead_letter_back_once(system: System, letters: Letters) -> None:
    mine = letters.new_id()
    orders = [f"{mine}-{number}" for number in range(30)]
    # The test uses few keys, because MiniStack starts a process for each upload.
    keys = [f"photos/{mine}-{number}.jpg" for number in range(3)]
    dead = [letters.put("ORDERS_DEAD_LETTER_URL", order_message(each)) for each in orders]
    dead += [letters.put("FAILURES_QUEUE_URL", failed_upload(system, each)) for each in keys]

    answers = at_once(lambda: letters.redrive(*dead))
    assert sum(each["redriven"] for each in answers) == 33
    wait_for(lambda: said(system, "receive_upload", "upload received", mine) >= 3, "the uploads")
    wait_for(lambda: said(system, "store_orders", "order stored", mine) >= 30, "the orders")
    system.notification(keys[-1], "upload")
    system.notification(orders[-1], "order")
    assert said(system, "receive_upload", "upload received", mine) == 3
    assert said(system, "store_orders", "order stored", mine) == 30
    assert said(system, "store_orders", "order stored already", mine) == 0


def test_a_dead_letter_that_cannot_be_put_back_stays_and_a_later_redrive_succeeds(
    system: System, letters: Letters
) -> None:
    key, order_id, report = f"photos/{letters.new_id()}.jpg", letters.new_id(), letters.new_id()
    upload = letters.put("FAILURES_QUEUE_URL", failed_upload(system, key))
    dead = letters.put("ORDERS_DEAD_LETTER_URL", order_message(order_id))
    message = letters.put("FAILURES_QUEUE_URL", envelope(system, report))
    unknown = letters.put("FAILURES_QUEUE_URL", "what is this?")
    with (
        system.without("api", "lambda:InvokeFunction"),
        system.without("api", "sqs:SendMessage"),
        system.without("api", "sns:Publish"),
    ):
        result = letters.redrive(upload, dead, message, unknown)
    assert (result["redriven"], result["left"] >= 4) == (0, True)
    why = {each["id"]: each["why"] for each in result["kept"]}
    assert why.pop(unknown) == "its origin is unknown"
    assert why.keys() == {upload, dead, message}
    assert all("was refused: A" in each for each in why.values()), why

    assert letters.redrive(upload, dead, message, unknown)["redriven"] == 3
    system.notification(key, "upload")
    system.notification(report, "report")
    stored(system, order_id)


def test_the_commands_list_redrive_and_discard_dead_letters(system: System, letters: Letters) -> None:
    order_id = letters.new_id()
    letters.put("ORDERS_DEAD_LETTER_URL", order_message(order_id))
    unknown = letters.put("FAILURES_QUEUE_URL", "what is this?\u202e")
    head, *lines = system.run("python", "-m", "local", "dead-letters").stdout.splitlines()
    assert head.split() == ["id", "since", "kind", "tries", "what", "why"]
    [mine] = [line for line in lines if f"order {order_id} of customer Zoë" in line]
    assert mine[head.index("kind") :].split()[0] == "order"
    assert [line for line in lines if line[head.index("kind") :].startswith("unknown ")]

    done = system.run("python", "-m", "local", "redrive")
    assert done.returncode == 1
    counts = re.search(r"^  (\d+) put back, (\d+) left$", done.stdout, re.MULTILINE)
    assert counts, done.stdout
    assert (int(counts[1]) >= 1, int(counts[2]) >= 1) == (True, True)
    assert "  kept: a message in an unknown format: its origin is unknown" in done.stdout.splitlines()
    assert f"  done: order {order_id} of customer Zoë" in done.stdout.splitlines()

    command = ("python", "-m", "local", "discard", "--id", unknown)
    refused = system.run(*command)
    assert "    what is this??" in refused.stdout.splitlines()
    assert (refused.returncode, "YES=1" in refused.stderr) == (1, True)
    assert letters.listed(unknown)
    assert system.run(*command, "--yes").stdout.splitlines()[-1] == "  1 discarded"
    assert not letters.listed(unknown)
    handled = {each["letter"]: each for each in system.get("/dead-letters")["handled"]}
    assert (handled[unknown]["state"], handled[unknown]["content"]) == ("DISCARDED", "what is this??")
