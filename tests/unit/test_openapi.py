"""The OpenAPI description: valid, its examples true to it, and its limits those of the code."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from openapi_spec_validator import validate

from chalicelib import dead_letters, idempotency, notifications, orders, reports, rest, timeline, today, upload_links
from chalicelib.errors import InvalidRequest
from chalicelib.reports import history
from chalicelib.settings import VERSION
from chalicelib.sign_in import OPEN, ROUTES
from chalicelib.storage import measure, page

API: dict[str, Any] = json.loads((Path(__file__).parents[2] / "chalicelib" / "openapi.json").read_text())
SCHEMAS = API["components"]["schemas"]
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def is_valid(value: Any, schema: dict[str, Any]) -> bool:
    whole = {**schema, "components": API["components"]}
    return bool(OAS31Validator(whole, format_checker=oas31_format_checker).is_valid(value))


def examples(node: Any, path: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Each example of the document, with the schema that it is an example of."""
    if isinstance(node, list):
        for index, child in enumerate(node):
            yield from examples(child, f"{path}[{index}]")
    if isinstance(node, dict):
        if "schema" in node:
            if "example" in node:
                yield path, node["example"], node["schema"]
            for name, example in node.get("examples", {}).items():
                yield f"{path} {name}", example["value"], node["schema"]
        for name, child in node.items():
            yield from examples(child, f"{path}/{name}")


def schema_of(method: str, path: str) -> dict[str, Any]:
    schema: dict[str, Any] = API["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    return schema


def test_the_description_is_valid_openapi() -> None:
    validate(API)


def test_the_description_has_the_version_of_the_code() -> None:
    assert API["info"]["version"] == VERSION


@pytest.mark.parametrize(("example", "schema"), [pytest.param(*rest, id=path) for path, *rest in examples(API)])
def test_every_example_is_true_to_its_schema(example: Any, schema: dict[str, Any]) -> None:
    assert is_valid(example, schema)


def test_every_answer_that_is_not_an_error_or_a_document_has_an_example() -> None:
    documented = {path for path, _, _ in examples(API)}
    for path, methods in API["paths"].items():
        for method, operation in methods.items():
            if operation["operationId"] in ("openapi", "show_console", "get_console_file"):
                continue
            [success] = [status for status in operation["responses"] if status < "300"]
            place = f"/paths/{path}/{method}/responses/{success}/content/application/json"
            assert any(each.startswith(place) for each in documented), place


def test_every_route_that_is_not_open_takes_a_token_and_may_refuse_it() -> None:
    assert API["security"] == [{"idToken": []}]
    for path, methods in API["paths"].items():
        for method, operation in methods.items():
            is_open = ROUTES[method.upper(), path] == OPEN
            assert operation.get("security") == ([] if is_open else None), path
            assert ({"401", "403"} <= operation["responses"].keys()) is not is_open, path


def test_the_limits_are_those_of_the_code() -> None:
    [_, several] = schema_of("post", "/orders")["anyOf"]
    limit = API["components"]["parameters"]["limit"]["schema"]
    assert several["maxItems"] == orders.ORDERS_IN_LIST
    assert SCHEMAS["Order"]["properties"]["requestedBy"]["maxLength"] == orders.USER_NAME
    assert SCHEMAS["OrderRequest"]["anyOf"][1]["properties"]["items"]["maxItems"] == orders.ITEMS_IN_ORDER
    assert SCHEMAS["Quantity"]["maximum"] == orders.QUANTITY
    assert SCHEMAS["OrderID"]["pattern"] == f"^{orders.ORDER_ID.pattern}$"
    assert SCHEMAS["ReportID"]["pattern"] == f"^{reports.REPORT_ID.pattern}$"
    assert SCHEMAS["IdempotencyKey"]["pattern"] == f"^{idempotency.KEY.pattern}$"
    assert tuple(SCHEMAS["ReportKind"]["enum"]) == reports.KINDS
    assert tuple(SCHEMAS["StorageMode"]["enum"]) == reports.MODES
    assert tuple(SCHEMAS["NotificationKind"]["enum"]) == notifications.SHOWN_KINDS
    for name in ("reports", "orders", "notifications"):
        assert SCHEMAS[f"Next{name.title()}"]["pattern"] == f"^{name}-{timeline.TOKEN.pattern}$"
    assert tuple(SCHEMAS["DeadLetter"]["properties"]["kind"]["enum"]) == dead_letters.KINDS
    assert SCHEMAS["DeadLetterID"]["pattern"] == f"^{dead_letters.MESSAGE_ID.pattern}$"
    assert SCHEMAS["RedriveRequest"]["properties"]["ids"]["maxItems"] == dead_letters.IDS
    assert SCHEMAS["Redriven"]["properties"]["kept"]["maxItems"] == dead_letters.KEPT_SHOWN
    assert SCHEMAS["DeadLetter"]["properties"]["what"]["maxLength"] == dead_letters.TEXT_CHARACTERS
    assert SCHEMAS["Moment"]["pattern"] == f"^{today.MOMENT.pattern}$"
    assert SCHEMAS["UploadRequest"]["properties"]["size"]["maximum"] == upload_links.FILE_BYTES
    assert SCHEMAS["UploadRequest"]["properties"]["filename"]["maxLength"] == upload_links.FILENAME_CHARACTERS
    assert SCHEMAS["ReportState"]["properties"]["error"]["maxLength"] == history.ERROR_CHARACTERS
    assert (limit["maximum"], limit["default"]) == (rest.PAGE_LIMIT, rest.DEFAULT_LIMIT)


ORDER = {"customerID": "ada", "item": "flat white"}


@pytest.mark.parametrize(
    "body",
    [
        ORDER,
        [ORDER],
        [ORDER] * 100,
        ORDER | {"orderID": "Order_1-a", "quantity": 10_000, "note": ""},
        ORDER | {"note": "two\nlines\tand a tab"},
        ORDER | {"customerID": "é" * 64, "item": "☕" * 200, "note": "x" * 500},
        {"customerID": "ada", "items": [{"item": "espresso"}] * 100},
        {"customerID": " a ", "items": [{"item": "espresso", "quantity": 1}]},
        # and what is wrong
        None,
        "order",
        [],
        [ORDER] * 101,
        [ORDER, None],
        {},
        {"customerID": "ada"},
        {"item": "flat white"},
        ORDER | {"size": "large"},
        ORDER | {"items": [{"item": "espresso"}]},
        {"customerID": "ada", "items": [{"item": "espresso"}], "quantity": 1},
        {"customerID": "ada", "items": []},
        {"customerID": "ada", "items": [{"item": "espresso"}] * 101},
        {"customerID": "ada", "items": [{"item": "espresso", "size": 1}]},
        {"customerID": "ada", "items": {"item": "espresso"}},
        {"customerID": "ada", "items": ["espresso"]},
        ORDER | {"customerID": ""},
        ORDER | {"customerID": "x" * 65},
        ORDER | {"customerID": "\u2003 "},
        ORDER | {"customerID": "a\nb"},
        ORDER | {"customerID": "a\x7fb"},
        ORDER | {"customerID": "a\uffff"},
        ORDER | {"customerID": 7},
        ORDER | {"item": "x" * 201},
        ORDER | {"item": None},
        ORDER | {"quantity": 0},
        ORDER | {"quantity": 10_001},
        ORDER | {"quantity": True},
        ORDER | {"quantity": 1.5},
        ORDER | {"quantity": "1"},
        ORDER | {"quantity": None},
        ORDER | {"orderID": ""},
        ORDER | {"orderID": "a/b"},
        ORDER | {"orderID": "x" * 65},
        ORDER | {"orderID": None},
        ORDER | {"note": "x" * 501},
        ORDER | {"note": "a\x00"},
        ORDER | {"note": "a\r\n"},
        ORDER | {"note": None},
    ],
    ids=lambda body: json.dumps(body)[:60],
)
def test_the_code_takes_those_orders_that_the_description_allows(body: Any) -> None:
    try:
        orders.parse(body, NOW)
    except InvalidRequest:
        taken = False
    else:
        taken = True
    assert is_valid(body, schema_of("post", "/orders")) == taken


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "inventory"},
        {"kind": "storage"},
        {"kind": "storage", "mode": "metrics"},
        {"kind": "storage", "mode": "listing"},
        {"kind": "inventory", "mode": "listing"},
        {"mode": "metrics"},
        {"kind": "beans"},
        {"kind": None},
        {"kind": "storage", "mode": "guess"},
        {"kind": "storage", "mode": None},
        {"kind": "inventory", "size": 1},
        [],
        "inventory",
        7,
    ],
    ids=json.dumps,
)
def test_the_code_takes_those_report_requests_that_the_description_allows(body: Any) -> None:
    try:
        reports.parse(body)
    except InvalidRequest:
        taken = False
    else:
        taken = True
    assert is_valid(body, schema_of("post", "/create_report")) == taken


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": ["5b0a1f0e-6a4e-4c35-8a52-2f1c9d1d7c55"]},
        {"ids": ["a"] * 100},
        {"ids": ["a"] * 101},
        {"ids": []},
        {"ids": ["a b"]},
        {"ids": [""]},
        {"ids": ["x" * 101]},
        {"ids": [1]},
        {"ids": [None]},
        {"ids": [[]]},
        {"ids": "a"},
        {"ids": {"a": 1}},
        {"ids": None},
        {"all": True},
        [],
        "ids",
        7,
    ],
    ids=lambda body: json.dumps(body)[:60],
)
def test_the_code_takes_those_redrives_that_the_description_allows(body: Any) -> None:
    try:
        dead_letters.parse(body)
    except InvalidRequest:
        taken = False
    else:
        taken = True
    assert is_valid(body, schema_of("post", "/dead-letters/redrive")) == taken


