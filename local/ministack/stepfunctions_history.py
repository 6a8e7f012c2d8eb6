"""Patches the histories of Step Functions executions."""

import contextvars
import json
import threading
from functools import wraps
from typing import Any


def execution_history() -> None:
    """AWS records events for the states inside a Parallel or Map state, as for all other states.

    On AWS, every event also contains the previous event's id, and no event follows the end of an execution.

    For states inside a Parallel or Map state, MiniStack records only task attempts, without the names of the states.
    On MiniStack, events do not contain the id of the previous event, and running states add events after StopExecution.
    The project's console draws an execution from the events in its history.
    """
    from ministack.services import stepfunctions

    add_event, run_sub_machine = stepfunctions._add_event, stepfunctions._run_sub_machine
    one_at_a_time = threading.Lock()
    # Every branch of a Parallel and every item of a Map runs in a thread with its own copy of the context variables.
    latest_event: contextvars.ContextVar[int] = contextvars.ContextVar("latest_event", default=0)
    # Contains the execution, and the state names of the current branch or item, keyed by ``id(state)``.
    scope: contextvars.ContextVar[tuple[Any, dict[int, str]]] = contextvars.ContextVar("scope", default=(None, {}))
    map_name: contextvars.ContextVar[str] = contextvars.ContextVar("map_name", default="")

    @wraps(add_event)
    def add(execution: dict[str, Any], kind: str, details: dict[str, Any] | None = None) -> None:
        if execution["status"] != "RUNNING" and not kind.startswith("Execution"):
            return
        with one_at_a_time:
            event = add_event(execution, kind, details)
        event["previousEventId"] = latest_event.get()
        latest_event.set(event["id"])

    def record_state(execute: Any) -> Any:
        @wraps(execute)
        def execute_and_record(state: dict[str, Any], state_input: Any, *others: Any) -> Any:
            execution, names = scope.get()
            name = names.get(id(state))
            if name is None:
                return execute(state, state_input, *others)
            entered = {"name": name, "input": json.dumps(state_input)}
            add(execution, f"{state['Type']}StateEntered", {"stateEnteredEventDetails": entered})
            result, following = execute(state, state_input, *others)
            exited = {"name": name, "output": json.dumps(result)}
            add(execution, f"{state['Type']}StateExited", {"stateExitedEventDetails": exited})
            return result, following

        return execute_and_record

    def record_try(run: Any) -> Any:
        @wraps(run)
        def run_and_record(
            state: dict[str, Any], state_input: Any, execution: dict[str, Any], context: dict[str, Any]
        ) -> Any:
            kind = state["Type"]
            add(execution, f"{kind}StateStarted")
            names = scope.get()[1]
            map_name.set(names.get(id(state), context["State"]["Name"]) if kind == "Map" else "")
            try:
                result = run(state, state_input, execution, context)
            except stepfunctions._ExecutionError:
                add(execution, f"{kind}StateFailed")
                raise
            add(execution, f"{kind}StateSucceeded")
            return result

        return run_and_record

    @wraps(run_sub_machine)
    def run_and_record_item(
        states: Any, start: str, state_input: Any, execution: dict[str, Any], context: dict[str, Any]
    ) -> Any:
        scope.set((execution, {id(state): name for name, state in states.items()}))
        item = {"name": map_name.get(), "index": context["Map"]["Item"]["Index"]} if map_name.get() else {}

        def add_item_event(outcome: str) -> None:
            if item:
                add(execution, f"MapIteration{outcome}", {f"mapIteration{outcome}EventDetails": item})

        add_item_event("Started")
        try:
            result = run_sub_machine(states, start, state_input, execution, context)
        except stepfunctions._ExecutionError:
            add_item_event("Failed")
            raise
        add_item_event("Succeeded")
        return result

    stepfunctions._add_event = add
    stepfunctions._run_sub_machine = run_and_record_item
    for kind in ("pass", "task", "choice", "wait", "parallel", "map"):
        setattr(stepfunctions, f"_execute_{kind}", record_state(getattr(stepfunctions, f"_execute_{kind}")))
    for name in ("_run_parallel_branches", "_run_map_items"):
        setattr(stepfunctions, name, record_try(getattr(stepfunctions, name)))
