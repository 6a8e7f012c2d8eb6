"""Tests how new, corrected and cancelled orders are announced.

An order that cannot be announced must not delay other orders.
"""

import json
import re
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError
from botocore.stub import Stubber

from chalicelib.errors import Unavailable
from chalicelib.notifications import Notification, Publish
from chalicelib.orders.announce import FAILED_CALLS, SetAside, announce_orders, announced_part
from tests.unit.api import Api
from tests.unit.cloud import ENVIRONMENT, Aws, refusing


def record(order_id: str, customer: Any = "c-1", name: str = "INSERT") -> dict[str, Any]:
    """Returns one record from the orders table's stream."""
    image = {"orderID": {"S": order_id}, "customerID": {"S": customer} if isinstance(customer, str) else customer}
    return {
        **{"eventID": f"e-{order_id}", "eventName": name, "eventVersion": "1.1", "eventSource": "aws:dynamodb"},
        **{"awsRegion": "us-east-1", "eventSourceARN": ENVIRONMENT["ORDERS_STREAM_ARN"]},
        "dynamodb": {
            "ApproximateCreationDateTime": 1795230855.0,
            "Keys": {"orderID": {"S": order_id}},
            "SequenceNumber": f"11000000000{zlib.crc32(order_id.encode()):010}",
            **({} if name == "REMOVE" else {"NewImage": image}),
        },
    }


def change(order_id: str, name: str, version: int = 1, item: str = "Latte", note: str | None = None) -> dict[str, Any]:
    """Returns the record of a changed order."""
    modified = record(order_id, name="MODIFY")
    modified["eventID"] += f"-{version}"
    modified["dynamodb"]["SequenceNumber"] += str(version)
    modified["dynamodb"]["NewImage"] |= {
        **{"lastChange": {"S": name}, "version": {"N": str(version)}, "changedBy": {"S": "Zoë"}},
        "items": {"L": [{"M": {"item": {"S": item}, "quantity": {"N": "2"}}}] * 2},
        "note": {"NULL": True} if note is None else {"S": note},
    }
    return modified


class Failures:
    """Fakes a retries queue that rejects the records whose event ids are in ``refused``."""

    def __init__(self, *refused: str) -> None:
        self.put: list[str] = []
        self.reasons: list[str] = []
        self.refused = refused

    def __call__(self, records: Sequence[dict[str, Any]], error: Exception) -> list[dict[str, Any]]:
        stuck = [each for each in records if each["eventID"] in self.refused]
        self.put += [each["eventID"] for each in records if each not in stuck]
        self.reasons.append(str(error))
        return stuck


WRITTEN = datetime.fromtimestamp(1795230855, UTC)


def announce(
    records: Sequence[dict[str, Any]],
    publish: Publish,
    set_aside: SetAside | None = None,
    *,
    age: int = 1,
    seconds: float = 60,
    redriven: bool = False,
) -> str | None:
    """Announces records that are ``age`` seconds old, and returns the event id of the first record to retry."""
    event = {"Records": list(records), **({"redriven": True} if redriven else {})}
    answer = announce_orders(
        event,
        publish=publish,
        set_aside=set_aside or (lambda records, error: pytest.fail(f"set aside: {error!r}") if records else []),
        find_announced=lambda *_: set(),
        now=WRITTEN + timedelta(seconds=age),
        seconds_left=lambda: seconds,
    )
    assert list(answer) == ["batchItemFailures"]
    numbers = [each["itemIdentifier"] for each in answer["batchItemFailures"]]
    assert len(numbers) <= 1
    by_number = {each["dynamodb"]["SequenceNumber"]: each["eventID"] for each in records}
    return by_number[numbers[0]] if numbers else None


def announced(*records: dict[str, Any]) -> list[Notification]:
    published: list[Notification] = []
    assert announce(records, published.append) is None
    return published


def test_a_batch_of_new_orders_is_one_notification_that_names_all() -> None:
    (notification,) = announced(record("o-1"), record("o-2", "c-2"))
    assert notification.kind == "order"
    assert notification.subject == notification.sms == "2 new orders"
    assert notification.message == "2 new orders:\n- order o-1 of customer c-1\n- order o-2 of customer c-2"
    assert notification.facts == {"outcome": "placed", "orderIDs": ["o-1", "o-2"]}


