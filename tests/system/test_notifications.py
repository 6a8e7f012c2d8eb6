"""Flow 5: who subscribes gets what it asked for, and the inbox keeps each notification once."""

import json
import queue
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.system.system import System, wait_for


class Subscriber:
    """An HTTP endpoint of a person's own, which keeps what is posted to it."""

    def __init__(self) -> None:
        self.received: queue.Queue[dict[str, Any]] = queue.Queue()
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                received.put(json.loads(self.rfile.read(length)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever)

    def next(self) -> dict[str, Any]:
        return self.received.get(timeout=60)


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    subscriber = Subscriber()
    subscriber.thread.start()
    try:
        yield subscriber
    finally:
        subscriber.server.shutdown()
        subscriber.thread.join()
        subscriber.server.server_close()


def test_an_http_subscriber_confirms_and_then_gets_only_the_kinds_it_asked_for(
    system: System, subscriber: Subscriber
) -> None:
    sns = system.aws("sns")
    subscription = sns.subscribe(
        TopicArn=system.env["TOPIC_ARN"],
        Protocol="http",
        Endpoint=subscriber.url,
        Attributes={"FilterPolicy": json.dumps({"kind": ["order"]})},
        ReturnSubscriptionArn=True,
    )["SubscriptionArn"]
    try:
        confirmation = subscriber.next()
        assert confirmation["Type"] == "SubscriptionConfirmation"
        assert system.request("GET", confirmation["SubscribeURL"]).status == 200

        # A kind that it did not ask for comes first, and then one that it did.
        key = system.upload(f"photos/{secrets.token_hex(4)}.jpg", b"x")
        system.notification(key, "upload")
        order_id = f"o-{secrets.token_hex(4)}"
        system.post("/orders", {"orderID": order_id, "customerID": "c", "item": "Mocha"})
        delivered = subscriber.next()
        assert delivered["Type"] == "Notification"
        assert delivered["Subject"] == "1 new order"
        assert order_id in delivered["Message"]
        assert delivered["MessageAttributes"]["kind"]["Value"] == "order"
    finally:
        sns.unsubscribe(SubscriptionArn=subscription)


def event(message_id: str, **fields: Any) -> dict[str, Any]:
    """What SNS hands to a Lambda subscriber, in AWS's shape."""
    sns = {
        "MessageId": message_id,
        "Message": "hello",
        "Timestamp": "2026-11-21T08:00:00.000Z",
        "MessageAttributes": {},
    }
    return {"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": {**sns, **fields}}]}


@pytest.mark.parametrize("fields", [{"Subject": "A subject"}, {"Subject": None}, {}], ids=["given", "null", "absent"])
def test_a_message_with_and_without_a_subject_is_kept(system: System, fields: dict[str, Any]) -> None:
    message = secrets.token_hex(8)
    ok, error = system.invoke("record_notification", event(message, Message=message, **fields))
    assert ok, error
    assert system.notification(message)["subject"] == (fields.get("Subject") or "")


def test_a_message_delivered_twice_is_in_the_inbox_once(system: System) -> None:
    message = secrets.token_hex(8)
    for _ in range(2):
        ok, error = system.invoke("record_notification", event(message, Message=message))
        assert ok, error
    assert len(system.notifications(message)) == 1


def test_one_fact_published_twice_is_in_the_inbox_once(system: System) -> None:
    # A publisher that did not hear SNS's answer publishes again: another message, with the same key.
    text, key = secrets.token_hex(8), {"Type": "String", "Value": secrets.token_hex(8)}
    for number in (1, 2):
        ok, error = system.invoke(
            "record_notification", event(f"{text}-{number}", Message=text, MessageAttributes={"key": key})
        )
        assert ok, error
    assert len(system.notifications(text)) == 1


def test_a_notification_is_kept_for_30_days(system: System) -> None:
    message = secrets.token_hex(8)
    system.invoke("record_notification", event(message))
    item = system.aws("dynamodb").get_item(
        TableName=system.env["NOTIFICATIONS_TABLE"], Key={"notificationID": {"S": message}}
    )["Item"]
    # 2026-12-21T08:00:00Z. MiniStack's CloudFormation leaves the table's TTL off; tests/wiring sees to the template.
    assert int(item["expiresAt"]["N"]) == 1797840000


def test_an_event_that_fails_for_good_waits_in_the_failures_queue(system: System) -> None:
    sqs, url = system.aws("sqs"), system.env["FAILURES_QUEUE_URL"]
    broken = {"Records": [{"Sns": {"MessageId": secrets.token_hex(8)}}]}
    system.aws("lambda").invoke(
        FunctionName="cafe-dev-record_notification", InvocationType="Event", Payload=json.dumps(broken)
    )
    letter = wait_for(
        lambda: next(
            (
                body
                for each in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0).get(
                    "Messages", []
                )
                if (body := json.loads(each["Body"]))["requestPayload"] == broken
            ),
            None,
        ),
        "the event in the failures queue",
        seconds=240,
    )
    assert letter["requestContext"]["condition"] == "RetriesExhausted"


def test_the_inbox_of_one_kind_has_each_of_that_kind_and_no_other(system: System) -> None:
    order = f"kind-{secrets.token_hex(4)}"
    system.post("/orders", {"orderID": order, "customerID": "c", "item": "x"})
    key = system.upload(f"photos/{secrets.token_hex(4)}.jpg", b"x")
    system.notification(order, "order")
    system.notification(key, "upload")
    everything = system.all("/notifications", "notifications")
    for kind in ("order", "upload", "alarm"):
        found = system.all(f"/notifications?kind={kind}", "notifications")
        assert found == [each for each in everything if each["kind"] == kind]
