"""What is counted, and that CloudWatch takes the figures from the records that are logged."""

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
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from chalicelib import metrics
from chalicelib.errors import Unavailable
from chalicelib.notifications import Notification
from chalicelib.timeline import timestamp
from tests.unit.conftest import Api, Aws
from tests.unit.ordering import messages, order, store
from tests.unit.test_logs import records
from tests.unit.test_notifications import NOW, record, sent
from tests.unit.test_storage import Account, account  # noqa: F401 - a fixture

Figures = Callable[[], dict[str, float]]

# Of the embedded metric format's specification: what CloudWatch takes.
DIMENSION = {"type": "string", "minLength": 1, "maxLength": 250}
DIRECTIVE = {
    "type": "object",
    "required": ["Namespace", "Dimensions", "Metrics"],
    "additionalProperties": False,
    "properties": {
        "Namespace": {"type": "string", "minLength": 1, "maxLength": 1024},
        "Dimensions": {"type": "array", "minItems": 1, "items": {"type": "array", "maxItems": 30, "items": DIMENSION}},
        "Metrics": {
            "type": "array",
            "minItems": 1,
            "maxItems": 100,
            "items": {
                "type": "object",
                "required": ["Name"],
                "additionalProperties": False,
                "properties": {
                    "Name": {"type": "string", "minLength": 1, "maxLength": 1024},
                    "Unit": {"enum": ["Seconds", "Bytes", "Count"]},
                    "StorageResolution": {"enum": [1, 60]},
                },
            },
        },
    },
}
SCHEMA = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer", "minimum": 0},
                "CloudWatchMetrics": {"type": "array", "minItems": 1, "items": DIRECTIVE},
            },
        }
    },
}


@pytest.fixture(autouse=True)
def of_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAFE_STAGE", "test")


@pytest.fixture
def figures(log_lines: io.StringIO) -> Figures:
    """The sums of what CloudWatch takes from the log, after a look at the form of each record."""

    def sums() -> dict[str, float]:
        found: Counter[str] = Counter()
        for each in records(log_lines):
            if "_aws" not in each:
                continue
            Draft7Validator(SCHEMA).validate(each)
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


# --- The form ---------------------------------------------------------------------------------------------------------


def test_a_record_is_what_powertools_would_have_written(log_lines: io.StringIO) -> None:
    """A second opinion: https://docs.powertools.aws.dev/lambda/python/latest/core/metrics/"""
    provider = AmazonCloudWatchEMFProvider(namespace=metrics.NAMESPACE)
    for name, value in (("stage", "test"), ("kind", "storage"), ("outcome", "failed")):
        provider.add_dimension(name, value)
    provider.add_metric("Reports", "Count", 1)
    provider.add_metric("ReportDuration", "Seconds", 2.5)
    theirs: dict[str, Any] = dict(provider.serialize_metric_set())
    metrics.emit({"Reports": 1, "ReportDuration": 2.5}, kind="storage", outcome="failed")
    [ours] = records(log_lines)
    assert ours["_aws"]["CloudWatchMetrics"] == theirs["_aws"]["CloudWatchMetrics"]
    assert abs(ours["_aws"]["Timestamp"] - theirs["_aws"]["Timestamp"]) < 60_000
    for name in theirs.keys() - {"_aws"}:
        # They keep a list of each metric's values, and one value may be bare.
        assert ours[name] == (theirs[name][0] if isinstance(theirs[name], list) else theirs[name])


def test_a_record_is_one_line_of_json_with_all_that_other_records_have(log_lines: io.StringIO) -> None:
    metrics.emit({"OrdersStored": 1})
    [line] = log_lines.getvalue().splitlines()
    assert json.loads(line).items() >= {"level": "INFO", "logger": "cafe.metrics", "message": "metrics"}.items()


def test_what_did_not_happen_is_not_sent(log_lines: io.StringIO) -> None:
    metrics.emit({"OrdersStored": 0, "OrdersDoubled": 0})
    assert log_lines.getvalue() == ""


def test_a_metric_that_nobody_has_named_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        metrics.emit({"Coffee": 1})


# --- Orders -----------------------------------------------------------------------------------------------------------

ORDER = {"orderID": "o-1", "customerID": "c-1", "item": "Lima"}


def test_accepted_orders_are_counted_and_those_that_are_there_already_as_doubled(
    api: Api, aws: Aws, figures: Figures
) -> None:
    api.post("/orders", [ORDER, ORDER, {**ORDER, "orderID": "o-2"}])
    assert figures() == {"OrdersAccepted": 3, "OrdersDoubled": 1}
    store(aws, messages(order("o-3")))
    api.post("/orders", {"orderID": "o-3", "customerID": "c-1", "item": "Lima", "quantity": 1})
    assert figures() == {"OrdersAccepted": 4, "OrdersDoubled": 2, "OrdersStored": 1}


@pytest.mark.parametrize(
    ("body", "rejected"),
    [
        ({**ORDER, "quantity": 0}, 1),
        ([ORDER, {**ORDER, "quantity": 0}], 2),
        ([ORDER, {**ORDER, "item": "Tea"}], 2),
        ([ORDER] * 101, 101),
        (7, 1),
        ([], 0),
    ],
    ids=["one", "a list with a bad one", "a list with a conflict", "too many", "no order", "none"],
)
def test_orders_that_are_refused_are_counted_as_a_whole_list(
    api: Api, aws: Aws, figures: Figures, body: Any, rejected: int
) -> None:
    assert api.post("/orders", body).status_code in (400, 409)
    assert figures() == ({"OrdersRejected": rejected} if rejected else {})


