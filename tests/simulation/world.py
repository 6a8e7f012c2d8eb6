"""A virtual clock, processes that take turns at every call, and the faults that strike the calls.

A process is the run of one function. It lets other processes run at each of its calls, so that the seed decides what
happens between two calls. All time is virtual.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, ReadTimeoutError
from greenlet import getcurrent, greenlet

from chalicelib.errors import CafeError, DatabaseUnavailable

START = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
# A call takes this many seconds at most, unless a fault slows it down.
LATENCY = 0.1
SLOW_SECONDS = 70
STEPS = 200_000

Done = Callable[[Any, BaseException | None], None]


class Killed(BaseException):
    """The process ends between two instructions, as after a time-out or a crash."""


@dataclass
class Fault:
    """Strikes the first matching call or delivery after ``at`` seconds, and only that one.

    ``target`` is a service for the faults of a call, and a function for the faults of a delivery. An ``outage`` lasts
    for ``seconds``.
    """

    at: float
    kind: str
    target: str
    seconds: float = 0

    def __str__(self) -> str:
        return f"at {self.at:.1f} s: {self.kind} of {self.target}" + (f" for {self.seconds:.0f} s" * bool(self.seconds))


@dataclass(eq=False)
class Process:
    name: str
    number: int
    deadline: float
    killed: bool = False
    # A state machine is not a process of ours: it cannot crash.
    durable: bool = False
    # A fault or an outage has struck one of its calls.
    struck: bool = False
    run: Any = None

    def context(self, world: World) -> Any:
        """Returns Lambda's context object."""
        return Context(world, self)


class Context:
    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process
        self.aws_request_id = f"invocation-{process.number}"
        self.invoked_function_arn = f"arn:aws:lambda:us-east-1:123456789012:function:cafe-test-{process.name}"

    def get_remaining_time_in_millis(self) -> float:
        return (self._process.deadline - self._world.time) * 1000


