"""Finds the results that show that redriven dead letters were processed.

A result is a place, which is a key of ``PLACES``, and the id of what is expected there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from chalicelib.dead_letters.destinations import Aws, Result, results_of_order
from chalicelib.dead_letters.letters import Letter
from chalicelib.errors import Unavailable, aws_errors
from chalicelib.orders.replay import find_announced
from chalicelib.settings import Settings
from chalicelib.timeline import Item
from chalicelib.uploads.records import Status

# Maximum size in bytes of the results of one dead letter. Dead letters of the project have far fewer.
BYTES = 20_000
# Maximum number of items that DynamoDB returns in one call.
KEYS = 100
IN_PROGRESS = (Status.WAITING, Status.PREVIEWING, Status.IMPORTING, Status.UNDOING)


def of(letter: Letter) -> list[Result]:
    """Returns the results that a redrive of the dead letter will have, or an empty list if they cannot be found."""
    if letter.kind == "order":
        found = results_of_order(letter.body)
    else:
        found = letter.destination.results() if letter.destination else []
    return found if len(json.dumps(found)) <= BYTES else []


def read(text: str) -> list[Result]:
    return [(place, identifier) for place, identifier in json.loads(text)]


@dataclass(frozen=True)
class Finder:
    """Finds results while ``in_time`` returns True.

    The method for a place receives ids with the times of their redrives, and returns the ids that it found.
    """

    settings: Settings
    aws: Aws
    now: datetime
    in_time: Callable[[], bool]

    def find(self, since: Mapping[Result, str]) -> set[Result]:
        """Returns the results that exist. ``since`` maps each result to the time of its redrive."""
        places: dict[str, dict[str, str]] = defaultdict(dict)
        for (place, identifier), at in since.items():
            places[place][identifier] = at
        return {(place, each) for place, ids in places.items() for each in PLACES[place](self, ids)}

    def orders(self, ids: Mapping[str, str]) -> set[str]:
        return {item["orderID"]["S"] for item in self._items(self.settings.orders_table, "orderID", ids)}

    def announcements(self, ids: Mapping[str, str]) -> set[str]:
        written = {each: datetime.fromisoformat(at).timestamp() for each, at in ids.items()}
        table = self.settings.notifications_table
        return find_announced(self.aws("dynamodb"), table, self.now, written, self.in_time)

    def inbox(self, ids: Mapping[str, str]) -> set[str]:
        table = self.settings.notifications_table
        return {item["notificationID"]["S"] for item in self._items(table, "notificationID", ids)}

    def uploads(self, ids: Mapping[str, str]) -> set[str]:
        items = self._items(self.settings.uploads_table, "uploadId", ids, "#status")
        return {item["uploadId"]["S"] for item in items if item["status"]["S"] not in IN_PROGRESS}

    def reports(self, ids: Mapping[str, str]) -> set[str]:
        sfn, ended = self.aws("stepfunctions"), set()
        for arn in ids:
            self._check_time()
            try:
                with aws_errors():
                    status = sfn.describe_execution(executionArn=arn)["status"]
            except (sfn.exceptions.ExecutionDoesNotExist, sfn.exceptions.InvalidArn):
                continue
            ended |= {arn} if status != "RUNNING" else set()
        return ended

    def _items(self, table: str, key: str, ids: Mapping[str, str], *attributes: str) -> list[Item]:
        items: list[Item] = []
        every = list(ids)
        names = {"ExpressionAttributeNames": {name: name[1:] for name in attributes}} if attributes else {}
        for start in range(0, len(every), KEYS):
            self._check_time()
            keys = [{key: {"S": each}} for each in every[start : start + KEYS]]
            request = {"Keys": keys, "ProjectionExpression": ", ".join((key, *attributes)), **names}
            with aws_errors():
                answer = self.aws("dynamodb").batch_get_item(RequestItems={table: request})
            if answer.get("UnprocessedKeys"):
                raise Unavailable("DynamoDB is busy: try again in a moment")
            items += answer["Responses"][table]
        return items

    def _check_time(self) -> None:
        if not self.in_time():
            raise Unavailable("the request ran out of time: try again")


PLACES: dict[str, Callable[[Finder, Mapping[str, str]], set[str]]] = {
    "orders": Finder.orders,
    "announcements": Finder.announcements,
    "inbox": Finder.inbox,
    "uploads": Finder.uploads,
    "reports": Finder.reports,
}
