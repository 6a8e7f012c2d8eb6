"""Tests the history of a report's execution, state by state, and the notification about a failure."""

from __future__ import annotations

from tests.system.inventory import table_renamed, tables_locked
from tests.system.reports import execution_arn, states
from tests.system.system import System, logged, wait_for

FAILURE = {"CanRetryLater", "WaitBeforeRetry", "ExplainFailure", "NotifyFailure", "Failed", "Unannounced"}


def reading(system: System) -> str:
    """Starts a report, waits until its first state is running, and returns the report's id."""
    report_id: str = system.post("/create_report")["reportId"]
    wait_for(lambda: states(system, report_id)["ReadInventory"]["status"] == "running", "ReadInventory")
    return report_id


def test_a_reports_states_follow_its_progress(system: System) -> None:
    with tables_locked(system):
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


def test_a_failure_shows_where_and_why_in_plain_words(system: System) -> None:
    with table_renamed(system, "beans"):
        report = system.report()
    assert (report["status"], report["url"], report["summary"]) == ("FAILED", None, None)
    assert "beans' doesn't exist" in report["error"]
    assert "{" not in report["error"]
    found = states(system, report["reportId"])
    assert (found["ReadInventory"]["status"], found["ReadInventory"]["error"]) == ("caught", report["error"])
    assert found["RenderAndPresign"]["status"] == "skipped"
    assert found["NotifyFailure"]["status"] == "succeeded"
    assert (found["Failed"]["status"], found["Failed"]["error"]) == ("failed", report["error"])
    assert "Traceback" not in str(found)
    entry = system.notification(report["reportId"], "report")
    assert entry["subject"] == "Inventory report failed"
    assert entry["facts"] == {"id": report["reportId"], "kind": "inventory", "outcome": "failed"}
    assert report["error"] in entry["message"]


def test_a_retried_state_shows_how_often_and_why(system: System) -> None:
    with system.gate.shut():
        report_id = system.post("/create_report")["reportId"]
        found = wait_for(
            lambda: (read := states(system, report_id)["ReadInventory"])["tries"] > 1 and read, "a second try"
        )
    assert found["status"] == "running"
    assert "MySQL at 127.0.0.1" in found["error"]
    assert system.ended(report_id)["status"] == "SUCCEEDED"
    read = states(system, report_id)["ReadInventory"]
    assert (read["status"], read["error"]) == ("succeeded", None)


def test_a_stopped_report_keeps_its_states_and_raises_an_alarm(system: System) -> None:
    with tables_locked(system):
        report_id = reading(system)
        system.aws("stepfunctions").stop_execution(executionArn=execution_arn(system, report_id))
        stopped = states(system, report_id)
    report = system.get(f"/reports/{report_id}")
    assert (report["status"], report["url"]) == ("ABORTED", None)
    assert (stopped["ReadInventory"]["status"], stopped["ReadInventory"]["error"]) == ("failed", report["error"])
    assert stopped["RenderAndPresign"]["status"] == "skipped"
    assert "ABORTED" in system.notification(report_id, "alarm")["message"]
    # The function still finishes its work, but the history of the stopped execution no longer changes.
    wait_for(lambda: logged(system, "read_inventory", report_id), "the end of the function")
    assert states(system, report_id) == stopped
