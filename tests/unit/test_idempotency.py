"""Tests that an idempotency key identifies one request for 90 days."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalicelib import idempotency
from chalicelib.errors import Conflict, InvalidRequest, Unavailable
from tests.unit.cloud import ENVIRONMENT, Aws, refusing

NOW = datetime(2026, 11, 21, 3, 14, 15, tzinfo=UTC)
REPORTS, ORDERS = "POST /create_report", "POST /orders"


def claim(aws: Aws, content: Any, key: str = "monday", route: str = REPORTS, now: datetime = NOW) -> None:
    idempotency.claim(route, key, content, dynamodb=aws.dynamodb, table=ENVIRONMENT["REQUESTS_TABLE"], now=now)


@pytest.mark.parametrize("other", [{"kind": "inventory"}, {"kind": "storage", "mode": "metrics"}, {}, [], None])
def test_a_key_belongs_to_one_request_of_a_route(aws: Aws, other: Any) -> None:
    first = {"kind": "storage", "mode": "listing"}
    claim(aws, first)
    with pytest.raises(Conflict, match=r"^Idempotency-Key: monday was used for another request; use a new key$"):
        claim(aws, other)
    claim(aws, {"mode": "listing", "kind": "storage"})
    claim(aws, other, route=ORDERS)


def test_after_90_days_a_key_is_new_even_if_dynamodb_has_not_removed_it(aws: Aws) -> None:
    claim(aws, 1)
    with pytest.raises(Conflict):
        claim(aws, 2, now=NOW + timedelta(days=90))
    claim(aws, 2, now=NOW + timedelta(days=90, seconds=1))


@pytest.mark.parametrize("key", ["", "a" * 65, "a b", "a/b", "ä", "a\n"])
def test_a_malformed_key_is_refused(aws: Aws, key: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^Idempotency-Key: must be 1 to 64 characters"):
        claim(aws, 1, key)


def test_a_busy_table_is_a_503_and_not_a_conflict(aws: Aws) -> None:
    with (
        refusing(aws.dynamodb, "put_item", "ThrottlingException"),
        pytest.raises(Unavailable, match=r"^PutItem is temporarily unavailable: try again in a moment$"),
    ):
        claim(aws, 1)
