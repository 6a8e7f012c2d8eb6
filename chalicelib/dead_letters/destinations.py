"""Sends dead letters back to their destinations. Each class redrives one kind of dead letter.

``send`` adds the history of the dead letter to an event, so that the history comes back if the event fails again.
``results`` names what the finished work creates, and ``handled.py`` looks for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

from chalicelib.errors import CafeError
from chalicelib.notifications import Notification, publisher, stored_key
from chalicelib.orders import announce
from chalicelib.reports import REPORT_ID

RECORDS_AT_ONCE = 100
STREAM_PAGES = 20

History = dict[str, Any]
# A function of this type returns the AWS client for a service name.
Aws = Callable[[str], Any]
# A place and an id that the work adds to it. The place is ``announcements``, ``reports`` or a table in the settings.
Result = tuple[str, str]


class CannotRedrive(CafeError):
    """Raised if a dead letter cannot be redriven. The error's message contains the reason."""


def reason(error: Exception) -> str:
    """Returns the reason why a dead letter could not be read or sent. One bad letter must not block the others."""
    if isinstance(error, ClientError):
        return f"{error.operation_name} was refused: {error.response['Error']['Code']}"
    if isinstance(error, CafeError):
        return str(error)
    if isinstance(error, ParamValidationError | UnicodeError):
        return "the message has the format of a dead letter, but AWS rejects its content"
    return f"the code cannot handle it ({type(error).__name__}): fix the code, then put it back"


@dataclass(frozen=True)
class Invocation:
    """Redrives a dead letter by invoking a Lambda function asynchronously."""

    function: str
    event: dict[str, Any]

    def send(self, aws: Aws, history: History) -> None:
        payload = json.dumps({**self.event, "history": history})
        aws("lambda").invoke(FunctionName=self.function, InvocationType="Event", Payload=payload)

    def results(self) -> list[Result]:
        records = self.event.get("Records")
        return [each for record in records if (each := _result(record))] if isinstance(records, list) else []


def _result(record: Any) -> Result | None:
    """Returns the result of one record of an event, or None if the record has an unknown format."""
    try:
        match record:
            case {"dynamodb": _} if announce.announced_change(record) and (name := announce.identity(record)):
                return "announcements", name
            case {"s3": _}:
                # These modules are imported only here, because they import humanize, which is slow.
                from chalicelib.uploads import outcomes
                from chalicelib.uploads.upload import Upload

                upload = Upload.from_record(record)
                if upload.is_csv_in("inventory") or upload.is_csv_in("previews"):
                    return "uploads_table", upload.id
                return None if upload.is_folder() else ("notifications_table", stored_key(outcomes.key(upload)))
            case {"Sns": {"MessageAttributes": {"key": {"Value": str(key)}}}} if key:
                return "notifications_table", stored_key(key)
            case {"Sns": {"MessageId": str(key)}} if key:
                return "notifications_table", stored_key(key)
    except (KeyError, TypeError, AttributeError, ValueError):
        pass
    return None


@dataclass(frozen=True)
class Publication:
    """Redrives a dead letter by publishing a notification to an SNS topic."""

    topic: str
    notification: Notification

    def send(self, aws: Aws, _history: History) -> None:
        publisher(aws("sns"), self.topic)(self.notification)

    def results(self) -> list[Result]:
        return [("notifications_table", stored_key(self.notification.key))]


@dataclass(frozen=True)
class Execution:
    """Redrives a dead letter by starting an execution of a state machine."""

    machine: str
    name: str
    input: str

    def send(self, aws: Aws, _history: History) -> None:
        sfn = aws("stepfunctions")
        # EventBridge Scheduler may send two dead letters for the same scheduled report.
        with suppress(sfn.exceptions.ExecutionAlreadyExists):
            sfn.start_execution(stateMachineArn=self.machine, name=self.name, input=self.input)

    def results(self) -> list[Result]:
        arn = f"{self.machine.replace(':stateMachine:', ':execution:')}:{self.name}"
        return [("reports", arn)] if REPORT_ID.fullmatch(self.name) else []


@dataclass(frozen=True)
class StreamPart:
    """Redrives a dead letter that names a range of records in the orders table's stream, by announcing the orders in
    that range."""

    stream: str
    shard: str
    start: str
    end: str
    announce: str

    def send(self, aws: Aws, history: History) -> None:
        try:
            records = self._read(aws("dynamodbstreams"))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("TrimmedDataAccessException", "ResourceNotFoundException"):
                why = "the orders are stored but not announced: the stream keeps changes for only 24 hours"
                raise CannotRedrive(why) from error
            raise
        new = [each for each in records if announce.announced_change(each)]
        for first in range(0, len(new), RECORDS_AT_ONCE):
            event = {"Records": new[first : first + RECORDS_AT_ONCE], "redriven": True}
            Invocation(self.announce, event).send(aws, history)

    def results(self) -> list[Result]:
        # Only the stream knows the orders in this range, and only for 24 hours. Their announcements are not looked for,
        # but an order that fails again has a dead letter with the id of this one.
        return []

    def _read(self, streams: Any) -> list[dict[str, Any]]:
        iterator = streams.get_shard_iterator(
            StreamArn=self.stream,
            ShardId=self.shard,
            ShardIteratorType="AT_SEQUENCE_NUMBER",
            SequenceNumber=self.start,
        )["ShardIterator"]
        records: list[dict[str, Any]] = []
        for _ in range(STREAM_PAGES):
            answer = streams.get_records(ShardIterator=iterator)
            for record in answer["Records"]:
                number = int(record["dynamodb"]["SequenceNumber"])
                if number <= int(self.end):
                    records.append(self._as_event(record))
                if number >= int(self.end):
                    return records
            iterator = answer.get("NextShardIterator")
            if iterator is None:
                break
        raise CannotRedrive("the stream did not return all changes in this batch")

    def _as_event(self, record: dict[str, Any]) -> dict[str, Any]:
        """Converts a record from the DynamoDB Streams API to the format of a record in a Lambda event."""
        moment = record["dynamodb"]["ApproximateCreationDateTime"].timestamp()
        change = {**record["dynamodb"], "ApproximateCreationDateTime": moment}
        return announce.announced_part({**record, "eventSourceARN": self.stream, "dynamodb": change})


Destination = Invocation | Publication | Execution | StreamPart
