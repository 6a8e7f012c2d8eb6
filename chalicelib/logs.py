"""Writes each log record as a JSON object to standard output. Lambda sends this output to CloudWatch Logs.

Callers add fields such as ``reportId`` or ``orderID`` with ``extra=``, and the formatter adds the ``correlationId``.
Text from a client must always be logged as a field, and never as part of the message.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from chalicelib import correlation

# CloudWatch Logs accepts records of up to 256 KB, and a character can take up to twelve bytes in JSON.
FIELD_CHARACTERS = 10_000
# All other attributes of a record are the caller's fields.
OWN = frozenset(vars(logging.makeLogRecord({})))

encode = json.JSONEncoder(default=str).encode


class Formatter(logging.Formatter):
    """Adds the correlation id to each log record, and shortens long strings such as tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        content = {"level": record.levelname, "logger": record.name, "message": record.getMessage()}
        content |= {name: value for name, value in vars(record).items() if name not in OWN}
        if record.exc_info:
            content["exc_info"] = self.formatException(record.exc_info)
        content["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat()
        if correlation.NAME not in content and (correlation_id := correlation.current()):
            content[correlation.NAME] = correlation_id
        for name, value in content.items():
            if isinstance(value, str) and len(value) > FIELD_CHARACTERS:
                content[name] = value[: FIELD_CHARACTERS - 1] + "…"
        return encode(content)


def logger(name: str) -> logging.Logger:
    """Returns the logger ``cafe.<name>``. The first call configures the log output."""
    root = logging.getLogger("cafe")
    if not root.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(Formatter())
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        # Without this setting, Lambda's root handler would print each record a second time.
        root.propagate = False
    return root.getChild(name)
