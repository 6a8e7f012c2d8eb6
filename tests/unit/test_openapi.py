"""Tests that the OpenAPI description is valid, matches its examples, and has the same limits as the code."""

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from openapi_spec_validator import validate

from chalicelib import idempotency, notifications, queues, reports, rest, timeline
from chalicelib.dead_letters import descriptions, handled, letters, redrive
from chalicelib.errors import InvalidRequest
from chalicelib.orders import changes, export, order, placing
from chalicelib.reports import history
from chalicelib.settings import VERSION
from chalicelib.sign_in import OPEN, ROUTES
from chalicelib.storage import page
from chalicelib.storage.growth import growth_since
from chalicelib.storage.measurement import Bucket, Failure, Measurement, Part
from chalicelib.uploads import actions, comparing, links, records, rows, undoing

API: dict[str, Any] = json.loads((Path(__file__).parents[2] / "chalicelib" / "openapi.json").read_text())
SCHEMAS = API["components"]["schemas"]
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def is_valid(value: Any, schema: dict[str, Any]) -> bool:
    whole = {**schema, "components": API["components"]}
    return bool(OAS31Validator(whole, format_checker=oas31_format_checker).is_valid(value))


def examples(node: Any, path: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yields each example in the document, with its path and schema."""
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


def schema_of(path: str, method: str = "post") -> dict[str, Any]:
    schema: dict[str, Any] = API["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    return schema


def test_the_description_is_valid_openapi_and_has_the_version_of_the_code() -> None:
    validate(API)
    assert API["info"]["version"] == VERSION


@pytest.mark.parametrize(("example", "schema"), [pytest.param(*rest, id=path) for path, *rest in examples(API)])
def test_every_example_matches_its_schema(example: Any, schema: dict[str, Any]) -> None:
    assert is_valid(example, schema)


def test_every_response_that_is_not_an_error_or_a_document_has_an_example() -> None:
    documented = {path for path, _, _ in examples(API)}
    for path, methods in API["paths"].items():
        for method, operation in methods.items():
            if operation["operationId"] in ("openapi", "check_health", "show_console", "get_console_file"):
                continue
            [success] = [status for status in operation["responses"] if status < "300"]
            place = f"/paths/{path}/{method}/responses/{success}/content/"
            assert any(each.startswith(place) for each in documented), place


def test_every_route_that_is_not_open_needs_a_token_and_may_refuse_it() -> None:
    assert API["security"] == [{"idToken": []}]
    for path, methods in API["paths"].items():
        for method, operation in methods.items():
            is_open = ROUTES[method.upper(), path] == OPEN
            assert operation.get("security") == ([] if is_open else None), path
            assert ({"401", "403"} <= operation["responses"].keys()) is not is_open, path


def test_the_limits_are_those_of_the_code() -> None:
    [_, several] = schema_of("/orders")["anyOf"]
    limit = API["components"]["parameters"]["limit"]["schema"]
    assert several["maxItems"] == placing.ORDERS_IN_LIST
    assert SCHEMAS["Order"]["properties"]["requestedBy"]["maxLength"] == order.USER_NAME
    assert SCHEMAS["OrderRequest"]["anyOf"][1]["properties"]["items"]["maxItems"] == order.ITEMS_IN_ORDER
    assert SCHEMAS["Quantity"]["maximum"] == order.QUANTITY
    assert all(order.BLANK.pattern[1:-2] in SCHEMAS[name]["pattern"] for name in ("CustomerID", "ItemName"))
    assert SCHEMAS["OrderID"]["pattern"] == f"^{order.ORDER_ID.pattern}$"
    assert SCHEMAS["ReportID"]["pattern"] == f"^{reports.REPORT_ID.pattern}$"
    assert SCHEMAS["OrderStatus"]["enum"] == [*order.STATUSES]
    assert SCHEMAS["OrderVersion"]["maximum"] == changes.VERSIONS
    assert f"at most {changes.CORRECTIONS} times" in SCHEMAS["OrderCorrection"]["description"]
    assert f"up to {export.ROWS:,} orders" in API["paths"]["/orders.csv"]["get"]["description"]
    assert f"after {timeline.EXAMINED:,} other orders" in API["paths"]["/orders"]["get"]["description"]
    assert SCHEMAS["IdempotencyKey"]["pattern"] == f"^{idempotency.KEY.pattern}$"
    assert tuple(SCHEMAS["ReportKind"]["enum"]) == reports.KINDS
    assert tuple(SCHEMAS["StorageMode"]["enum"]) == reports.MODES
    assert tuple(SCHEMAS["NotificationKind"]["enum"]) == notifications.SHOWN_KINDS
    for name in ("reports", "orders", "uploads", "notifications"):
        assert SCHEMAS[f"Next{name.title()}"]["pattern"] == f"^{name}-{timeline.TOKEN.pattern}$"
    assert tuple(SCHEMAS["DeadLetterKind"]["enum"]) == letters.KINDS
    assert SCHEMAS["DeadLetterID"]["pattern"] == f"^{queues.MESSAGE_ID.pattern}$"
    assert SCHEMAS["RedriveRequest"]["properties"]["ids"]["maxItems"] == redrive.IDS
    assert SCHEMAS["Redriven"]["properties"]["kept"]["maxItems"] == redrive.KEPT_SHOWN
    assert SCHEMAS["DeadLetter"]["properties"]["what"]["maxLength"] == descriptions.TEXT_CHARACTERS
    assert SCHEMAS["DeadLetter"]["properties"]["content"]["maxLength"] == handled.CONTENT_CHARACTERS
    assert SCHEMAS["HandledLetter"]["properties"]["state"]["enum"] == [*handled.STATES]
    assert SCHEMAS["DeadLetterList"]["properties"]["handled"]["maxItems"] == handled.SHOWN
    assert SCHEMAS["Moment"]["pattern"] == f"^{rest.MOMENT.pattern}$"
    assert SCHEMAS["UploadRequest"]["properties"]["size"]["maximum"] == links.FILE_BYTES
    assert SCHEMAS["UploadRequest"]["properties"]["filename"]["maxLength"] == links.FILENAME_CHARACTERS
    upload = SCHEMAS["Upload"]["properties"]
    assert SCHEMAS["UploadID"]["pattern"] == f"^{records.UPLOAD_ID.pattern}$"
    assert tuple(SCHEMAS["UploadStatus"]["enum"]) == tuple(records.Status)
    assert tuple(SCHEMAS["ChangeKind"]["enum"]) == comparing.KINDS
    assert SCHEMAS["PreviewRequest"]["properties"]["encoding"]["enum"] == [*actions.ENCODINGS, None]
    assert upload["samples"]["maxItems"] == rows.CELLS_SHOWN
    assert upload["differences"]["maxItems"] == comparing.DIFFERENCES_NAMED
    assert SCHEMAS["UploadUndo"]["properties"]["keptBeans"]["maxItems"] == undoing.KEPT_NAMED
    assert f"{undoing.UNDOABLE_CHANGES:,} changes" in upload["undoable"]["description"]
    assert SCHEMAS["ReportState"]["properties"]["error"]["maxLength"] == history.ERROR_CHARACTERS
    assert (limit["maximum"], limit["default"]) == (rest.PAGE_LIMIT, rest.DEFAULT_LIMIT)


def test_an_orders_item_is_a_component_so_that_generated_clients_have_one_class_for_it() -> None:
    for schema, item in ((SCHEMAS["OrderRequest"]["anyOf"][1], "OrderItem"), (SCHEMAS["Order"], "StoredItem")):
        assert schema["properties"]["items"]["items"] == {"$ref": f"#/components/schemas/{item}"}


def items(items: Any, **fields: Any) -> dict[str, Any]:
    return {"customerID": "ada", "items": items, **fields}


ORDER = {"customerID": "ada", "item": "flat white"}
ESPRESSO = {"item": "espresso"}
RIGHT_ORDERS = [
    *(ORDER, [ORDER], [ORDER] * 100, items([ESPRESSO] * 100), items([ESPRESSO | {"quantity": 1}], customerID=" a ")),
    ORDER | {"orderID": "Order_1-a" + "x" * 55, "quantity": 10_000, "note": ""},
    *(ORDER | {"note": "two\nlines\tand a tab"}, ORDER | {"note": None}, items([ESPRESSO], note=None)),
    ORDER | {"customerID": "é" * 64, "item": "☕" * 200, "note": "x" * 500},
]
WRONG_ORDERS = [
    *(None, "order", [], [ORDER] * 101, [ORDER, None], {}, {"customerID": "ada"}, {"item": "flat white"}),
    *(ORDER | {"size": "large"}, ORDER | {"items": [ESPRESSO]}, items([ESPRESSO], quantity=1), items([])),
    *map(items, ([ESPRESSO] * 101, [ESPRESSO | {"size": 1}], ESPRESSO, ["espresso"])),
    *(ORDER | {"customerID": each} for each in ("", "x" * 65, "\u2003 ", "a\nb", "a\x7fb", "a\uffff", 7)),
    *(ORDER | {"item": each} for each in ("x" * 201, None, "\u200b\u2060", "\u3164 \u00ad")),
    *(ORDER | {"quantity": each} for each in (0, 10_001, True, 1.5, "1", None)),
    *(ORDER | {"orderID": each} for each in ("", "a/b", "x" * 65, None)),
    *(ORDER | {"note": each} for each in ("x" * 501, "a\x00", "a\r\n", 7)),
]
PLACED, READY, LINES = {"from": "PLACED"}, {"from": "READY"}, {"items": [ESPRESSO]}
RIGHT_CHANGES = [
    *(PLACED | {"status": status} for status in ("READY", "CANCELLED")),
    *(READY | {"status": status, "version": 7.0} for status in ("SERVED", "CANCELLED")),
    *(LINES, PLACED | LINES, {"note": None}, LINES | {"note": "", "version": 0}, {"items": [ESPRESSO] * 100}),
]
WRONG_CHANGES = [
    *(None, [], "READY", {}, PLACED, {"status": "READY"}, {"version": 1}, PLACED | {"version": 1}, READY | LINES),
    *(PLACED | {"status": status} for status in ("PLACED", "SERVED", "ready", "", None, 7, ["READY"])),
    *({"from": status, "status": "CANCELLED"} for status in ("SERVED", "CANCELLED", "", None, ["PLACED"])),
    *(LINES | {"from": status} for status in ("SERVED", None, 7)),
    *(READY | {"status": "READY"}, READY | {"status": "PLACED"}, PLACED | LINES | {"status": "READY"}),
    *(LINES | {"version": version} for version in (-1, 1_000_001, True, None, "1", 1.5)),
    *(LINES | {"customerID": "ada"}, {"items": []}, {"items": None}, {"items": ["tea"]}, {"note": "x" * 501}),
    *({"items": [ESPRESSO] * 101}, {"note": "a\x00"}, {"note": 7}, {"item": "espresso"}),
]
STORAGE, INVENTORY = {"kind": "storage"}, {"kind": "inventory"}
RIGHT_REPORTS = [{}, INVENTORY, STORAGE, STORAGE | {"mode": "metrics"}, STORAGE | {"mode": "listing"}]
RIGHT_REPORTS += [STORAGE | {"versions": True}, STORAGE | {"mode": "metrics", "versions": False}]
WRONG_REPORTS = [
    *(INVENTORY | {"mode": "listing"}, {"mode": "metrics"}, {"kind": "beans"}, {"kind": None}, INVENTORY | {"size": 1}),
    *(STORAGE | {"mode": "guess"}, STORAGE | {"mode": None}, [], "inventory", 7),
    *(STORAGE | {"versions": each} for each in (None, 1, "true")),
    *(INVENTORY | {"versions": False}, STORAGE | {"mode": "metrics", "versions": True}),
]
LETTER = {"ids": ["5b0a1f0e-6a4e-4c35-8a52-2f1c9d1d7c55"]}
RIGHT_REDRIVES = [
    {},
    LETTER,
    {"ids": ["a"] * 100},
    *({"kind": each} for each in letters.KINDS),
    LETTER | {"kind": "order"},
]
WRONG_REDRIVES = [
    *({"ids": ids} for ids in (["a"] * 101, [], ["a b"], [""], ["x" * 101], [1], [None], [[]], "a", {"a": 1}, None)),
    *({"all": True}, [], "ids", 7, *({"kind": kind} for kind in ("orders", "", None, ["order"]))),
]
WRONG_DISCARDS = [*WRONG_REDRIVES, {}]
UPLOAD = {"filename": "beans.csv"}
RIGHT_UPLOADS = [
    *(UPLOAD, {"filename": "beans.CsV", "size": 50_000_000}, {"filename": ".csv", "size": 1}),
    *({"filename": "é" * 251 + ".csv"}, UPLOAD | {"preview": True}, UPLOAD | {"preview": False}),
]
WRONG_UPLOADS = [
    *({"filename": each} for each in ("x" * 252 + ".csv", "beans", "csv", None)),
    *(UPLOAD | {"size": each} for each in (50_000_001, 0, "1", 1.5, True, None)),
    *(UPLOAD | {"preview": each} for each in (None, "true", 1)),
    *(UPLOAD | {"name": "x"}, {"size": 1}, {}, [], "beans.csv", 7),
]
RIGHT_PREVIEWS = [{}, {"encoding": None}, {"encoding": "windows-1252"}]
WRONG_PREVIEWS = [*({"encoding": each} for each in ("utf-8", "cp1252", 7, [])), {"size": 1}, [], "windows-1252", 7]


@pytest.mark.parametrize(
    ("path", "parse", "right", "wrong"),
    [
        ("/orders", lambda body: placing.parse(body, NOW), RIGHT_ORDERS, WRONG_ORDERS),
        ("/orders/{order_id}", changes.parse, RIGHT_CHANGES, WRONG_CHANGES),
        ("/create_report", reports.parse, RIGHT_REPORTS, WRONG_REPORTS),
        ("/dead-letters/redrive", lambda body: redrive.parse(body, "redriven"), RIGHT_REDRIVES, WRONG_REDRIVES),
        ("/dead-letters/discard", lambda body: redrive.parse(body, "discarded"), RIGHT_REDRIVES[1:], WRONG_DISCARDS),
        ("/uploads", links.parse, RIGHT_UPLOADS, WRONG_UPLOADS),
        ("/uploads/{upload_id}/preview", lambda body: actions.parse(body, "encoding"), RIGHT_PREVIEWS, WRONG_PREVIEWS),
        ("/uploads/{upload_id}/apply", actions.parse, [{}], [*WRONG_PREVIEWS, {"encoding": None}]),
        ("/uploads/{upload_id}/undo", actions.parse, [{}], [*WRONG_PREVIEWS, {"encoding": None}]),
    ],
)
def test_the_code_accepts_exactly_the_bodies_that_the_description_allows(
    path: str, parse: Callable[[Any], Any], right: list[Any], wrong: list[Any]
) -> None:
    schema = schema_of(path, "patch" if parse is changes.parse else "post")
    for body in right:
        parse(body)
        assert is_valid(body, schema), body
    for body in wrong:
        with pytest.raises(InvalidRequest):
            parse(body)
        assert not is_valid(body, schema), body


def test_the_summary_of_a_storage_report_matches_its_schema() -> None:
    parts = (Part("unfinishedUploads", "STANDARD", 7, 1, NOW), Part("deleteMarkers", None, 0, 3))
    for mode, objects, moment, kept in (("listing", 3, NOW, parts), ("metrics", None, None, None)):
        buckets = [Bucket("beans", 7, objects, moment, kept)]
        measurement = Measurement(mode, buckets, [Failure("secret", "AccessDenied: no")], False, kept is not None)
        assert is_valid(page.summary(measurement), SCHEMAS["StorageSummary"])
        sizes = gzip.compress(b'{"buckets": {"beans": 5, "secret": null}}')
        growth = growth_since({"2026-10-20T00:00:00.000000Z~x": sizes}, {"beans": 7, "gone": None}, NOW)
        assert is_valid(page.summary(measurement, growth), SCHEMAS["StorageSummary"])
