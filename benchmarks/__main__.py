"""``python -m benchmarks [name ...]``: the named benchmarks, or all of them, as a Markdown table.

What they find takes its place in ``docs/performance.md``, and is marked where it is worse than what was there.
"""

from __future__ import annotations

import sys

from benchmarks import (
    api,
    cold_start,
    growth,
    inventory,
    money,
    orders,
    page,
    storage_account,
    storage_listing,
    storage_metrics,
)
from benchmarks.compare import HEAD

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
        sys.exit(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    print(HEAD)
    for name in names or BENCHMARKS:
        before = page.recorded(page.PAGE.read_text(), name)
        lines = []
        for row in BENCHMARKS[name].run():
            line = page.Line.read(str(row))
            lines.append(line.beside(before.get(line.key)))
            print(lines[-1], flush=True)
        # After each, so that what was measured stays where a later one fails.
        page.PAGE.write_text(page.with_part(page.PAGE.read_text(), name, page.table(lines)))
    text = page.with_part(page.PAGE.read_text(), "money", money.tables())
    text = page.with_part(text, "storage_account", storage_account.table())
    page.PAGE.write_text(text)
    growth.draw({name: page.recorded(text, name) for name in BENCHMARKS})


if __name__ == "__main__":
    main(sys.argv[1:])
