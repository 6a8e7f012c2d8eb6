"""Orders to the subscribers: each announced, and one that cannot be holds up no other."""

import copy
import re
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.errors import Unavailable
from chalicelib.notifications import Notification, Publish, one_line
from chalicelib.orders.announce import PutBy, announce_orders
from tests.unit.api import Api
from tests.unit.cloud import ENVIRONMENT, Aws


def record(order_id: str, customer: Any = "c-1", name: str = "INSERT") -> dict[str, Any]:
    """One record of the table's stream."""
    image = {"orderID": {"S": order_id}, "customerID": {"S": customer} if isinstance(customer, str) else customer}
    return {
        "eventID": f"e-{order_id}",
        "eventName": name,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "eventSourceARN": ENVIRONMENT["ORDERS_STREAM_ARN"],
        "dynamodb": {
            "ApproximateCreationDateTime": 1795230855.0,
            "Keys": {"orderID": {"S": order_id}},
            "SequenceNumber": f"11000000000{zlib.crc32(order_id.encode()):010}",
            "SizeBytes": 26,
            "StreamViewType": "NEW_IMAGE",
            **({} if name == "REMOVE" else {"NewImage": image}),
        },
    }


class Failures:
    """The failures queue as announce_orders sees it."""

    def __init__(self, *refused: str) -> None:
        self.put: list[str] = []
        self.reasons: list[str] = []
        self.calls = 0
        self.refused = refused

    def __call__(self, records: Sequence[dict[str, Any]], error: Exception) -> list[dict[str, Any]]:
        self.calls += 1
        stuck = [each for each in records if each["eventID"] in self.refused]
        self.put += [each["eventID"] for each in records if each not in stuck]
        self.reasons.append(str(error))
        return stuck


WRITTEN = datetime.fromtimestamp(1795230855, UTC)


def announce(
    records: Sequence[dict[str, Any]],
    publish: Publish,
    put_by: PutBy | None = None,
    *,
    age: int = 1,
    seconds: float = 60,
    redriven: bool = False,
) -> str | None:
    """The event id of the first record that is not done. The records came ``age`` seconds ago."""
    event = {"Records": list(records), **({"redriven": True} if redriven else {})}
    answer = announce_orders(
        event,
        publish=publish,
        put_by=put_by or (lambda records, error: pytest.fail(f"put by: {error!r}") if records else []),
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


def test_a_batch_of_new_orders_is_one_notification_that_names_each() -> None:
    (notification,) = announced(record("o-1"), record("o-2", "c-2"))
    assert notification.kind == "order"
    assert notification.subject == "2 new orders"
    assert notification.message == "2 new orders:\n- order o-1 of customer c-1\n- order o-2 of customer c-2"
    assert notification.sms == "2 new orders"


def test_one_new_order_is_not_called_orders() -> None:
    assert announced(record("o-1"))[0].subject == "1 new order"


def test_a_changed_or_removed_order_is_not_announced() -> None:
    assert announced(record("o-1", name="MODIFY"), record("o-2", name="REMOVE")) == []
    (notification,) = announced(record("o-1", name="MODIFY"), record("o-2"), record("o-3", name="REMOVE"))
    assert notification.message == "1 new order:\n- order o-2 of customer c-1"


def test_a_batch_delivered_twice_is_announced_under_one_key_and_another_under_another() -> None:
    keys = [announced(*batch)[0].key for batch in ([record("o-1")], [record("o-1")], [record("o-2")])]
    assert keys[0] == keys[1] != keys[2]


EACH_TYPE = {
    "S": "text",
    "N": "1.5",
    "B": "AAE=",
    "SS": ["a", "b"],
    "NS": ["1", "2"],
    "BS": ["AAE="],
    "M": {"a": {"L": [{"NULL": True}]}},
    "L": [{"M": {}}],
    "NULL": True,
    "BOOL": False,
}


@pytest.mark.parametrize("name", EACH_TYPE)
def test_an_image_may_have_attributes_of_each_type(name: str) -> None:
    given = record("o-1")
    given["dynamodb"]["NewImage"]["other"] = {name: EACH_TYPE[name]}
    assert announced(given)[0].message == "1 new order:\n- order o-1 of customer c-1"


@pytest.mark.parametrize("customer", [{"N": "5"}, {"NULL": True}, {"M": {}}, {"SS": ["a"]}])
def test_a_customer_that_is_no_text_is_called_unknown(customer: Any) -> None:
    assert announced(record("o-1", customer))[0].message == "1 new order:\n- order o-1 of customer unknown"


IMAGE = st.recursive(
    st.sampled_from(
        [{"NULL": True}, {"BOOL": False}, {"N": "1"}, {"B": "AA=="}, {"SS": ["a"]}, {"NS": ["1"]}, {"BS": ["AA=="]}]
    )
    | st.text().map(lambda text: {"S": text}),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: {"L": values})
        | st.dictionaries(st.text(), inner, max_size=3).map(lambda values: {"M": values})
    ),
)


