"""One JSON object for each log record, on standard output, where Lambda picks it up.

Every record carries the id of what it is about (``reportId``, ``orderID``, ``key``) as a field of its own, given
with ``extra=``, and the ``correlationId`` of what it is part of; what comes from a client goes into a field and never
into the message, so it cannot forge a record.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from chalicelib import correlation

# CloudWatch Logs takes records of 256 KB, and a character may have twelve bytes in JSON.
FIELD_CHARACTERS = 10_000


class _Formatter(JsonFormatter):
    """Adds what the record is part of, and cuts a text that is too long, such as a traceback with a whole message."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        if correlation.NAME not in log_data and (correlation_id := correlation.current()):
            log_data[correlation.NAME] = correlation_id
        for name, value in log_data.items():
            if isinstance(value, str) and len(value) > FIELD_CHARACTERS:
                log_data[name] = value[: FIELD_CHARACTERS - 1] + "…"
        return log_data


def logger(name: str) -> logging.Logger:
    """The logger ``cafe.<name>``; the first call sets the format up."""
    root = logging.getLogger("cafe")
    if not root.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(
            _Formatter(
                "%(levelname)s %(name)s %(message)s",
                rename_fields={"levelname": "level", "name": "logger"},
                timestamp=True,
            )
        )
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        # Lambda's own root handler would print each record a second time.
        root.propagate = False
    return root.getChild(name)