@pytest.mark.parametrize(
    "body",
    [
        {"filename": "beans.csv"},
        {"filename": "beans.CsV", "size": 50_000_000},
        {"filename": ".csv", "size": 1},
        {"filename": "é" * 251 + ".csv"},
        {"filename": "x" * 252 + ".csv"},
        {"filename": "beans.csv", "size": 50_000_001},
        {"filename": "beans.csv", "size": 0},
        {"filename": "beans.csv", "size": "1"},
        {"filename": "beans.csv", "size": 1.5},
        {"filename": "beans.csv", "size": True},
        {"filename": "beans.csv", "size": None},
        {"filename": "beans.csv", "name": "x"},
        {"filename": "beans"},
        {"filename": "csv"},
        {"filename": None},
        {"size": 1},
        {},
        [],
        "beans.csv",
        7,
    ],
    ids=lambda body: json.dumps(body)[:60],
)
def test_the_code_takes_those_uploads_that_the_description_allows(body: Any) -> None:
    try:
        upload_links.parse(body)
    except InvalidRequest:
        taken = False
    else:
        taken = True
    assert is_valid(body, schema_of("post", "/uploads")) == taken


def test_a_summary_of_the_storage_report_is_as_described() -> None:
    for mode, objects, moment in (("listing", 3, NOW), ("metrics", None, None)):
        measurement = measure.Measurement(
            mode, [measure.Bucket("beans", 7, objects, moment)], [measure.Failure("secret", "AccessDenied: no")], False
        )
        assert is_valid(page.summary(measurement), SCHEMAS["StorageSummary"])
