"""Sends dead letters back to their destinations, or discards them, and then deletes them from the dead-letter queues.

Each dead letter is first recorded (see ``handled.py``). If it cannot be recorded, it is neither sent nor deleted. If a
redrive is interrupted between sending and deleting, the next redrive sends the dead letter again. Sending a dead letter
twice is harmless, because the receiver ignores a repeated order, notification, upload or report. Receivers detect
repetitions by the ``orderID``, the notification key, the S3 sequencer or the execution name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from botocore.exceptions import ClientError

from chalicelib import correlation, queues
from chalicelib.dead_letters.destinations import Aws, CannotRedrive, reason
from chalicelib.dead_letters.handled import DISCARDED, ON_ITS_WAY, Handled
from chalicelib.dead_letters.letters import KINDS, Letter
from chalicelib.dead_letters.queue import DeadLetterQueue, open_queues
from chalicelib.errors import Unavailable, aws_errors, is_final
from chalicelib.fields import Fields
from chalicelib.logs import logger
from chalicelib.settings import Settings

IDS = 100
# Maximum number of kept dead letters that a response lists.
KEPT_SHOWN = 100
# Maximum time in seconds of a request. The last AWS call must end before API Gateway's 29-second timeout.
SECONDS = 10
# Visibility timeout in seconds for the dead letters that a request receives. A request always ends earlier.
HIDDEN_SECONDS = 90

log = logger("dead_letters")


Action = Literal["redriven", "discarded"]


@dataclass(frozen=True)
class Selection:
    """Selects the dead letters that have one of the ``ids`` and the ``kind``. None selects all."""

    ids: frozenset[str] | None = None
    kind: str | None = None

    def includes(self, letter: Letter) -> bool:
        return (self.ids is None or letter.id in self.ids) and self.kind in (None, letter.kind)


def parse(body: Any, action: Action) -> Selection:
    """Returns the selection in a request's JSON body. Raises ``InvalidRequest``."""
    noun = "redrive" if action == "redriven" else "discard"
    fields = Fields.of_body(body, ("ids", "kind"), of=f"a {noun}", expected="an object, or nothing")
    ids, kind = fields.get("ids", []), fields.get("kind")
    if not fields.values and action == "discarded":
        fields.refuse("body", "must contain `ids` or a `kind`, because all dead letters are never discarded at once")
    if "ids" in fields and (not isinstance(ids, list) or not 1 <= len(ids) <= IDS):
        fields.refuse("ids", f"must be a list of 1 to {IDS} ids; leave it out to redrive all dead letters")
    elif any(not isinstance(each, str) or not queues.MESSAGE_ID.fullmatch(each) for each in ids):
        fields.refuse("ids", "must contain only ids of dead letters: 1 to 100 characters of A-Z, a-z, 0-9 and -")
    if "kind" in fields and kind not in KINDS:
        fields.refuse("kind", f"must be one of {', '.join(KINDS)}")
    fields.check()
    return Selection(frozenset(ids) if "ids" in fields else None, kind)


