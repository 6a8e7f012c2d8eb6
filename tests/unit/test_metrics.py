"""Tests that the metrics count the right events and that CloudWatch can read them from the log."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider
from botocore.stub import Stubber

from chalicelib import metrics
from chalicelib.errors import Unavailable
from chalicelib.notifications import Notification
from chalicelib.timeline import timestamp
from tests.unit.api import Api
from tests.unit.buckets import Account
from tests.unit.cloud import Aws
from tests.unit.logged import records
from tests.unit.notices import NOW, attributes, record, sent
from tests.unit.ordering import messages, order, store

Figures = Callable[[], dict[str, float]]


@pytest.fixture(autouse=True)
def stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAFE_STAGE", "test")


@pytest.fixture
def figures(log_lines: io.StringIO) -> Figures:
    """Returns a function that sums the logged metrics as CloudWatch would, and checks the format's limits."""

    def sums() -> dict[str, float]:
        found: Counter[str] = Counter()
        for each in records(log_lines, "metrics"):
            [directive] = each["_aws"]["CloudWatchMetrics"]
            [names] = directive["Dimensions"]
            values = [each[name] for name in names]
            assert values[0] == "test"
            assert all(isinstance(value, str) and 1 <= len(value) <= 1024 for value in values)
            for metric in directive["Metrics"]:
                assert metrics.UNITS[metric["Name"]] == metric["Unit"]
                assert isinstance(each[metric["Name"]], int | float)
                found[" ".join([metric["Name"], *values[1:]])] += each[metric["Name"]]
        return dict(found)

    return sums


def test_a_record_is_the_one_that_powertools_would_write(log_lines: io.StringIO) -> None:
    """Another implementation: https://docs.powertools.aws.dev/lambda/python/latest/core/metrics/"""
    provider = AmazonCloudWatchEMFProvider(namespace=metrics.NAMESPACE)
    for name, value in (("stage", "test"), ("kind", "storage"), ("outcome", "failed")):
        provider.add_dimension(name, value)
    provider.add_metric("Reports", "Count", 1)
    provider.add_metric("ReportDuration", "Seconds", 2.5)
    theirs: dict[str, Any] = dict(provider.serialize_metric_set())
    metrics.emit({"Reports": 1, "ReportDuration": 2.5}, kind="storage", outcome="failed")
    [ours] = records(log_lines)
    assert ours.items() >= {"level": "INFO", "logger": "cafe.metrics", "message": "metrics"}.items()
    assert ours["_aws"]["CloudWatchMetrics"] == theirs["_aws"]["CloudWatchMetrics"]
    assert abs(ours["_aws"]["Timestamp"] - theirs["_aws"]["Timestamp"]) < 60_000
    for name in theirs.keys() - {"_aws"}:
        # Powertools writes a list of values for each metric, even for a single value.
        assert ours[name] == (theirs[name][0] if isinstance(theirs[name], list) else theirs[name])


def test_zeros_are_not_sent_and_an_unknown_metric_is_an_error(log_lines: io.StringIO) -> None:
    metrics.emit({"OrdersStored": 0, "OrdersDoubled": 0})
    assert log_lines.getvalue() == ""
    with pytest.raises(KeyError):
        metrics.emit({"Coffee": 1})


ORDER = {"orderID": "o-1", "customerID": "c-1", "item": "Lima"}


def test_accepted_orders_are_counted_and_known_ones_also_as_doubled(api: Api, aws: Aws, figures: Figures) -> None:
    api.post("/orders", [ORDER, ORDER, {**ORDER, "orderID": "o-2"}])
    assert figures() == {"OrdersAccepted": 3, "OrdersDoubled": 1}
    store(aws, messages(order("o-3")))
    api.post("/orders", {**ORDER, "orderID": "o-3"})
    assert figures() == {"OrdersAccepted": 4, "OrdersDoubled": 2, "OrdersStored": 1}


@pytest.mark.parametrize(
    ("body", "rejected"),
    [
        ([ORDER, {**ORDER, "quantity": 0}], 2),
        ([ORDER, {**ORDER, "item": "Tea"}], 2),
        *(([ORDER] * 101, 101), (7, 1), ([], 0), ({**ORDER, "orderID": "stored", "item": "Tea"}, 1)),
    ],
    ids=["a bad one", "a conflict", "too many", "no order", "none", "a stored id"],
)
def test_a_refused_list_is_counted_as_a_whole(api: Api, aws: Aws, figures: Figures, body: Any, rejected: int) -> None:
    store(aws, messages(order("stored")))
    assert api.post("/orders", body).status_code in (400, 409)
    assert figures() == {"OrdersStored": 1, **({"OrdersRejected": rejected} if rejected else {})}


