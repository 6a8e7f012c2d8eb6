"""Tests how dead letters in every format are shown, and how a redrive returns each dead letter to its origin."""

import copy
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import example, given
from hypothesis import strategies as st

from chalicelib import clients
from chalicelib.dead_letters import destinations, handled, listing
from chalicelib.dead_letters import queue as queues
from chalicelib.dead_letters import redrive as redriving
from chalicelib.dead_letters.letters import FUNCTIONS
from chalicelib.errors import Unavailable
from chalicelib.orders import announce, replay
from chalicelib.timeline import index_keys, timestamp
from chalicelib.uploads import records
from tests.unit.api import Api, app, refused
from tests.unit.cloud import ENVIRONMENT, Aws, refusing
from tests.unit.letters import (
    DEAD,
    FAILURES,
    LINK,
    NOT_STARTED,
    ORDER,
    SENT,
    envelope,
    invocation,
    lost,
    message,
    position,
    read,
    s3_event,
    schedule,
    sns_event,
    stream_record,
)

# --- How a letter is shown --------------------------------------------------------------------------------------------

FAILED, DELIVERED = "2026-11-21T04:00:00.500000Z", "2026-11-21T03:59:59.123000Z"
ALARMS = ENVIRONMENT["ALARMS_TOPIC_ARN"]
DOWN = "MySQL does not answer"
TOO_OLD = lost("record_alarm", sns_event(Subject="A"), condition="EventAgeExceeded", approximateInvokeCount=0)
TOO_OLD["Body"] = json.dumps(json.loads(TOO_OLD["Body"]) | {"responsePayload": None})
TIMELESS = invocation("receive_upload", s3_event("a"))
del TIMELESS["timestamp"]
ANNOUNCED = {"Records": [stream_record()]}
CANCELLED = {"Records": [stream_record(name="MODIFY", change="CANCELLED")]}
UNSTARTED, REFUSED = "the report could not be started", "The role may not start it"

NO_FUNCTION = "the function store_orders failed on the whole batch: see its log"
# Each row contains a description, a message, its kind, and the displayed fields that differ from the defaults.
DEAD_ORDERS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "order o-1 of customer Zoë": (message(ORDER), "order", {"since": SENT, "why": NO_FUNCTION, "tries": None}),
    "order o-1 of customer Zoë (that had its tries)": (
        message(ORDER, reason="the table did not take it", tries="6", sent="1795230000000"),
        "order",
        {"since": "2026-11-21T03:00:00.000000Z", "why": "the table did not take it", "tries": 6},
    ),
    "a message that is not an order": (
        message("{poison"),
        "order",
        {"since": SENT, "why": "body: is not JSON", "tries": None},
    ),
}
UNREADABLE = "an unreadable event for record_notification"
OTHERS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "upload inventory/café x.csv": (lost("receive_upload", s3_event("inventory/caf%C3%A9+x.csv")), "upload", {}),
    "upload a, b, c and 2 more": (lost("receive_upload", s3_event(*"abcde")), "upload", {}),
    "upload a (without its time)": (message(TIMELESS), "upload", {"since": SENT}),
    "notification 'Inventory report ready'": (lost("record_notification", sns_event()), "notification", {}),
    "alarm n-1, which has no subject": (lost("record_alarm", sns_event(Subject=None)), "alarm", {}),
    "alarm 'A'": (TOO_OLD, "alarm", {"why": "the event expired before the function could run", "tries": 0}),
    "announcement of order o-1 of customer Zoë": (
        lost("announce_orders", ANNOUNCED, approximateInvokeCount=None),
        "announcement",
        {"tries": None},
    ),
    "announcement of cancelled order o-1 of customer Zoë": (lost("announce_orders", CANCELLED), "announcement", {}),
    UNREADABLE: (lost("record_notification", {"Records": [{"Sns": {}}]}), "notification", {}),
    "notification 'Inventory report ready' (not delivered)": (
        message(envelope(), ErrorCode="404", ErrorMessage="not found"),
        "notification",
        {"since": DELIVERED, "why": "SNS could not deliver the message to a subscriber: not found", "tries": None},
    ),
    "alarm 'ALARM'": (
        message(envelope(TopicArn=ALARMS, Subject="ALARM", MessageAttributes={})),
        "alarm",
        {"since": DELIVERED, "why": "SNS could not", "tries": None},
    ),
    "3 changes of the orders table, the first at 2026-11-21T03:00:00.000000Z": (
        message(position()),
        "stream",
        {"why": "the function announce_orders failed on the whole batch, until Lambda gave up", "tries": 101},
    ),
    "the scheduled storage report storage-d32c5kddcf5bb8c3": (
        message(schedule(), **NOT_STARTED),
        "report",
        {"since": "2026-11-21T06:00:00.000000Z", "why": f"{UNSTARTED}: {REFUSED}", "tries": 1},
    ),
    "the scheduled storage report storage-1": (
        message(schedule(Name="storage-1")),
        "report",
        {"since": SENT, "why": UNSTARTED, "tries": None},
    ),
}
SHAPES = DEAD_ORDERS | OTHERS
UNKNOWN = {
    **{text[:9]: text for text in ("{", "[" * 100_000, "null", '"x"', "{}", "9" * 10_000)},
    "another function": invocation("read_inventory", {}),
    "another stage": json.dumps(invocation("receive_upload", {})).replace("cafe-test-", "cafe-prod-"),
    "no payload": invocation("receive_upload", None),
    "another topic": envelope(TopicArn="arn:aws:sns:us-east-1:123456789012:other"),
    "a confirmation": envelope(Type="SubscriptionConfirmation"),
    "another stream": position(streamArn="arn:aws:dynamodb:us-east-1:123456789012:table/other/stream/1"),
    "no sequence": position(start="x"),
    "another machine": schedule(StateMachineArn="arn:aws:states:us-east-1:123456789012:stateMachine:other"),
    "no name": {"StateMachineArn": ENVIRONMENT["STORAGE_REPORT_ARN"], "Input": "{}"},
}


