"""Sends dead letters back to their destinations, and then deletes them from the dead-letter queues.

Each dead letter is first recorded, then sent and then deleted. If a redrive is interrupted, the next redrive sends the
dead letter again. Sending a dead letter twice is harmless, because the receiver ignores a repeated order, notification,
upload or report. Receivers detect repetitions by the ``orderID``, the notification key, the S3 sequencer or the
execution name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

from chalicelib import correlation, queues
from chalicelib.dead_letters.destinations import Aws, CannotRedrive, Destination
from chalicelib.dead_letters.handled import Register, State
from chalicelib.dead_letters.handling import OUT_OF_TIME, Selection, handle, reason
from chalicelib.dead_letters.letters import Letter
from chalicelib.errors import Unavailable, aws_errors
from chalicelib.settings import Settings


def redrive(
    selection: Selection,
    *,
    by: str,
    settings: Settings,
    aws: Aws,
    now: datetime,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Redrives the selected dead letters for the user ``by``. Returns ``{"redriven", "kept", "left"}``.

    ``chalicelib.dead_letters.handling`` describes the result.
    """
    register = Register(aws("dynamodb"), settings.notifications_table, by, now)

    def process(in_time: Callable[[], bool]) -> Callable[[list[Letter]], dict[str, str]]:
        return _Sending(register, settings.orders_queue_url, aws, in_time).send

    return handle(selection, "redriven", process, settings=settings, aws=aws, clock=clock)


@dataclass(frozen=True)
class _Sending:
    register: Register
    orders_url: str
    aws: Aws
    in_time: Callable[[], bool]

    def send(self, letters: list[Letter]) -> dict[str, str]:
        """Sends dead letters to their destinations. Returns the reason for each failure, keyed by dead letter id."""
        # An unknown destination is not recorded as on its way.
        reasons = {
            each.id: "its origin is unknown" for each in letters if each.kind != "order" and not each.destination
        }
        known = [each for each in letters if each.id not in reasons]
        reasons |= self.register.add(known, State.ON_ITS_WAY, self.in_time)
        recorded = [each for each in known if each.id not in reasons]
        reasons |= self._send_orders([each for each in recorded if each.kind == "order"])
        for letter in recorded:
            if letter.destination and (why := self._send_one(letter.destination)):
                reasons[letter.id] = why
        return reasons

    def _send_orders(self, letters: list[Letter]) -> dict[str, str]:
        messages = [(each.body, _attributes(each)) for each in letters]
        failures = queues.send(self.aws("sqs"), self.orders_url, messages)
        return {letters[index].id: reason(error) for index, error in failures.items()}

    def _send_one(self, destination: Destination) -> str | None:
        if not self.in_time():
            return OUT_OF_TIME
        try:
            with aws_errors():
                destination.send(self.aws)
        except (ClientError, Unavailable, CannotRedrive) as error:
            return reason(error)
        except (ParamValidationError, UnicodeError):
            # A message that a person added to the queue may be invalid, but must not stop the redrive.
            return "the message has the format of a dead letter, but AWS rejects its content"
        return None


def _attributes(letter: Letter) -> dict[str, Any]:
    """Returns the attributes of an order that is sent again. ``store_orders`` adds its tries to those of the letter."""
    sent = f"{datetime.fromisoformat(letter.since).timestamp() * 1000:.0f}" if letter.since else None
    given = {"letter": letter.letter, "sent": sent, "tries": letter.tries}
    return {
        **correlation.sqs_attribute(next(iter(letter.correlation_ids), None)),
        **{name: {"DataType": "String", "StringValue": str(each)} for name, each in given.items() if each is not None},
    }