def test_a_changed_or_removed_order_is_not_announced() -> None:
    assert announced(record("o-1", name="MODIFY"), record("o-2", name="REMOVE")) == []
    (notification,) = announced(record("o-1", name="MODIFY"), record("o-2"), record("o-3", name="REMOVE"))
    assert notification.message == "1 new order:\n- order o-2 of customer c-1"


def test_corrected_and_cancelled_orders_are_in_the_notification_of_their_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    corrected = change("o-1", "CORRECTED", 2, note="no\nsugar")
    (notification,) = announced(record("o-1"), corrected, record("o-2"), change("o-3", "CANCELLED", 12))
    assert notification.subject == notification.sms == "2 new orders, 1 corrected, 1 cancelled"
    assert notification.message.splitlines() == [
        "2 new orders, 1 corrected, 1 cancelled:",
        "- order o-1 of customer c-1",
        "- order o-1 of customer c-1 was corrected by Zoë: 2 × Latte, 2 × Latte; note: no sugar",
        "- order o-2 of customer c-1",
        "- order o-3 of customer c-1 was cancelled by Zoë",
    ]
    logged = [(each.orderID, vars(each).get("version")) for each in caplog.records if each.msg == "order announced"]
    assert logged == [("o-1", None), ("o-1", 2), ("o-2", None), ("o-3", 12)]
    changes = [["o-1", 2, "CORRECTED"], ["o-3", 12, "CANCELLED"]]
    assert notification.facts == {"outcome": "placed", "orderIDs": ["o-1", "o-2"], "changes": changes}


def test_a_batch_without_a_new_order_says_what_was_changed() -> None:
    cancelled, corrected = change("o-1", "CANCELLED"), change("o-2", "CORRECTED")
    (one,), (both,) = announced(announced_part(cancelled)), announced(cancelled, corrected, cancelled)
    assert one.facts == {"outcome": "changed", "orderIDs": [], "changes": [["o-1", 1, "CANCELLED"]]}
    assert (one.sms, both.subject) == ("1 order cancelled", "1 order corrected, 2 cancelled")


def test_an_order_that_became_ready_or_was_served_or_expired_is_not_announced() -> None:
    expired = {**change("o-3", "CANCELLED"), "eventName": "REMOVE"}
    assert announced(change("o-1", "READY"), change("o-2", "SERVED", 2), expired) == []


def test_100_corrected_orders_of_any_length_fit_into_a_notification_and_into_an_event() -> None:
    records = [change(f"o-{number}", "CORRECTED", item="😀" * 200, note="😀" * 500) for number in range(100)]
    parts = [announced_part(each) for each in records]
    assert len(json.dumps(parts)) < 1_000_000
    (notification,) = announced(*parts)
    assert [notification] == announced(*records)
    assert len(notification.message.encode()) < 200_000
    assert notification.message.count("…; note: 😀") == 100


@pytest.mark.parametrize("missing", ["items", "note", "version"])
def test_a_change_that_cannot_be_read_is_set_aside_and_its_neighbours_are_announced(missing: str) -> None:
    bad = change("o-3", "CORRECTED")
    del bad["dynamodb"]["NewImage"][missing]
    failures, topic = Failures(), Topic(AWAY, "none")
    assert announce([*RECORDS[:3], bad, *RECORDS[4:]], topic, failures) is None
    assert (failures.put, len(topic.taken)) == (["e-o-3-1"], 9)
    # A redrive that still cannot read the change sets it aside again.
    assert announce([announced_part(bad)], topic, failures, redriven=True) is None
    assert failures.put == ["e-o-3-1"] * 2


def test_a_redelivered_batch_keeps_its_key_and_another_batch_has_another_key() -> None:
    keys = [announced(*batch)[0].key for batch in ([record("o-1")], [record("o-1")], [record("o-2")])]
    assert keys[0] == keys[1] != keys[2]


def test_each_order_has_one_line_and_a_customer_that_is_no_string_is_unknown() -> None:
    without_image = record("o-1")
    del without_image["dynamodb"]["NewImage"]
    customers = ({"N": "5"}, {"NULL": True}, {"M": {}}, {"L": []}, {"SS": ["a"]}, {"B": "AA=="})
    for change in (without_image, *(record("o-1", customer) for customer in customers)):
        assert announced(change)[0].message == "1 new order:\n- order o-1 of customer unknown"
    assert announced(record("a\nb", "\u2028"))[0].message == '1 new order:\n- order "a\\nb" of customer "\\u2028"'


