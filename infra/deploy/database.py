"""A stage's MySQL: its tables."""

from __future__ import annotations

import json
import time

from infra.deploy.target import Clients, DeployError, Say, Target

# A database that has paused takes half a minute to answer again.
WAIT_SECONDS = 180
PAUSE_SECONDS = 5
# As long as Lambda lets it run.
MIGRATION_SECONDS = 910


def migrate(target: Target, clients: Clients, say: Say) -> None:
    """Brings the tables up to the deployed code. Raises ``DeployError`` with what went wrong; the next deploy goes on.

    It is a function of the app that does it: MySQL can be reached from its own network only.
    """
    lambda_ = clients("lambda", MIGRATION_SECONDS)
    end = time.monotonic() + WAIT_SECONDS
    while True:
        answer = lambda_.invoke(FunctionName=target.function("migrate"))
        result = json.load(answer["Payload"])
        if "FunctionError" not in answer:
            break
        if result.get("errorType") not in ("Unavailable", "DatabaseUnavailable") or time.monotonic() > end:
            raise DeployError(f"the database is not up to date: {result.get('errorMessage', result)}")
        say(f"database: {result['errorMessage']}")
        time.sleep(PAUSE_SECONDS)
    say(f"database: {', '.join(result['ran'])}" if result["ran"] else "database: nothing to change")
    for line in result["missing"]:
        say(f"database: {line}")
