"""Runs the long tests: a load test with random faults, outages, and a soak test.

Start these tests with ``python -m tests.faults``. Each test has its own stack, so all dead letters belong to the test.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

from chalicelib import clients
from tests.faults.counting import (
    Count,
    File,
    announcements,
    count_notifications,
    count_orders,
    count_reports,
    count_uploads,
    dead,
    in_queue,
    inbox,
    new_file,
    order,
    orders_of,
    place,
    publish,
    request_reports,
    writes,
)
from tests.system import faults
from tests.system.letters import QUEUES
from tests.system.reports import start
from tests.system.stack import Faulty
from tests.system.system import new_id, wait_for
from tests.system.wire import Cut, Exchange, Fault, Reply, Rule

RETRIES = "RETRIES_QUEUE_URL"
LIST = 100
# A client sends a list of orders at most this many times.
TRIES = 20
# After this many seconds without a new announcement, missing orders count as lost.
PATIENCE = 90
# Memory measurements skip this many minutes at the start, because the workers are still starting.
WARM_UP = 2

Say = Callable[[str], None]


@contextmanager
def random_faults(system: Faulty, share: float) -> Iterator[list[Rule]]:
    """Makes the fraction ``share`` of all AWS calls fail in one of seven ways while the ``with`` block runs."""
    everything = r"(?!sts:).*"
    kinds = [
        (everything, faults.throttled),
        (everything, faults.failed),
        (everything, faults.unavailable),
        (everything, faults.cut_before),
        (everything, faults.cut_after),
        (everything, faults.failed_after),
        ("|".join(faults.PARTIAL), faults.refusing()),
    ]
    rules = [Rule(operation, fault, share=share / len(kinds), seed=n) for n, (operation, fault) in enumerate(kinds, 1)]
    system.wire.rules += rules
    try:
        yield rules
    finally:
        for rule in rules:
            system.wire.rules.remove(rule)


@dataclass
class Orders:
    """A client that sends lists of 100 orders, and retries after a 503."""

    system: Faulty
    customer: str = field(default_factory=lambda: new_id("load"))
    accepted: set[str] = field(default_factory=set)
    refused: int = 0
    given_up: int = 0
    _adding: threading.Lock = field(default_factory=threading.Lock)

    def place(self, number: int = LIST) -> None:
        """Sends one list of orders, and retries with the same idempotency key until the API accepts it."""
        orders = [{"customerID": self.customer, "item": f"Flat white {n}"} for n in range(number)]
        key = new_id("list")
        for tries in range(TRIES):
            answer = self.system.request("POST", "/orders", orders, Idempotency_Key=key)
            if answer.status == 202:
                with self._adding:
                    self.accepted |= {each["orderID"] for each in answer.json["orders"]}
                    self.refused += tries
                return
            assert answer.status == 503, answer.text
        with self._adding:
            self.given_up += 1

    def settle(self, say: Say) -> float:
        """Waits until all orders are announced or no further announcements arrive.

        Returns the time of the last announcement.
        """
        announced, moved = 0, time.monotonic()
        while True:
            now = len(self.accepted & announcements(self.system).keys())
            if now > announced:
                announced, moved = now, time.monotonic()
                say(f"  announced {announced:,} of {len(self.accepted):,}")
            if announced == len(self.accepted) or time.monotonic() - moved > PATIENCE:
                with suppress(AssertionError):
                    wait_for(lambda: not in_queue(self.system, "ORDERS_QUEUE_URL"), "an empty queue")
                return moved
            time.sleep(2)

    def counts(self) -> dict[str, int]:
        system = self.system
        written, announced = writes(system), announcements(system)
        kept = orders_of("placed", (each["facts"] for each in inbox(system)))
        waiting = dead(system, self.accepted)
        own = {each for each in written if each in self.accepted}
        return {
            "accepted": len(self.accepted),
            "lost": len(self.accepted - own - waiting),
            "doubled": sum(written[each] - 1 for each in own),
            "not announced": sum(1 for each in own if not announced[each]),
            "not in the inbox": sum(1 for each in own if not kept[each]),
            "announced again": sum(announced[each] - 1 for each in own if announced[each]),
            "waiting for a person": len(waiting - own),
        }


def load(system: Faulty, number: int, share: float, say: Say) -> tuple[dict[str, int], float]:
    """Places ``number`` orders while the fraction ``share`` of all AWS calls fails.

    Returns the counts, and the throughput in orders per second. The measurement lasts from the first request to the
    last announcement.
    """
    orders = Orders(system)
    began = time.monotonic()
    with random_faults(system, share) as rules:
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(orders.place) for _ in range(number // LIST)]:
                done.result()
        took = time.monotonic() - began
        say(f"  accepted {len(orders.accepted):,} in {took:.0f} s, after {orders.refused:,} retries")
        ended = orders.settle(say)
    met, seen = sum(rule.met for rule in rules), max(rule.seen for rule in rules)
    say(f"  {met:,} of {seen:,} calls failed ({met / seen:.1%})")
    assert not orders.given_up, f"{orders.given_up} lists were refused {TRIES} times"
    return orders.counts(), len(orders.accepted) / (ended - began)


# --- outages ----------------------------------------------------------------------------------------------------------


def silent(_exchange: Exchange) -> Reply:
    """Accepts the call but never responds."""
    time.sleep(2 * clients.READ_SECONDS_BY_SERVICE["s3"])
    raise Cut


@dataclass
class Meter:
    """A fault that counts the calls per second of each phase, and fails them all in the phase ``during``.

    ``tries`` is the highest number of tries of one call.
    """

    outage: Fault
    phase: str = "before"
    tries: int = 0
    seconds: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, exchange: Exchange) -> Reply:
        with self._counting:
            phase = self.phase
            self.seconds[phase][int(time.monotonic())] += 1
            self.tries = max(self.tries, exchange.call.attempt)
        return self.outage(exchange) if phase == "during" else exchange.forward()

    def rates(self) -> dict[str, tuple[float, int]]:
        """Returns the average and the highest number of calls per second in each phase."""
        return {
            phase: (sum(seconds.values()) / (max(seconds) - min(seconds) + 1), max(seconds.values()))
            for phase, seconds in self.seconds.items()
        }


def begin_work(system: Faulty, meter: Meter, phase: str) -> Callable[[], list[Count]]:
    """Gives work to every flow, and starts ``phase`` before most of it is done.

    Returns a function that waits for the end of the work and counts it.
    """
    orders = place(system, [order(new_id(phase)) for _ in range(20)])
    requested = request_reports(system, 1) + request_reports(system, 1, kind="storage")
    meter.phase = phase
    scheduled = [start(system, kind, '{"scheduled": true}') for kind in ("inventory", "storage")]
    file, keys = new_file(), [new_id(phase) for _ in range(3)]
    system.upload(file.key, file.body)
    publish(system, keys)
    return lambda: [
        count_orders(system, orders, 240),
        count_uploads(system, [file]),
        count_notifications(system, keys),
        count_reports(system, scheduled, wanted="SUCCEEDED"),
        count_reports(system, requested),
    ]


def outage(system: Faulty, fault: Fault, seconds: float, say: Say) -> Meter:
    """Applies ``fault`` to all AWS calls for ``seconds``. All work must complete afterwards without a person.

    The same work without an outage comes first, to compare the calls per second. One order arrives each second.
    """
    meter, accepted, over = Meter(fault), list[str](), threading.Event()

    def post() -> None:
        sent = order(new_id("stream"))
        if system.request("POST", "/orders", sent).status == 202:
            accepted.append(sent["orderID"])

    def stream() -> None:
        with ThreadPoolExecutor(64) as pool:
            posted = []
            while not over.wait(1):
                posted.append(pool.submit(post))
            for each in posted:
                each.result()

    with system.wire.fault(r"(?!sts:).*", meter), ThreadPoolExecutor(1) as pool:
        streaming = pool.submit(stream)
        try:
            counts = begin_work(system, meter, "before")()
            count = begin_work(system, meter, "during")
            time.sleep(seconds)
            meter.phase, ended = "after", time.monotonic()
            finish_retries(system)
            counts += count()
            say(f"  all work was complete {time.monotonic() - ended:.0f} s after the outage")
        finally:
            over.set()
        streaming.result()
    counts.append(count_orders(system, accepted, 240))
    assert not any(each.lost or each.doubled or each.waiting for each in counts), counts
    assert not dead_letters(system), "a person is needed"
    say(f"  {sum(each.accepted for each in counts)} items accepted, 0 lost, 0 doubled, 0 dead letters")
    return meter


def finish_retries(system: Faulty) -> None:
    """Waits until no failure is left to retry."""
    wait_for(lambda: not in_queue(system, RETRIES), "the end of all retries", 180)


def dead_letters(system: Faulty) -> int:
    return sum(in_queue(system, queue) for queue in QUEUES)


# --- the soak ---------------------------------------------------------------------------------------------------------

# Every minute, the soak test kills a worker of the next function in this list.
VICTIMS = ("store_orders", "announce_orders", "receive_upload", "record_notification", "read_inventory")


def soak(system: Faulty, minutes: float, rate: float, say: Say) -> dict[str, int]:
    """Sends ``rate`` orders per second. Every ten seconds, the soak test also uploads a file and requests a report.

    Every minute, the test restarts MySQL and kills a worker process. In the middle, AWS fails for a minute. Returns the
    counts, including the memory growth in percent.
    """
    orders, files, reports = Orders(system), list[File](), list[str]()
    memory: dict[str, list[tuple[float, float]]] = {}
    over = threading.Event()
    began = time.monotonic()
    victims = itertools.cycle(VICTIMS)

    def every(seconds: float, work: Callable[[], None]) -> None:
        following = time.monotonic()
        while not over.is_set():
            work()
            following += seconds
            over.wait(max(0.0, following - time.monotonic()))

    def upload() -> None:
        file = new_file()
        system.upload(file.key, file.body)
        files.append(file)

    def report() -> None:
        kind = "storage" if len(reports) % 2 else "inventory"
        answer = system.request("POST", "/create_report", {"kind": kind}, Idempotency_Key=new_id("soak"))
        if answer.status == 202:
            reports.append(answer.json["reportId"])

    def measure() -> None:
        for process, size in sizes(system).items():
            memory.setdefault(process, []).append((time.monotonic() - began, size))

    def harm() -> None:
        if time.monotonic() - began < 30:
            return
        system.restart_mysql()
        victim = next(victims)
        for worker in system.workers(victim)[:1]:
            worker.kill()
        say(
            f"  {(time.monotonic() - began) / 60:4.1f} min: {len(orders.accepted):,} orders accepted; MySQL restarted, "
            f"a worker of {victim} ended"
        )

    def outage_in_the_middle() -> None:
        over.wait(minutes * 30)
        with system.wire.fault(r"(?!sts:).*", faults.unavailable) as rule:
            over.wait(min(60, minutes * 6))
        say(f"  {(time.monotonic() - began) / 60:4.1f} min: an outage of AWS ended, which refused {rule.met:,} calls")

    works = [(LIST / rate, orders.place), (10, upload), (10, report), (5, measure), (60, harm)]
    with ThreadPoolExecutor(len(works) + 1) as pool:
        running = [pool.submit(every, *each) for each in works]
        running.append(pool.submit(outage_in_the_middle))
        over.wait(minutes * 60)
        over.set()
        for each in running:
            each.result()
    finish_retries(system)
    orders.settle(say)
    uploaded, reported = count_uploads(system, files), count_reports(system, reports)
    say("  memory in MB, in the third minute and at the end:")
    grown = 0
    for process, samples in sorted(memory.items()):
        early = [size for at, size in samples if WARM_UP * 60 <= at < (WARM_UP + 1) * 60]
        late = [size for at, size in samples if at >= (minutes - 1) * 60]
        if early and late:
            before, after = statistics.median(early), statistics.median(late)
            grown = max(grown, round(100 * (after / before - 1)))
            say(f"    {process:<24} {before:6.1f} {after:6.1f}")
    return {
        **orders.counts(),
        "uploads": uploaded.accepted,
        "rows lost": uploaded.lost,
        "rows doubled": uploaded.doubled,
        "reports": reported.accepted,
        "reports lost": reported.lost,
        "reports doubled": reported.doubled,
        "dead letters": dead_letters(system),
        "memory grown, %": grown,
    }


def sizes(system: Faulty) -> dict[str, float]:
    """Returns the resident memory, in MB, of the API and of the largest worker of each function in ``VICTIMS``."""
    found: Counter[str] = Counter()
    processes = {"api": [psutil.Process(system.stack.api.pid())]}
    processes |= {function: system.workers(function) for function in VICTIMS}
    for function, workers in processes.items():
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                found[function] = max(found[function], worker.memory_info().rss / 1e6)
    return dict(found)
