"""Records the dead letters that a person put back or discarded for 30 days, and finds out what became of them.

Each record is an item in the notifications table, in a partition of its own that the inbox does not read. A dead letter
that fails again keeps its ``letter`` id, so the next redrive replaces its record.
"""

from __future__ import annotations

import json
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.dead_letters import results
from chalicelib.dead_letters.handling import OUT_OF_TIME, reason
from chalicelib.dead_letters.letters import Letter
from chalicelib.errors import Unavailable, aws_errors
from chalicelib.logs import logger
from chalicelib.timeline import Item, Timeline, timestamp

KEPT = timedelta(days=30)
SHOWN = 50
PERIOD = "dead-letters"
# The system gives up a message after 24 hours. An hour later, an unknown result will not become known any more.
KNOWN_BY = timedelta(hours=25)
# Maximum size in bytes of a compressed message. DynamoDB limits an item to 400 KB.
MESSAGE_BYTES = 350_000
CONTENT_CHARACTERS = 4_000
# Maximum size in bytes of a content in a response of Lambda. A response escapes JSON twice, and is limited to 6 MB.
CONTENT_BYTES = 20_000
# This pattern also matches links in JSON, in which a backslash may escape an ampersand or a slash.
LINK = re.compile(r"\b[a-z][a-z0-9+.-]{0,20}:(?:\\*/){2}(?:[^\s\"'<>\\]|\\+(?:u[0-9a-f]{4}|/))+", re.IGNORECASE)

log = logger("dead_letters")


class State(StrEnum):
    ON_ITS_WAY = "ON_ITS_WAY"
    DONE = "DONE"
    FAILED_AGAIN = "FAILED_AGAIN"
    DISCARDED = "DISCARDED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Register:
    """Records what the user ``by`` does at the time ``now``."""

    dynamodb: Any
    table: str
    by: str
    now: datetime

    def add(self, letters: Sequence[Letter], state: State, in_time: Callable[[], bool]) -> dict[str, str]:
        """Records dead letters. Returns the reason for each failure, keyed by dead letter id."""
        reasons = {}
        for letter in letters:
            try:
                if not in_time():
                    raise Unavailable(OUT_OF_TIME)
                with aws_errors():
                    self.dynamodb.put_item(TableName=self.table, Item=self._item(letter, state))
            except (ClientError, Unavailable) as error:
                reasons[letter.id] = reason(error)
        return reasons

    def _item(self, letter: Letter, state: State) -> Item:
        at, body, what = timestamp(self.now), letter.body.encode(errors="replace"), letter.what
        message = zlib.compress(body)
        if len(message) > MESSAGE_BYTES:
            message = zlib.compress(body[:MESSAGE_BYTES])
            what = f"{what[:200]} (only the first {MESSAGE_BYTES:,} of {len(body):,} bytes are kept)"
        shown = {name: value for name, value in letter.shown().items() if name != "id"}
        return {
            "notificationID": {"S": f"dead-letter/{letter.letter}"},
            **{"period": {"S": PERIOD}, "sortKey": {"S": f"{at}#{letter.letter}"}},
            "expiresAt": {"N": str(int((self.now + KEPT).timestamp()))},
            "messageId": {"S": letter.id},
            "shown": {"S": json.dumps({**shown, "what": what, "by": self.by, "at": at})},
            "message": {"B": message},
            "results": {"S": json.dumps(results.of(letter))},
            "state": {"S": state},
        }


def newest(waiting: Mapping[str, str], finder: results.Finder) -> list[dict[str, Any]] | None:
    """Returns the newest dead letters that a person put back or discarded, or None if DynamoDB is unavailable.

    ``waiting`` maps the message ids of the dead letters in the queues to their ``letter`` ids.
    """
    timeline = Timeline(finder.aws("dynamodb"), finder.settings.notifications_table)
    try:
        with aws_errors():
            items, _ = timeline.recent(PERIOD, timestamp(finder.now - KEPT), SHOWN, {})
    except Unavailable as error:
        log.warning("handled dead letters not read", extra={"reason": str(error)})
        return None
    # A dead letter that is still in its queue under the same id was not put back, or will be put back once more.
    items = [each for each in items[:SHOWN] if each["messageId"]["S"] not in waiting]
    again = set(waiting.values())
    try:
        _settle(
            [each for each in items if each["state"]["S"] == State.ON_ITS_WAY and _letter(each) not in again], finder
        )
    except (Unavailable, ClientError) as error:
        # The next request looks again.
        log.warning("results of dead letters not read", extra={"reason": reason(error)})
    return [_shown(each, again) for each in items]


def _settle(items: list[Item], finder: results.Finder) -> None:
    """Sets the state of each item whose result exists, or will not be found any more.

    The state is stored too, because looking for results reads several tables.
    """
    wanted = [(item, results.read(item["results"]["S"])) for item in items]
    found = finder.find({each: _at(item) for item, mine in wanted for each in mine})
    for item, mine in wanted:
        if mine and found.issuperset(mine):
            item["state"] = {"S": State.DONE}
        elif finder.now - datetime.fromisoformat(_at(item)) > KNOWN_BY:
            item["state"] = {"S": State.UNKNOWN}
        else:
            continue
        _store(item, finder.aws("dynamodb"), finder.settings.notifications_table)


@aws_errors()
def _store(item: Item, dynamodb: Any, table: str) -> None:
    unchanged = {"ConditionExpression": "sortKey = :key", "ExpressionAttributeValues": {":key": item["sortKey"]}}
    try:
        dynamodb.put_item(TableName=table, Item=item, **unchanged)
    except dynamodb.exceptions.ConditionalCheckFailedException:
        log.info("dead letter was handled again meanwhile", extra={"letter": _letter(item)})


def _letter(item: Item) -> str:
    letter: str = item["sortKey"]["S"].partition("#")[2]
    return letter


def _at(item: Item) -> str:
    at: str = item["sortKey"]["S"].partition("#")[0]
    return at


def _shown(item: Item, again: set[str]) -> dict[str, Any]:
    state = item["state"]["S"]
    if _letter(item) in again and state != State.DISCARDED:
        state = State.FAILED_AGAIN
    message = zlib.decompressobj().decompress(item["message"]["B"], 8 * CONTENT_CHARACTERS).decode(errors="ignore")
    return {**json.loads(item["shown"]["S"]), "content": content(message), "state": state}


def content(body: str) -> str:
    """Returns a message as printable text with line breaks. Links are secret, so they are replaced."""
    text = LINK.sub("(a link)", body[: 2 * CONTENT_CHARACTERS])
    text = "".join(each if each.isprintable() or each in "\n\t" else " " if each.isspace() else "?" for each in text)

    def size(end: int) -> int:
        return len(json.dumps(json.dumps(text[:end])))

    if max(len(text), len(body) // 2) <= CONTENT_CHARACTERS and size(CONTENT_CHARACTERS) <= CONTENT_BYTES:
        return text
    return text[: bisect_right(range(CONTENT_CHARACTERS), CONTENT_BYTES, key=size) - 1] + "…"
