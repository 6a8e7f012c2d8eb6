"""A history: what people do, and what fails. One seed decides both, and everything that the cloud does meanwhile."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

from chalicelib import idempotency, reports
from chalicelib.dead_letters.letters import Letter, Origins, read_failure, read_order
from chalicelib.errors import Conflict
from chalicelib.orders import changes, placing
from chalicelib.orders.order import Order
from chalicelib.uploads import actions
from chalicelib.uploads.records import Status
from tests.simulation.cloud import Cloud, ignore
from tests.simulation.handlers import ENDLESS, GIVE_UP_SECONDS, MACHINES, REFUSED, SETTINGS, UNHEARD, UNSTORABLE
from tests.simulation.world import START, Fault, Process, World

# All work ends within this time after the last fault.
REST_SECONDS = 3_600
SECONDS = 40
# A client repeats a request during an outage, and until the upload is ready.
TRIES = 100
EARLY = (Status.WAITING, Status.PREVIEWING, Status.IMPORTING)
SIX_HOURS = 21_600
# The share of the answers that do not reach the person who changes an order.
LOST_ANSWERS = 0.1
# Two people change the same order. Each entry has the seconds between their changes, and for each change, the status
# that the person saw and what the person did.
PLANS = (
    (0.1, "PLACED READY", "PLACED CANCELLED"),
    (0.1, "PLACED CORRECTED", "PLACED CORRECTED"),
    (0.1, "PLACED CORRECTED", "PLACED READY"),
    (5, "PLACED READY", "READY SERVED"),
    (5, "PLACED READY", "READY CANCELLED"),
    (5, "PLACED CORRECTED", "PLACED CANCELLED"),
)
HEADER = "supplier_name,type,product_name,price,description,quantity\n"
SERVICES = ["sqs"] * 2 + ["dynamodb"] * 3 + ["sns"] * 2 + ["mysql"] * 2 + ["s3", "lambda", "stepfunctions"]
FUNCTIONS = ("store_orders", "announce_orders", "receive_upload", "record_notification", "sns delivery")
# The share in percent and the possible targets of each fault.
FAULTS: dict[str, tuple[float, Sequence[str]]] = {
    "redeploy": (5, ["all functions"]),
    "redrive": (5, ["all dead letters"]),
    "failed delivery": (3, ["sns delivery"]),
    "repeated delivery": (12, FUNCTIONS),
    "late delivery": (7, FUNCTIONS[2:4]),
    "throttled invocation": (4, ["store_orders"]),
    "partial refusal": (8, SERVICES[:5]),
    "call repeated by the SDK": (8, SERVICES),
    "slow call": (3, SERVICES),
    "throttle": (9, SERVICES),
    "lost connection": (9, SERVICES),
    "lost answer": (9, SERVICES),
    "crash before the call": (9, SERVICES),
    "crash after the call": (9, SERVICES),
}


@dataclass
class Action:
    """Something that a person or a program does ``at`` a given second. ``name`` is a key, an id or a file."""

    at: float
    kind: str
    name: str
    content: str = ""

    def __str__(self) -> str:
        return f"at {self.at:.1f} s: {self.kind} {self.name} {self.content!r}"


@dataclass
class History:
    """``steps`` contains the actions and the faults."""

    seed: int
    steps: list[Action | Fault]

    @classmethod
    def of(cls, seed: int) -> History:
        dice = random.Random(seed)
        steps: list[Action | Fault] = []

        def add(kind: str, name: str, content: str = "", after: float = 0) -> None:
            steps.append(Action(after + dice.random() * SECONDS / 2, kind, name, content))

        for number in range(dice.randint(5, 9)):
            add("order", f"order-{number}", dice.choice(["latte", "mocha"]))
        if dice.random() < 0.5:
            # The same id with another content.
            add("order", "order-0", "another")
        for number in (*dice.sample(range(5), 3), REFUSED):
            apart, *plan = dice.choice(PLANS)
            after = SECONDS / 2 + dice.random() * 10
            for who, change in zip(("ann", "ben"), plan, strict=True):
                steps.append(Action(after, "change", f"order-{number}", f"{who} {change}"))
                after += apart * dice.random()
            if number != REFUSED:
                # A late copy of an order that may have been changed since.
                steps.append(replace(steps[number], at=SECONDS * (1 + dice.random())))
        for number in range(dice.randint(1, 3)):
            key, first = f"key-{number}", dice.choice(["latte", "mocha"])
            add("order with a key", key, first)
            add("order with a key", key, first if dice.random() < 0.5 else "another")
        if dice.random() < 0.4:
            add("message", "poison", dice.choice(["not JSON", "{}", '{"orderID": "poison"}']))
        for refused in (REFUSED, UNSTORABLE):
            if dice.random() < 0.3:
                add("order", f"order-{refused}", "latte")
        identifier = f"{dice.getrandbits(48):012x}"
        for name in [f"inventory/2026-06-01-{identifier}/a.csv", "inventory/b.csv", "inventory/b.csv"]:
            add("upload", name, _rows(dice))
        if dice.random() < 0.6:
            add("undo", identifier, after=5)
        if dice.random() < 0.6:
            previewed = f"{dice.getrandbits(48):012x}"
            add("upload", f"previews/2026-06-01-{previewed}/c.csv", _rows(dice))
            add("apply", previewed, after=5)
        if seed % 300 == 20:
            for name in (ENDLESS, UNHEARD):
                add("order", f"order-{name}", "latte")
            # The order that cannot be announced is set aside only after another order was announced.
            add("order", "order-later", "latte", after=600)
            add("upload", f"inventory/{ENDLESS}.csv", _rows(dice))
        for _ in range(dice.randint(1, 2)):
            add("report", "key-report")
        if dice.random() < 0.3:
            add("scheduled report", "nightly")
        for _ in range(dice.randint(10, 16)):
            [(kind, (_, targets))] = dice.choices(list(FAULTS.items()), [share for share, _ in FAULTS.values()])
            seconds = dice.random() * 120 if kind == "late delivery" else 0
            steps.append(Fault(dice.random() * SECONDS, kind, dice.choice(targets), seconds))
        if dice.random() < 0.25:
            seconds = dice.uniform(600, SIX_HOURS) if dice.random() < 0.05 else dice.uniform(5, 120)
            service = dice.choice(["dynamodb", "sns", "s3", "mysql"])
            steps.append(Fault(dice.random() * SECONDS / 2, "outage", service, seconds))
        return cls(seed, sorted(steps, key=lambda step: step.at))

    def of_steps(self, numbers: list[int]) -> History:
        """Returns the history with only some of its steps."""
        return History(self.seed, [self.steps[number] for number in numbers])

    def play(self, trace: list[str] | None = None) -> Played:
        random.seed(self.seed)
        world = World(self.seed, [replace(step) for step in self.steps if isinstance(step, Fault)], trace)
        played = Played(world, Cloud(world))
        for step in self.steps:
            if isinstance(step, Action):
                world.later(step.at, partial(getattr(played, step.kind.replace(" ", "_")), step))
            elif step.kind == "redeploy":
                world.later(step.at, played.cloud.redeploy)
            elif step.kind == "redrive":
                world.later(step.at, played.redrive)
        rest = REST_SECONDS + GIVE_UP_SECONDS * any(ENDLESS in str(step) for step in self.steps)
        played.rests = world.run(world.last_fault - START + rest)
        world.end()
        return played


def _rows(dice: random.Random) -> str:
    rows = [f"{supplier},arabica,{bean},1.00,,{dice.randint(1, 99)}\n" for supplier in ("Ann", "Ben") for bean in "xyz"]
    return HEADER + "".join(dice.sample(rows, dice.randint(1, 4)))


class Played:
    """A history after it has been played, with what the clients were promised."""

    def __init__(self, world: World, cloud: Cloud) -> None:
        self.world, self.cloud = world, cloud
        self.rests = False
        # The orders, undos and applied previews that the API accepted.
        self.orders: list[Order] = []
        # The contents that were sent with each order's id or key, and the requests that the API refused.
        self.contents: dict[str, set[str]] = {}
        self.refused: list[str] = []
        self.actions: list[tuple[str, str]] = []
        # The bodies of the requests to change an order, by key, and the keys of those that the API accepted.
        self.changes: dict[str, dict[str, Any]] = {}
        self.changed: list[str] = []
        # The events and contents of the uploaded files, by key.
        self.files: dict[str, list[tuple[dict[str, Any], str]]] = {}
        self.messages = 0
        # The dead letters that a person put back.
        self.waited: list[Letter] = []
        self.scheduled = False

    def ask(self, name: str, work: Callable[[Process], Any], done: Callable[[Any], None], tries: int = 0) -> None:
        """Sends a request. A client repeats a request that failed for a reason that may pass."""

        def answer(result: Any, failure: BaseException | None) -> None:
            if failure is None:
                done(result)
            elif tries < TRIES and (not isinstance(failure, Conflict) or any(each in str(failure) for each in EARLY)):
                pause = min(600, 2**tries) * self.world.random.random()
                self.world.later(pause, partial(self.ask, name, work, done, tries + 1))
            else:
                self.refused.append(name)

        self.world.start(f"api: {name}", 29, work, answer)

    def order(self, step: Action) -> None:
        self._order({"orderID": step.name, "customerID": "ann", "item": step.content}, None)

    def order_with_a_key(self, step: Action) -> None:
        self._order({"customerID": "ann", "item": step.content}, step.name)

    def _order(self, body: dict[str, Any], key: str | None) -> None:
        headers = {"idempotency-key": key} if key else {}
        context = {"authorizer": {"principalId": "ann", "groups": "staff"}, "resourcePath": "/orders"}
        given = {"raw_body": json.dumps(body).encode(), "headers": headers, "context": context, "method": "POST"}
        request: Any = SimpleNamespace(**given)

        def work(_process: Process) -> Order:
            now = self.world.now()
            receipt = placing.place(request, aws=self.cloud.aws, settings=SETTINGS, now=now)
            return replace(placing.parse(body, now, key)[0], order_id=receipt["orderID"])

        name = f"order {key or body['orderID']}"
        self.contents.setdefault(name, set()).add(body["item"])
        self.ask(name, work, self.orders.append)

    def change(self, step: Action) -> None:
        who, seen, to = step.content.split()
        key = f"{step.name}-{who}-{to}"
        if f"order {step.name}" not in self.contents:
            return
        items = [{"item": to, "quantity": 1 + len(self.changes)}]
        body = {"from": seen, **({"items": items, "note": key} if to == changes.CORRECTED else {"status": to})}
        self.changes[key] = body
        context = {"authorizer": {"principalId": who, "groups": "staff"}, "resourcePath": "/orders/{order_id}"}
        given = {"raw_body": json.dumps(body).encode(), "headers": {"idempotency-key": key}, "method": "PATCH"}
        request: Any = SimpleNamespace(**given, context=context)
        tables = {"orders": SETTINGS.orders_table, "requests": SETTINGS.requests_table}

        def work(_process: Process) -> Any:
            changes.patch(request, step.name, dynamodb=self.cloud.dynamodb, now=self.world.now(), **tables)
            if self.world.random.random() < LOST_ANSWERS:
                raise self.world.error("api", "PATCH", False, done=True)

        self.ask(f"change {key}", work, lambda _: self.changed.append(key))

    def message(self, step: Action) -> None:
        self.messages += 1
        self.cloud.sqs.put(SETTINGS.orders_queue_url, step.content)
        self.cloud.deliver("sqs", "SendMessage")

    def report(self, step: Action) -> None:
        def work(_process: Process) -> Any:
            content, now, route = {"kind": "inventory"}, self.world.now(), "POST /create_report"
            table = SETTINGS.requests_table
            idempotency.claim(route, step.name, content, dynamodb=self.cloud.dynamodb, table=table, now=now)
            return reports.start(content, step.name, "ann", sfn=self.cloud.sfn, machines=MACHINES, now=now)

        self.ask("report", work, lambda _: None)

    def scheduled_report(self, step: Action) -> None:
        self.scheduled = True
        self.world.start("scheduler", 0, partial(self.cloud.schedule_report, step.name), ignore, durable=True)

    def upload(self, step: Action) -> None:
        self.cloud.s3.put_object(Bucket=SETTINGS.uploads_bucket, Key=step.name, Body=step.content.encode())
        self.files.setdefault(step.name, []).append((self.cloud.s3.events[-1], step.content))
        self.cloud.deliver("s3", "PutObject")

    def undo(self, step: Action, name: str = "undo") -> None:
        def work(_process: Process) -> Any:
            given = {"records": self.cloud.records, "aws": self.cloud.aws, "function": "cafe-test-receive_upload"}
            return actions.start(name, step.name, None, "ann", now=self.world.now(), **given)

        self.ask(name, work, lambda _: self.actions.append((name, step.name)))

    def apply(self, step: Action) -> None:
        self.undo(step, "apply")

    def letters(self) -> Iterator[Letter]:
        """Yields the dead letters, which wait for a person."""
        queues, origins = self.cloud.sqs.queues, Origins.from_settings(SETTINGS)
        for message in queues[SETTINGS.orders_dead_letter_url].messages.values():
            yield read_order(message.received())
        for message in queues[SETTINGS.failures_queue_url].messages.values():
            yield read_failure(message.received(), origins)

    def redrive(self) -> None:
        self.waited += self.letters()
        self.world.start("api: redrive", 29, self.cloud.redrive, ignore)
