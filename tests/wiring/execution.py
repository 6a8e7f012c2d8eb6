"""Runs a state machine without AWS: an interpreter for what the reports use of Amazon States Language in JSONata."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# What a task returns: a value, a failure, or a function of the task's arguments.
Answer = Any


class Failure(Exception):
    """An error of a task or of the whole execution."""

    def __init__(self, error: str, cause: str = "") -> None:
        super().__init__(error, cause)
        self.error, self.cause = error, cause


@dataclass
class Execution:
    """``entered`` has each state once per visit, and ``called`` the arguments of each task."""

    definition: dict[str, Any]
    answers: dict[str, Answer]
    input: Any
    name: str
    entered: list[str] = field(default_factory=list)
    called: dict[str, list[Any]] = field(default_factory=dict)
    status: str = "RUNNING"
    output: Any = None
    error: str | None = None
    cause: str | None = None
    variables: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Execution:
        started = "2026-11-21T03:14:15.123Z"
        context = {"Execution": {"Name": self.name, "Input": self.input, "StartTime": started}}
        try:
            self.output, self.status = self._run(self.definition, self.input, context), "SUCCEEDED"
        except Failure as failure:
            self.status, self.error, self.cause = "FAILED", failure.error, failure.cause
        return self

    def _run(self, machine: dict[str, Any], given: Any, context: dict[str, Any]) -> Any:
        name = machine["StartAt"]
        while name:
            state = machine["States"][name]
            self.entered.append(name)
            states = {"input": given, "context": context}
            try:
                given, name = getattr(self, f"_{state['Type'].lower()}")(name, state, states)
            except Failure as failure:
                catch = next(iter(state.get("Catch", [])), None)
                if catch is None:
                    raise
                given = {"Error": failure.error, "Cause": failure.cause}
                self._assign(catch, states | {"errorOutput": given})
                name = catch["Next"]
        return given

    def _leave(self, state: dict[str, Any], states: dict[str, Any], result: Any) -> tuple[Any, str | None]:
        output = self._value(state["Output"], states) if "Output" in state else result
        self._assign(state, states)
        return output, state.get("Next")

    def _assign(self, state: dict[str, Any], states: dict[str, Any]) -> None:
        self.variables |= self._value(state.get("Assign", {}), states)

    def _task(self, name: str, state: dict[str, Any], states: dict[str, Any]) -> tuple[Any, str | None]:
        arguments = self._value(state["Arguments"], states)
        self.called.setdefault(name, []).append(arguments)
        answer = self.answers[name]
        result = answer(arguments) if isinstance(answer, Callable) else answer  # type: ignore[arg-type]
        if isinstance(result, Failure):
            raise result
        return self._leave(state, states | {"result": result}, result)

    def _parallel(self, _: str, state: dict[str, Any], states: dict[str, Any]) -> tuple[Any, str | None]:
        result = [self._run(branch, states["input"], states["context"]) for branch in state["Branches"]]
        return self._leave(state, states | {"result": result}, result)

    def _map(self, _: str, state: dict[str, Any], states: dict[str, Any]) -> tuple[Any, str | None]:
        result = []
        for item in self._value(state["Items"], states):
            context = states["context"] | {"Map": {"Item": {"Value": item}}}
            given = self._value(state["ItemSelector"], states | {"context": context})
            result.append(self._run(state["ItemProcessor"], given, context))
        return self._leave(state, states | {"result": result}, result)

    def _pass(self, _: str, state: dict[str, Any], states: dict[str, Any]) -> tuple[Any, str | None]:
        return self._leave(state, states, states["input"])

    def _choice(self, _: str, state: dict[str, Any], states: dict[str, Any]) -> tuple[Any, str | None]:
        fitting = (each["Next"] for each in state["Choices"] if self._value(each["Condition"], states) is True)
        return states["input"], next(fitting, state["Default"])

    def _fail(self, _: str, state: dict[str, Any], states: dict[str, Any]) -> tuple[Any, str | None]:
        raise Failure(self._value(state["Error"], states), self._value(state["Cause"], states))

    def _value(self, template: Any, states: dict[str, Any]) -> Any:
        """The value of a field of a state. An expression without a result is an error, as it is on AWS."""
        match template:
            case dict():
                return {name: self._value(each, states) for name, each in template.items()}
            case list():
                return [self._value(each, states) for each in template]
            case str() if template.startswith("{%"):
                text = template.removeprefix("{%").removesuffix("%}")
                value = self._evaluate(text, states)
                if value is None and not self._evaluate(f"$exists(({text}))", states):
                    raise Failure("States.QueryEvaluationError", f"no result: {text}")
                return value
        return template

    def _evaluate(self, text: str, states: dict[str, Any]) -> Any:
        from jsonata.jsonata import Jsonata  # type: ignore[import-untyped]

        expression = Jsonata.jsonata(text)
        # A function of Step Functions' own.
        expression.register_lambda("parse", json.loads)
        try:
            return expression.evaluate(None, {"states": states, **self.variables})
        except Exception as error:
            raise Failure("States.QueryEvaluationError", str(error)) from error
