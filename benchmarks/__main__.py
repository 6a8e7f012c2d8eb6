"""``python -m benchmarks [name ...]``: the named benchmarks, or all of them, as a Markdown table."""

from __future__ import annotations

import sys

from benchmarks import api, cold_start, inventory, orders, storage_listing
from benchmarks.compare import HEAD

BENCHMARKS = {
    "storage_listing": storage_listing,
    "inventory": inventory,
    "cold_start": cold_start,
    "orders": orders,
    "api": api,
}


def main(names: list[str]) -> None:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    print(HEAD)
    for name in names or BENCHMARKS:
        for row in BENCHMARKS[name].run():
            print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
