"""Patches for Step Functions, except for the one that affects execution histories."""

import contextvars
import json
import threading
from functools import wraps
from typing import Any


def repeated_starts() -> None:
    """AWS returns the running execution if StartExecution is called again with the same name and input.

    MiniStack returns ExecutionAlreadyExists, which AWS returns only if the execution has ended or has another input.
    A report's execution is named after the request's Idempotency-Key, so repeated requests depend on AWS's behaviour.
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

    MiniStack turns ABORTED into FAILED when a task fails after StopExecution, and its failed executions have an
    output. The API returns the status and the output to its clients.
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
    """AWS ends an execution as TIMED_OUT after its state machine's ``TimeoutSeconds``, without running a Catch.

    MiniStack ignores ``TimeoutSeconds``. The test of the EventBridge rule for timed-out executions needs a time-out.
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
        # The request's account and region are context variables, which a new thread does not inherit.
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
    """AWS sends the MessageAttributes of a state machine's ``sns:publish``.

    MiniStack passes the state's JSON to a form-field parser, which finds no attributes for subscribers to filter by.
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
