"""Records for 30 days which dead letters a person put back or discarded, and finds out what became of them.

Each record is an item in the notifications table, in a partition of its own that the inbox does not read. A dead letter
that fails again keeps its ``letter`` id, so its next record replaces this one.
"""

from __future__ import annotations

import json
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.dead_letters.descriptions import LINK
from chalicelib.dead_letters.destinations import Aws, Result
from chalicelib.dead_letters.letters import Letter
from chalicelib.errors import Unavailable, aws_errors
from chalicelib.logs import logger
from chalicelib.orders.replay import find_announced
from chalicelib.settings import Settings
from chalicelib.timeline import Item, Timeline, timestamp
from chalicelib.uploads.records import Status

STATES = ("ON_ITS_WAY", "DONE", "FAILED_AGAIN", "DISCARDED", "UNKNOWN")
ON_ITS_WAY, DONE, FAILED_AGAIN, DISCARDED, UNKNOWN = STATES
KEPT = timedelta(days=30)
SHOWN = 50
PERIOD = "dead-letters"
# The system retries for 24 hours. A result that is missing an hour later will never be known.
KNOWN_BY = timedelta(hours=25)
# Maximum size in bytes of a compressed message and of its results. DynamoDB limits an item to 400 KB.
MESSAGE_BYTES, RESULTS_BYTES = 350_000, 20_000
CONTENT_CHARACTERS = 4_000
# Maximum size in bytes of a message's content in Lambda's response, which escapes JSON twice and is limited to 6 MB.
CONTENT_BYTES = 20_000
TABLES = {"orders_table": "orderID", "uploads_table": "uploadId", "notifications_table": "notificationID"}
# Maximum number of items that DynamoDB returns in one call.
KEYS = 100
IN_PROGRESS = (Status.WAITING, Status.PREVIEWING, Status.IMPORTING, Status.UNDOING)

log = logger("dead_letters")