@given(st.text(min_size=1), st.dictionaries(st.sampled_from(["customerID", "orderID", "items"]) | st.text(), IMAGE))
def test_any_image_is_announced_on_a_line_of_its_own_that_names_the_order(order_id: str, image: dict[str, Any]) -> None:
    given = record(order_id)
    given["dynamodb"]["NewImage"] = image
    (notification,) = announced(given)
    lines = notification.message.splitlines()
    assert lines[0] == "1 new order:"
    assert len(lines) == 2
    assert lines[1].startswith(f"- order {one_line(order_id)} of customer ")


def test_a_record_without_an_image_is_announced_by_its_key() -> None:
    given = record("o-1")
    del given["dynamodb"]["NewImage"]
    assert announced(given)[0].message == "1 new order:\n- order o-1 of customer unknown"


def test_announce_orders_publishes_what_subscribers_filter_by(api: Api, aws: Aws) -> None:
    records = [record("o-1"), record("o-2", name="REMOVE")]
    api.client.lambda_.invoke("announce_orders", {"Records": copy.deepcopy(records)})
    (notification,) = aws.published()
    assert notification["Subject"] == "1 new order"
    assert notification["MessageAttributes"]["kind"]["Value"] == "order"


# What cannot be announced

AWAY = Unavailable("SNS is away")


def refusal(code: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "Publish"
    )  # type: ignore[typeddict-item]


class Topic:
    """An SNS that refuses, by the order's id; and keeps which orders each of its messages named."""

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
RECORDS = [record(order_id) for order_id in BATCH]


def test_what_may_pass_brings_the_batch_again() -> None:
    topic = Topic(AWAY)
    assert announce(RECORDS, topic) == "e-o-0"
    assert topic.calls == 1


@pytest.mark.parametrize(("code", "status"), [("InternalError", 500), ("Throttling", 400), ("KMSThrottling", 400)])
def test_announce_orders_answers_lambda_with_the_first_record_that_is_to_come_again(
    api: Api, aws: Aws, code: str, status: int
) -> None:
    records = copy.deepcopy(RECORDS)
    for each in records:
        each["dynamodb"]["ApproximateCreationDateTime"] = datetime.now(UTC).timestamp()
    with Stubber(aws.sns) as sns:
        sns.add_client_error("publish", code, http_status_code=status)
        answer = api.client.lambda_.invoke("announce_orders", {"Records": records}).payload
    assert answer == {"batchItemFailures": [{"itemIdentifier": records[0]["dynamodb"]["SequenceNumber"]}]}


def test_an_order_of_two_minutes_is_put_by_and_a_younger_one_behind_it_comes_again() -> None:
    young = copy.deepcopy(RECORDS)
    for each in young[4:]:
        each["dynamodb"]["ApproximateCreationDateTime"] += 60
    failures = Failures()
    assert announce(young, Topic(AWAY), failures, age=130) == "e-o-4"
    assert failures.put == [f"e-{order_id}" for order_id in BATCH[:4]]
    assert failures.reasons == ["SNS is away"]


def test_a_batch_that_is_old_as_a_whole_is_done() -> None:
    failures = Failures()
    assert announce(RECORDS, Topic(AWAY), failures, age=121) is None
    assert len(failures.put) == 10


