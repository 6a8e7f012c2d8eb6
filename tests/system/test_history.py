"""A report's execution as a picture: on its way, at its end, and where it did not get there."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.system.system import System, connect, wait_for
from tests.system.test_reports import table_renamed

States = dict[str, dict[str, Any]]

FAILURE = {"ExplainFailure", "NotifyFailure", "Failed", "Unannounced"}


def states(system: System, report_id: str) -> States:
    history = system.get(f"/reports/{report_id}/history")
    assert history["reportId"] == report_id
    assert not history["partial"]
    return {state["name"]: state for state in history["states"]}


def reading(system: System) -> str:
    """A report whose first state is under way."""
    report_id: str = system.post("/create_report")["reportId"]
    wait_for(lambda: states(system, report_id)["ReadInventory"]["status"] == "running", "ReadInventory")
    return report_id


@contextmanager
def table_locked(system: System) -> Iterator[None]:
    """Whoever reads the beans waits."""
    with connect(system.database) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLES beans WRITE")
        yield


def test_the_states_of_a_report_light_up_as_it_goes(system: System) -> None:
    with table_locked(system):
        report_id = reading(system)
        now = states(system, report_id)
    read = now.pop("ReadInventory")
    assert (read["finishedAt"], read["tries"]) == (None, 1)
    assert {state["status"] for state in now.values()} == {"waiting"}

    report = system.ended(report_id)
    ended = states(system, report_id)
    assert {name for name, state in ended.items() if state["status"] == "skipped"} == FAILURE
    done = [state for name, state in ended.items() if name not in FAILURE]
    assert {(state["status"], state["tries"], state["error"]) for state in done} == {("succeeded", 1, None)}
    for state in done:
        assert report["startedAt"] <= state["startedAt"] <= state["finishedAt"] <= report["finishedAt"]
    around = ended["RenderAndPresign"]
    for state in (ended["RenderReport"], ended["PresignReport"]):
        assert state["parent"] == "RenderAndPresign"
        assert around["startedAt"] <= state["startedAt"] <= state["finishedAt"] <= around["finishedAt"]


def test_a_failure_shows_where_and_why_and_the_way_that_it_took(system: System) -> None:
    with table_renamed(system, "beans"):
        report = system.report()
    found = states(system, report["reportId"])
    assert found["ReadInventory"]["status"] == "caught"
    assert found["ReadInventory"]["error"] == report["error"]
    assert found["RenderAndPresign"]["status"] == "skipped"
    assert found["NotifyFailure"]["status"] == "succeeded"
    assert (found["Failed"]["status"], found["Failed"]["error"]) == ("failed", report["error"])
    assert "Traceback" not in str(found)


def test_a_branch_that_fails_is_told_from_the_one_that_did_not(system: System) -> None:
    with system.without("render_report", "s3:PutObject"):
        report = system.report()
    found = states(system, report["reportId"])
    assert (found["RenderAndPresign"]["status"], found["RenderReport"]["status"]) == ("caught", "failed")
    assert found["RenderAndPresign"]["error"] == found["RenderReport"]["error"] == report["error"]
    assert found["PresignReport"]["status"] == "succeeded"


def test_a_state_that_is_tried_again_tells_how_often_and_why(system: System) -> None:
    database = system.stack.database
    database.process.stop()
    try:
        report_id = system.post("/create_report")["reportId"]
        found = wait_for(
            lambda: (read := states(system, report_id)["ReadInventory"])["tries"] > 1 and read, "a second try"
        )
    finally:
        database.launch()
    assert found["status"] == "running"
    assert "MySQL at 127.0.0.1" in found["error"]
    system.ended(report_id)
    read = states(system, report_id)["ReadInventory"]
    assert (read["status"], read["error"]) == ("succeeded", None)


def test_what_ran_when_a_report_was_stopped_is_where_it_ended(system: System) -> None:
    with table_locked(system):
        report_id = reading(system)
        arn = system.env["INVENTORY_REPORT_ARN"].replace(":stateMachine:", ":execution:")
        system.aws("stepfunctions").stop_execution(executionArn=f"{arn}:{report_id}")
        stopped = states(system, report_id)
    assert stopped["ReadInventory"]["status"] == "failed"
    assert stopped["ReadInventory"]["error"] == system.get(f"/reports/{report_id}")["error"]
    assert stopped["RenderAndPresign"]["status"] == "skipped"
    # What the function does after that is no part of it any more.
    wait_for(lambda: f'"{report_id}"' in logged(system, "read_inventory"), "the end of the function")
    assert states(system, report_id) == stopped


def logged(system: System, function: str) -> str:
    events = system.aws("logs").filter_log_events(logGroupName=f"/aws/lambda/cafe-dev-{function}")["events"]
    return "".join(event["message"] for event in events)


def test_the_shares_of_a_storage_report_are_one_state_that_was_entered_often(system: System) -> None:
    """Here the first function has no time at all, and so each bucket is a share."""
    name = f"storage-{secrets.token_hex(4)}"
    machine = system.env["STORAGE_REPORT_ARN"]
    system.aws("stepfunctions").start_execution(stateMachineArn=machine, name=name, input='{"aloneSeconds": 0}')
    assert system.ended(name)["status"] == "SUCCEEDED"
    found = states(system, name)
    assert found["MeasureShare"]["parent"] == "MeasureShares"
    assert found["MeasureShare"]["tries"] >= 2
    for state in ("MeasureShares", "MeasureShare", "AddUpShares", "IsAnythingLeft", "NotifyStorage"):
        assert found[state]["status"] == "succeeded", state
    assert found["MeasureShares"]["tries"] == found["AddUpShares"]["tries"]
    assert found["IsAnythingLeft"]["tries"] == found["AddUpShares"]["tries"] + 1
