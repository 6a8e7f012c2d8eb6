"""Helpers for report tests that read the states of an execution or start an execution without the API."""

from __future__ import annotations

from typing import Any

from tests.system.system import System, new_id


def states(system: System, report_id: str) -> dict[str, dict[str, Any]]:
    """Returns the states in a report's history, keyed by state name."""
    history = system.get(f"/reports/{report_id}/history")
    assert (history["reportId"], history["partial"]) == (report_id, False)
    return {state["name"]: state for state in history["states"]}


def start(system: System, kind: str, given: str = "{}") -> str:
    """Starts a report directly with Step Functions instead of the API. Returns the execution's name."""
    name = new_id(kind)
    machine = system.env[f"{kind.upper()}_REPORT_ARN"]
    system.aws("stepfunctions").start_execution(stateMachineArn=machine, name=name, input=given)
    return name


def execution_arn(system: System, report_id: str) -> str:
    machine = system.env[f"{report_id.partition('-')[0].upper()}_REPORT_ARN"]
    return machine.replace(":stateMachine:", ":execution:") + f":{report_id}"
