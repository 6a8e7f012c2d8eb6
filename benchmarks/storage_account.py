"""``python -m benchmarks.storage_account`` simulates the time and the cost of listing all objects of a large account.

The simulation uses the steps and limits of ``chalicelib/storage``. Workers list ranges of keys. An idle worker takes
half of the largest remaining range. The work left at a function's time limit is divided among other functions. The
constants in this file are assumptions about AWS. Nothing is random, so every run prints the same figures.
"""

from __future__ import annotations

import heapq
import json
import math
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.money import CONFIG, MB_OF_A_PROCESSOR, memory, states
from chalicelib.storage.crew import RESERVE_SECONDS, WORKERS
from chalicelib.storage.report import ROUNDS, TURN_SECONDS
from chalicelib.storage.shares import SHARES
from chalicelib.storage.splitting import KEYS_PER_PAGE, MIN_KEYS, PAGES_PER_SPLIT, SPLIT_BUDGET

PRICES = Path(__file__).parent / "prices.json"

# This is the duration in seconds of a call that returns 1,000 keys.
PAGE_SECONDS = 0.1
# Processing 1,000 keys takes this many seconds of processor time. Without TLS, the measured time is 1.3 ms.
PROCESSOR_SECONDS = 0.003
# This overhead in seconds covers starting a function, and reading, distributing and storing its work.
OVERHEAD_SECONDS = 2.0


@dataclass(frozen=True)
class Account:
    """An account with a few huge and many small buckets.

    The size of the bucket with rank ``n`` is proportional to ``1 / n``.
    """

    buckets: int
    objects: int

    def pages(self) -> list[int]:
        scale = self.objects / sum(1 / rank for rank in range(1, self.buckets + 1))
        ranked = [max(1, math.ceil(scale / rank / KEYS_PER_PAGE)) for rank in range(1, self.buckets + 1)]
        # This order mixes large and small buckets. A step coprime to the number of buckets visits every bucket once.
        step = next(step for step in range(self.buckets * 5 // 8 + 1, 10**9) if math.gcd(step, self.buckets) == 1)
        return [ranked[number * step % self.buckets] for number in range(self.buckets)]


@dataclass
class Bill:
    seconds: float = 0.0
    busy_seconds: float = 0.0
    functions: int = 0
    rounds: int = 0
    pages: int = 0
    splits: int = 0
    left: int = 0
    transitions: int = 0
    files: int = 0
    prices: dict[str, float] = field(default_factory=lambda: json.loads(PRICES.read_text())["prices"])

    def list_cost(self) -> float:
        return (self.pages + self.splits) / 1_000 * self.prices["s3.list.per_1000"]

    def function_cost(self) -> float:
        gigabytes = memory("measure_buckets") / 1_024
        requests = self.functions / 1_000_000 * self.prices["lambda.requests.per_1000000"]
        return self.busy_seconds * gigabytes * self.prices["lambda.gb_second"] + requests

    def machine_cost(self) -> float:
        files = self.files / 1_000 * (self.prices["s3.put.per_1000"] + self.prices["s3.get.per_1000"])
        return self.transitions / 1_000 * self.prices["stepfunctions.transitions.per_1000"] + files


def function(pieces: list[int], limit: float, bill: Bill, budget: int = 0) -> tuple[float, list[int]]:
    """Simulates an invocation that lists ranges of pages.

    Returns the invocation's duration, and the pages left after ``limit`` seconds.
    """
    processing = PROCESSOR_SECONDS * MB_OF_A_PROCESSOR / memory("measure_buckets")
    waiting = deque(pieces)
    splits = sum(budget + pages // PAGES_PER_SPLIT for pages in pieces)
    processor = now = 0.0
    left: list[int] = []
    # Each pair contains the time of the next response for a range, and the number of remaining pages.
    answers = [[PAGE_SECONDS, waiting.popleft()] for _ in range(min(WORKERS, len(waiting)))]
    while answers:
        arrived, pages = heapq.heappop(answers)
        # All workers of a function share one processor.
        now = processor = max(processor, arrived) + processing
        bill.pages += 1
        if pages > 1 and now < limit:
            heapq.heappush(answers, [now + PAGE_SECONDS, pages - 1])
        elif pages > 1:
            left.append(int(pages) - 1)
        while now < limit and len(answers) < WORKERS:
            largest = max(answers, key=lambda each: each[1], default=[0.0, 0])
            if waiting:
                heapq.heappush(answers, [now + PAGE_SECONDS, waiting.popleft()])
            elif splits and largest[1] * KEYS_PER_PAGE >= MIN_KEYS:
                splits, bill.splits = splits - 1, bill.splits + 1
                half = largest[1] // 2
                largest[1] -= half
                heapq.heappush(answers, [now + 2 * PAGE_SECONDS, half])
            else:
                break
    return now + OVERHEAD_SECONDS, left + list(waiting)


def listing(account: Account) -> Bill:
    bill = Bill(transitions=states("storage_report"))
    lambda_seconds = CONFIG["lambda_functions"]["measure_buckets"]["lambda_timeout"]
    seconds, left = function(account.pages(), TURN_SECONDS, bill, SPLIT_BUDGET)
    bill.seconds, bill.busy_seconds, bill.functions = seconds, seconds, 1
    while left and bill.rounds < ROUNDS:
        bill.rounds += 1
        whole = lambda_seconds - RESERVE_SECONDS
        limit = whole if bill.rounds == ROUNDS else TURN_SECONDS
        shares = [share for start in range(SHARES) if (share := left[start::SHARES])]
        done = [function(share, limit, bill) for share in shares]
        left = [pages for _, rest in done for pages in rest]
        longest = max(seconds for seconds, _ in done)
        bill.seconds += longest + OVERHEAD_SECONDS
        bill.busy_seconds += sum(seconds for seconds, _ in done) + OVERHEAD_SECONDS
        bill.functions += len(shares) + 1
        bill.transitions += len(shares) + 3
        bill.files += 2 * len(shares) + 1
    bill.left = sum(left)
    return bill


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def table() -> str:
    lines = [
        "| account | rounds | functions | time | S3 calls | S3 | Lambda | Step Functions and files | all |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for buckets, objects in ((20, 20_000), (1_000, 10_000_000), (1, 100_000_000), (10_000, 1_000_000_000)):
        bill = listing(Account(buckets, objects))
        if bill.left:
            raise AssertionError(f"{buckets:,} buckets: {bill.left:,} pages were not listed")
        costs = (bill.list_cost(), bill.function_cost(), bill.machine_cost())
        lines.append(
            f"| {buckets:,} bucket{'s' * (buckets > 1)}, {objects:,} objects | {bill.rounds} | {bill.functions} "
            f"| {_time(bill.seconds)} | {bill.pages + bill.splits:,} "
            f"| {' | '.join(f'${cost:,.4f}' for cost in (*costs, sum(costs)))} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
