"""Patches for EventBridge Scheduler."""

import json
from functools import wraps
from typing import Any


def scheduled_api_calls() -> None:
    """AWS lets a schedule call any API operation, and replaces ``<aws.scheduler.execution-id>`` in its input.

    MiniStack's schedules support only resources as targets, give executions random names, and replace no placeholders.
    The scheduled reports call StartExecution with a name, so this patch adds that call. MiniStack checks for due
    schedules only every ten seconds; this patch makes it check every second, because tests wait for schedules.
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
