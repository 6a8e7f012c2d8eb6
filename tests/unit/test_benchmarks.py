"""Tests the benchmark page, and the curves and costs that are computed from the results."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest

from benchmarks import growth, load, minimal, money, page, results
from benchmarks.results import Point, Result
from infra.functions import NAMES

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
# The durations contain only waiting time, because processor time depends on the memory of the function.
DURATIONS = {
    f"{function} {size}": [0.0, 0.01]
    for function in ("api_handler", "store_orders", "announce_orders", "record_notification")
    for size in (1, 100)
}


def result(*ratios: float, goal: float = 2.0) -> Result:
    spread = (min(ratios), max(ratios)) if len(ratios) > 1 else None
    return Result("work", "1 s", "peer", "2 s", sorted(ratios)[len(ratios) // 2], goal, spread)


def test_a_result_is_worse_if_its_whole_spread_is_below_the_recorded_one() -> None:
    before = result(2.0, 2.5, 3.0)
    assert "| **worse** than 2.50 |" in page.line(result(1.0, 1.5, 1.9).compared_with(before)).replace("1.50 ", "")
    for new, recorded in ((result(1.0, 1.5, 2.1), before), (result(4.0, 5.0), before), (result(1.0), None)):
        assert new.compared_with(recorded) == new
    # A result that was recorded without a spread may get worse by up to 20 %.
    assert result(1.7).compared_with(result(2.0)).worse_than is None
    assert result(1.2).compared_with(result(2.0)).worse_than == 2.0


def test_a_result_without_a_goal_is_not_marked() -> None:
    assert page.line(result(0.5, goal=0)).endswith("| 2 s | 0.50 |  |  |")


def test_a_run_changes_only_its_own_part_of_the_page() -> None:
    before = "words\n<!-- measured: a -->\nold\n<!-- end of a -->\n<!-- measured: b -->\nkept\n<!-- end of b -->\n"
    assert page.with_part(before, "a", "new") == before.replace("old", "new")
    with pytest.raises(ValueError, match="contains them 0 times"):
        page.with_part(before, "c", "new")


def test_the_page_and_the_record_contain_every_benchmark() -> None:
    """If the results, the costs or the prices change, run `python -m benchmarks.page`."""
    from benchmarks.__main__ import BENCHMARKS

    assert results.read().keys() == BENCHMARKS.keys()
    text = page.PAGE.read_text()
    assert page.with_results(text) == text


def test_every_function_has_a_minimal_function() -> None:
    assert set(NAMES) <= vars(minimal).keys()


def test_curves_are_drawn_from_the_points_of_the_results() -> None:
    points = [Point("seconds", "ours", 10, 1.5), Point("seconds", "peer", 10, 4.0), Point("MB", "ours", 10, 90.0)]
    sizes = [replace(result(2.0), points=tuple(points)), replace(result(2.0), points=(Point("MB", "ours", 1, 80.0),))]
    assert growth.curves(sizes, "seconds") == {"ours": [(10, 1.5)], "peer": [(10, 4.0)]}
    assert growth.curves(sizes, "MB") == {"ours": [(10, 90.0), (1, 80.0)]}


def test_the_cost_of_orders_is_counted_line_by_line() -> None:
    bill = money.Bill(PRICES, DURATIONS)
    money.orders(bill, 1_000_000, in_request=100, batch=100, looked_up=True)
    assert {name: round(usd, 6) for name, usd in bill.lines.items() if usd} == {
        "API Gateway": 0.04,
        # A hundred orders need four invocations.
        "Lambda requests": 0.008,
        "Lambda time": round(40_000 * 0.01 * 0.25 * 0.00002, 6),
        "X-Ray traces": 0.01,
        "DynamoDB reads": 0.125,
        # SQS messages are sent, received and deleted in batches of ten.
        "SQS": 0.12,
        # An order is written to a table and two indexes, and a 5.1 KB notification to a table and one index.
        "DynamoDB writes": round((3_000_000 + 10_000 * 6 * 2) * 0.5 / 1_000_000, 6),
        "SNS": 0.005,
    }


@pytest.mark.parametrize(("in_state", "dollars"), [(True, 5.0), (False, 16.6)])
def test_only_a_report_that_is_stored_and_compared_pays_for_more_than_its_page(in_state: bool, dollars: float) -> None:
    prices = dict.fromkeys(money.json.loads((money.HERE / "prices.json").read_text())["prices"], 0.0)
    bill = money.Bill(prices | {"s3.put.per_1000": 5.0, "s3.get.per_1000": 0.4}, defaultdict(lambda: [0.0, 0.0]))
    money.reports(bill, 1_000, 1_000, 137_676, in_state=in_state)
    assert bill.total == pytest.approx(dollars)


def test_idle_pollers_and_cold_starts_have_a_price() -> None:
    # Five pollers ask each of two queues three times a minute.
    assert money.idle_polls() == 2 * 5 * 3 * 60 * 24 * 30
    small, bill = money.Bill({"lambda.gb_second": 0.00002}, {}), money.Bill({"lambda.gb_second": 0.00002}, {})
    money.cold_starts(small, 1, import_seconds=0.1)
    money.cold_starts(bill, 1, import_seconds=0.3)
    # With a whole processor, the INIT phase would take 0.4 seconds.
    assert bill.total == pytest.approx(0.4 * 1_769 / 1_024 * 0.00002) == pytest.approx(2 * small.total)


def test_a_function_with_less_memory_has_a_smaller_share_of_a_processor() -> None:
    bill = money.Bill(PRICES, {"store_orders 1": [0.1, 0.2]})
    bill.invoke("store_orders", 1, "store_orders 1")
    gigabytes = money.memory("store_orders") / 1_024
    seconds = 0.1 * 1_769 / money.memory("store_orders") + 0.2
    assert bill.lines["Lambda time"] == pytest.approx(seconds * gigabytes * 0.00002)


def test_the_architecture_page_has_the_loads_that_the_code_computes() -> None:
    """If the code or a measured duration changes, run `python -m benchmarks.load`."""
    text = load.PAGE.read_text()
    assert load.page_with_tables(text) == text


def test_a_load_has_full_batches_from_lists_or_single_orders() -> None:
    lists, single = load.Load(1_000, 100), load.Load(1_000, 1)
    assert (lists.requests, single.requests) == (10, 1_000)
    assert (lists.sends, single.sends) == (100, 1_000)
    assert (lists.batches, lists.receives_and_deletes, lists.writes) == (10, 200, 1_000)
    assert lists.concurrency("store_orders") == pytest.approx(10 * load.seconds("store_orders", 100))
    # A notification contains a hundred lines of 47 bytes and other fields. If the orders arrive singly, the
    # notification also contains a hundred request ids.
    assert (lists.inbox_writes, single.inbox_writes) == (10 * 6, 10 * 9)


def test_the_first_limit_that_a_load_reaches_comes_first() -> None:
    limits = load.limits()
    reached = [min(lists, single) for *_, lists, single in limits]
    assert reached == sorted(reached)
    [(lists, single)] = [each[2:] for each in limits if each[0] == "Lambda"]
    for orders, in_list in ((lists, 100), (single, 1)):
        assert load.Load(round(orders), in_list).all_functions == pytest.approx(load.FUNCTIONS_AT_ONCE, rel=0.001)
