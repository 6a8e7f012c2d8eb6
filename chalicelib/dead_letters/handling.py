"""Takes the dead letters that a request selects from both queues, and deletes those that were processed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from chalicelib import correlation
from chalicelib.dead_letters.destinations import Aws
from chalicelib.dead_letters.letters import KINDS, Letter
from chalicelib.dead_letters.queue import DeadLetterQueue, open_queues
from chalicelib.errors import Unavailable
from chalicelib.fields import Fields
from chalicelib.logs import logger
from chalicelib.settings import Settings

IDS = 100
MESSAGE_ID = re.compile(r"[A-Za-z0-9-]{1,100}")
# Maximum number of kept dead letters that a response lists.
KEPT_SHOWN = 100
# Maximum time in seconds of a request. The last AWS call must end before API Gateway's 29-second timeout.
SECONDS = 10
# Visibility timeout in seconds for the dead letters that a request receives. A request always ends earlier.
HIDDEN_SECONDS = 90
OUT_OF_TIME = "the request ran out of time: try again"

log = logger("dead_letters")

# Processes dead letters. Returns the reason for each failure, keyed by dead letter id.
Process = Callable[[list[Letter]], dict[str, str]]


@dataclass(frozen=True)
class Selection:
    """Selects the dead letters that have one of the ``ids`` and the ``kind``. None selects all."""

    ids: frozenset[str] | None = None
    kind: str | None = None

    def includes(self, letter: Letter) -> bool:
        return (self.ids is None or letter.id in self.ids) and self.kind in (None, letter.kind)


def parse(body: Any, *, of: str = "a redrive", all_allowed: bool = True) -> Selection:
    """Returns the selection in a request's JSON body. Raises ``InvalidRequest``."""
    fields = Fields.of_body(body, ("ids", "kind"), of=of, expected="an object, or nothing")
    ids, kind = fields.get("ids", []), fields.get("kind")
    if not fields.values and not all_allowed:
        fields.refuse("body", f"must contain `ids` or a `kind`, because {of} never takes all dead letters")
    if "ids" in fields and (not isinstance(ids, list) or not 1 <= len(ids) <= IDS):
        fields.refuse("ids", f"must be a list of 1 to {IDS} ids; leave it out to select all dead letters")
    elif any(not isinstance(each, str) or not MESSAGE_ID.fullmatch(each) for each in ids):
        fields.refuse("ids", "must contain only ids of dead letters: 1 to 100 characters of A-Z, a-z, 0-9 and -")
    if "kind" in fields and kind not in KINDS:
        fields.refuse("kind", f"must be one of {', '.join(KINDS)}")
    fields.check()
    return Selection(frozenset(ids) if "ids" in fields else None, kind)


def handle(
    selection: Selection,
    outcome: str,
    process: Callable[[Callable[[], bool]], Process],
    *,
    settings: Settings,
    aws: Aws,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Processes the selected dead letters, and deletes those that did not fail.

    Returns ``{outcome, "kept": [{"id", "what", "why"}], "left"}``, in which ``outcome``, such as ``redriven``, is the
    number of processed dead letters. A dead letter that failed is kept in its queue. ``left`` counts the dead letters
    that remain because they were kept, not selected or not reached in time. ``process`` receives a function that
    returns whether time is left.
    """
    end = clock() + SECONDS

    def in_time() -> bool:
        return clock() < end

    run = _Run(selection, outcome, process(in_time), in_time)
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
        left = held if saw_all and in_time() else max(held, sum(queue.count() for queue in both))
    finally:
        for queue in both:
            queue.release()
    return {outcome: len(run.done), "kept": list(run.kept.values())[:KEPT_SHOWN], "left": left}


@dataclass
class _Run:
    """The progress of a request.

    ``done`` contains the ids of processed dead letters. ``kept`` describes the dead letters that failed.
    """

    selection: Selection
    outcome: str
    process: Process
    in_time: Callable[[], bool]
    done: set[str] = field(default_factory=set)
    kept: dict[str, dict[str, str]] = field(default_factory=dict)

    def goes_on(self) -> bool:
        """Returns True if time is left and some requested dead letters have not been found yet."""
        ids = self.selection.ids
        return self.in_time() and (ids is None or not ids <= self.done | self.kept.keys())

    def handle(self, letters: list[Letter], queue: DeadLetterQueue) -> None:
        """Processes and deletes the selected dead letters among ``letters``, and records each outcome."""
        selected = [each for each in letters if self.selection.includes(each)]
        # SQS may redeliver a dead letter that this request has already processed. The redelivered dead letter is
        # deleted but not processed again.
        new = [each for each in selected if each.id not in self.done]
        reasons = self.process(new)
        undeleted = queue.delete([each.id for each in selected if each.id not in reasons])
        self.done |= {each.id for each in new if each.id not in reasons}
        reasons |= dict.fromkeys(undeleted, f"the dead letter was {self.outcome} but could not be deleted")
        for letter in new:
            self._note(letter, reasons.get(letter.id))

    def _note(self, letter: Letter, reason: str | None) -> None:
        # The ``correlationId`` in the log belongs to the request, so the ids from the dead letter need a separate
        # field.
        about = {"kind": letter.kind, "what": letter.what, correlation.NAMES: letter.correlation_ids}
        extra: dict[str, Any] = {"messageId": letter.id, **about}
        if reason is None:
            log.info(f"dead letter {self.outcome}", extra=extra)
        else:
            self.kept[letter.id] = {"id": letter.id, "what": letter.what, "why": reason}
            log.warning("dead letter kept", extra={**extra, "reason": reason})


def reason(error: Exception) -> str:
    """Returns why an AWS call failed, for a person."""
    if isinstance(error, ClientError):
        return f"{error.operation_name} was refused: {error.response['Error']['Code']}"
    return str(error)