def test_only_the_orders_that_the_queue_took_count_as_accepted(api: Api, aws: Aws, figures: Figures) -> None:
    failed = [{"Id": "1", "SenderFault": False, "Code": "InternalError"}]
    with Stubber(aws.sqs) as sqs:
        sqs.add_response("send_message_batch", {"Successful": [], "Failed": failed})
        assert api.post("/orders", [{**ORDER, "orderID": f"o-{number}"} for number in range(3)]).status_code == 503
    assert figures() == {"OrdersAccepted": 2}


def test_a_message_that_is_stored_already_is_doubled_and_one_that_fails_is_not_counted(
    aws: Aws, figures: Figures
) -> None:
    for _ in range(3):
        store(aws, messages(order("o-1"), order("o-2")))
    assert figures() == {"OrdersStored": 2, "OrdersDoubled": 4}
    store(aws, messages(order("o-3"), order("o-3"), order("o-4")))
    answers = [{}, {"Error": {"Code": "ThrottlingError", "Message": "slow down"}}]
    with Stubber(aws.dynamodb) as dynamodb:
        dynamodb.add_response("batch_execute_statement", {"Responses": answers})
        assert store(aws, messages(order("o-5"), order("o-6"), "{poison")) == ["m-2"]
    assert figures() == {"OrdersStored": 5, "OrdersDoubled": 5}


def test_a_conflict_counts_as_rejected_once_it_is_reported(aws: Aws, figures: Figures) -> None:
    store(aws, messages(order("o-1")))

    def fail(_: Notification) -> None:
        raise Unavailable("SNS")

    store(aws, messages(order("o-1", quantity=2), order("o-1")), fail)
    assert figures() == {"OrdersStored": 1, "OrdersDoubled": 1}
    store(aws, messages(order("o-1", quantity=2)), lambda _: None)
    assert figures() == {"OrdersStored": 1, "OrdersDoubled": 1, "OrdersRejected": 1}


def with_facts(facts: dict[str, Any], **more: str) -> dict[str, Any]:
    """Returns the SNS record of a report that started ten seconds earlier."""
    started = timestamp(NOW - timedelta(seconds=10))
    return sent(MessageAttributes=attributes(**{"facts": json.dumps(facts), "startedAt": started, **more}))


@pytest.mark.parametrize("kind", ["inventory", "storage"])
@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_a_report_is_counted_once_with_its_duration(aws: Aws, figures: Figures, kind: str, outcome: str) -> None:
    for _ in range(2):
        record(aws, with_facts({"id": "report-1", "kind": kind, "outcome": outcome}, key="report/1"))
    report = f"{kind} {outcome}"
    assert figures() == {f"Reports {report}": 1, f"ReportDuration {report}": pytest.approx(10, abs=0.001)}


@pytest.mark.parametrize("started", ["", "soon", "2026-11-21", "2026-11-21T03:14:15"])
def test_a_report_without_a_known_start_is_counted_without_a_duration(aws: Aws, figures: Figures, started: str) -> None:
    record(aws, with_facts({"kind": "inventory", "outcome": "succeeded"}, startedAt=started))
    assert figures() == {"Reports inventory succeeded": 1}


@pytest.mark.parametrize(
    "facts",
    [{}, {"outcome": "failed"}, {"kind": "inventory", "outcome": "beans"}, {"kind": ["x"], "outcome": "failed"}],
)
def test_no_other_notification_counts_as_a_report(aws: Aws, figures: Figures, facts: dict[str, Any]) -> None:
    record(aws, with_facts(facts), sent(2, MessageAttributes=None))
    assert figures() == {}


def test_bytes_are_counted_when_a_report_ends_and_not_in_each_round(account: Account, figures: Figures) -> None:
    account.bucket("reports")
    account.bucket("one", 700, 300)
    assert account.report({"reportId": "r", "aloneSeconds": 0}, {"round": 0})["spread"]["shares"]
    assert figures() == {}
    total = account.report({"reportId": "r"}, {"round": 0})["summary"]["totalBytes"]
    assert figures() == {"BytesMeasured": total}
    assert total >= 1000


def test_a_report_without_figures_is_not_counted_as_0_bytes(account: Account, figures: Figures) -> None:
    account.bucket("reports")
    with Stubber(account.client("cloudwatch")) as stubber:
        stubber.add_response("list_metrics", {"Metrics": []})
        assert account.report({"reportId": "r", "mode": "metrics"})["summary"]["bucketsWithoutFigure"] == 1
    assert figures() == {}
