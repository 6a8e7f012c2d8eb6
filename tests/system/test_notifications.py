"""Flow 5: a subscriber gets what it asked for, and the inbox lists each kind."""

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.system.system import System, new_id


class Subscriber:
    """An HTTP endpoint, which keeps what is posted to it."""

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
    sns, order_id, key = system.aws("sns"), new_id(), f"photos/{new_id()}.jpg"
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
        system.notification(system.upload(key, b"x"), "upload")
        system.post("/orders", {"orderID": order_id, "customerID": "c", "item": "Mocha"})
        delivered = [subscriber.next()]
        while order_id not in delivered[-1]["Message"]:
            delivered.append(subscriber.next())
    finally:
        sns.unsubscribe(SubscriptionArn=subscription)
    assert {each["MessageAttributes"]["kind"]["Value"] for each in delivered} == {"order"}
    assert (delivered[-1]["Type"], delivered[-1]["Subject"]) == ("Notification", "1 new order")
