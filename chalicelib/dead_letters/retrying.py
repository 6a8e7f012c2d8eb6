"""Retries failed work whose reason may pass, and moves all other failures to the failures queue.

A new failure is hidden for a pause. When it is received again, it is sent back to where it came from. Work is retried
after growing pauses for 24 hours. If the function ends between sending and deleting, the failure is sent twice, which
is harmless: see ``redrive.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from chalicelib import correlation, metrics, queues, retries
from chalicelib.dead_letters.destinations import Aws, reason
from chalicelib.dead_letters.letters import ATTRIBUTES, SUBSCRIBER, Letter, Message, Origins, read_failure
from chalicelib.errors import aws_errors, is_final
from chalicelib.logs import logger
from chalicelib.settings import Settings

# SQS allows ten attributes, and the reason is one of them.
ATTRIBUTES_KEPT = 9

log = logger("retries")


class Failure(NamedTuple):
    """A received message, and the letter that it contains."""

    message: Message
    letter: Letter

    @property
    def receives(self) -> int:
        return int(self.message["Attributes"]["ApproximateReceiveCount"])

    def age(self, now: datetime) -> float:
        """Returns the seconds since the first automatic retry could have started."""
        return (now - datetime.fromisoformat(self.letter.retried_since)).total_seconds()


def retry(event: dict[str, Any], *, settings: Settings, aws: Aws, now: datetime) -> dict[str, Any]:
    """Retries each failure in an SQS event or gives it up. Returns the messages that SQS must keep."""
    origins = Origins.from_settings(settings)
    received = [_received(record) for record in event["Records"]]
    run = _Run(aws, settings, [Failure(message, read_failure(message, origins)) for message in received], now)
    return {"batchItemFailures": [{"itemIdentifier": each.letter.id} for each in run.kept()]}


@dataclass(frozen=True)
class _Run:
    """Handles the failures of one event."""

    aws: Aws
    settings: Settings
    failures: list[Failure]
    now: datetime

    def kept(self) -> list[Failure]:
        waiting, hopeless = [], []
        for each in self.failures:
            if not each.letter.may_pass:
                hopeless.append((each, each.letter.why))
            elif each.age(self.now) >= retries.GIVE_UP_SECONDS:
                hopeless.append((each, f"{each.letter.why}; it was retried for 24 hours"))
            elif each.receives == 1:
                waiting.append(each)
            elif refusal := self._send(each, waiting):
                hopeless.append((each, refusal))
        ages = (each.age(self.now) for each in self.failures if each.letter.may_pass)
        metrics.emit({"WaitSeconds": max(ages, default=0)}, what="failures")
        waiting += self._give_up(hopeless)
        self._hide(waiting)
        return waiting

    def _send(self, failure: Failure, waiting: list[Failure]) -> str | None:
        """Sends a failure back to where it came from. Returns the reason if that can never succeed.

        A failure that cannot be sent at the moment is added to ``waiting``.
        """
        letter = failure.letter
        try:
            with aws_errors():
                letter.send(self.aws, retries=letter.retries + 1, retriedSince=letter.retried_since)
        except Exception as error:
            facts = {**_about(failure), "reason": reason(error)}
            log.warning("failure not retried yet", exc_info=is_final(error), extra=facts)
            if is_final(error):
                return reason(error)
            waiting.append(failure)
        else:
            log.info("failure retried", extra={**_about(failure), "reason": letter.why})
        return None

    def _give_up(self, hopeless: list[tuple[Failure, str]]) -> list[Failure]:
        """Moves failures to the failures queue with their reasons. Returns those that SQS did not accept."""
        messages = [(each.message["Body"], _attributes(each.message, why)) for each, why in hopeless]
        refused = queues.send(self.aws("sqs"), self.settings.failures_queue_url, messages)
        for index, (each, why) in enumerate(hopeless):
            facts = {**_about(each), "reason": why}
            if index in refused:
                log.error("failure not moved to the failures queue yet", extra={**facts, "error": str(refused[index])})
            else:
                log.error("failure waits for a person", extra=facts)
        return [hopeless[index][0] for index in refused]

    def _hide(self, waiting: list[Failure]) -> None:
        receipts = [
            (each.message["ReceiptHandle"], retries.pause(each.letter.retries + each.receives)) for each in waiting
        ]
        for index, error in queues.delay(self.aws("sqs"), self.settings.retries_queue_url, receipts).items():
            # The failure comes back after the visibility timeout of the queue.
            log.warning("could not set the retry delay", extra={**_about(waiting[index]), "reason": str(error)})


def _received(record: dict[str, Any]) -> Message:
    """Converts a record from Lambda to a message from the SQS API."""
    given = record.get("messageAttributes", {})
    attributes = {name: {"StringValue": each.get("stringValue", "")} for name, each in given.items()}
    if '"TopicArn"' in record["body"]:
        # The retries queue gets messages of SNS only from the subscriptions of our own functions.
        attributes[SUBSCRIBER] = {"StringValue": "function"}
    return {
        "MessageId": record["messageId"],
        "ReceiptHandle": record["receiptHandle"],
        "Body": record["body"],
        "Attributes": record["attributes"],
        "MessageAttributes": attributes,
    }


def _attributes(message: Message, why: str) -> dict[str, Any]:
    given = {name: each["StringValue"] for name, each in message["MessageAttributes"].items() if each["StringValue"]}
    names = sorted(given, key=lambda name: name not in ATTRIBUTES)[:ATTRIBUTES_KEPT]
    kept = {**{name: given[name] for name in names}, "reason": why}
    return {name: {"DataType": "String", "StringValue": value} for name, value in kept.items()}


def _about(failure: Failure) -> dict[str, Any]:
    letter = failure.letter
    about = {"messageId": letter.id, "letter": letter.letter, "kind": letter.kind, "what": letter.what}
    return {**about, correlation.NAMES: letter.correlation_ids}