def handle(
    action: Action,
    selection: Selection,
    *,
    by: str,
    settings: Settings,
    aws: Aws,
    now: datetime,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Redrives or discards the selected dead letters for the user ``by``.

    Returns ``{action, "kept": [{"id", "what", "why"}], "left"}``, in which ``action`` counts dead letters. A dead
    letter that cannot be redriven or recorded is kept in its queue. ``left`` counts the dead letters that remain
    because they were kept, not selected or not reached in time.
    """
    end = clock() + SECONDS
    run = _Run(action, selection, Handled(settings, aws, now, lambda: clock() < end), by)
    both = open_queues(settings, aws("sqs"), HIDDEN_SECONDS)
    saw_all = selection.ids is None
    try:
        try:
            for queue in both:
                for letters in queue.take(run.goes_on):
                    run.handle(letters, queue)
        except Unavailable:
            # A response that covers only some of the dead letters is more useful than an error.
            if not run.done and not run.kept:
                raise
            saw_all = False
        held = sum(queue.held for queue in both)
        left = held if saw_all and run.handled.in_time() else max(held, sum(queue.count() for queue in both))
    finally:
        for queue in both:
            queue.release()
    return {action: len(run.done), "kept": list(run.kept.values())[:KEPT_SHOWN], "left": left}


@dataclass
class _Run:
    """The progress of a request.

    ``done`` maps the ids of redriven or discarded dead letters to their ``letter`` ids. ``kept`` describes those that
    could not be.
    """

    action: Action
    selection: Selection
    handled: Handled
    by: str
    done: dict[str, str] = field(default_factory=dict)
    kept: dict[str, dict[str, str]] = field(default_factory=dict)

    def goes_on(self) -> bool:
        """Returns True if time is left and some requested dead letters have not been found yet."""
        ids = self.selection.ids
        return self.handled.in_time() and (ids is None or not ids <= self.done.keys() | self.kept.keys())

    def handle(self, letters: list[Letter], queue: DeadLetterQueue) -> None:
        """Records, sends and deletes the selected dead letters among ``letters``."""
        # A dead letter that has failed again during this request stays in its queue.
        again = {each.id for each in letters if each.id not in self.done and each.letter in self.done.values()}
        requested = [each for each in letters if self.selection.includes(each) and each.id not in again]
        # SQS may redeliver a dead letter that this request has already sent. The redelivered dead letter is deleted but
        # not sent again.
        new = [each for each in requested if each.id not in self.done]
        reasons = self._record(new)
        if self.action == "redriven":
            reasons |= self._send([each for each in new if each.id not in reasons])
        sent = [each.id for each in requested if each.id not in reasons]
        undeleted = queue.delete(sent)
        self.done |= {each.id: each.letter for each in new if each.id not in reasons}
        reasons |= dict.fromkeys(undeleted, f"the dead letter was {self.action} but could not be deleted")
        for letter in new:
            self._note(letter, reasons.get(letter.id))

    def _record(self, letters: list[Letter]) -> dict[str, str]:
        """Records dead letters. Returns the reason for each failure, keyed by dead letter id."""
        reasons = {}
        for letter in letters:
            try:
                if self.action == "redriven" and letter.kind != "order":
                    letter.way_back()
                self.handled.add(letter, ON_ITS_WAY if self.action == "redriven" else DISCARDED, self.by)
            except (ClientError, Unavailable, CannotRedrive) as error:
                reasons[letter.id] = reason(error)
        return reasons

    def _send(self, letters: list[Letter]) -> dict[str, str]:
        """Sends dead letters to their destinations. Returns the reason for each failure, keyed by dead letter id."""
        reasons = self._send_orders([each for each in letters if each.kind == "order"])
        for letter in letters:
            if letter.kind != "order" and (why := self._send_one(letter)):
                reasons[letter.id] = why
        return reasons

    def _send_orders(self, letters: list[Letter]) -> dict[str, str]:
        messages = [(each.body, _attributes(each)) for each in letters]
        failures = queues.send(self.handled.aws("sqs"), self.handled.settings.orders_queue_url, messages)
        return {letters[index].id: reason(error) for index, error in failures.items()}

    def _send_one(self, letter: Letter) -> str | None:
        if not self.handled.in_time():
            return "the redrive ran out of time: try again"
        try:
            with aws_errors():
                letter.send(self.handled.aws)
        except Exception as error:
            log.warning("dead letter not sent", exc_info=is_final(error), extra={"messageId": letter.id})
            return reason(error)
        return None

    def _note(self, letter: Letter, why: str | None) -> None:
        # The ``correlationId`` in the log belongs to the request, so the dead letter's ids need a separate field.
        about = {"kind": letter.kind, "what": letter.what, correlation.NAMES: letter.correlation_ids}
        extra: dict[str, Any] = {"messageId": letter.id, **about}
        if why is None:
            log.info(f"dead letter {self.action}", extra=extra)
        else:
            self.kept[letter.id] = {"id": letter.id, "what": letter.what, "why": why}
            log.warning("dead letter kept", extra={**extra, "reason": why})


def _attributes(letter: Letter) -> dict[str, Any]:
    """Returns the attributes of an order that is sent again. ``store_orders`` adds its tries to those of the letter."""
    sent = f"{datetime.fromisoformat(letter.since).timestamp() * 1000:.0f}" if letter.since else None
    given = {"letter": letter.letter, "sent": sent, "tries": letter.tries}
    return {
        **correlation.sqs_attribute(next(iter(letter.correlation_ids), None)),
        **{name: {"DataType": "String", "StringValue": str(each)} for name, each in given.items() if each is not None},
    }
