"""Generates a client from `/openapi.json` with openapi-python-client, as other projects do, and uses the client."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.deploying.graders import run
from tests.system.system import System, new_id, stored

pytestmark = pytest.mark.long

# This program sends an order, a list of orders and requests for reports, and prints the ids from the responses.
PROGRAM = """
import json, sys
from cafe import AuthenticatedClient
from cafe.api.orders import place_orders
from cafe.api.reports import create_report, get_report, list_reports
from cafe.models import InventoryReport, OneItem, OrderItem, QueuedOrder, QueuedOrders, ReportPage, SeveralItems
from cafe.models import StartedReport, StorageReport

url, token, customer, order_id = sys.argv[1:]
with AuthenticatedClient(url, token, raise_on_unexpected_status=True) as client:
    one = place_orders.sync(client=client, body=OneItem(customer, "Flat white", order_id, note=None))
    assert isinstance(one, QueuedOrder), one
    items = [OrderItem("Espresso"), OrderItem("Croissant", quantity=3)]
    several = place_orders.sync(client=client, body=[OneItem(customer, "Tea"), SeveralItems(customer, items)])
    assert isinstance(several, QueuedOrders), several
    started = [create_report.sync(client=client, body=body) for body in (InventoryReport(), StorageReport("storage"))]
    assert all(isinstance(each, StartedReport) for each in started), started
    reports = [get_report.sync(each.report_id, client=client) for each in started]
    page = list_reports.sync(client=client)
    assert isinstance(page, ReportPage), page
    assert {each.report_id for each in reports} <= {each.report_id for each in page.reports}
print(json.dumps([[each.order_id for each in (one, *several.orders)], [each.report_id for each in reports]]))
"""

# This program corrects the order, changes its status, and prints its number of changes.
CHANGE = """
import sys
from cafe import AuthenticatedClient
from cafe.api.orders import change_order
from cafe.models import Correction, OrderConflict, OrderItem, StatusOfAPlacedOrder, StatusOfAPlacedOrderStatus

url, token, _, order_id = sys.argv[1:]
with AuthenticatedClient(url, token, raise_on_unexpected_status=True) as client:
    change_order.sync(order_id, client=client, body=Correction([OrderItem("Tea")], version=0))
    ready = StatusOfAPlacedOrder("PLACED", StatusOfAPlacedOrderStatus.READY)
    order = change_order.sync(order_id, client=client, body=ready)
    refused = change_order.sync(order_id, client=client, body=ready)
    assert isinstance(refused, OrderConflict) and refused.order == order, refused
print(order.version, order.status)
"""


def test_every_operation_is_generated_and_the_client_places_orders_and_requests_reports(
    system: System, tmp_path: Path
) -> None:
    description = tmp_path / "openapi.json"
    description.write_text(system.request("GET", "/openapi.json").text)
    options = ["--path", description, "--output-path", tmp_path / "cafe", "--meta", "none", "--fail-on-warning"]
    run("openapi-python-client", "generate", *options, folder=tmp_path)
    operations = [
        each["operationId"]
        for methods in json.loads(description.read_text())["paths"].values()
        for each in methods.values()
    ]
    generated = [each.stem for each in (tmp_path / "cafe" / "api").glob("*/*.py") if each.stem != "__init__"]
    assert sorted(generated) == sorted(operations)

    (tmp_path / "program.py").write_text(PROGRAM)
    customer, order_id = new_id("customer"), new_id()
    given = [system.env["CAFE_API_URL"], system.stack.users.token("manager"), customer, order_id]
    order_ids, report_ids = json.loads(run("python", "program.py", *given, folder=tmp_path))
    assert order_ids[0] == order_id
    orders = [stored(system, each) for each in order_ids]
    (tmp_path / "change.py").write_text(CHANGE)
    assert run("python", "change.py", *given, folder=tmp_path) == "2 READY\n"
    assert [each["customerID"] for each in orders] == [customer] * 3
    assert orders[2]["items"] == [{"item": "Espresso", "quantity": 1}, {"item": "Croissant", "quantity": 3}]
    assert [system.ended(each)["status"] for each in report_ids] == ["SUCCEEDED"] * 2
