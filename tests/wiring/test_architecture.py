"""docs/architecture.md: what it draws and counts is what there is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from benchmarks import load, money
from chalicelib import reports, storage, upload_links
from chalicelib.orders import store
from tests.wiring.template import Template


@pytest.fixture(scope="module")
def text() -> str:
    return load.PAGE.read_text()


def test_the_loads_are_of_the_batches_and_the_concurrency_of_app_py(app: Any) -> None:
    sources: dict[str, Any] = {each.name: each for each in app.event_sources}
    assert sources["store_orders"].batch_size == sources["announce_orders"].batch_size == money.BATCH
    assert sources["store_orders"].maximum_concurrency == load.STORING_AT_ONCE


def test_the_loads_are_of_the_limit_that_the_api_has(template: Template) -> None:
    assert template.outputs["ApiRateLimit"] == str(load.ANSWERED_REQUESTS)


def test_the_loads_are_of_the_tables_with_their_indexes(template: Template) -> None:
    tables = template.of_type("AWS::DynamoDB::Table")
    indexes = {
        name: [each["IndexName"] for each in table.get("GlobalSecondaryIndexes", [])] for name, table in tables.items()
    }
    assert indexes == {
        "OrdersTable": ["byPeriod", "byCustomer"],
        "NotificationsTable": ["byPeriod"],
        "RequestsTable": [],
    }
    assert all("WarmThroughput" not in table for table in tables.values())


def test_every_function_that_serves_the_flows_is_drawn(functions: set[str], text: str) -> None:
    drawn = text.split("```mermaid")[1].split("```")[0]
    found = set(re.findall(r"\b[a-z]+_[a-z]+\b|\bauthorize\b", drawn))
    assert found == {"api_handler", *functions} - {"migrate", "rotate_password"}


def test_the_flows_are_drawn_with_the_numbers_of_the_code(text: str) -> None:
    told = {
        "INSERT of 25 in a call": store.STATEMENTS == 25,
        "after the fifth try": store.TRIES == 5,
        "a link for an hour": reports.LINK_SECONDS == 3_600,
        "for one file and ten minutes": upload_links.LINK_SECONDS == 600,
        "done within two minutes": storage.TURN_SECONDS == 120,
        "at most six times": storage.ROUNDS == 6,
        "up to 40 at once": storage.SHARES == 40,
    }
    assert [words for words, holds in told.items() if not (holds and words in text)] == []
