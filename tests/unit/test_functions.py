"""Tests the functions for reports, uploads and storage with AWS events, through Chalice's test client.

The tests of the other functions are in test_store, test_announce and test_notifications.
"""

import io
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import MagicMock

import pymysql
import pytest
from chalice.local import LambdaContext

from chalicelib import clients
from chalicelib.errors import DatabaseUnavailable
from chalicelib.settings import Database
from tests.unit.answering import Connection, Row, selected
from tests.unit.api import Api
from tests.unit.cloud import ENVIRONMENT, Aws

BUCKET = ENVIRONMENT["REPORTS_BUCKET"]
BEANS: list[Row] = [
    (1, "Altura", "Lima", "PE", "a@example.org", "+51 1", 7, "arabica", "Lima", "12.50", 3, "nutty"),
    (None, None, None, None, None, None, 8, "robusta", "=1+1", None, None, ""),
]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the functions' MySQL database with a fake that contains the rows in ``BEANS``."""
    monkeypatch.setenv("DB_SECRET_ARN", "arn:secret")

    @contextmanager
    def mysql(arn: str) -> Iterator[Connection]:
        assert arn == "arn:secret"
        yield Connection(selected(BEANS))

    monkeypatch.setattr(clients, "mysql_of_secret", mysql)


def test_the_inventory_goes_from_function_to_function_by_its_key(api: Api, aws: Aws, database: None) -> None:
    read = api.invoke("read_inventory", {"reportId": "inventory-1"})
    assert (read["csvKey"], read["rows"]) == ("inventory/inventory-1/inventory.csv", 2)
    rendered = api.invoke("render_report", read)
    totals = {"rows": 2, "suppliers": 1, "quantity": 3, "generatedAt": read["generatedAt"]}
    low = {"count": 1, "limit": 20, "beans": [{"name": "Lima", "supplier": "Altura", "quantity": 3}]}
    changes = {"since": None, "text": "No previous report to compare with yet."}
    assert rendered == {"reportKey": "inventory/inventory-1/report.html", **totals, "low": low, "changes": changes}
    page = aws.s3.get_object(Bucket=BUCKET, Key=rendered["reportKey"])["Body"].read().decode()
    assert "Altura" in page
    link = api.invoke("presign_report", {"reportId": "inventory-1"})
    assert f"/{rendered['reportKey']}?" in link["url"]
    # The command `chalice invoke -n read_inventory` sends an empty event.
    first, second = (api.invoke("read_inventory", {}) for _ in range(2))
    assert first["reportId"].startswith("by-hand-")
    assert first["csvKey"] == f"inventory/{first['reportId']}/inventory.csv"
    assert first["reportId"] != second["reportId"]


@pytest.mark.parametrize("event", [{"mode": "metrics"}, {"reportId": "storage-1", "request": {"mode": "metrics"}}])
def test_the_buckets_are_measured_by_hand_and_by_the_state_machine(
    api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch, event: dict[str, Any]
) -> None:
    # Chalice's test client allows the function 3 seconds, and Lambda allows it 900 seconds.
    aws.s3.put_object(Bucket=BUCKET, Key="a", Body=b"x" * 1500)
    summary = api.invoke("measure_buckets", {})["summary"]
    assert (summary["mode"], summary["partial"]) == ("listing", True)
    monkeypatch.setattr(LambdaContext, "get_remaining_time_in_millis", lambda _: 900_000)
    report = api.invoke("measure_buckets", event)
    assert (report["summary"]["mode"], report["summary"]["partial"]) == ("metrics", False)
    assert aws.s3.head_object(Bucket=BUCKET, Key=report["reportKey"])["ContentType"].startswith("text/html")


@pytest.mark.parametrize("code", [1205, 1213], ids=["lock wait time-out", "deadlock"])
@pytest.mark.parametrize("function", ["read_inventory", "receive_upload"])
def test_a_mysql_lock_fails_a_function_with_an_error_that_is_retried(
    api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    connection = MagicMock()
    cursor = connection.cursor.return_value
    cursor.__enter__.return_value = cursor
    cursor.execute.side_effect = pymysql.err.OperationalError(code, "try restarting transaction")
    monkeypatch.setenv("DB_SECRET_ARN", "arn:secret")
    monkeypatch.setattr(clients, "database", lambda arn: Database("db", 3306, "cafe", "u", "p"))
    monkeypatch.setattr(pymysql, "connect", lambda **_: connection)
    event = {"receive_upload": api.client.events.generate_s3_event("any", "inventory/a.csv"), "read_inventory": {}}
    with pytest.raises(DatabaseUnavailable, match="try restarting transaction"):
        api.invoke(function, event[function])
    assert aws.published() == []
    connection.commit.assert_not_called()


def test_s3s_test_event_changes_nothing(api: Api, aws: Aws, log_lines: io.StringIO) -> None:
    """S3 sends a test event without records when a bucket's notifications are configured."""
    api.invoke("receive_upload", {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"})
    assert aws.published() == []
    assert json.loads(log_lines.getvalue())["event"] == "s3:TestEvent"


def test_every_request_and_function_has_a_time_limit(api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    time_limit = clients.time_limit

    def noted(seconds: float) -> AbstractContextManager[None]:
        limits.append(round(seconds))
        return time_limit(seconds)

    monkeypatch.setattr(clients, "time_limit", noted)
    assert api.get("/health").status_code == 200
    api.invoke("presign_report", {"reportId": "r-1"})
    api.invoke("store_orders", {"Records": []})
    api.invoke("receive_upload", {"Event": "s3:TestEvent"})
    # Chalice's test client allows every function three seconds, and allows the API its configured timeout.
    assert limits == [29, 3, 3, 3]