def test_an_order_under_a_stored_id_is_rejected(api: Api, aws: Aws, figures: Figures) -> None:
    store(aws, messages(order("o-1")))
    assert api.post("/orders", {**ORDER, "item": "Tea"}).status_code == 409
    assert figures() == {"OrdersStored": 1, "OrdersRejected": 1}


def test_of_a_list_that_the_queue_takes_in_part_only_that_part_is_accepted(
    api: Api, aws: Aws, figures: Figures
) -> None:
    failed = [{"Id": "1", "SenderFault": False, "Code": "InternalError"}]
    with Stubber(aws.sqs) as sqs:
        sqs.add_response("send_message_batch", {"Successful": [], "Failed": failed})
        assert api.post("/orders", [{**ORDER, "orderID": f"o-{number}"} for number in range(3)]).status_code == 503
    assert figures() == {"OrdersAccepted": 2}


def test_a_message_that_comes_again_is_doubled_and_not_stored(aws: Aws, figures: Figures) -> None:
    for _ in range(3):
        store(aws, messages(order("o-1"), order("o-2")))
    assert figures() == {"OrdersStored": 2, "OrdersDoubled": 4}


def test_the_same_order_twice_in_a_batch_is_doubled_once(aws: Aws, figures: Figures) -> None:
    store(aws, messages(order("o-1"), order("o-1"), order("o-2")))
    assert figures() == {"OrdersStored": 2, "OrdersDoubled": 1}


def test_what_the_table_refuses_is_counted_when_it_comes_again(aws: Aws, figures: Figures) -> None:
    answers = [{}, {"Error": {"Code": "ThrottlingError", "Message": "slow down"}}]
    with Stubber(aws.dynamodb) as dynamodb:
        dynamodb.add_response("batch_execute_statement", {"Responses": answers})
        assert store(aws, messages(order("o-1"), order("o-2"))) == ["m-2"]
    assert figures() == {"OrdersStored": 1}


def test_a_conflict_is_rejected_once_it_was_told(aws: Aws, figures: Figures) -> None:
    store(aws, messages(order("o-1")))
    other = messages(order("o-1", quantity=2), order("o-1"))

    def away(_: Notification) -> None:
        raise Unavailable("SNS")

    store(aws, other, away)
    assert figures() == {"OrdersStored": 1, "OrdersDoubled": 1}
    store(aws, messages(order("o-1", quantity=2)), lambda _: None)
    assert figures() == {"OrdersStored": 1, "OrdersDoubled": 1, "OrdersRejected": 1}


def test_a_message_that_is_no_order_is_not_counted_for_it_waits_as_a_dead_letter(aws: Aws, figures: Figures) -> None:
    store(aws, messages("{poison"))
    assert figures() == {}


# --- Reports ----------------------------------------------------------------------------------------------------------


def told(facts: dict[str, Any], **attributes: str) -> dict[str, Any]:
    """A report's notification, sent ten seconds after its start."""
    started = timestamp(NOW - timedelta(seconds=10))
    given = {"key": "report/1", "facts": json.dumps(facts), "startedAt": started, **attributes}
    return sent(MessageAttributes={name: {"Type": "String", "Value": value} for name, value in given.items()})


@pytest.mark.parametrize("kind", ["inventory", "storage"])
@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_a_report_is_counted_once_by_kind_and_outcome_with_its_duration(
    aws: Aws, figures: Figures, kind: str, outcome: str
) -> None:
    for _ in range(2):
        record(aws, told({"id": "report-1", "kind": kind, "outcome": outcome}))
    of = f"{kind} {outcome}"
    assert figures() == {f"Reports {of}": 1, f"ReportDuration {of}": pytest.approx(10, abs=0.001)}


@pytest.mark.parametrize("started", ["", "soon", "2026-11-21", "2026-11-21T03:14:15"])
def test_a_report_whose_start_is_not_known_is_counted_without_a_duration(
    aws: Aws, figures: Figures, started: str
) -> None:
    record(aws, told({"kind": "inventory", "outcome": "succeeded"}, startedAt=started))
    assert figures() == {"Reports inventory succeeded": 1}


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"orderIDs": ["o-1"]},
        {"outcome": "failed", "new": 1},
        {"kind": "inventory", "outcome": "beans"},
        {"kind": ["inventory"], "outcome": "failed"},
    ],
)
def test_no_other_notification_counts_as_a_report(aws: Aws, figures: Figures, facts: dict[str, Any]) -> None:
    record(aws, told(facts), sent(2, MessageAttributes=None))
    assert figures() == {}


# --- Storage ----------------------------------------------------------------------------------------------------------


def test_bytes_are_counted_where_a_report_ends_and_not_at_each_round(
    account: Account,  # noqa: F811 - the fixture
    figures: Figures,
) -> None:
    account.bucket("reports")
    account.bucket("one", 700, 300)
    assert account.report({"reportId": "r", "aloneSeconds": 0}, {"round": 0})["spread"]["shares"]
    assert figures() == {}
    total = account.report({"reportId": "r"}, {"round": 0})["summary"]["totalBytes"]
    assert figures() == {"BytesMeasured": total}
    assert total >= 1000