@pytest.mark.parametrize("what", SHAPES)
def test_each_shape_shows_what_failed_when_why_and_how_often(what: str) -> None:
    given, kind, changes = SHAPES[what]
    shown = read(given, DEAD if what in DEAD_ORDERS else FAILURES).shown()
    expected = {"since": FAILED, "why": DOWN, "tries": 3, **changes}
    assert shown.pop("why").startswith(expected.pop("why"))
    assert shown == {"id": "m-1", "letter": "m-1", "kind": kind, "what": what.partition(" (")[0], **expected}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_message_of_no_known_shape_is_shown_as_unknown(name: str) -> None:
    letter = read(message(UNKNOWN[name]), FAILURES)
    assert (letter.kind, letter.what, letter.since) == ("unknown", "a message in an unknown format", SENT)
    assert letter.destination is None


@pytest.mark.parametrize("what", SHAPES)
def test_no_letter_shows_a_link_a_note_or_more_than_one_line(what: str) -> None:
    given = copy.deepcopy(SHAPES[what][0])
    # The subject, the body's error and the message attribute may each contain a link.
    given["Body"] = given["Body"].replace("Inventory report ready", LINK).replace("MySQL does", f"{LINK} does")
    given["MessageAttributes"]["ErrorMessage"] = {"StringValue": f"{LINK}\n{'x' * 1000}"}
    shown = json.dumps(read(given, DEAD if what in DEAD_ORDERS else FAILURES).shown())
    assert "Signature" not in shown
    assert "secret" not in shown


@given(st.text(), st.text())
@example("x" * 301, "y" * 301)
def test_any_text_is_shown_as_one_printable_line_of_bounded_length(text: str, key: str) -> None:
    for queue, body in ((DEAD, text), (FAILURES, invocation("receive_upload", s3_event(key), {"errorMessage": text}))):
        letter = read(message(body, reason=text), queue)
        for each in (letter.what, letter.why):
            assert 1 <= len(each) <= 300
            assert each.isprintable()
        assert len(text) < 300 or len(letter.why) == 300


FIELDS = ["Records", "requestPayload", "requestContext", "Sns", "s3", "object", "key", "dynamodb", "Keys", "Subject"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=15,
)


@given(st.sampled_from(sorted(OTHERS)), st.data())
def test_any_message_is_shown_as_a_letter(name: str, data: st.DataObject) -> None:
    """The test replaces one value in a known message with an arbitrary JSON value."""
    body = json.loads(OTHERS[name][0]["Body"])
    part = data.draw(st.sampled_from([body, *(each for each in body.values() if each and isinstance(each, dict))]))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(JSON)
    read(message(body), FAILURES).shown()


# --- The list ---------------------------------------------------------------------------------------------------------


