"""Tests which failures are retried for a day, and which ones wait for a person at once."""

import io
import json
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from chalicelib import clients, retries
from chalicelib.dead_letters import destinations, reasons, retrying
from chalicelib.dead_letters.letters import Letter
from chalicelib.dead_letters.reasons import MAY_PASS
from tests.unit.api import app
from tests.unit.cloud import ENVIRONMENT, Aws, refusing
from tests.unit.letters import (
    NOT_STARTED,
    SENT,
    envelope,
    invocation,
    message,
    read,
    s3_event,
    schedule,
    sns_event,
    stream_record,
)
from tests.unit.logged import records

FAILURES = ENVIRONMENT["FAILURES_QUEUE_URL"]
FIRST = datetime.fromisoformat(SENT)
UPLOAD = s3_event("inventory/a.csv")


def failed(name: str, text: str = "no", payload: Any = UPLOAD, function: str = "receive_upload") -> dict[str, Any]:
    return invocation(function, payload, {"errorType": name, "errorMessage": text})


REFUSED = "An error occurred ({}) when calling the PutItem operation: not allowed"


def expired() -> dict[str, Any]:
    record = invocation("record_alarm", sns_event(), condition="EventAgeExceeded", approximateInvokeCount=0)
    del record["responsePayload"]
    return record


