"""Writes each log record as a JSON object to standard output. Lambda sends this output to CloudWatch Logs.

Callers add fields such as ``reportId`` or ``orderID`` with ``extra=``, and the formatter adds the ``correlationId``.
Text from a client must always be logged as a field, and never as part of the message.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from chalicelib import correlation

# CloudWatch Logs accepts records of up to 256 KB, and a character can take up to twelve bytes in JSON.
FIELD_CHARACTERS = 10_000


class Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Creates its formatter for the first log record, because many invocations of the authorizer log nothing."""

    def format(self, record: logging.LogRecord) -> str:
        self.formatter = self.formatter or _formatter()
        return self.formatter.format(record)


def _formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    class Formatter(JsonFormatter):
        """Adds the correlation id to each log record, and shortens long strings such as tracebacks."""

        def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
            if correlation.NAME not in log_data and (correlation_id := correlation.current()):
                log_data[correlation.NAME] = correlation_id
            for name, value in log_data.items():
                if isinstance(value, str) and len(value) > FIELD_CHARACTERS:
                    log_data[name] = value[: FIELD_CHARACTERS - 1] + "…"
            return log_data

    return Formatter(
        "%(levelname)s %(name)s %(message)s",
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp=True,
    )


def logger(name: str) -> logging.Logger:
    """Returns the logger ``cafe.<name>``. The first call configures the log output."""
    root = logging.getLogger("cafe")
    if not root.handlers:
        root.addHandler(Handler(sys.stdout))
        root.setLevel(logging.INFO)
        # Without this setting, Lambda's root handler would print each record a second time.
        root.propagate = False
    return root.getChild(name)
