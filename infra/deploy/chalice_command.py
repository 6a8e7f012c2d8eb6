"""Runs Chalice's command line, so that each new event source mapping reports failed messages from the start.

Chalice does not support this setting, and ``wiring.py`` can change a mapping only after Chalice has created it. In
between, Lambda would delete messages that a function wants to keep.
"""

from __future__ import annotations

import sys
from typing import Any

from botocore.session import Session
from chalice.cli import factory, main

_create_session = factory.create_botocore_session


def create_session(*given: Any, **options: Any) -> Session:
    """Returns the session that Chalice uses. Each new event source mapping gets the setting."""
    session = _create_session(*given, **options)
    session.register("provide-client-params.lambda.CreateEventSourceMapping", _add_response_type)
    return session


def _add_response_type(**event: Any) -> None:
    event["params"]["FunctionResponseTypes"] = ["ReportBatchItemFailures"]


if __name__ == "__main__":
    factory.create_botocore_session = create_session
    sys.exit(main())
