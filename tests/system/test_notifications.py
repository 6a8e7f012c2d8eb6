"""Tests notifications (flow 5). A subscriber receives only the kinds of notifications that it requested."""

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.system.system import System, new_id

Received = queue.Queue[dict[str, Any]]


@pytest.fixture
def subscriber() -> Iterator[tuple[str, Received]]:
    """Runs an HTTP server that accepts SNS messages.

    Yields the server's URL, and a queue of the messages that it received.
    """
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", received
        server.shutdown()
        thread.join()


def test_an_http_subscriber_confirms_and_then_receives_only_the_kinds_it_asked_for(
    system: System, subscriber: tuple[str, Received]
) -> None:
    url, received = subscriber
    sns, order_id, key = system.aws("sns"), new_id(), f"photos/{new_id()}.jpg"
    subscription = sns.subscribe(
        TopicArn=system.env["TOPIC_ARN"],
        Protocol="http",
        Endpoint=url,
        Attributes={"FilterPolicy": json.dumps({"kind": ["order"]})},
        ReturnSubscriptionArn=True,
    )["SubscriptionArn"]
    try:
        confirmation = received.get(timeout=60)
        assert confirmation["Type"] == "SubscriptionConfirmation"
        assert system.request("GET", confirmation["SubscribeURL"]).status == 200
        system.notification(system.upload(key, b"x"), "upload")
        system.post("/orders", {"orderID": order_id, "customerID": "c", "item": "Mocha"})
        delivered = [received.get(timeout=60)]
        while order_id not in delivered[-1]["Message"]:
            delivered.append(received.get(timeout=60))
    finally:
        sns.unsubscribe(SubscriptionArn=subscription)
    assert {each["MessageAttributes"]["kind"]["Value"] for each in delivered} == {"order"}
    assert (delivered[-1]["Type"], delivered[-1]["Subject"]) == ("Notification", "1 new order")
