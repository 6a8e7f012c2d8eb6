"""The results of the benchmarks: the page with its marks, the curves, and the costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import growth, load, money, page
from benchmarks.compare import HEAD, Row
from benchmarks.page import Line

PRICES = {
    "api_gateway.rest.per_1000000": 4.0,
    "cloudwatch.logs.gb": 0.0,
    "dynamodb.reads.per_1000000": 0.125,
    "dynamodb.writes.per_1000000": 0.5,
    "lambda.gb_second": 0.00002,
    "lambda.requests.per_1000000": 0.2,
    "sns.per_1000000": 0.5,
    "sqs.per_1000000": 0.4,
    "xray.traces.per_1000000": 5.0,
}
# A processor's second of 256 MB is 6.91 of them there, and waiting is as long as it is.
DURATIONS = {
    f"{function} {size}": [0.0, 0.01]
    for function in ("api_handler", "store_orders", "announce_orders", "record_notification")
    for size in (1, 100)
}


def row(*ratios: float, goal: float = 2.0) -> Line:
    return Line.read(str(Row("work", 1.0, "peer", 2.0, list(ratios), goal)))


def test_a_line_is_worse_if_its_whole_spread_is_below_the_recorded_one() -> None:
    before = row(2.0, 2.5, 3.0)
    assert "**worse** than 2.50" in str(row(1.0, 1.5, 1.9).beside(before))
    for line, other in ((row(1.0, 1.5, 2.1), before), (row(4.0, 5.0), before), (row(1.0), None)):
        assert "worse" not in str(line.beside(other))
    # A line without a spread may vary by a fifth.
    assert "worse" not in str(row(1.7).beside(row(2.0)))
    assert "worse" in str(row(1.2).beside(row(2.0)))


def test_a_goal_says_whether_it_was_met() -> None:
    assert str(row(2.0, 2.5, 3.0)).endswith("| 2.00 met |")
    assert str(row(1.0, 1.5, 1.9)).endswith("| 2.00 **missed** by 25.0% |")


def test_a_recorded_line_is_read_back_with_its_marks() -> None:
    line = row(1.0, 1.5, 1.9).beside(row(2.0, 2.5, 3.0))
    text = page.with_part("<!-- measured: a -->\n<!-- end of a -->\n", "a", page.table([line]))
    [again] = page.recorded(text, "a").values()
    assert (again.times, again.spread, again.goal) == (line.times, line.spread, line.goal)


def test_the_same_work_against_several_peers_is_several_lines() -> None:
    lines = [Line.read(str(Row("work", 1.0, peer, 2.0, [2.0], 1.0))) for peer in ("one", "other")]
    text = page.with_part("<!-- measured: a -->\n<!-- end of a -->\n", "a", page.table(lines))
    assert page.recorded(text, "a").keys() == {("work", "one"), ("work", "other")}


def test_a_run_changes_only_its_own_part_of_the_page() -> None:
    before = "words\n<!-- measured: a -->\nold\n<!-- end of a -->\n<!-- measured: b -->\nkept\n<!-- end of b -->\n"
    assert page.with_part(before, "a", "new") == before.replace("old", "new")
    with pytest.raises(ValueError, match="0 places for c"):
        page.with_part(before, "c", "new")


def test_the_page_has_a_place_for_each_benchmark() -> None:
    from benchmarks.__main__ import BENCHMARKS

    text = page.PAGE.read_text()
    for name in (*BENCHMARKS, "money"):
        assert page.with_part(text, name, HEAD) != text


def test_curves_are_drawn_from_the_lines_of_growing_sizes() -> None:
    lines = [
        Line("report, 1,000 rows", "0.5 s", "plain", "1.0 s", 2.0, (1, 3), "", None),
        Line("report, 10,000 rows", "1.5 s", "plain", "4.0 s", 2.0, (1, 3), "", None),
        Line("read, 10,000 rows, peak memory", "90 MB", "the same with 1,000", "80 MB", 1.0, (1, 1), "", None),
    ]
    assert growth.times(lines, r"report, ([\d,]+) rows") == {
        "ours": [(1_000, 0.5), (10_000, 1.5)],
        "plain": [(1_000, 1.0), (10_000, 4.0)],
    }
    assert growth.memory(lines) == {"read": [(10_000, 90.0), (1_000, 80.0)]}


def test_the_cost_of_orders_is_counted_line_by_line() -> None:
    bill = money.Bill(PRICES, DURATIONS)
    money.orders(bill, 1_000_000, in_request=100, batch=100, looked_up=True)
    assert {name: round(usd, 6) for name, usd in bill.lines.items() if usd} == {
        "API Gateway": 0.04,
        # Four functions for each hundred.
        "Lambda requests": 0.008,
        "Lambda time": round(40_000 * 0.01 * 0.25 * 0.00002, 6),
        "X-Ray traces": 0.01,
        "DynamoDB reads": 0.125,
        # Sent by tens, and received and deleted by tens.
        "SQS": 0.12,
        # The order and two indexes; a notification of 5.1 KB and one index.
        "DynamoDB writes": round((3_000_000 + 10_000 * 6 * 2) * 0.5 / 1_000_000, 6),
        "SNS": 0.005,
    }


def test_a_function_with_less_memory_has_less_of_a_processor() -> None:
    bill = money.Bill(PRICES, {"store_orders 1": [0.1, 0.2]})
    bill.invoke("store_orders", 1, "store_orders 1")
    gigabytes = money.memory("store_orders") / 1_024
    seconds = 0.1 * 1_769 / money.memory("store_orders") + 0.2
    assert bill.lines["Lambda time"] == pytest.approx(seconds * gigabytes * 0.00002)


def test_every_cost_has_a_price_and_a_duration() -> None:
    prices = json.loads((Path(money.__file__).parent / "prices.json").read_text())
    assert prices.keys() == {"region", "date", "source", "prices"}
    assert money.tables() == money.tables()


# --- The loads of docs/architecture.md --------------------------------------------------------------------------------


def test_the_page_on_architecture_has_the_loads_of_the_code() -> None:
    """After a change of the code or of a measured duration, run `python -m benchmarks.load`."""
    text = load.PAGE.read_text()
    assert load.page_with_tables(text) == text


def test_a_load_is_of_full_batches_from_lists_or_single_orders() -> None:
    lists, single = load.Load(1_000, 100), load.Load(1_000, 1)
    assert (lists.requests, single.requests) == (10, 1_000)
    assert (lists.sends, single.sends) == (100, 1_000)
    assert (lists.batches, lists.handed_over, lists.writes) == (10, 200, 1_000)
    assert lists.at_once("store_orders") == pytest.approx(10 * load.seconds("store_orders", 100))
    # A hundred lines of 47 bytes and what else is in a notification; and with an id for each of a hundred requests.
    assert (lists.inbox_writes, single.inbox_writes) == (10 * 6, 10 * 9)


def test_the_first_limit_that_a_load_reaches_comes_first() -> None:
    bends = load.bends()
    reached = [min(lists, single) for *_, lists, single in bends]
    assert reached == sorted(reached)
    [(lists, single)] = [each[2:] for each in bends if each[0] == "Lambda"]
    for orders, in_list in ((lists, 100), (single, 1)):
        assert load.Load(round(orders), in_list).functions == pytest.approx(load.FUNCTIONS_AT_ONCE, rel=0.001)


def test_a_figure_has_two_significant_digits() -> None:
    shown = {0.0123: "0.012", 0.1: "0.1", 1.25: "1.2", 4: "4", 12.4: "12", 3_401: "3,400", 1_000_000: "1,000,000"}
    assert {each: load._shown(each) for each in shown} == shown
