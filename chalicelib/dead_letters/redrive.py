"""Sends dead letters back to their destinations, and then deletes them from the dead-letter queues.

If a redrive is interrupted between sending and deleting, the next redrive sends the dead letter again. Sending a dead
letter twice is harmless, because the receiver ignores a repeated order, notification, upload or report. Receivers
detect repetitions by the ``orderID``, the notification key, the S3 sequencer or the execution name.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

from chalicelib import correlation, queues
from chalicelib.dead_letters.destinations import Aws, CannotRedrive
from chalicelib.dead_letters.letters import Letter
from chalicelib.dead_letters.queue import DeadLetterQueue, open_queues
from chalicelib.errors import Unavailable, aws_errors
from chalicelib.fields import Fields
from chalicelib.logs import logger
from chalicelib.settings import Settings

IDS = 100
MESSAGE_ID = re.compile(r"[A-Za-z0-9-]{1,100}")
# Maximum number of kept dead letters that a response lists.
KEPT_SHOWN = 100
# Maximum time in seconds of a redrive. The last AWS call must end before API Gateway's 29-second timeout.
SECONDS = 10
# Visibility timeout in seconds for the dead letters that a redrive receives. A redrive always ends earlier.
HIDDEN_SECONDS = 90

log = logger("dead_letters")


def parse(body: Any) -> frozenset[str] | None:
    """Returns the ids in a request's JSON body, or None for all dead letters. Raises ``InvalidRequest``."""
    fields = Fields.of_body(body, ("ids",), of="a redrive", expected="an object, or nothing")
    ids = fields.get("ids", [])
    if "ids" in fields and (not isinstance(ids, list) or not 1 <= len(ids) <= IDS):
        fields.refuse("ids", f"must be a list of 1 to {IDS} ids; leave it out to redrive all dead letters")
    elif any(not isinstance(each, str) or not MESSAGE_ID.fullmatch(each) for each in ids):
        fields.refuse("ids", "must contain only ids of dead letters: 1 to 100 characters of A-Z, a-z, 0-9 and -")
    fields.check()
    return frozenset(ids) if "ids" in fields else None


def redrive(
    ids: frozenset[str] | None, *, settings: Settings, aws: Aws, clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Redrives the dead letters with the given ``ids``, or all dead letters if ``ids`` is None.

    Returns ``{"redriven", "kept": [{"id", "what", "why"}], "left"}``. A dead letter that cannot be redriven is kept in
    its queue. ``left`` counts the dead letters that remain because they were kept, not requested or not reached in
    time.
    """
    end = clock() + SECONDS
    run = _Redrive(ids, settings.orders_queue_url, aws, lambda: clock() < end)
    both = open_queues(settings, aws("sqs"), HIDDEN_SECONDS)
    saw_all = ids is None
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
        left = held if saw_all and run.in_time() else max(held, sum(queue.count() for queue in both))
    finally:
        for queue in both:
            queue.release()
    return {"redriven": len(run.done), "kept": list(run.kept.values())[:KEPT_SHOWN], "left": left}


@dataclass
class _Redrive:
    """The progress of a redrive.

    ``done`` contains the ids of redriven dead letters. ``kept`` describes the dead letters that could not be redriven.
    """

    ids: frozenset[str] | None
    orders_url: str
    aws: Aws
    in_time: Callable[[], bool]
    done: set[str] = field(default_factory=set)
    kept: dict[str, dict[str, str]] = field(default_factory=dict)

    def goes_on(self) -> bool:
        """Returns True if time is left and some requested dead letters have not been found yet."""
        return self.in_time() and (self.ids is None or not self.ids <= self.done | self.kept.keys())

    def handle(self, letters: list[Letter], queue: DeadLetterQueue) -> None:
        """Sends and deletes the requested dead letters among ``letters``, and records each outcome."""
        requested = [each for each in letters if self.ids is None or each.id in self.ids]
        # SQS may redeliver a dead letter that this redrive has already sent. The redelivered dead letter is deleted but
        # not sent again.
        new = [each for each in requested if each.id not in self.done]
        reasons = self._send(new)
        sent = [each.id for each in requested if each.id not in reasons]
        undeleted = queue.delete(sent)
        self.done |= {each.id for each in new if each.id not in reasons}
        reasons |= dict.fromkeys(undeleted, "the dead letter was redriven but could not be deleted")
        for letter in new:
            self._note(letter, reasons.get(letter.id))

    def _send(self, letters: list[Letter]) -> dict[str, str]:
        """Sends dead letters to their destinations. Returns the reason for each failure, keyed by dead letter id."""
        reasons = self._send_orders([each for each in letters if each.kind == "order"])
        for letter in letters:
            if letter.kind != "order" and (reason := self._send_one(letter)):
                reasons[letter.id] = reason
        return reasons

    def _send_orders(self, letters: list[Letter]) -> dict[str, str]:
        messages = [(each.body, correlation.sqs_attribute(next(iter(each.correlation_ids), None))) for each in letters]
        failures = queues.send(self.aws("sqs"), self.orders_url, messages)
        return {letters[index].id: _reason(error) for index, error in failures.items()}

    def _send_one(self, letter: Letter) -> str | None:
        if letter.destination is None:
            return "its origin is unknown"
        if not self.in_time():
            return "the redrive ran out of time: try again"
        try:
            with aws_errors():
                letter.destination.send(self.aws)
        except (ClientError, Unavailable, CannotRedrive) as error:
            return _reason(error)
        except (ParamValidationError, UnicodeError):
            # A message that a person added to the queue may be invalid, but must not stop the redrive.
            return "the message has the format of a dead letter, but AWS rejects its content"
        return None

    def _note(self, letter: Letter, reason: str | None) -> None:
        # The ``correlationId`` in the log belongs to the redrive request, so the ids from the dead letter need a
        # separate field.
        about = {"kind": letter.kind, "what": letter.what, correlation.NAMES: letter.correlation_ids}
        extra: dict[str, Any] = {"messageId": letter.id, **about}
        if reason is None:
            log.info("dead letter redriven", extra=extra)
        else:
            self.kept[letter.id] = {"id": letter.id, "what": letter.what, "why": reason}
            log.warning("dead letter kept", extra={**extra, "reason": reason})


def _reason(error: Exception) -> str:
    if isinstance(error, ClientError):
        return f"{error.operation_name} was refused: {error.response['Error']['Code']}"
    return str(error)