class Cloud:
    """Runs ``retry_failures`` on messages, and records what it hides, invokes and gives up."""

    def __init__(self, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
        self.aws = aws
        self.hidden: list[tuple[str, int]] = []
        self.invoked: list[tuple[str, dict[str, Any]]] = []
        self.error: ClientError | None = None
        made = clients.aws
        monkeypatch.setattr(clients, "aws", lambda service: self if service == "lambda" else made(service))
        monkeypatch.setattr(aws.sqs, "change_message_visibility_batch", self.hide)
        monkeypatch.setattr(retries, "pause", lambda tries: tries)

    def hide(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        assert QueueUrl == ENVIRONMENT["RETRIES_QUEUE_URL"]
        self.hidden += [(each["ReceiptHandle"], each["VisibilityTimeout"]) for each in Entries]
        return {"Failed": []}

    def invoke(self, FunctionName: str, InvocationType: str, Payload: str) -> None:  # noqa: N803
        assert InvocationType == "Event"
        if self.error:
            raise self.error
        self.invoked.append((FunctionName.removeprefix("cafe-test-"), json.loads(Payload)))

    def retry(self, *bodies: Any, receives: int = 2, after: float = 60, **attributes: str) -> list[str]:
        """Delivers messages, and returns the ids of those that SQS keeps."""
        given = [
            {
                "messageId": f"m-{number}",
                "receiptHandle": f"r-{number}",
                "body": body if isinstance(body, str) else json.dumps(body),
                "attributes": {"SentTimestamp": "1795230855123", "ApproximateReceiveCount": str(receives)},
                "messageAttributes": {name: {"stringValue": value} for name, value in attributes.items()},
            }
            for number, body in enumerate(bodies, start=1)
        ]
        now = FIRST + timedelta(seconds=after)
        answer = retrying.retry({"Records": given}, settings=app.settings, aws=clients.aws, now=now)
        assert list(answer) == ["batchItemFailures"]
        return [each["itemIdentifier"] for each in answer["batchItemFailures"]]

    def letter(self) -> Letter:
        """Returns the only letter in the failures queue, as a person sees it."""
        [letter] = self.aws.receive(FAILURES)
        return read({**message(letter["Body"]), "MessageAttributes": letter["MessageAttributes"]}, FAILURES)

    def given_up(self) -> list[tuple[str, str]]:
        """Returns the body and the reason of each message in the failures queue."""
        letters = self.aws.receive(FAILURES)
        return [(each["Body"], each["MessageAttributes"]["reason"]["StringValue"]) for each in letters]


@pytest.fixture
def cloud(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    return Cloud(aws, monkeypatch)


@pytest.mark.parametrize(
    ("body", "function"),
    [
        *((failed(name), "receive_upload") for name in MAY_PASS),
        # An older record of a time-out has no name.
        (failed("", "2026-11-21T03:14:15Z 7f Task timed out after 300.10 seconds"), "receive_upload"),
        (expired(), "record_alarm"),
        (envelope(), "record_notification"),
        (envelope(TopicArn=ENVIRONMENT["ALARMS_TOPIC_ARN"]), "record_alarm"),
        (failed("Unavailable", payload={"Records": [stream_record()]}, function="announce_orders"), "announce_orders"),
        # A deploy restores a missing permission.
        (failed("ClientError", REFUSED.format("AccessDenied")), "receive_upload"),
    ],
)
def test_what_may_pass_is_hidden_for_a_pause_and_then_sent_back(
    cloud: Cloud, aws: Aws, body: dict[str, Any], function: str
) -> None:
    published = aws.calls(aws.sns, "Publish")
    assert cloud.retry(body, receives=1) == ["m-1"]
    assert (cloud.hidden, cloud.invoked) == ([("r-1", 1)], [])
    assert cloud.retry(body) == []
    [(invoked, event)] = cloud.invoked
    assert (invoked, event["history"]["retries"], event["history"]["retriedSince"]) == (function, 1, SENT)
    # Subscribers other than our functions receive nothing twice.
    assert published == []
    assert cloud.given_up() == []


CODE = "the function receive_upload has an error in its code (KeyError): see its log"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("{poison", "this deployment stage does not send messages in this format"),
        (failed("DatabaseRefused", "MySQL denies access"), "MySQL denies access"),
        (failed("KeyError", "'Records'"), CODE),
        (
            failed("ClientError", REFUSED.format("ValidationException")),
            "AWS refused PutItem (ValidationException): not allowed",
        ),
    ],
)
def test_what_cannot_pass_waits_for_a_person_with_its_reason_at_once(cloud: Cloud, body: Any, why: str) -> None:
    assert cloud.retry(body, failed("Unavailable"), receives=1) == ["m-2"]
    assert cloud.given_up() == [(body if isinstance(body, str) else json.dumps(body), why)]


def test_a_schedule_whose_content_was_refused_waits_for_a_person_and_any_other_starts_its_report(cloud: Cloud) -> None:
    # SQS allows ten attributes, and the reason is added to them.
    given = {**dict.fromkeys(("A1", "A2", "A3", "A4"), "x"), **NOT_STARTED}
    assert cloud.retry(schedule(), **given | {"ERROR_CODE": "ValidationException"}) == []
    letter = cloud.letter()
    assert (letter.what, letter.since, letter.tries, letter.why) == (
        "the scheduled storage report storage-d32c5kddcf5bb8c3",
        "2026-11-21T06:00:00.000000Z",
        1,
        "the report could not be started: The role may not start it",
    )
    assert cloud.retry(schedule(), **given) == []
    assert cloud.aws.execution("storage-d32c5kddcf5bb8c3").status == "RUNNING"


@pytest.mark.parametrize("broken", [(reasons, "of_schedule"), (destinations.Execution, "send")])
def test_a_failure_that_the_code_cannot_handle_waits_for_a_person_and_its_neighbour_is_retried(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, broken: tuple[Any, str]
) -> None:
    monkeypatch.setattr(*broken, Mock(side_effect=KeyError))
    assert cloud.retry(schedule(), failed("Unavailable")) == []
    [(body, why)] = cloud.given_up()
    assert (json.loads(body), len(cloud.invoked)) == (schedule(), 1)
    assert why == "the code cannot handle it (KeyError): fix the code, then put it back"


def test_a_day_after_the_first_retry_it_waits_for_a_person_who_starts_a_new_day(cloud: Cloud) -> None:
    body = failed("Unavailable", "S3 does not answer")
    assert cloud.retry(body, after=24 * 3600 - 1) == []
    assert cloud.given_up() == []
    [(_, event)] = cloud.invoked
    # It fails again, in a message that is younger than the first one.
    again = failed("Unavailable", "S3 does not answer", event)
    again["requestPayload"]["history"]["retriedSince"] = "2026-11-20T03:14:15Z"
    assert cloud.retry(again) == []
    given_up = cloud.letter()
    assert given_up.why == "S3 does not answer; it was retried for 24 hours"
    assert (given_up.letter, given_up.since, given_up.tries) == ("m-1", "2026-11-21T04:00:00.500000Z", 6)
    given_up.send(clients.aws)
    assert cloud.invoked[1][1]["history"].keys() == {"letter", "since", "tries"}


def test_the_pause_grows_with_each_failure_to_send_and_refused_content_waits_for_a_person(cloud: Cloud) -> None:
    body = failed("Unavailable", payload={**UPLOAD, "history": {"retries": 7}})
    assert cloud.retry(body, receives=1) == ["m-1"]
    answer: Any = {"Error": {"Code": "ServiceException"}, "ResponseMetadata": {"HTTPStatusCode": 500}}
    cloud.error = ClientError(answer, "Invoke")
    assert cloud.retry(body, receives=3) == ["m-1"]
    answer["Error"]["Code"], answer["ResponseMetadata"] = "AccessDeniedException", {}
    assert cloud.retry(body) == ["m-1"]
    assert cloud.hidden == [("r-1", 8), ("r-1", 10), ("r-1", 9)]
    answer["Error"]["Code"] = "InvalidRequestContentException"
    assert cloud.retry(body) == []
    assert [why for _, why in cloud.given_up()] == ["Invoke was refused: InvalidRequestContentException"]


def test_what_cannot_move_to_the_failures_queue_stays_and_its_neighbours_do_not(cloud: Cloud) -> None:
    with refusing(cloud.aws.sqs, "send_message_batch", "AccessDenied", 403):
        assert cloud.retry("{poison", failed("Unavailable")) == ["m-1"]
    assert (cloud.hidden, len(cloud.invoked)) == ([("r-1", 2)], 1)


def test_a_person_sends_an_undelivered_message_of_our_function_only_to_that_function(cloud: Cloud) -> None:
    assert cloud.retry(envelope(), after=90_000, ErrorCode="500", ErrorMessage="no answer") == []
    cloud.letter().send(clients.aws)
    [(function, event)] = cloud.invoked
    assert (function, event["Records"][0]["Sns"]["MessageId"]) == ("record_notification", envelope()["MessageId"])


@pytest.mark.parametrize("receives", [1, 2])
def test_the_oldest_failure_that_waits_or_is_sent_again_is_measured(
    receives: int, cloud: Cloud, log_lines: io.StringIO
) -> None:
    cloud.retry(failed("Unavailable"), receives=receives, after=1000)
    [measured] = records(log_lines, "metrics")
    assert (measured["what"], round(measured["WaitSeconds"])) == ("failures", 1000)
