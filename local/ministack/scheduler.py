"""Patches for EventBridge Scheduler."""

import json
from functools import wraps
from typing import Any


def scheduled_api_calls() -> None:
    """AWS schedules can call any API operation, with ``<aws.scheduler.execution-id>`` replaced in the input.

    MiniStack schedules can only invoke resources. MiniStack also gives executions random names and does not replace
    placeholders.
    The schedules of the project's reports call StartExecution with an execution name, so this patch adds that call.
    This patch also makes MiniStack check for due schedules every second instead of every ten seconds.
    """
    from ministack.services import eventbridge, scheduler, stepfunctions

    invoke_target = eventbridge._invoke_target

    @wraps(invoke_target)
    def invoke_or_call(target: dict[str, Any], event: dict[str, Any], rule: dict[str, Any], view: Any = None) -> None:
        if not target["Arn"].endswith(":aws-sdk:sfn:startExecution"):
            invoke_target(target, event, rule, view)
            return
        execution_id = event["EventId"].replace("-", "")[:16]
        request = json.loads(target["Input"].replace("<aws.scheduler.execution-id>", execution_id))
        stepfunctions._start_execution(
            {"stateMachineArn": request["StateMachineArn"], "name": request["Name"], "input": request["Input"]}
        )

    eventbridge._invoke_target = invoke_or_call
    scheduler._SCHEDULE_TICK_INTERVAL = 1
