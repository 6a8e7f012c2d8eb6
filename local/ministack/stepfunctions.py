"""Patches for Step Functions. The patch for execution histories is in ``stepfunctions_history.py``."""

import contextvars
import json
import threading
from functools import wraps
from typing import Any


def repeated_starts() -> None:
    """AWS returns the running execution if StartExecution is called again with the same name and input.

    MiniStack returns the error ExecutionAlreadyExists. AWS returns this error only if the execution has ended or its
    input differs. The API names a report's execution after the Idempotency-Key header, so a repeated request returns
    the same report.
    """
    from ministack.services import stepfunctions

    start_execution = stepfunctions._start_execution

    @wraps(start_execution)
    def start_or_return_running(request: dict[str, Any]) -> Any:
        arn = stepfunctions._resolve_state_machine_arn(request.get("stateMachineArn", ""))
        for execution in list(stepfunctions._executions.values()):
            if (
                execution["stateMachineArn"] == arn
                and execution["name"] == request.get("name")
                and execution["status"] == "RUNNING"
                and execution["input"] == request.get("input", "{}")
            ):
                return stepfunctions.json_response(
                    {"executionArn": execution["executionArn"], "startDate": execution["startDate"]}
                )
        return start_execution(request)

    stepfunctions._start_execution = start_or_return_running


def final_status() -> None:
    """AWS never changes the status of an execution that has ended, and a failed execution has no output.

    On MiniStack, an ABORTED execution becomes FAILED if a task fails after StopExecution, and a failed execution has an
    output. The project's API returns an execution's status and output to its clients.
    """
    from ministack.services import stepfunctions

    fail_execution = stepfunctions._fail_execution

    @wraps(fail_execution)
    def fail_if_running(execution: dict[str, Any], error: str, cause: str) -> None:
        if execution["status"] == "RUNNING":
            fail_execution(execution, error, cause)
            execution["output"] = None

    stepfunctions._fail_execution = fail_if_running


def machine_timeout() -> None:
    """After the ``TimeoutSeconds`` of a state machine, AWS ends the execution with the status TIMED_OUT and runs no
    Catch.

    MiniStack ignores ``TimeoutSeconds``. The test of the EventBridge rule for timed-out executions needs an execution
    that times out.
    """
    from ministack.services import stepfunctions

    run_execution = stepfunctions._run_execution

    def time_out(execution: dict[str, Any]) -> None:
        if execution["status"] == "RUNNING":
            execution.update(status="TIMED_OUT", stopDate=stepfunctions.now_iso())
            stepfunctions._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {}})
            stepfunctions._emit_execution_status_event(execution)

    @wraps(run_execution)
    def run_with_timeout(arn: str) -> Any:
        execution = stepfunctions._executions[arn]
        definition = json.loads(stepfunctions._state_machines[execution["stateMachineArn"]]["definition"])
        if "TimeoutSeconds" not in definition:
            return run_execution(arn)
        # The account and region of a request are context variables, which a new thread does not inherit.
        context = contextvars.copy_context()
        timer = threading.Timer(definition["TimeoutSeconds"], context.run, (time_out, execution))
        timer.daemon = True
        timer.start()
        try:
            return run_execution(arn)
        finally:
            timer.cancel()

    stepfunctions._run_execution = run_with_timeout


def message_attributes() -> None:
    """AWS sends the MessageAttributes that a state machine passes to ``sns:publish``.

    MiniStack parses the state's JSON as form fields, and therefore finds no MessageAttributes. The project's
    subscriptions filter notifications by their attributes.
    """
    from ministack.services import stepfunctions

    publish = stepfunctions._invoke_sns_publish

    @wraps(publish)
    def publish_with_attributes(resource: str, request: dict[str, Any]) -> Any:
        fields = dict(request)
        for number, (name, value) in enumerate(fields.pop("MessageAttributes", {}).items(), 1):
            fields[f"MessageAttributes.entry.{number}.Name"] = name
            for field, content in value.items():
                fields[f"MessageAttributes.entry.{number}.Value.{field}"] = content
        return publish(resource, fields)

    for table in vars(stepfunctions).values():
        if isinstance(table, dict) and table.get("arn:aws:states:::sns:publish") is publish:
            table["arn:aws:states:::sns:publish"] = publish_with_attributes
