"""The row for one S3 object in the table ``uploads``: its last event, and the event's pending notification.

The row ensures that each event is handled once and that its notification is published.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from chalicelib.notifications import Notification, Publish

if TYPE_CHECKING:
    from chalicelib.uploads.stock import Stock


class Ledger:
    def __init__(self, stock: Stock, key: str) -> None:
        self._stock = stock
        self._key = key.encode()

    def lock(self, publish: Publish) -> str:
        """Locks the row until the commit, publishes any pending notification, and returns the last sequencer."""
        sequencer, outcome, announced = self._stock.lock_event(self._key)
        self.notification = _read_notification(outcome) if outcome else None
        if self.notification and not announced:
            publish(self.notification)
            self._stock.mark_announced(self._key)
        return sequencer

    def write(self, sequencer: str, etag: str, notification: Notification) -> None:
        """Records the event and its notification, which the next call of ``lock`` publishes."""
        self._stock.write_event(self._key, sequencer, etag, json.dumps(asdict(notification)))


def _read_notification(text: str) -> Notification:
    content: dict[str, Any] = json.loads(text)
    # Notifications that an older version stored have no correlation ids.
    content["correlation_ids"] = tuple(content.get("correlation_ids", ()))
    return Notification(**content)
