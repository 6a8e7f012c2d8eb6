"""Tests the figures of `GET /today` on the deployed system.

Other tests can add orders at the same time, so each test checks only that a figure is large enough.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from chalicelib.timeline import timestamp
from tests.system.inventory import HEADER, table_renamed
from tests.system.letters import own_letters
from tests.system.system import System, new_id, stored, wait_for


def test_everything_since_a_given_time_is_counted(system: System) -> None:
    # The time is a whole second, because the local AWS emulator rounds SNS times to seconds.
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    wait_for(lambda: datetime.now(UTC) >= moment, "the next second")

    def today() -> Any:
        return system.sent_by("staff").get(f"/today?since={quote(timestamp(moment))}")

    name, ids = new_id("today"), [new_id() for _ in range(3)]
    system.post("/orders", [{"orderID": each, "customerID": "c", "item": "x"} for each in ids])
    keys = [
        system.upload(f"inventory/{name}.csv", f"{HEADER}Today,x,y,1,,1\n"),
        system.upload(f"inventory/{name}-none.csv", "no inventory\n"),
        system.upload(f"photos/{name}.jpg", "x"),
    ]
    assert system.report()["status"] == "SUCCEEDED"
    for key in keys:
        system.notification(key, "upload")
    for each in ids:
        stored(system, each)
    with table_renamed(system, "beans"):
        assert system.report()["status"] == "FAILED"
    with own_letters(system) as letters:
        letters.put("FAILURES_QUEUE_URL", name)
        system.aws("sns").publish(TopicArn=system.env["ALARMS_TOPIC_ARN"], Subject=name, Message=name)
        system.notification(name, "alarm")
        shown = wait_for(lambda: (found := today())["orders"]["waiting"] == 0 and found, "the end of the queue")
    assert shown["since"] == timestamp(moment)
    assert shown["counted"]
    assert sum(count for _, count in shown["orders"]["hours"]) == shown["orders"]["stored"] >= 3
    figures = [shown["reports"][name] for name in ("succeeded", "failed")]
    figures += [shown["uploads"][name] for name in ("imported", "notImported", "other")]
    figures += [shown["failures"][name] for name in ("alarms", "deadLetters")]
    assert min(figures) >= 1, shown