AWAY = Unavailable("SNS is away")


def refusal(code: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "Publish"
    )  # type: ignore[typeddict-item]


INVALID, FORBIDDEN = refusal("InvalidParameter"), refusal("AuthorizationError")


class Topic:
    """Fakes an SNS topic that rejects messages about some orders, or about all orders.

    The attribute ``taken`` lists the orders in accepted messages.
    """

    def __init__(self, error: Exception, *refused: str) -> None:
        self.error = error
        self.refused = refused
        self.taken: list[str] = []
        self.calls = 0

    def __call__(self, notification: Notification) -> None:
        self.calls += 1
        named = re.findall(r"order (\S+) of", notification.message)
        if not self.refused or set(self.refused) & set(named):
            raise self.error
        self.taken += named


BATCH = [f"o-{number}" for number in range(10)]
EVENTS = [f"e-{order_id}" for order_id in BATCH]
RECORDS = [record(order_id) for order_id in BATCH]


@pytest.mark.parametrize("age", [1, 130, 80_000])
@pytest.mark.parametrize("error", [AWAY, FORBIDDEN], ids=repr)
def test_while_sns_takes_no_order_all_orders_stay_on_the_stream(age: int, error: Exception) -> None:
    topic = Topic(error)
    assert announce(RECORDS, topic, age=age) == "e-o-0"
    assert topic.calls <= (1 if age == 1 else FAILED_CALLS + 1)


@pytest.mark.parametrize("culprits", [BATCH[:1], BATCH[:2], BATCH[6:7], [BATCH[2], BATCH[8]]], ids=",".join)
@pytest.mark.parametrize("error", [AWAY, FORBIDDEN], ids=repr)
def test_after_two_minutes_an_order_that_fails_alone_is_set_aside(culprits: list[str], error: Exception) -> None:
    topic, failures = Topic(error, *culprits), Failures()
    assert announce(RECORDS, topic, failures, age=119) == "e-o-0"
    assert announce(RECORDS, topic, failures, age=121) is None
    assert topic.taken == [order_id for order_id in BATCH if order_id not in culprits]
    assert failures.put == [f"e-{each}" for each in culprits]
    assert failures.reasons == [str(error)] * len(culprits)


def test_a_last_order_that_fails_alone_waits_until_a_later_order_can_be_announced() -> None:
    topic, failures = Topic(AWAY, "o-9"), Failures()
    assert announce(RECORDS, topic, failures, age=121) == "e-o-9"
    assert announce([RECORDS[9], record("o-10")], topic, failures, age=121) is None
    assert failures.put == ["e-o-9"]
    assert topic.taken == [*BATCH[:9], "o-10"]


def test_two_bad_orders_among_100_are_found_before_the_function_gives_up() -> None:
    records = [record(f"o-{number}") for number in range(100)]
    topic, failures = Topic(AWAY, "o-0", "o-1"), Failures()
    assert announce(records, topic, failures, age=121) is None
    assert failures.put == ["e-o-0", "e-o-1"]
    assert len(topic.taken) == 98


@pytest.mark.parametrize("culprit", BATCH)
@pytest.mark.parametrize(
    "error",
    [INVALID, ParamValidationError(report="no"), KeyError("a bug")],
    ids=repr,
)
def test_a_refused_order_is_set_aside_alone_and_its_neighbours_are_announced(culprit: str, error: Exception) -> None:
    topic, failures = Topic(error, culprit), Failures()
    assert announce(RECORDS, topic, failures) is None
    assert topic.taken == [order_id for order_id in BATCH if order_id != culprit]
    assert failures.put == [f"e-{culprit}"]
    assert topic.calls <= 10


def test_an_order_that_cannot_be_set_aside_is_retried_with_all_later_orders() -> None:
    topic = Topic(INVALID, "o-3")
    assert announce(RECORDS, topic, Failures("e-o-3")) == "e-o-3"
    # An order after the failed order must not be announced, because the retry would announce it again.
    assert topic.taken == BATCH[:3]


@pytest.mark.parametrize("age", [1, 130])
def test_orders_that_were_announced_before_sns_went_away_are_not_announced_again(age: int) -> None:
    topic = Topic(INVALID, "o-7")

    def publish(notification: Notification) -> None:
        if topic.taken:
            raise AWAY
        topic(notification)

    assert announce(RECORDS, publish, age=age) == "e-o-5"
    assert topic.taken == BATCH[:5]


