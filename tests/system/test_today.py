"""Today in numbers, on the real services: what happened since a moment is what is counted."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from chalicelib.timeline import timestamp
from tests.system.system import System, wait_for
from tests.system.test_reports import table_renamed

HEADER = "supplier_name,type,product_name,price,description,quantity\n"


def beginning() -> str:
    """A moment that has just come. It is a whole second, for the local cloud's SNS tells no fractions of one."""
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    wait_for(lambda: datetime.now(UTC) >= moment, "the next second")
    return timestamp(moment)


def today(system: System, since: str) -> Any:
    return system.sent_by("staff").get(f"/today?since={quote(since)}")


def test_what_happened_since_a_moment_is_counted(system: System) -> None:
    wait_for(lambda: today(system, beginning())["reports"]["running"] == 0, "the end of other tests' reports")
    since = beginning()
    ids = [f"today-{secrets.token_hex(4)}" for _ in range(3)]
    system.post("/orders", [{"orderID": each, "customerID": "c", "item": "x"} for each in ids])
    keys = [
        system.upload(f"inventory/{since}.csv", f"{HEADER}Today,x,y,1,,1\n"),
        system.upload(f"inventory/{since}-bad.csv", f"{HEADER}Today,x,y,1,,none\n"),
        system.upload(f"inventory/{since}-none.csv", "no inventory\n"),
        system.upload(f"photos/{since}.jpg", "x"),
    ]
    assert system.report()["status"] == "SUCCEEDED"
    with table_renamed(system, "beans"):
        assert system.report()["status"] == "FAILED"
    for key in keys:
        system.notification(key, "upload")
    for each in ids:
        wait_for(lambda each=each: system.request("GET", f"/orders/{each}").status == 200, each)  # type: ignore[misc]
    shown = wait_for(lambda: (found := today(system, since))["orders"]["waiting"] == 0 and found, "the queue's end")
    assert shown["since"] == since
    assert (shown["orders"]["stored"], shown["orders"]["more"], shown["counted"]) == (3, False, True)
    assert sum(count for _, count in shown["orders"]["hours"]) == 3
    assert shown["reports"] == {"running": 0, "succeeded": 1, "failed": 1, "more": False}
    # Of another test's upload the notification may have come just now.
    uploads = shown["uploads"]
    assert (uploads["imported"] >= 2, uploads["notImported"] >= 1, uploads["other"] >= 1) == (True, True, True)


def test_dead_letters_and_alarms_are_failures(system: System) -> None:
    since, name = beginning(), f"today-{secrets.token_hex(4)}"
    before = today(system, since)["failures"]
    sqs, queue = system.aws("sqs"), system.env["FAILURES_QUEUE_URL"]
    sqs.send_message(QueueUrl=queue, MessageBody=name)
    system.aws("sns").publish(TopicArn=system.env["ALARMS_TOPIC_ARN"], Subject=name, Message=name)
    system.notification(name, "alarm")
    try:
        after = today(system, since)["failures"]
        assert after["alarms"] == 1
        assert after["deadLetters"] > before["deadLetters"]
    finally:
        for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0)["Messages"]:
            if message["Body"] == name:
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
