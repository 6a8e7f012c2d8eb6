"""Runs the named benchmarks, or all benchmarks, as ``python -m benchmarks [name ...]``.

The results are recorded in ``results.json`` and shown in ``docs/performance.md``. A result that is worse than the
recorded result is marked.
"""

from __future__ import annotations

import sys

from benchmarks import (
    api,
    cold_start,
    growth,
    inventory,
    orders,
    page,
    results,
    storage_listing,
    storage_metrics,
)

BENCHMARKS = {
    "storage_listing": storage_listing,
    "storage_metrics": storage_metrics,
    "inventory": inventory,
    "cold_start": cold_start,
    "orders": orders,
    "api": api,
}


def main(names: list[str]) -> None:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"unknown benchmark {', '.join(unknown)}: choose from {', '.join(BENCHMARKS)}")
    print(page.HEAD)
    for name in names or BENCHMARKS:
        recorded = results.read()
        before = {each.key: each for each in recorded[name].results} if name in recorded else {}
        measured = []
        for result in BENCHMARKS[name].run():
            measured.append(result.compared_with(before.get(result.key)))
            print(page.line(measured[-1]), flush=True)
        # The results are saved after each benchmark so that a later failure does not lose them.
        results.write({**recorded, name: results.Measurement(results.conditions(), measured)})
    page.PAGE.write_text(page.with_results(page.PAGE.read_text()))
    growth.draw(results.read())


if __name__ == "__main__":
    main(sys.argv[1:])