@pytest.mark.parametrize("broken", [{}, {"Keys": {}}, {"Keys": {"orderID": {"N": "1"}}}, {"NewImage": []}])
def test_a_record_that_cannot_be_read_is_set_aside_and_its_neighbours_are_announced(broken: dict[str, Any]) -> None:
    bad = record("o-3")
    bad["dynamodb"] = {"SequenceNumber": bad["dynamodb"]["SequenceNumber"], **broken}
    records = [*RECORDS[:3], bad, *RECORDS[4:]]
    failures, topic = Failures(), Topic(AWAY, "none")
    assert announce(records, topic, failures) is None
    assert topic.taken == [each for each in BATCH if each != "o-3"]
    assert failures.put == ["e-o-3"]
    topic = Topic(AWAY, "none")
    assert announce(records, topic, Failures("e-o-3")) == "e-o-3"
    assert topic.taken == BATCH[:3]


def test_without_time_for_another_try_later_orders_are_retried() -> None:
    topic = Topic(INVALID, "o-9")
    assert announce(RECORDS, topic, seconds=5) == "e-o-0"
    assert topic.calls == 1


@pytest.mark.parametrize("age", [1, 1_000_000])
def test_a_temporary_error_in_a_redriven_batch_fails_the_function_so_that_lambda_retries(age: int) -> None:
    """Lambda ignores the result of an asynchronous invocation, so only an error causes a retry."""
    with pytest.raises(Unavailable, match=r"^10 orders could not be announced: SNS is away$"):
        announce(RECORDS, Topic(AWAY), age=age, redriven=True)


def test_a_redriven_order_that_is_refused_is_set_aside_again_or_fails_the_function() -> None:
    failures = Failures()
    assert announce(RECORDS[:1], Topic(INVALID), failures, redriven=True) is None
    assert failures.put == ["e-o-0"]
    with pytest.raises(Unavailable):
        announce(RECORDS[:1], Topic(INVALID), Failures("e-o-0"), redriven=True)


def test_announce_orders_sets_orders_aside_in_lambdas_format(api: Api, aws: Aws) -> None:
    history = {"letter": "first", "tries": 9}
    with refusing(aws.sns, "publish", "InvalidParameter"):
        answer = api.invoke("announce_orders", {"Records": [RECORDS[3]], "redriven": True, "history": history})
    assert answer == {"batchItemFailures": []}
    [letter] = aws.drain(ENVIRONMENT["RETRIES_QUEUE_URL"])
    assert list(letter) == ["version", "timestamp", "requestContext", "requestPayload", "responsePayload"]
    assert list(letter["requestContext"]) == ["requestId", "functionArn", "condition"]
    assert letter["requestContext"]["condition"] == "NotAnnounced"
    assert letter["responsePayload"]["errorType"] == "InvalidParameterException"
    assert "InvalidParameter" in letter["responsePayload"]["errorMessage"]
    assert letter["requestPayload"]["history"] == history
    [change] = letter["requestPayload"]["Records"]
    # The dead letter contains only the fields of the record that announcing and redriving need.
    assert list(change) == ["eventID", "eventName", "eventSourceARN", "dynamodb"]
    assert change["dynamodb"]["NewImage"] == {"customerID": {"S": "c-1"}}
    assert announced(change)[0].message.endswith("- order o-3 of customer c-1")


@pytest.mark.parametrize("fault", ["AccessDenied", "ServiceUnavailable", "one entry"])
def test_an_order_that_the_retries_queue_refuses_is_retried(api: Api, aws: Aws, fault: str) -> None:
    with refusing(aws.sns, "publish", "InvalidParameter"), Stubber(aws.sqs) as sqs:
        if fault == "one entry":
            entry = {"Id": "0", "Code": "InternalError", "SenderFault": False}
            sqs.add_response("send_message_batch", {"Successful": [], "Failed": [entry]})
        else:
            sqs.add_client_error("send_message_batch", fault, http_status_code=503 if "Un" in fault else 403)
        answer = api.invoke("announce_orders", {"Records": RECORDS[3:4]})
    assert answer == {"batchItemFailures": [{"itemIdentifier": RECORDS[3]["dynamodb"]["SequenceNumber"]}]}