@dataclass(frozen=True)
class Handled:
    """The records. Looking for announcements ends when ``in_time`` returns False."""

    settings: Settings
    aws: Aws
    now: datetime
    in_time: Callable[[], bool]

    @aws_errors()
    def add(self, letter: Letter, state: str, by: str) -> None:
        """Records that the user ``by`` puts back or discards a dead letter."""
        at, body, what = timestamp(self.now), letter.body.encode(errors="replace"), letter.what
        message, results = zlib.compress(body), json.dumps(letter.results())
        if len(message) > MESSAGE_BYTES:
            message = zlib.compress(body[:MESSAGE_BYTES])
            what = f"{what[:200]} (only the first {MESSAGE_BYTES:,} of {len(body):,} bytes are kept)"
        item = {
            "notificationID": {"S": f"dead-letter/{letter.letter}"},
            **{"period": {"S": PERIOD}, "sortKey": {"S": f"{at}#{letter.letter}"}},
            "expiresAt": {"N": str(int((self.now + KEPT).timestamp()))},
            "messageId": {"S": letter.id},
            "shown": {"S": json.dumps({**letter.shown(), "what": what, "by": by, "at": at})},
            "message": {"B": message},
            "results": {"S": results if len(results) <= RESULTS_BYTES else "[]"},
            "state": {"S": state},
        }
        self.aws("dynamodb").put_item(TableName=self.settings.notifications_table, Item=item)

    def newest(self, waiting: Mapping[str, str]) -> list[dict[str, Any]] | None:
        """Returns the newest records in the format of the API, or None if DynamoDB is unavailable.

        ``waiting`` maps the message ids of the dead letters in the queues to their ``letter`` ids.
        """
        timeline = Timeline(self.aws("dynamodb"), self.settings.notifications_table)
        try:
            with aws_errors():
                items, _ = timeline.recent(PERIOD, timestamp(self.now - KEPT), SHOWN, {})
        except Unavailable as error:
            log.warning("handled dead letters not read", extra={"reason": str(error)})
            return None
        # A dead letter that is still in its queue under the same id was not put back, or will be put back again.
        items = [each for each in items[:SHOWN] if each["messageId"]["S"] not in waiting]
        # The orders of one event may fail separately. Their ids then begin with the id of the event's dead letter.
        again = {each for letter in waiting.values() for each in (letter, letter.rpartition("-")[0])}
        try:
            self._settle([each for each in items if each["state"]["S"] == ON_ITS_WAY and _id(each) not in again])
        except (Unavailable, ClientError) as error:
            # The next request looks again.
            log.warning("results of dead letters not read", extra={"reason": str(error)})
        return [_shown(each, again) for each in items]

    @aws_errors()
    def _settle(self, items: list[Item]) -> None:
        """Sets and stores the state of each item whose result exists, or will never be known.

        The state is stored, because looking for results reads several tables.
        """
        wanted = [(item, {(place, each) for place, each in json.loads(item["results"]["S"])}) for item in items]
        found = self._found({each: _at(item) for item, results in wanted for each in results})
        dynamodb = self.aws("dynamodb")
        for item, results in wanted:
            states = {found.get(each, UNKNOWN) for each in results} or {UNKNOWN}
            state = next(each for each in (FAILED_AGAIN, UNKNOWN, DONE) if each in states)
            if state == UNKNOWN and self.now - _at(item) <= KNOWN_BY:
                continue
            item["state"] = {"S": state}
            same = {"ConditionExpression": "sortKey = :key", "ExpressionAttributeValues": {":key": item["sortKey"]}}
            try:
                dynamodb.put_item(TableName=self.settings.notifications_table, Item=item, **same)
            except dynamodb.exceptions.ConditionalCheckFailedException:
                log.info("dead letter was put back again meanwhile", extra={"letter": _id(item)})

    def _found(self, since: Mapping[Result, datetime]) -> dict[Result, str]:
        """Returns the states of the results that exist. ``since`` maps each result to the time of its redrive."""
        dynamodb, table = self.aws("dynamodb"), self.settings.notifications_table
        orders = {each: at.timestamp() for (place, each), at in since.items() if place == "announcements"}
        announced = find_announced(dynamodb, table, self.now, orders, self.in_time)
        found = dict.fromkeys((("announcements", each) for each in announced), DONE)
        found |= {each: state for each in since if each[0] == "reports" and (state := self._report(each[1]))}
        for place, key in TABLES.items():
            ids = [each for other, each in since if other == place]
            for start in range(0, len(ids), KEYS):
                stored = self._stored(getattr(self.settings, place), key, ids[start : start + KEYS])
                found |= dict.fromkeys(((place, each) for each in stored), DONE)
        return found

    def _report(self, arn: str) -> str | None:
        """Returns the state of a report, or None while it runs."""
        sfn = self.aws("stepfunctions")
        try:
            status = sfn.describe_execution(executionArn=arn)["status"]
        except sfn.exceptions.ExecutionDoesNotExist:
            return None
        return {"RUNNING": None, "SUCCEEDED": DONE}.get(status, FAILED_AGAIN)

    def _stored(self, table: str, key: str, ids: list[str]) -> list[str]:
        """Returns the ids that are in a table. The status of an upload must be final."""
        names = {"ExpressionAttributeNames": {"#status": "status"}}
        request = {"Keys": [{key: {"S": each}} for each in ids], "ProjectionExpression": f"{key}, #status", **names}
        answer = self.aws("dynamodb").batch_get_item(RequestItems={table: request})
        if answer.get("UnprocessedKeys"):
            raise Unavailable("DynamoDB is busy: try again in a moment")
        items = answer["Responses"][table]
        return [item[key]["S"] for item in items if item.get("status", {}).get("S") not in IN_PROGRESS]


def _id(item: Item) -> str:
    return str(item["sortKey"]["S"]).partition("#")[2]


def _at(item: Item) -> datetime:
    return datetime.fromisoformat(item["sortKey"]["S"].partition("#")[0])


def _shown(item: Item, again: set[str]) -> dict[str, Any]:
    state = item["state"]["S"]
    if _id(item) in again and state != DISCARDED:
        state = FAILED_AGAIN
    message = zlib.decompressobj().decompress(item["message"]["B"], 8 * CONTENT_CHARACTERS).decode(errors="ignore")
    shown = json.loads(item["shown"]["S"])
    del shown["id"]
    return {**shown, "content": content(message), "state": state}


def content(body: str) -> str:
    """Returns a message as printable text with line breaks. Links are secret, so they are replaced."""
    text = LINK.sub("(a link)", body[: 2 * CONTENT_CHARACTERS])
    text = "".join(each if each.isprintable() or each in "\n\t" else " " if each.isspace() else "?" for each in text)

    def size(end: int) -> int:
        return len(json.dumps(json.dumps(text[:end])))

    if max(len(text), len(body) // 2) <= CONTENT_CHARACTERS and size(CONTENT_CHARACTERS) <= CONTENT_BYTES:
        return text
    return text[: bisect_right(range(CONTENT_CHARACTERS), CONTENT_BYTES, key=size) - 1] + "…"