@pytest.mark.parametrize("culprit", BATCH)
@pytest.mark.parametrize(
    "error",
    [
        refusal("InvalidParameter"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        ParamValidationError(report="no"),
    ],
    ids=repr,
)
def test_the_order_that_sns_refuses_is_put_by_alone_and_its_neighbours_are_announced_once(
    culprit: str, error: Exception
) -> None:
    topic, failures = Topic(error, culprit), Failures()
    assert announce(RECORDS, topic, failures) is None
    assert topic.taken == [order_id for order_id in BATCH if order_id != culprit]
    assert failures.put == [f"e-{culprit}"]
    assert topic.calls <= 10


def test_a_refusal_that_no_trying_changes_puts_all_by_at_once() -> None:
    topic, failures = Topic(refusal("AuthorizationError")), Failures()
    assert announce(RECORDS, topic, failures) is None
    assert (topic.calls, failures.calls) == (1, 1)
    assert failures.put == [f"e-{order_id}" for order_id in BATCH]


@pytest.mark.parametrize("error", [refusal("InvalidParameter"), refusal("AuthorizationError")], ids=repr)
def test_an_order_that_cannot_be_put_by_either_comes_again_with_those_behind_it(error: Exception) -> None:
    topic, failures = Topic(error, "o-3"), Failures("e-o-3")
    assert announce(RECORDS, topic, failures) == "e-o-3"
    if error.response["Error"]["Code"] == "InvalidParameter":  # type: ignore[attr-defined]
        # None behind it was announced, or it would be once more.
        assert topic.taken == ["o-0", "o-1", "o-2"]


def test_what_was_announced_before_sns_went_away_is_not_announced_again() -> None:
    topic = Topic(refusal("InvalidParameter"), "o-7")

    def publish(notification: Notification) -> None:
        if topic.taken:
            raise AWAY
        topic(notification)

    assert announce(RECORDS, publish) == "e-o-5"
    assert topic.taken == BATCH[:5]


@pytest.mark.parametrize("broken", [{}, {"Keys": {}}, {"Keys": {"orderID": {"N": "1"}}}, {"NewImage": []}])
def test_a_record_that_cannot_be_read_is_put_by_and_its_neighbours_are_announced(broken: dict[str, Any]) -> None:
    bad = record("o-3")
    bad["dynamodb"] = {"SequenceNumber": bad["dynamodb"]["SequenceNumber"], **broken}
    failures = Failures()
    topic = Topic(AWAY, "none")
    assert announce([*RECORDS[:3], bad, *RECORDS[4:]], topic, failures) is None
    assert topic.taken == [each for each in BATCH if each != "o-3"]
    assert failures.put == ["e-o-3"]
    topic = Topic(AWAY, "none")
    assert announce([*RECORDS[:3], bad, *RECORDS[4:]], topic, Failures("e-o-3")) == "e-o-3"
    assert topic.taken == BATCH[:3]


def test_without_time_for_another_try_the_rest_comes_again() -> None:
    topic = Topic(refusal("InvalidParameter"), "o-9")
    assert announce(RECORDS, topic, seconds=5) == "e-o-0"
    assert topic.calls == 1


@pytest.mark.parametrize("age", [1, 1_000_000])
def test_a_redriven_batch_that_may_pass_fails_the_function_so_that_lambda_tries_again(age: int) -> None:
    """Nobody reads the answer of a function that is invoked without waiting."""
    with pytest.raises(Unavailable, match=r"^10 orders could be neither"):
        announce(RECORDS, Topic(AWAY), age=age, redriven=True)


def test_a_redriven_order_that_is_refused_is_put_by_again_or_fails_the_function() -> None:
    failures = Failures()
    assert announce(RECORDS[:1], Topic(refusal("AuthorizationError")), failures, redriven=True) is None
    assert failures.put == ["e-o-0"]
    with pytest.raises(Unavailable):
        announce(RECORDS[:1], Topic(refusal("AuthorizationError")), Failures("e-o-0"), redriven=True)


def failures_of(aws: Aws) -> list[dict[str, Any]]:
    return aws.drain(ENVIRONMENT["FAILURES_QUEUE_URL"])


def test_announce_orders_puts_each_order_by_as_lambda_would_hand_over_its_event(api: Api, aws: Aws) -> None:
    with Stubber(aws.sns) as sns:
        sns.add_client_error("publish", "AuthorizationError", http_status_code=403)
        answer = api.client.lambda_.invoke("announce_orders", {"Records": [*RECORDS, record("o-10")]}).payload
    assert answer == {"batchItemFailures": []}
    found = {each["requestPayload"]["Records"][0]["eventID"]: each for each in failures_of(aws)}
    assert found.keys() == {f"e-{order_id}" for order_id in [*BATCH, "o-10"]}
    letter = found["e-o-3"]
    assert list(letter) == ["version", "timestamp", "requestContext", "requestPayload", "responsePayload"]
    assert list(letter["requestContext"]) == ["requestId", "functionArn", "condition"]
    assert letter["requestContext"]["condition"] == "NotAnnounced"
    assert letter["responsePayload"]["errorType"] == "AuthorizationErrorException"
    assert "AuthorizationError" in letter["responsePayload"]["errorMessage"]
    change = RECORDS[3]["dynamodb"]
    assert letter["requestPayload"] == {
        "Records": [
            {
                "eventID": "e-o-3",
                "eventName": "INSERT",
                "eventSourceARN": ENVIRONMENT["ORDERS_STREAM_ARN"],
                "dynamodb": {
                    "ApproximateCreationDateTime": change["ApproximateCreationDateTime"],
                    "Keys": {"orderID": {"S": "o-3"}},
                    "SequenceNumber": change["SequenceNumber"],
                    "NewImage": {"customerID": {"S": "c-1"}},
                },
            }
        ]
    }
    # It is enough to announce the order by.
    assert announced(*letter["requestPayload"]["Records"])[0].message.endswith("- order o-3 of customer c-1")


@pytest.mark.parametrize("fault", ["AccessDenied", "ServiceUnavailable", "one entry"])
def test_what_the_failures_queue_refuses_comes_again(api: Api, aws: Aws, fault: str) -> None:
    with Stubber(aws.sns) as sns, Stubber(aws.sqs) as sqs:
        sns.add_client_error("publish", "AuthorizationError", http_status_code=403)
        if fault == "one entry":
            entry = {"Id": "3", "Code": "InternalError", "SenderFault": False}
            sqs.add_response("send_message_batch", {"Successful": [], "Failed": [entry]})
        else:
            sqs.add_client_error("send_message_batch", fault, http_status_code=503 if "Un" in fault else 403)
        answer = api.client.lambda_.invoke("announce_orders", {"Records": RECORDS}).payload
    first = RECORDS[3 if fault == "one entry" else 0]
    assert answer == {"batchItemFailures": [{"itemIdentifier": first["dynamodb"]["SequenceNumber"]}]}