def put(aws: Aws, queue: str, *bodies: Any) -> list[str]:
    """Sends messages to a queue, and returns their ids."""
    texts = [each if isinstance(each, str) else json.dumps(each) for each in bodies]
    return [aws.sqs.send_message(QueueUrl=queue, MessageBody=each)["MessageId"] for each in texts]


def visible(aws: Aws, queue: str) -> int:
    """Returns the number of visible messages in a queue."""
    name = "ApproximateNumberOfMessages"
    return int(aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[name])["Attributes"][name])


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "WAIT_SECONDS", 0)


def listed(api: Api, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/dead-letters{query}").json_body
    return found


def ids(page: dict[str, Any]) -> list[str]:
    return [each["id"] for each in page["deadLetters"]]


def test_the_list_has_both_queues_oldest_first_and_removes_no_message(api: Api, aws: Aws) -> None:
    times = [{"timestamp": f"2026-11-21T{hour:02}:00:00Z"} for hour in (9, 8, 7, 6, 5)]
    newest_first = put(aws, FAILURES, *(invocation("receive_upload", s3_event("a")) | each for each in times))
    for _ in range(2):
        page = listed(api)
        assert (ids(page), page["total"]) == (newest_first[::-1], 5)
    put(aws, DEAD, *[ORDER] * 25)
    page = listed(api, "?limit=3")
    assert (len(page["deadLetters"]), page["total"]) == (3, 30)
    assert (visible(aws, DEAD), visible(aws, FAILURES)) == (25, 5)


def test_without_time_to_read_all_messages_the_total_is_sqs_own_count(aws: Aws) -> None:
    put(aws, DEAD, *[ORDER] * 25)
    ticks = iter([0, 1, 2])
    clock = {"now": datetime.now(UTC), "clock": lambda: next(ticks, 99)}
    found = listing.oldest(100, settings=app.settings, aws=clients.aws, **clock)
    assert (len(found["deadLetters"]), found["total"]) == (20, 25)
    assert visible(aws, DEAD) == 25


def error(code: str, operation: str, status: int = 403) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


# --- Redriving --------------------------------------------------------------------------------------------------------

ONE = {"redriven": 1, "kept": [], "left": 0}


class Functions:
    """Fakes the Lambda client that a redrive uses."""

    def __init__(self) -> None:
        self.invoked: list[tuple[str, Any]] = []
        self.refused = ""

    def invoke(self, FunctionName: str, InvocationType: str, Payload: str) -> dict[str, int]:  # noqa: N803
        assert InvocationType == "Event"
        if FunctionName == self.refused:
            raise error("AccessDeniedException", "Invoke")
        self.invoked.append((FunctionName, json.loads(Payload)))
        return {"StatusCode": 202}


class Stream:
    """Fakes a DynamoDB stream that returns an empty page, and then the records 1 to 9 on one page each."""

    def __init__(self) -> None:
        self.trimmed = False
        self.end = 9
        self.asked: list[dict[str, str]] = []

    def get_shard_iterator(self, **given: str) -> dict[str, str]:
        self.asked.append(given)
        if self.trimmed:
            raise error("TrimmedDataAccessException", "GetShardIterator")
        return {"ShardIterator": f"{int(given['SequenceNumber']) - 0.5}"}

    def get_records(self, ShardIterator: str) -> dict[str, Any]:  # noqa: N803
        number = float(ShardIterator)
        answer: dict[str, Any] = {"Records": []}
        if number.is_integer() and number > 0:
            change = {6: "READY", 7: "CANCELLED"}.get(int(number), "")
            record = stream_record(f"o-{int(number)}", int(number), "MODIFY" if change else "INSERT", change)
            del record["eventSourceARN"]
            record["dynamodb"]["ApproximateCreationDateTime"] = datetime.fromtimestamp(1795230855, UTC)
            # The record contains a binary attribute that boto3 returns as bytes and JSON cannot represent.
            record["dynamodb"]["NewImage"]["other"] = {"B": b"\x00"}
            answer["Records"] = [record]
        if number < self.end:
            answer["NextShardIterator"] = str(number + 0.5)
        return answer


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def functions(aws: Aws, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> Functions:
    functions = Functions()
    own, made = {"lambda": functions, "dynamodbstreams": stream}, clients.aws
    monkeypatch.setattr(clients, "aws", lambda service: own[service] if service in own else made(service))
    return functions


def redrive(api: Api, body: Any = b"") -> dict[str, Any]:
    answer = api.post("/dead-letters/redrive", body)
    assert answer.status_code == 200, answer.body
    result: dict[str, Any] = answer.json_body
    assert list(result) == ["redriven", "kept", "left"]
    return result


def test_a_report_that_its_schedule_could_not_start_is_started_once_under_its_name(api: Api, aws: Aws) -> None:
    attributes = {name: {"DataType": "String", "StringValue": value} for name, value in NOT_STARTED.items()}
    for _ in range(2):
        # Both dead letters describe the same report that could not be started.
        aws.sqs.send_message(QueueUrl=FAILURES, MessageBody=json.dumps(schedule()), MessageAttributes=attributes)
        assert redrive(api) == ONE
    report = api.get("/reports/storage-d32c5kddcf5bb8c3").json_body
    assert (report["kind"], report["requestedBy"]) == ("storage", None)
    assert len(api.get("/reports").json_body["reports"]) == 1


@pytest.mark.parametrize("body", [b"", {}])
def test_orders_go_back_to_their_queue_byte_for_byte(api: Api, aws: Aws, functions: Functions, body: Any) -> None:
    bodies = [ORDER, "{poison", ' {"a":\t"Zoë\u2028漢" }\n', *[f"{ORDER}{' ' * number}" for number in range(10)]]
    put(aws, DEAD, *bodies)
    assert redrive(api, body) == {"redriven": 13, "kept": [], "left": 0}
    assert sorted(each["Body"] for each in aws.receive(ENVIRONMENT["ORDERS_QUEUE_URL"])) == sorted(bodies)
    assert redrive(api) == {"redriven": 0, "kept": [], "left": 0}
    assert ids(listed(api)) == []


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_event_goes_back_to_its_own_function(api: Api, aws: Aws, functions: Functions, function: str) -> None:
    payload = {"Records": [{"any": "thing"}]}
    [letter] = put(aws, FAILURES, invocation(function, payload))
    assert redrive(api) == ONE
    expected = {**payload, "redriven": True} if function == "announce_orders" else payload
    expected["history"] = {"letter": letter, "since": FAILED, "tries": 3}
    assert functions.invoked == [(f"cafe-test-{function}", expected)]
    # If the function fails again, the tries add up, and the first failure and its letter stay.
    later = invocation(function, expected) | {"timestamp": "2026-11-22T04:00:00Z"}
    again = read(message(later), FAILURES)
    assert (again.id, again.letter, again.since, again.tries) == ("m-1", letter, FAILED, 6)


def test_an_undelivered_notification_is_published_again_keyed_by_id_if_keyless(api: Api, aws: Aws) -> None:
    aws.sns.create_topic(Name="cafe-test-alarms")
    calls = aws.calls(aws.sns, "Publish")
    alarm = envelope(TopicArn=ALARMS, Subject=None)
    del alarm["MessageAttributes"]
    own = {"kind": "report", "key": "report/inventory-1", "facts": '{"id": "inventory-1"}'}
    expected = (envelope(), own), (alarm, {"kind": "alarm", "key": alarm["MessageId"]})
    for letter, attributes in expected:
        put(aws, FAILURES, letter)
        assert redrive(api) == ONE
        assert calls[-1]["TopicArn"] == letter["TopicArn"]
        assert {name: each["StringValue"] for name, each in calls[-1]["MessageAttributes"].items()} == attributes
    assert calls[0]["Subject"] == "Inventory report ready"
    # The SMS text contains no link.
    texts = {"default": f"It opens for an hour: {LINK}", "sms": "Inventory report ready"}
    assert json.loads(calls[0]["Message"]) == texts


def test_the_new_and_cancelled_orders_at_a_position_are_read_from_the_stream_and_announced(
    api: Api, aws: Aws, functions: Functions, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(aws, FAILURES, position())
    assert redrive(api) == ONE
    [asked] = stream.asked
    assert asked == {
        "StreamArn": ENVIRONMENT["ORDERS_STREAM_ARN"],
        "ShardId": "shardId-00000001573689847184-864758bb",
        "ShardIteratorType": "AT_SEQUENCE_NUMBER",
        "SequenceNumber": "5",
    }
    # The sixth record is not sent, because it is of a change that is not announced.
    records = [stream_record("o-5", 5), stream_record("o-7", 7, "MODIFY", "CANCELLED")]
    [(function, event)] = functions.invoked
    assert (function, event["Records"], event["redriven"]) == ("cafe-test-announce_orders", records, True)
    # An order of the batch that fails separately has an id of its own.
    history = event["history"]
    [handled] = listed(api)["handled"]
    assert (history, handled["state"]) == ({"letter": handled["letter"], "since": FAILED, "tries": 101}, "ON_ITS_WAY")
    monkeypatch.setattr(announce, "ANNOUNCEMENT_SECONDS", 0)
    with refusing(aws.sns, "publish", "InvalidParameter", times=3):
        api.invoke("announce_orders", event)
    aside = aws.drain(ENVIRONMENT["RETRIES_QUEUE_URL"])
    put(aws, FAILURES, *(invocation("announce_orders", each["requestPayload"]) for each in aside))
    page = listed(api)
    letters = {f"{history['letter']}-{number}" for number in (5, 7)}
    assert ({each["letter"] for each in page["deadLetters"]}, states(api)) == (letters, ["FAILED_AGAIN"])
    assert {each["tries"] for each in page["deadLetters"]} == {101 + 3}
    assert api.post("/dead-letters/discard", {"kind": "announcement"}).json_body["discarded"] == 2
    assert {each["letter"] for each in listed(api)["handled"]} == letters | {history["letter"]}
    # A redrive announces a large number of orders in several invocations.
    monkeypatch.setattr(destinations, "RECORDS_AT_ONCE", 2)
    put(aws, FAILURES, position("1", "5"))
    assert redrive(api) == ONE
    assert [len(event["Records"]) for _, event in functions.invoked[1:]] == [2, 2, 1]


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ({"trimmed": True}, "the orders are stored but not announced: the stream keeps changes for only 24 hours"),
        ({"end": 6}, "the stream did not return all changes in this batch"),
    ],
)
def test_a_position_whose_changes_are_not_all_on_the_stream_is_kept(
    api: Api, aws: Aws, functions: Functions, stream: Stream, missing: dict[str, Any], why: str
) -> None:
    vars(stream).update(missing)
    put(aws, FAILURES, position())
    result = redrive(api)
    assert ([each["why"] for each in result["kept"]], result["left"]) == ([why], 1)
    assert functions.invoked == []
    assert visible(aws, FAILURES) == 1


def test_a_letter_that_cannot_go_back_is_kept(api: Api, aws: Aws, functions: Functions) -> None:
    functions.refused = "cafe-test-receive_upload"
    alarm = invocation("record_alarm", sns_event())
    bodies = [invocation("receive_upload", s3_event("a")), "?", envelope(Message="\ud800"), alarm]
    upload, unknown, broken, _ = put(aws, FAILURES, *bodies)
    put(aws, DEAD, ORDER)
    result = redrive(api)
    assert (result["redriven"], result["left"]) == (2, 3)
    no_content = "the message has the format of a dead letter, but AWS rejects its content"
    assert {each["id"]: (each["what"], each["why"]) for each in result["kept"]} == {
        upload: ("upload a", "Invoke was refused: AccessDeniedException"),
        unknown: ("a message in an unknown format", "its origin is unknown"),
        broken: ("notification 'Inventory report ready'", no_content),
    }
    assert [name for name, _ in functions.invoked] == ["cafe-test-record_alarm"]
    # The dead letters that stay in the queue are visible again immediately.
    page = listed(api)
    assert set(ids(page)) == {upload, unknown, broken}
    assert {each["letter"] for each in page["handled"]}.isdisjoint(ids(page))


@pytest.mark.parametrize(("fault", "redriven"), [("AccessDenied", 0), ("ServiceUnavailable", 0), ("one entry", 1)])
def test_an_order_that_its_queue_refuses_is_kept(
    api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch, fault: str, redriven: int
) -> None:
    put(aws, DEAD, ORDER, ORDER)

    def refuse(**_: Any) -> dict[str, Any]:
        if redriven:
            return {"Failed": [{"Id": "0", "Code": "InternalError", "SenderFault": False}]}
        raise error(fault, "SendMessageBatch", 503 if fault == "ServiceUnavailable" else 403)

    monkeypatch.setattr(aws.sqs, "send_message_batch", refuse)
    result = redrive(api)
    assert (result["redriven"], result["left"]) == (redriven, 2 - redriven)
    assert all("SendMessage" in each["why"] for each in result["kept"])
    assert visible(aws, DEAD) == result["left"]


def test_only_the_requested_letters_go_back(api: Api, aws: Aws, functions: Functions) -> None:
    waiting = put(aws, DEAD, *[ORDER] * 12)
    put(aws, FAILURES, invocation("record_alarm", sns_event()))
    requested = [waiting[3], waiting[11]]
    assert redrive(api, {"ids": [*requested, "not-there"]}) == {"redriven": 2, "kept": [], "left": 11}
    assert len(aws.queued()) == 2
    assert set(ids(listed(api))).isdisjoint(requested)
    assert functions.invoked == []


def redriven_in(ticks: int) -> dict[str, Any]:
    """Runs a redrive whose time is up after ``ticks`` readings of the clock."""
    clock = iter(range(ticks))
    selection, read = redriving.Selection(), {"clock": lambda: next(clock, 99)}
    now = datetime.now(UTC)
    return redriving.handle("redriven", selection, by="mia", settings=app.settings, aws=clients.aws, now=now, **read)


def test_when_time_runs_out_the_remaining_letters_stay_and_are_counted(aws: Aws) -> None:
    put(aws, DEAD, *[ORDER] * 25)
    assert redriven_in(3) == {"redriven": 20, "kept": [], "left": 5}


def test_when_time_runs_out_in_a_batch_its_remaining_letters_are_kept(aws: Aws, functions: Functions) -> None:
    put(aws, FAILURES, *[invocation("record_alarm", sns_event())] * 5)
    result = redriven_in(5)
    assert (result["redriven"], result["left"]) == (len(functions.invoked), 5 - len(functions.invoked))
    assert 1 <= len(functions.invoked) < 5
    assert {each["why"] for each in result["kept"]} == {"the redrive ran out of time: try again"}


@pytest.mark.parametrize("faults", [1, 2])
def test_a_delete_that_fails_is_retried_and_then_reported(
    api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch, faults: int
) -> None:
    put(aws, DEAD, ORDER)
    delete = aws.sqs.delete_message_batch
    answers = [{"Failed": [{"Id": "0", "Code": "InternalError", "SenderFault": False}]}] * faults
    monkeypatch.setattr(aws.sqs, "delete_message_batch", lambda **given: answers.pop() if answers else delete(**given))
    result = redrive(api)
    assert (result["redriven"], result["left"]) == (1, faults - 1)
    why = ["the dead letter was redriven but could not be deleted"]
    assert [each["why"] for each in result["kept"]] == why * (faults - 1)
    assert len(aws.queued()) == 1


def test_a_repeated_message_goes_back_once(aws: Aws, functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    given = lost("record_alarm", sns_event())
    answers = iter([{}, {"Messages": [given]}, {"Messages": [{**given, "ReceiptHandle": "r-2"}]}])
    deleted = []

    def delete(QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803
        deleted.extend(each["ReceiptHandle"] for each in Entries)
        return {}

    monkeypatch.setattr(aws.sqs, "receive_message", lambda **_: next(answers, {}))
    monkeypatch.setattr(aws.sqs, "delete_message_batch", delete)
    assert redriven_in(20) == ONE
    assert len(functions.invoked) == 1
    assert deleted == ["r-1", "r-2"]


def test_an_order_that_fails_again_at_once_goes_back_once(api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    put(aws, DEAD, ORDER)
    send = aws.sqs.send_message_batch
    monkeypatch.setattr(aws.sqs, "send_message_batch", lambda **given: send(**{**given, "QueueUrl": DEAD}))
    assert redrive(api) == {"redriven": 1, "kept": [], "left": 1}
    assert visible(aws, DEAD) == 1


def test_an_sqs_outage_does_not_hide_earlier_redrives(api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    put(aws, DEAD, *[ORDER] * 15)
    answers = [aws.sqs.receive_message]

    def once(**given: Any) -> Any:
        if not answers:
            raise Unavailable("SQS is away")
        return answers.pop()(**given)

    monkeypatch.setattr(aws.sqs, "receive_message", once)
    assert redrive(api) == {"redriven": 10, "kept": [], "left": 5}


def test_letters_stay_hidden_for_longer_than_any_call_can_take() -> None:
    # A request to API Gateway times out after 29 seconds.
    assert redriving.HIDDEN_SECONDS > 29 + 29
    assert redriving.SECONDS < 29
    assert listing.SECONDS < 29


# --- Results of a redrive ---------------------------------------------------------------------------------------------


def file(key: str) -> dict[str, Any]:
    stored = {"key": key, "size": 1, "eTag": "e", "sequencer": "01"}
    record = {"eventName": "ObjectCreated:Put", "eventTime": SENT, "s3": {"object": stored}}
    return invocation("receive_upload", {"Records": [record]})


ORDERS, UPLOADS = ("ORDERS_TABLE", "orderID"), ("UPLOADS_TABLE", "uploadId")
INBOX = ("NOTIFICATIONS_TABLE", "notificationID")
# Each row contains a dead letter, and the table, key and value of its result.
BECOMES = {
    "order": (ORDER, *ORDERS, "o-1"),
    "announcement": (invocation("announce_orders", ANNOUNCED), *INBOX, "any"),
    "announcement of a change": (invocation("announce_orders", CANCELLED), *INBOX, "any"),
    "upload": (file("inventory/a.csv"), *UPLOADS, records.upload_id("inventory/a.csv", "01")),
    "upload that is not imported": (file("a+b"), *INBOX, "upload/a b/01"),
    "notification": (envelope(), *INBOX, "report/inventory-1"),
    "alarm": (invocation("record_alarm", sns_event()), *INBOX, "n-1"),
}


def states(api: Api) -> list[str]:
    return [each["state"] for each in listed(api)["handled"]]


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("name", BECOMES)
def test_a_letter_is_on_its_way_until_its_result_exists(
    api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(replay, "FRESH_SECONDS", -1)
    body, table, key, value = BECOMES[name]
    [letter] = put(aws, DEAD if name == "order" else FAILURES, body)
    assert redrive(api) == ONE
    assert api.get("/notifications").json_body["notifications"] == []
    [shown] = listed(api)["handled"]
    assert (shown["letter"], shown["by"], shown["state"]) == (letter, "mia", "ON_ITS_WAY")
    at, facts = timestamp(datetime.now(UTC)), {"outcome": "placed", "orderIDs": ["o-1"]}
    facts = {"outcome": "changed", "changes": [["o-1", 1, "CANCELLED"]]} if "change" in name else facts
    result = {key: value, "kind": "order", "sentAt": at, "facts": json.dumps(facts), **index_keys(at, value)}
    for status in ("IMPORTING", "REFUSED") if name == "upload" else ("PLACED",):
        item = {name: {"S": each} for name, each in {**result, "status": status}.items()}
        aws.dynamodb.put_item(TableName=ENVIRONMENT[table], Item=item)
        assert states(api) == ["ON_ITS_WAY" if status == "IMPORTING" else "DONE"]
    # The result is not looked for again.
    reads = aws.calls(aws.dynamodb, "BatchGetItem")
    assert (states(api), reads) == (["DONE"], [])


@pytest.mark.parametrize(("status", "state"), [("SUCCEEDED", "DONE"), ("TIMED_OUT", "FAILED_AGAIN")])
def test_a_report_is_on_its_way_until_it_ends(api: Api, aws: Aws, status: str, state: str) -> None:
    put(aws, FAILURES, schedule(Name="storage-1"))
    assert (redrive(api), states(api)) == (ONE, ["ON_ITS_WAY"])
    aws.finish("storage-1", status)
    assert states(api) == [state]


def test_a_letter_that_fails_again_keeps_its_history(api: Api, aws: Aws) -> None:
    sent = message("{poison", sent="1795230000000", tries="3", letter="first")
    for tries in ("3", "4"):
        sent["MessageAttributes"]["tries"] = {"StringValue": tries}
        given = {name: {**each, "DataType": "String"} for name, each in sent["MessageAttributes"].items()}
        aws.sqs.send_message(QueueUrl=DEAD, MessageBody=sent["Body"], MessageAttributes=given)
        page = listed(api)
        assert [(each["letter"], each["tries"]) for each in page["deadLetters"]] == [("first", int(tries))]
        assert {each["state"] for each in page["handled"]} == ({"FAILED_AGAIN"} if tries == "4" else set())
        assert redrive(api) == ONE
        [sent] = aws.receive(ENVIRONMENT["ORDERS_QUEUE_URL"])
        aws.sqs.delete_message(QueueUrl=ENVIRONMENT["ORDERS_QUEUE_URL"], ReceiptHandle=sent["ReceiptHandle"])
        history = {name: each["StringValue"] for name, each in sent["MessageAttributes"].items()}
        assert history == {"letter": "first", "sent": "1795230000000", "tries": tries}
    assert read(message(ORDER, letter="a link"), DEAD).letter == "m-1"


def test_after_a_day_without_a_result_the_state_is_unknown(api: Api, aws: Aws) -> None:
    put(aws, DEAD, "{poison")
    redrive(api)
    for hours, state in ((24, "ON_ITS_WAY"), (26, "UNKNOWN"), (0, "UNKNOWN")):
        later = datetime.now(UTC) + timedelta(hours=hours)
        found = listing.oldest(100, settings=app.settings, aws=clients.aws, now=later)
        assert [each["state"] for each in found["handled"]] == [state]


def test_a_discarded_letter_stays_readable(api: Api, aws: Aws, functions: Functions) -> None:
    noise = random.Random(1).randbytes(400_000).hex()
    put(aws, FAILURES, noise, "?", invocation("record_alarm", sns_event()))
    assert api.post("/dead-letters/discard", {"kind": "unknown"}).json_body == {"discarded": 2, "kept": [], "left": 1}
    assert api.post("/dead-letters/discard", {"kind": "alarm"}).json_body == {"discarded": 1, "kept": [], "left": 0}
    assert functions.invoked == []
    by_content = {each["content"][:1]: each for each in listed(api)["handled"]}
    assert [each["state"] for each in by_content.values()] == ["DISCARDED"] * 3
    assert by_content["?"]["content"] == "?"
    assert "only the first 350,000 of 800,000 bytes" in by_content[noise[:1]]["what"]


@pytest.mark.parametrize("action", ["redrive", "discard"])
def test_a_letter_that_cannot_be_recorded_is_neither_sent_nor_deleted(api: Api, aws: Aws, action: str) -> None:
    [letter] = put(aws, DEAD, ORDER)
    with refusing(aws.dynamodb, "put_item", "ThrottlingException"):
        answer = api.post(f"/dead-letters/{action}", {"ids": [letter]}).json_body
    assert [each["id"] for each in answer["kept"]] == [letter]
    page = listed(api)
    assert (ids(page), page["handled"], aws.queued()) == ([letter], [], [])
    with refusing(aws.dynamodb, "query", "ThrottlingException"):
        assert listed(api)["handled"] is None


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ('{"a": 1}\r\n\t\x1b[31m\u202e\ud800\u3000x', '{"a": 1} \n\t?[31m?? x'),
        (
            json.dumps(json.dumps({"url": LINK, "note": "n"})).replace("?", "\\\\u003f"),
            r'"{\"url\": \"(a link)\", \"note\": \"n\"}"',
        ),
        ("x" * 4_001, "x" * 3_999 + "…"),
        (f"{LINK} " * 200, None),
        ("\U0001f600" * 2_000, "\U0001f600" * 1_428 + "…"),
        ("a." * 500_000, None),
    ],
)
def test_content_is_printable_text_of_bounded_size_without_links(body: str, shown: str | None) -> None:
    text = handled.content(body)
    assert shown in (None, text)
    assert len(text) <= handled.CONTENT_CHARACTERS
    assert "Signature" not in text
    # Lambda limits a response to 6 MB.
    assert len(json.dumps(json.dumps(text))) * (100 + handled.SHOWN) < 3_500_000


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ([], "body: must be an object, or nothing"),
        ({"all": True}, "all: is not a field of a redrive"),
        ({"ids": []}, "ids: must be a list of 1 to 100 ids"),
        ({"ids": ["a\n"]}, "ids: must contain only ids of dead letters"),
        ({"kind": "x"}, "kind: must be one of order, announcement,"),
    ],
)
def test_an_invalid_redrive_request_says_what_is_wrong(api: Api, body: Any, problem: str) -> None:
    assert refused(api.post("/dead-letters/redrive", body), 400, "InvalidRequest").startswith(problem)


@pytest.mark.parametrize("body", [b"", {}])
def test_all_letters_are_never_discarded_at_once(api: Api, aws: Aws, body: Any) -> None:
    put(aws, DEAD, ORDER)
    assert "`ids` or a `kind`" in refused(api.post("/dead-letters/discard", body), 400, "InvalidRequest")
    assert visible(aws, DEAD) == 1
