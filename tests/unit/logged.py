"""Provides helpers that read the log of the functions."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

from chalicelib.logs import Handler


def log_handler() -> logging.Handler:
    """Returns the log handler of the functions, without the handlers that pytest adds."""
    (handler,) = (each for each in logging.getLogger("cafe").handlers if isinstance(each, Handler))
    return handler


def records(lines: io.StringIO, message: str | None = None) -> list[dict[str, Any]]:
    """Returns all log records, or only the records with this message."""
    logged = [json.loads(line) for line in lines.getvalue().split("\n")[:-1]]
    return [each for each in logged if message in (None, each["message"])]
