"""Dead letters: how each shape is shown to a person, and how it goes back to where it came from."""

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import clients, dead_letters
from chalicelib.errors import InvalidRequest, Unavailable
from chalicelib.orders import announce
from tests.unit.api import Api
from tests.unit.cloud import ACCOUNT, ENVIRONMENT, Aws, refusing
from tests.unit.letters import (
    DEAD,
    FAILURES,
    LINK,
    NOT_STARTED,
    ORDER,
    PLACES,
    SENT,
    envelope,
    invocation,
    message,
    position,
    s3_event,
    schedule,
    sns_event,
    stream_record,
)
from tests.unit.signing import REGION

# --- How a letter is shown --------------------------------------------------------------------------------------------

FAILED = "2026-11-21T04:00:00.500000Z"
SHAPES = {
    "an order that had its tries": (
        DEAD,
        message(ORDER, reason="the table did not take it", tries="6", sent="1795230000000"),
        ("order", "order o-1 of customer Zoë", "2026-11-21T03:00:00.000000Z", "the table did not take it", 6),
    ),
    "an order that sqs moved": (
        DEAD,
        message(ORDER),
        ("order", "order o-1 of customer Zoë", SENT, "store_orders failed on it as a whole: its log says why", 5),
    ),
    "poison that sqs moved": (
        DEAD,
        message("{poison"),
        ("order", "a message that is no order", SENT, "message: is no order: JSONDecodeError(", 5),
    ),
    "an upload": (
        FAILURES,
        message(invocation("receive_upload", s3_event("inventory/caf%C3%A9+x.csv"))),
        ("upload", "upload inventory/café x.csv", FAILED, "DatabaseUnavailable: MySQL does not answer", 3),
    ),
    "several uploads": (
        FAILURES,
        message(invocation("receive_upload", s3_event(*"abcde"))),
        ("upload", "upload a, b, c and 2 more", FAILED, "DatabaseUnavailable", 3),
    ),
    "a notification": (
        FAILURES,
        message(invocation("record_notification", sns_event())),
        ("notification", "notification 'Inventory report ready'", FAILED, "DatabaseUnavailable", 3),
    ),
    "an alarm": (
        FAILURES,
        message(invocation("record_alarm", sns_event(Subject=None))),
        ("alarm", "alarm n-1, which has no subject", FAILED, "DatabaseUnavailable", 3),
    ),
    "an event that was too old": (
        FAILURES,
        message(
            invocation("record_alarm", sns_event(Subject="A"), condition="EventAgeExceeded", approximateInvokeCount=0)
            | {"responsePayload": None}
        ),
        ("alarm", "alarm 'A'", FAILED, "it was too old before the function could be run on it", 0),
    ),
    "an announcement": (
        FAILURES,
        message(invocation("announce_orders", {"Records": [stream_record()]}, approximateInvokeCount=None)),
        ("announcement", "announcement of order o-1 of customer Zoë", FAILED, "DatabaseUnavailable", None),
    ),
    "an event that cannot be read": (
        FAILURES,
        message(invocation("record_notification", {"Records": [{"Sns": {}}]})),
        ("notification", "an event of record_notification that cannot be read", FAILED, "Data", 3),
    ),
    "a record without its time": (
        FAILURES,
        message({key: each for key, each in invocation("receive_upload", s3_event("a")).items() if key != "timestamp"}),
        ("upload", "upload a", SENT, "DatabaseUnavailable", 3),
    ),
    "what sns could not hand over": (
        FAILURES,
        message(envelope(), ErrorCode="404", ErrorMessage="not found"),
        (
            "notification",
            "notification 'Inventory report ready'",
            "2026-11-21T03:59:59.123000Z",
            "SNS could not hand it over to a subscriber: not found",
            None,
        ),
    ),
    "an alarm that sns could not hand over": (
        FAILURES,
        message(envelope(TopicArn=ENVIRONMENT["ALARMS_TOPIC_ARN"], Subject="ALARM", MessageAttributes={})),
        ("alarm", "alarm 'ALARM'", "2026-11-21T03:59:59.123000Z", "SNS could not", None),
    ),
    "a position on the stream": (
        FAILURES,
        message(position()),
        (
            "stream",
            "3 changes of the orders table, the first at 2026-11-21T03:00:00.000000Z",
            FAILED,
            "announce_orders failed on it as a whole (RetryAttemptsExhausted)",
            101,
        ),
    ),
    "a report that its schedule could not start": (
        FAILURES,
        message(schedule(), **NOT_STARTED),
        (
            "report",
            "the scheduled storage report storage-d32c5kddcf5bb8c3",
            "2026-11-21T06:00:00.000000Z",
            "it could not be started: AccessDeniedException: The role may not start it",
            1,
        ),
    ),
    "a start without its reason": (
        FAILURES,
        message(schedule(Name="storage-1")),
        ("report", "the scheduled storage report storage-1", SENT, "it could not be started", None),
    ),
}
UNKNOWN = {
    "no json": "{",
    "deep": "[" * 100_000,
    "nothing": "null",
    "text": '"x"',
    "empty": "{}",
    "a number too long": "9" * 10_000,
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


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_shows_what_failed_when_why_and_how_often(name: str) -> None:
    queue, given, (kind, what, since, why, tries) = SHAPES[name]
    shown = dead_letters.read(given, queue, PLACES).shown()
    assert shown.pop("why").startswith(why)
    assert shown == {"id": "m-1", "kind": kind, "what": what, "since": since, "tries": tries}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_message_of_no_known_shape_is_shown_as_unknown(name: str) -> None:
    letter = dead_letters.read(message(UNKNOWN[name]), FAILURES, PLACES)
    assert (letter.kind, letter.what, letter.since) == ("unknown", "a message of no known shape", SENT)
    assert letter.put_back is None


@pytest.mark.parametrize("name", SHAPES)
def test_no_letter_shows_a_link_a_note_or_more_than_a_line(name: str) -> None:
    queue, given, _ = SHAPES[name]
    given = copy.deepcopy(given)
    # A link can come from each of these.
    given["Body"] = given["Body"].replace("Inventory report ready", LINK).replace("MySQL does", f"{LINK} does")
    given["MessageAttributes"]["ErrorMessage"] = {"StringValue": f"{LINK}\n{'x' * 1000}"}
    shown = json.dumps(dead_letters.read(given, queue, PLACES).shown(), ensure_ascii=False)
    assert "Signature" not in shown
    assert "secret" not in shown


@given(st.text(), st.text())
def test_any_text_is_shown_as_one_printable_line_of_bounded_length(text: str, key: str) -> None:
    for queue, body in ((DEAD, text), (FAILURES, invocation("receive_upload", s3_event(key), {"errorMessage": text}))):
        letter = dead_letters.read(message(body, reason=text), queue, PLACES)
        for each in (letter.what, letter.why):
            assert 1 <= len(each) <= 300
            assert each.isprintable()


FIELDS = ["Records", "requestPayload", "requestContext", "Sns", "s3", "object", "key", "dynamodb", "Keys", "Subject"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "Records",
                    "requestPayload",
                    "requestContext",
                    "Sns",
                    "s3",
                    "object",
                    "key",
                    "dynamodb",
                    "Keys",
                    "Subject",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(st.sampled_from(sorted(SHAPES)), st.data())
def test_any_message_is_shown_as_a_letter(name: str, data: st.DataObject) -> None:
    """One part of a known shape is replaced by anything."""
    queue, given, _ = SHAPES[name]
    if queue == FAILURES:
        body = json.loads(given["Body"])
        part = data.draw(st.sampled_from([body, *(each for each in body.values() if each and isinstance(each, dict))]))
        part[data.draw(st.sampled_from(sorted(part)))] = data.draw(JSON)
        given = message(body)
    dead_letters.read(given, queue, PLACES).shown()


# --- The list ---------------------------------------------------------------------------------------------------------


def put(aws: Aws, queue: str, *bodies: Any) -> list[str]:
    """Sends messages to a queue, and returns their ids."""
    texts = [each if isinstance(each, str) else json.dumps(each) for each in bodies]
    return [aws.sqs.send_message(QueueUrl=queue, MessageBody=each)["MessageId"] for each in texts]


def visible(aws: Aws, queue: str) -> int:
    """Counts the messages of a queue that are visible."""
    names = ["ApproximateNumberOfMessages"]
    return int(aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"][names[0]])  # type: ignore[index]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "WAIT_SECONDS", 0)


def test_without_letters_the_list_is_empty_and_nothing_goes_back(api: Api, aws: Aws) -> None:
    assert redrive(api) == {"redriven": 0, "kept": [], "left": 0}
    assert api.get("/dead-letters").json_body == {"deadLetters": [], "total": 0}


def test_the_list_has_both_queues_oldest_first_and_leaves_the_messages_there(api: Api, aws: Aws) -> None:
    young = invocation("receive_upload", s3_event("b")) | {"timestamp": "2026-11-21T05:00:00Z"}
    old = invocation("receive_upload", s3_event("a"))
    ids = put(aws, FAILURES, young, old)
    for _ in range(2):
        page = api.get("/dead-letters").json_body
        assert [each["id"] for each in page["deadLetters"]] == [ids[1], ids[0]]
        assert page["total"] == 2
    put(aws, DEAD, *[ORDER] * 25)
    page = api.get("/dead-letters?limit=3").json_body
    assert (len(page["deadLetters"]), page["total"]) == (3, 27)
    assert (visible(aws, DEAD), visible(aws, FAILURES)) == (25, 2)


def test_a_message_that_sqs_gives_twice_is_listed_once(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    put(aws, DEAD, ORDER)
    receive, seen = aws.sqs.receive_message, []

    def twice(**given: Any) -> Any:
        seen.append(given["QueueUrl"])
        return receive(**{**given, "VisibilityTimeout": 0}) if seen.count(DEAD) < 3 else {}

    monkeypatch.setattr(aws.sqs, "receive_message", twice)
    found = dead_letters.waiting(10, places=PLACES, aws=clients.aws)
    assert len(found["deadLetters"]) == found["total"] == 1


def test_without_time_to_read_all_messages_the_total_is_the_count_of_sqs(aws: Aws) -> None:
    put(aws, DEAD, *[ORDER] * 25)
    ticks = iter([0, 1, 2, 99, 99, 99, 99])
    found = dead_letters.waiting(100, places=PLACES, aws=clients.aws, clock=lambda: next(ticks))
    assert (len(found["deadLetters"]), found["total"]) == (20, 25)
    assert visible(aws, DEAD) == 25


@pytest.mark.parametrize("query", ["limit=0", "next=a", "kind=order"])
def test_a_wrong_parameter_of_the_list_is_named(api: Api, query: str) -> None:
    answer = api.get(f"/dead-letters?{query}")
    assert answer.status_code == 400
    assert answer.json_body["Message"].startswith(f"{query.split('=')[0]}: ")


def test_sqs_that_is_away_is_a_503(api: Api, aws: Aws) -> None:
    with refusing(aws.sqs, "receive_message", "ServiceUnavailable", 503):
        assert api.get("/dead-letters").status_code == 503


def test_letters_that_cannot_be_released_are_still_listed(api: Api, aws: Aws) -> None:
    put(aws, DEAD, ORDER)

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ChangeMessageVisibility")

    aws.hook(aws.sqs, "before-call.sqs.ChangeMessageVisibilityBatch", refuse)
    assert api.get("/dead-letters").json_body["total"] == 1


# --- Back to where it came from ---------------------------------------------------------------------------------------


class Functions:
    """Lambda as a redrive uses it."""

    def __init__(self, refused: str = "") -> None:
        self.invoked: list[tuple[str, Any]] = []
        self.refused = refused

    def invoke(self, FunctionName: str, InvocationType: str, Payload: str) -> dict[str, int]:  # noqa: N803
        assert InvocationType == "Event"
        if FunctionName == self.refused:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "Invoke")
        self.invoked.append((FunctionName, json.loads(Payload)))
        return {"StatusCode": 202}


def test_a_report_that_its_schedule_could_not_start_is_started_under_its_name_and_once(api: Api, aws: Aws) -> None:
    for _ in range(2):
        # Each letter is about the same start.
        given = {name: {"DataType": "String", "StringValue": value} for name, value in NOT_STARTED.items()}
        aws.sqs.send_message(QueueUrl=FAILURES, MessageBody=json.dumps(schedule()), MessageAttributes=given)
        assert api.post("/dead-letters/redrive").json_body == {"redriven": 1, "kept": [], "left": 0}
    report = api.get("/reports/storage-d32c5kddcf5bb8c3").json_body
    assert (report["kind"], report["requestedBy"]) == ("storage", None)
    assert len(api.get("/reports").json_body["reports"]) == 1


class Stream:
    """DynamoDB's streams: records with the sequence numbers 1 to 9, one to a page, the first page empty."""

    def __init__(self, trimmed: bool = False, end: int = 9) -> None:
        self.trimmed = trimmed
        self.end = end
        self.asked: list[dict[str, str]] = []

    def get_shard_iterator(self, **given: str) -> dict[str, str]:
        self.asked.append(given)
        if self.trimmed:
            raise ClientError({"Error": {"Code": "TrimmedDataAccessException", "Message": "gone"}}, "GetShardIterator")
        return {"ShardIterator": f"{int(given['SequenceNumber']) - 0.5}"}

    def get_records(self, ShardIterator: str) -> dict[str, Any]:  # noqa: N803
        number = float(ShardIterator)
        answer: dict[str, Any] = {"Records": []}
        if number.is_integer() and number > 0:
            record = stream_record(f"o-{int(number)}", int(number), "MODIFY" if number == 6 else "INSERT")
            del record["eventSourceARN"]
            moment = datetime.fromtimestamp(1795230855, UTC)
            record["dynamodb"]["ApproximateCreationDateTime"] = moment
            # As boto gives what no order has.
            record["dynamodb"]["NewImage"]["other"] = {"B": b"\x00"}
            answer["Records"] = [record]
        if number < self.end:
            answer["NextShardIterator"] = str(number + 0.5)
        return answer


@pytest.fixture
def functions(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Functions:
    return use(monkeypatch, Functions(), Stream())


def use(monkeypatch: pytest.MonkeyPatch, functions: Functions, stream: Stream) -> Functions:
    own = {"lambda": functions, "dynamodbstreams": stream}
    made = clients.aws
    monkeypatch.setattr(clients, "aws", lambda service: own[service] if service in own else made(service))
    return functions


def redrive(api: Api, body: Any = b"") -> dict[str, Any]:
    answer = api.post("/dead-letters/redrive", body)
    assert answer.status_code == 200, answer.body
    result: dict[str, Any] = answer.json_body
    assert list(result) == ["redriven", "kept", "left"]
    return result


@pytest.mark.parametrize("body", [b"", b" ", {}])
def test_orders_go_back_to_their_queue_byte_for_byte(api: Api, aws: Aws, functions: Functions, body: Any) -> None:
    bodies = [ORDER, "{poison", ' {"a":\t"Zoë\u2028漢" }\n', *[f"{ORDER}{' ' * number}" for number in range(20)]]
    put(aws, DEAD, *bodies)
    assert redrive(api, body) == {"redriven": 23, "kept": [], "left": 0}
    assert sorted(each["Body"] for each in aws.receive(ENVIRONMENT["ORDERS_QUEUE_URL"])) == sorted(bodies)
    assert api.get("/dead-letters").json_body["total"] == 0


def test_orders_that_are_too_large_for_one_call_go_one_by_one(aws: Aws) -> None:
    letters = [dead_letters.read(message("x" * 300_000, number), DEAD, PLACES) for number in range(4)]
    assert [len(chunk) for chunk in dead_letters._chunks(letters)] == [1, 1, 1, 1]
    assert [len(chunk) for chunk in dead_letters._chunks(letters[:3])] == [3]
    assert dead_letters._chunks([]) == []


@pytest.mark.parametrize("function", dead_letters.FUNCTIONS)
def test_an_event_goes_back_to_its_own_function(api: Api, aws: Aws, functions: Functions, function: str) -> None:
    payload = {"Records": [{"any": "thing"}]}
    put(aws, FAILURES, invocation(function, payload))
    assert redrive(api) == {"redriven": 1, "kept": [], "left": 0}
    expected = {**payload, "redriven": True} if function == "announce_orders" else payload
    assert functions.invoked == [(f"cafe-test-{function}", expected)]


def test_a_notification_that_sns_could_not_deliver_is_published_again_under_its_key(
    api: Api, aws: Aws, functions: Functions
) -> None:
    calls = aws.calls(aws.sns, "Publish")
    put(aws, FAILURES, envelope())
    assert redrive(api) == {"redriven": 1, "kept": [], "left": 0}
    (call,) = calls
    assert call["TopicArn"] == ENVIRONMENT["TOPIC_ARN"]
    assert call["Subject"] == "Inventory report ready"
    # A text message has no link.
    assert json.loads(call["Message"]) == {"default": f"It opens for an hour: {LINK}", "sms": "Inventory report ready"}
    assert {name: each["StringValue"] for name, each in call["MessageAttributes"].items()} == {
        "kind": "report",
        "key": "report/inventory-1",
    }


def test_an_alarm_without_a_key_is_published_under_its_id_in_the_inbox(
    api: Api, aws: Aws, functions: Functions
) -> None:
    aws.sns.create_topic(Name="cafe-test-alarms")
    calls = aws.calls(aws.sns, "Publish")
    given = envelope(TopicArn=ENVIRONMENT["ALARMS_TOPIC_ARN"], Subject=None)
    del given["MessageAttributes"]
    put(aws, FAILURES, given)
    assert redrive(api)["redriven"] == 1
    (call,) = calls
    assert call["TopicArn"] == ENVIRONMENT["ALARMS_TOPIC_ARN"]
    assert call["MessageAttributes"]["key"]["StringValue"] == given["MessageId"]
    assert call["MessageAttributes"]["kind"]["StringValue"] == "alarm"


def test_a_position_is_read_from_the_stream_and_its_new_orders_are_announced(
    api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream()
    functions = use(monkeypatch, Functions(), stream)
    put(aws, FAILURES, position())
    assert redrive(api) == {"redriven": 1, "kept": [], "left": 0}
    [asked] = stream.asked
    assert asked == {
        "StreamArn": ENVIRONMENT["ORDERS_STREAM_ARN"],
        "ShardId": "shardId-00000001573689847184-864758bb",
        "ShardIteratorType": "AT_SEQUENCE_NUMBER",
        "SequenceNumber": "5",
    }
    # The sixth change is of an order that was announced before.
    records = [stream_record("o-5", 5), stream_record("o-7", 7)]
    assert functions.invoked == [("cafe-test-announce_orders", {"Records": records, "redriven": True})]


def test_a_position_of_many_orders_is_announced_in_parts(
    api: Api, aws: Aws, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "RECORDS_AT_ONCE", 2)
    put(aws, FAILURES, position("1", "5"))
    assert redrive(api)["redriven"] == 1
    assert [len(event["Records"]) for _, event in functions.invoked] == [2, 2, 1]


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (Stream(trimmed=True), "the stream keeps a change for 24 hours, and these are over; the orders are stored"),
        (Stream(end=6), "the stream did not show all of these changes"),
    ],
)
def test_a_position_that_the_stream_does_not_show_whole_is_kept(
    api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch, stream: Stream, why: str
) -> None:
    functions = use(monkeypatch, Functions(), stream)
    put(aws, FAILURES, position())
    result = redrive(api)
    assert ([each["why"] for each in result["kept"]], result["left"]) == ([why], 1)
    assert functions.invoked == []
    assert visible(aws, FAILURES) == 1


def test_a_letter_that_cannot_go_back_is_kept_with_the_reason_and_its_neighbours_go(
    api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = use(monkeypatch, Functions("cafe-test-receive_upload"), Stream())
    upload, unknown, _ = put(
        aws, FAILURES, invocation("receive_upload", s3_event("a")), "?", invocation("record_alarm", sns_event())
    )
    put(aws, DEAD, ORDER)
    result = redrive(api)
    assert (result["redriven"], result["left"]) == (2, 2)
    assert {each["id"]: (each["what"], each["why"]) for each in result["kept"]} == {
        upload: ("upload a", "Invoke was refused: AccessDeniedException"),
        unknown: ("a message of no known shape", "nobody knows where it came from"),
    }
    assert [name for name, _ in functions.invoked] == ["cafe-test-record_alarm"]
    # The next redrive sees them at once.
    assert {each["id"] for each in api.get("/dead-letters").json_body["deadLetters"]} == {upload, unknown}


@pytest.mark.parametrize("fault", ["AccessDenied", "ServiceUnavailable", "one entry"])
def test_an_order_that_its_queue_refuses_is_kept(
    api: Api, aws: Aws, functions: Functions, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    put(aws, DEAD, ORDER, ORDER)

    def refuse(**_: Any) -> dict[str, Any]:
        if fault == "one entry":
            return {"Failed": [{"Id": "0", "Code": "InternalError", "SenderFault": False}]}
        status = 503 if fault == "ServiceUnavailable" else 403
        raise ClientError(
            {"Error": {"Code": fault, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
            "SendMessageBatch",
        )

    monkeypatch.setattr(aws.sqs, "send_message_batch", refuse)
    result = redrive(api)
    assert (result["redriven"], result["left"]) == ((1, 1) if fault == "one entry" else (0, 2))
    assert all("SendMessage" in each["why"] for each in result["kept"])
    assert visible(aws, DEAD) == result["left"]


def test_a_letter_with_content_that_aws_never_accepts_does_not_keep_the_others(
    api: Api, aws: Aws, functions: Functions
) -> None:
    (broken, _) = put(aws, FAILURES, envelope(Message="\ud800"), invocation("record_alarm", sns_event()))
    result = redrive(api)
    assert (result["redriven"], result["left"]) == (1, 1)
    assert [(each["id"], each["why"]) for each in result["kept"]] == [
        (broken, "it has the shape of a dead letter, and no content that AWS takes")
    ]


def test_only_the_requested_letters_go_back(api: Api, aws: Aws, functions: Functions) -> None:
    ids = put(aws, DEAD, *[ORDER] * 12)
    put(aws, FAILURES, invocation("record_alarm", sns_event()))
    assert redrive(api, {"ids": [ids[3], ids[11], "not-there"]}) == {"redriven": 2, "kept": [], "left": 11}
    assert len(aws.queued()) == 2
    left = {each["id"] for each in api.get("/dead-letters").json_body["deadLetters"]}
    assert left.isdisjoint({ids[3], ids[11]})
    assert functions.invoked == []


def test_out_of_time_the_remaining_letters_stay_and_are_counted(aws: Aws) -> None:
    put(aws, DEAD, *[ORDER] * 25)
    ticks = iter([0, 1, 2])
    result = dead_letters.redrive(None, places=PLACES, aws=clients.aws, clock=lambda: next(ticks, 99))
    assert (result["redriven"], result["left"]) == (20, 5)
    assert visible(aws, DEAD) == 5


def test_out_of_time_within_a_batch_of_ten_the_rest_of_it_is_kept(aws: Aws, functions: Functions) -> None:
    put(aws, FAILURES, *[invocation("record_alarm", sns_event())] * 5)
    ticks = iter([0, 1, 2, 3, 4])
    result = dead_letters.redrive(None, places=PLACES, aws=clients.aws, clock=lambda: next(ticks, 99))
    assert (result["redriven"], result["left"]) == (len(functions.invoked), 5 - len(functions.invoked))
    assert 1 <= len(functions.invoked) < 5
    assert {each["why"] for each in result["kept"]} == {"there was no time left for it: try again"}


def test_a_delete_that_fails_once_is_retried(
    api: Api, aws: Aws, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(aws, DEAD, ORDER)
    delete, faults = aws.sqs.delete_message_batch, iter([True])

    def flaky(**given: Any) -> Any:
        if next(faults, False):
            raise Unavailable("SQS is away")
        return delete(**given)

    monkeypatch.setattr(aws.sqs, "delete_message_batch", flaky)
    assert redrive(api) == {"redriven": 1, "kept": [], "left": 0}


def test_a_delete_that_fails_again_is_told(
    api: Api, aws: Aws, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(aws, DEAD, ORDER)
    refused = {"Failed": [{"Id": "0", "Code": "InternalError", "SenderFault": False}]}
    monkeypatch.setattr(aws.sqs, "delete_message_batch", lambda **_: refused)
    result = redrive(api)
    assert (result["redriven"], result["left"]) == (1, 1)
    assert [each["why"] for each in result["kept"]] == ["it was put back, and could not be deleted: it stays here too"]
    assert len(aws.queued()) == 1


def test_a_message_that_sqs_gives_twice_goes_back_once(
    aws: Aws, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = message(invocation("record_alarm", sns_event()))
    answers = iter([{}, {"Messages": [given]}, {"Messages": [{**given, "ReceiptHandle": "r-2"}]}])
    deleted = []

    def delete(QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803
        deleted.extend(each["ReceiptHandle"] for each in Entries)
        return {}

    monkeypatch.setattr(aws.sqs, "receive_message", lambda **_: next(answers, {}))
    monkeypatch.setattr(aws.sqs, "delete_message_batch", delete)
    assert dead_letters.redrive(None, places=PLACES, aws=clients.aws) == {"redriven": 1, "kept": [], "left": 0}
    assert len(functions.invoked) == 1
    assert deleted == ["r-1", "r-2"]


def test_two_redrives_at_once_do_not_see_the_same_letter(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one redrive invokes the function, another finds nothing."""
    seen: list[Callable[[], Any]] = []

    class Slow(Functions):
        def invoke(self, **given: Any) -> Any:
            seen.append(dead_letters.redrive(None, places=PLACES, aws=clients.aws))  # type: ignore[arg-type]
            return super().invoke(**given)

    functions = use(monkeypatch, Slow(), Stream())
    put(aws, FAILURES, invocation("record_alarm", sns_event()))
    assert dead_letters.redrive(None, places=PLACES, aws=clients.aws)["redriven"] == 1
    assert len(functions.invoked) == 1
    assert seen == [{"redriven": 0, "kept": [], "left": 0}]


def test_an_outage_of_sqs_does_not_hide_what_was_done_before(
    api: Api, aws: Aws, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(aws, DEAD, *[ORDER] * 15)
    receive, calls = aws.sqs.receive_message, iter([True])

    def once(**given: Any) -> Any:
        if not next(calls, False):
            raise Unavailable("SQS is away")
        return receive(**given)

    monkeypatch.setattr(aws.sqs, "receive_message", once)
    assert redrive(api) == {"redriven": 10, "kept": [], "left": 5}


def test_letters_stay_hidden_for_longer_than_any_call_may_take() -> None:
    # API Gateway's 29 seconds end the function.
    assert dead_letters.REDRIVE_HIDDEN_SECONDS > 29 + 29
    assert dead_letters.REDRIVE_SECONDS < 29
    assert dead_letters.LIST_SECONDS < 29


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        *(([], "body: must be an object, or nothing"), ("x", "body: must be")),
        ({"all": True}, '"all": is not a field of a redrive'),
        ({"ids": []}, "ids: must be a list of 1 to 100 ids"),
        *(({"ids": ids}, "ids: must be a list") for ids in (["a"] * 101, "a", None)),
        *(({"ids": ids}, "ids: each must be the id") for ids in (["a/b"], ["a\n"], [{}])),
    ],
)
def test_a_wrong_redrive_says_what_is_wrong(body: Any, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{problem}"):
        dead_letters.parse(body)


def test_an_order_that_announce_orders_sets_aside_is_a_letter_that_goes_back_to_it(
    api: Api, aws: Aws, functions: Functions
) -> None:
    record = stream_record("o-9")
    # The ARN that Chalice's test client gives a function names no stage.
    context = SimpleNamespace(
        aws_request_id="r",
        invoked_function_arn=f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:cafe-test-announce_orders",
    )
    set_aside = announce.putter_by(aws.sqs, FAILURES, context, datetime.now(UTC))
    assert set_aside([record], ClientError({"Error": {"Code": "AuthorizationError", "Message": "no"}}, "Publish")) == []
    (letter,) = api.get("/dead-letters").json_body["deadLetters"]
    assert (letter["kind"], letter["what"]) == ("announcement", "announcement of order o-9 of customer Zoë")
    assert "AuthorizationError" in letter["why"]
    assert redrive(api)["redriven"] == 1
    assert functions.invoked == [("cafe-test-announce_orders", {"Records": [record], "redriven": True})]