@dataclass
class World:
    """``trace`` receives one line for each step, if it is not None."""

    seed: int
    faults: list[Fault]
    trace: list[str] | None = None
    time: float = START
    end_time: float = START
    deliveries: int = 0
    steps: int = 0
    after_call: Callable[[str, str], None] = lambda *_: None
    bugs: list[str] = field(default_factory=list)
    waiting: list[tuple[float, int, Callable[[], Any]]] = field(default_factory=list)
    processes: dict[greenlet, Process] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.numbers = count(1)
        self.hub = getcurrent()
        self.open = [each for each in self.faults if each.kind != "outage"]
        self.outages = [each for each in self.faults if each.kind == "outage"]
        self.last_fault = max((each.at + each.seconds for each in self.faults), default=0.0) + START

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, UTC)

    def say(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.time - START:11.2f}  {text}")

    def later(self, seconds: float, action: Callable[[], Any]) -> None:
        heapq.heappush(self.waiting, (self.time + seconds, next(self.numbers), action))

    def soon(self, action: Callable[[], Any], most: float = 1.0) -> None:
        self.later(self.random.random() * most, action)

    def run(self, seconds: float) -> bool:
        """Runs until nothing is left to do. Returns False if that takes longer than ``seconds`` or too many steps."""
        self.end_time = START + seconds
        while self.waiting:
            moment, _, action = heapq.heappop(self.waiting)
            self.steps += 1
            if moment > self.end_time or self.steps > STEPS:
                return False
            self.time = max(self.time, moment)
            action()
        return True

    def end(self) -> None:
        """Ends the processes that still run."""
        for run, process in list(self.processes.items()):
            process.killed = True
            run.switch()

    # --- Processes ----------------------------------------------------------------------------------------------------

    def start(
        self, name: str, seconds: float, work: Callable[[Process], Any], done: Done, durable: bool = False
    ) -> None:
        process = Process(name, next(self.numbers), self.time + seconds, durable=durable)

        def body() -> None:
            result, failure = None, None
            try:
                result = work(process)
            except (Exception, Killed) as error:  # noqa: BLE001 - Lambda reports every failure
                failure = error
            del self.processes[process.run]
            if isinstance(failure, Exception) and not isinstance(failure, (CafeError, ClientError, BotoCoreError)):
                self.bugs.append(f"{name} failed with {failure!r}")
            self.say(f"{name} #{process.number} {f'failed: {failure!r}' if failure else f'returned {result}'}")
            done(result, failure)

        process.run = greenlet(body, self.hub)
        self.processes[process.run] = process
        self.deliveries += 1
        self.say(f"{name} #{process.number} starts")
        self.later(0, process.run.switch)

    def call(self, name: str, seconds: float, work: Callable[[Process], Any]) -> tuple[Any, BaseException | None]:
        """Runs a function on behalf of this process, and waits for its result or its failure."""
        caller, results = getcurrent(), []

        def done(result: Any, failure: BaseException | None) -> None:
            results.append((result, failure))
            self.later(0, caller.switch)

        self.start(name, seconds, work, done)
        self.hub.switch()
        if not results:
            raise Killed("the simulation ends")
        return results[0]

    def kill(self) -> None:
        """Kills all functions, as a redeploy does."""
        for process in self.processes.values():
            process.killed = process.killed or not process.durable

    def sleep(self, seconds: float) -> None:
        """Lets other processes run. Ends this process if it was killed or has run for too long."""
        run = getcurrent()
        process = self.processes[run]
        moment = self.time + seconds
        is_next = not self.waiting or self.waiting[0][0] > moment
        if is_next and moment <= self.end_time and self.steps < STEPS and not process.killed:
            # Nothing else happens until then.
            self.time, self.steps = moment, self.steps + 1
        elif not process.killed:
            self.later(seconds, run.switch)
            self.hub.switch()
        if process.killed or (self.time > process.deadline and not process.durable):
            process.killed = True
            raise Killed("killed" if self.time <= process.deadline else "timed out")

    # --- Calls --------------------------------------------------------------------------------------------------------

    def gate(self, service: str, operation: str, arguments: dict[str, Any], perform: Callable[[], Any]) -> Any:
        process = self.processes.get(getcurrent())
        if process is None:
            return perform()
        fault = self.strike(service, process)
        process.struck = process.struck or fault is not None
        kind = fault.kind if fault else ""
        self.sleep(SLOW_SECONDS if kind == "slow call" else LATENCY * self.random.random())
        now = self.time - START
        if any(each.target == service and each.at <= now < each.at + each.seconds for each in self.outages):
            self.say(f"{process.name} #{process.number} {service}.{operation}: outage")
            process.struck = True
            raise self.error(service, operation, False)
        if self.trace is not None:
            self.say(f"{process.name} #{process.number} {service}.{operation} {kind}")
        if kind == "throttle":
            raise self.error(service, operation, True)
        if kind == "lost connection":
            raise self.error(service, operation, False)
        if kind == "crash before the call":
            process.killed = True
            raise Killed("killed")
        if kind == "partial refusal":
            result = self.part(arguments, perform)
        else:
            result = perform()
            if kind == "call repeated by the SDK":
                # The first answer was lost on the way, so the SDK sends the call again.
                self.after_call(service, operation)
                result = perform()
        self.after_call(service, operation)
        if kind == "lost answer":
            raise self.error(service, operation, False, done=True)
        if kind == "crash after the call":
            process.killed = True
            raise Killed("killed")
        return result

    def strike(self, target: str, process: Process | None = None) -> Fault | None:
        """Returns the first open fault that matches, and removes it from the open faults."""
        now = self.time - START
        for fault in self.open:
            cannot_crash = process and process.durable and "crash" in fault.kind
            if fault.at <= now and fault.target == target and not cannot_crash:
                self.open.remove(fault)
                self.say(f"*** {fault.kind}: {target}")
                return fault
        return None

    @staticmethod
    def error(service: str, operation: str, throttled: bool, done: bool = False) -> Exception:
        if service == "mysql":
            return DatabaseUnavailable("MySQL is temporarily unavailable: (2013, 'Lost connection')")
        if throttled:
            answer: Any = {"Error": {"Code": "ThrottlingException"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
            return ClientError(answer, operation)
        return (ReadTimeoutError if done else EndpointConnectionError)(endpoint_url=f"https://{service}")

    def part(
        self, arguments: dict[str, Any], perform: Callable[[], Any], place: int = -1, code: str = "ThrottlingError"
    ) -> Any:
        """Performs a batch without one of its entries, which is refused, by default with a temporary error."""
        name = next((each for each in ("Entries", "Statements") if len(arguments.get(each, ())) > 0), None)
        if name is None:
            return perform()
        entries = list(arguments[name])
        place = self.random.randrange(len(entries)) if place < 0 else place
        refused = entries.pop(place)
        arguments[name] = entries
        result: dict[str, Any] = perform() if entries else {}
        if name == "Statements":
            answers = result.get("Responses", [])
            return {"Responses": [*answers[:place], {"Error": {"Code": code}}, *answers[place:]]}
        failure = {"Id": refused["Id"], "Code": "InternalError", "SenderFault": False}
        return {**result, "Failed": [*result.get("Failed", []), failure]}
