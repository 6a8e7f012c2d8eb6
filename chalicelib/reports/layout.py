"""Calculates the position of each state in the diagram of a state machine."""

from __future__ import annotations

from typing import Any

Machine = dict[str, Any]
Position = tuple[int, int]


def next_states(state: Machine) -> list[str]:
    """Returns the states that may follow ``state``. The default of a Choice state comes first."""
    ways = [state.get("Default"), *(choice["Next"] for choice in state.get("Choices", [])), state.get("Next")]
    return list(dict.fromkeys(way for way in ways if way))


def branches_of(state: Machine) -> list[Machine]:
    """Returns the nested state machines inside a Parallel or Map state."""
    if state["Type"] == "Map":
        # Iterator is the old name of ItemProcessor, and Step Functions still accepts it.
        return [state.get("ItemProcessor") or state["Iterator"]]
    branches: list[Machine] = state.get("Branches", [])
    return branches


def lay_out(machine: Machine) -> tuple[dict[str, Position], int, int]:
    """Returns the position of each state as ``{name: (column, row)}``, the number of columns, and the number of rows.

    The column of a state is the length of the longest path from the start to the state, ignoring loops. Each state is
    in the first free row of its column, starting at the row of the previous state. States that run only after a failure
    are in lower rows. A Parallel or Map state surrounds its inner states and has the position of its first inner state.
    """
    states: dict[str, Machine] = machine["States"]
    within: dict[str, dict[str, Position]] = {}
    widths: dict[str, int] = {}
    heights: dict[str, int] = {}
    for name, state in states.items():
        within[name], widths[name], heights[name] = {}, 1, 0
        for branch in branches_of(state):
            positions, width, height = lay_out(branch)
            within[name] |= {each: (column, row + heights[name]) for each, (column, row) in positions.items()}
            widths[name], heights[name] = max(widths[name], width), heights[name] + height
        heights[name] = max(heights[name], 1)

    columns: dict[str, int] = {}
    rows: dict[str, int] = {}
    taken: set[Position] = set()

    def put(name: str, row: int) -> None:
        """Places a state in ``row`` or the first free row below, and then places the states that follow."""

        def cells() -> set[Position]:
            right, down = range(widths[name]), range(heights[name])
            return {(columns[name] + x, row + y) for x in right for y in down}

        while cells() & taken:
            row += 1
        taken.update(cells())
        rows[name] = row
        for following in next_states(states[name]):
            if following not in rows:
                put(following, row)

    column, start = 0, machine["StartAt"]
    while start:
        columns |= _columns(states, widths, start, column, columns)
        put(start, max((row + 1 for x, row in taken if x >= column), default=0))
        catchers = (
            (columns[name] + widths[name], catcher["Next"])
            for name in columns
            for catcher in states[name].get("Catch", [])
            if catcher["Next"] not in columns
        )
        column, start = min(catchers, default=(0, ""))

    positions = {}
    for name in rows:
        positions[name] = columns[name], rows[name]
        positions |= {each: (columns[name] + x, rows[name] + y) for each, (x, y) in within[name].items()}
    return positions, max(column + 1 for column, _ in taken), max(row + 1 for _, row in taken)


def _columns(
    states: dict[str, Machine], widths: dict[str, int], start: str, column: int, placed: dict[str, int]
) -> dict[str, int]:
    """Returns ``{name: column}`` for the state ``start`` and the states after it, except those in ``placed``.

    The state ``start`` is in column ``column``.
    """
    order: list[str] = []
    path: list[str] = []
    loops: set[tuple[str, str]] = set()

    def walk(name: str) -> None:
        path.append(name)
        for following in next_states(states[name]):
            if following in path:
                loops.add((name, following))
            elif following not in order and following not in placed:
                walk(following)
        order.append(path.pop())

    walk(start)
    columns = {start: column}
    # In reverse, ``order`` lists each state after all states that lead to it.
    for name in reversed(order):
        for following in next_states(states[name]):
            if following in order and (name, following) not in loops:
                columns[following] = max(columns.get(following, 0), columns[name] + widths[name])
    return columns
