"""Tests the uploads table, and how the API's routes show and change an upload."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalicelib import clients
from chalicelib.errors import Conflict, NotFound
from chalicelib.rest import Page
from chalicelib.uploads import comparing, records
from chalicelib.uploads.jobs import Jobs
from chalicelib.uploads.records import Records, Status
from chalicelib.uploads.upload import Upload
from tests.unit.api import Api, refused
from tests.unit.cloud import ENVIRONMENT, Aws
from tests.unit.test_openapi import SCHEMAS, is_valid

NOW = datetime.now(UTC)
LATER = NOW + timedelta(minutes=1)
TABLE, BUCKET = ENVIRONMENT["UPLOADS_TABLE"], ENVIRONMENT["REPORTS_BUCKET"]
ID, OTHER = "0123456789ab", "abcdef012345"
RESULT = {"folder": "uploads/1", "readAs": None, "pages": {}, "counts": None, "undoable": True}
UNTIL = {**RESULT, "undoableUntil": "2999-01-01T00:00:00.000000Z"}


def key(identifier: str = ID, folder: str = "previews") -> str:
    return f"{folder}/2026-11-21-{identifier}/b%C3%A9ans 1.csv"


def file(identifier: str = ID, folder: str = "previews") -> Upload:
    return Upload(key(identifier, folder), 390, "etag", "0A", "ObjectCreated:Post", "now", "request-1")


class Lambda:
    """Records the invocations of functions."""

    def __init__(self) -> None:
        self.invoked: list[dict[str, Any]] = []

    def invoke(self, **arguments: Any) -> None:
        self.invoked.append({**arguments, "Payload": json.loads(arguments["Payload"])})


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> Lambda:
    stub, real = Lambda(), clients.aws
    monkeypatch.setattr(clients, "aws", lambda name, *region: stub if name == "lambda" else real(name, *region))
    return stub


@pytest.fixture
def table(aws: Aws) -> Records:
    return Records(aws.dynamodb, TABLE)


def put(table: Records, status: Status = Status.PREVIEWED, folder: str = "previews", **values: Any) -> None:
    """Stores an upload by ana that has this status."""
    table.offer(ID, key(folder=folder), "béans 1.csv", "ana", NOW)
    if status != Status.WAITING:
        table.arrive(ID, file(folder=folder).to_record(), Status.PREVIEWING, NOW)
        table.change(ID, {Status.PREVIEWING}, status, NOW, **{"result": RESULT, **values})


def listed(table: Records, now: datetime = NOW) -> list[str]:
    page: dict[str, Any] = table.newest(Page(100, None, {}), now)
    return [upload["uploadId"] for upload in page["uploads"]]


# --- the table --------------------------------------------------------------------------------------------------------


def test_an_upload_is_listed_newest_first_once_its_file_has_arrived(table: Records) -> None:
    for identifier in (ID, OTHER):
        table.offer(identifier, key(identifier), "béans 1.csv", "ana", NOW)
    assert listed(table) == []
    assert table.get(ID)["status"] == Status.WAITING
    for identifier, moment in ((ID, NOW), (OTHER, LATER)):
        table.arrive(identifier, file(identifier).to_record(), Status.PREVIEWING, moment)
    assert listed(table, LATER) == [OTHER, ID]
    first = table.newest(Page(1, None, {}), LATER)
    second = table.newest(Page(1, first["next"], {}), LATER)
    assert ([upload["uploadId"] for upload in second["uploads"]], second["next"]) == ([ID], None)
    assert listed(table, NOW + records.KEPT + timedelta(days=2)) == []


@pytest.mark.parametrize("status", [each for each in Status if each != Status.WAITING])
def test_a_late_or_repeated_event_changes_nothing(table: Records, status: Status) -> None:
    put(table, status)
    before = table.get(ID)
    table.arrive(ID, {**file().to_record(), "eventName": "late"}, Status.IMPORTING, LATER)
    assert table.get(ID) == before


def test_a_file_that_was_put_straight_into_s3_has_an_id_of_its_own_and_no_uploader(table: Records) -> None:
    upload = Upload("inventory/may é.csv", 7, "etag", "0A", "ObjectCreated:Put", "now")
    assert len({upload.id, records.upload_id(upload.key, "0B"), records.upload_id("inventory/a.csv", "0A")}) == 3
    table.arrive(upload.id, upload.to_record(), Status.IMPORTING, NOW)
    shown = records.shown(table.get(upload.id))
    assert (shown["key"], shown["filename"], shown["bytes"]) == ("inventory/may é.csv", "may é.csv", 7)
    assert (shown["uploadedBy"], shown["status"]) == (None, "IMPORTING")
    assert is_valid(shown, SCHEMAS["Upload"])
    assert shown.keys() == SCHEMAS["Upload"]["properties"].keys()


def test_an_action_begins_only_in_an_allowed_status_and_may_be_repeated(table: Records) -> None:
    put(table, Status.PREVIEWED)
    for _ in range(2):
        table.begin(ID, (Status.PREVIEWED,), Status.IMPORTING, NOW)
    with pytest.raises(
        Conflict, match="status: is IMPORTING, but must be PREVIEWED or OUTDATED; read the upload again"
    ):
        table.begin(ID, (Status.PREVIEWED, Status.OUTDATED), Status.PREVIEWING, NOW, undo={"requestedBy": "ben"})
    assert not table.change(ID, {Status.UNDOING}, Status.UNDONE, NOW)
    assert table.get(ID)["status"] == Status.IMPORTING
    assert "undo" not in table.get(ID)


@pytest.mark.parametrize("status", ["PREVIEWED", "OUTDATED", "IMPORTED", "UNDONE"])
def test_an_apply_request_that_is_redriven_too_late_does_not_reach_mysql(table: Records, status: str) -> None:
    def no_connection() -> Any:
        raise AssertionError("MySQL is only for current requests")

    put(table, Status(status))
    before = table.get(ID)
    Jobs(None, no_connection, lambda _: None, table, "uploads", BUCKET, lambda: NOW).apply(file())
    assert table.get(ID) == before


def test_progress_is_shown_and_every_change_keeps_the_item_for_90_days(table: Records, aws: Aws) -> None:
    put(table, Status.IMPORTING)
    table.progress(ID, 25_000)
    assert records.shown(table.get(ID))["rowsRead"] == 25_000
    table.change(ID, {Status.IMPORTING}, Status.IMPORTED, LATER)
    item = aws.dynamodb.get_item(TableName=TABLE, Key={"uploadId": {"S": ID}})["Item"]
    assert int(item["expiresAt"]["N"]) == int((LATER + timedelta(days=90)).timestamp())


@pytest.mark.parametrize("identifier", ["", "0123456789a", "0123456789AB", "../0123456789ab", "é" * 12, "x" * 2_000])
def test_an_id_that_no_upload_can_have_is_not_found(table: Records, identifier: str) -> None:
    with pytest.raises(NotFound, match="there is no upload"):
        table.get(identifier)


# --- the routes -------------------------------------------------------------------------------------------------------

ACTIONS = ("preview", "apply", "undo")


def test_a_link_that_was_requested_opens_before_its_file_arrives(api: Api, aws: Aws, functions: Lambda) -> None:
    link = api.post("/uploads", {"filename": "Béans 1.csv", "preview": True}).json_body
    response = api.get(f"/uploads/{link['uploadId']}")
    assert response.status_code == 200
    assert (response.json_body["changes"], response.json_body["next"]) == ([], None)
    upload = response.json_body["upload"]
    assert (upload["status"], upload["filename"], upload["uploadedBy"]) == ("WAITING", "Béans 1.csv", "mia")
    assert (upload["key"], upload["bytes"], upload["uploadedAt"]) == (link["key"], None, None)
    assert is_valid(response.json_body, SCHEMAS["UploadDetails"])
    assert api.get("/uploads").json_body == {"uploads": [], "next": None}
    for action in ACTIONS:
        message = refused(api.post(f"/uploads/{link['uploadId']}/{action}", {}), 409, "Conflict")
        assert message == "status: is WAITING: upload the file first"
    assert functions.invoked == []


def test_an_unknown_upload_is_a_404_and_staff_may_not_see_or_change_uploads(api: Api, aws: Aws) -> None:
    staff = api.sent_by("ana", "staff")
    calls: list[Callable[[Api], Any]] = [lambda api: api.get(f"/uploads/{ID}")]
    calls += [lambda api, action=action: api.post(f"/uploads/{ID}/{action}", {}) for action in ACTIONS]
    for each in calls:
        assert refused(each(api), 404, "NotFound") == f"there is no upload {ID}"
        assert each(staff).status_code == 403
    assert staff.get("/uploads").status_code == 403


@pytest.mark.parametrize(
    ("action", "body", "status", "begun"),
    [
        *(("preview", {}, each, "PREVIEWING") for each in ("PREVIEWED", "OUTDATED", "REFUSED", "PREVIEWING")),
        ("preview", {"encoding": "windows-1252"}, "REFUSED", "PREVIEWING"),
        *(("apply", body, "PREVIEWED", "IMPORTING") for body in ({}, b"")),
        ("apply", {}, "IMPORTING", "IMPORTING"),
        *(("undo", {}, each, "UNDOING") for each in ("IMPORTED", "UNDOING")),
    ],
)
def test_an_action_answers_202_and_invokes_the_function_with_the_uploaded_file(
    api: Api, table: Records, functions: Lambda, action: str, body: Any, status: str, begun: str
) -> None:
    put(table, Status(status), result=UNTIL, rowsRead=25_000)
    response = api.post(f"/uploads/{ID}/{action}", body, X_Request_Id="request-2")
    assert response.status_code == 202
    assert response.json_body["status"] == begun
    undo, rows = ({"requestedBy": "mia"}, 25_000) if action == "undo" else (None, 0)
    assert (response.json_body["undo"], response.json_body["rowsRead"]) == (undo, rows)
    assert is_valid(response.json_body, SCHEMAS["Upload"])
    assert response.json_body == api.get(f"/uploads/{ID}").json_body["upload"]
    [invocation] = functions.invoked
    [record] = invocation.pop("Payload")["Records"]
    assert invocation == {"FunctionName": "cafe-test-receive_upload", "InvocationType": "Event"}
    sent, original = Upload.from_record(record), file()
    assert sent.event == f"Cafe:{action.title()}"
    assert (sent.key, sent.size, sent.etag, sent.sequencer, sent.id) == (original.key, 390, "etag", "0A", ID)
    encoding = body["encoding"] if body and "encoding" in body else None
    assert (sent.correlation_id, sent.encoding) == ("request-2", encoding)


@pytest.mark.parametrize(("action", "done"), [("apply", "IMPORTED"), ("undo", "UNDONE")])
def test_an_action_that_is_done_already_answers_202_and_invokes_nothing(
    api: Api, table: Records, functions: Lambda, action: str, done: str
) -> None:
    put(table, Status(done))
    response = api.post(f"/uploads/{ID}/{action}", {})
    assert (response.status_code, response.json_body["status"]) == (202, done)
    assert functions.invoked == []


def conflicts() -> Iterator[tuple[str, str, str, dict[str, Any], str]]:
    """Yields an action, a status, the folder of the file, a result, and the problem in the answer."""
    allowed = {"preview": "PREVIEWED or OUTDATED or REFUSED", "apply": "PREVIEWED", "undo": "IMPORTED"}
    right = {
        "preview": ("PREVIEWING", "PREVIEWED", "OUTDATED", "REFUSED"),
        "apply": ("PREVIEWED", "IMPORTING", "IMPORTED"),
        "undo": ("IMPORTED", "UNDOING", "UNDONE"),
    }
    for action, wanted in allowed.items():
        for status in Status:
            if status not in (*right[action], Status.WAITING):
                yield action, status, "previews", UNTIL, f"is {status}, but must be {wanted}; read the upload again"
    for action in ("preview", "apply"):
        yield action, "REFUSED", "inventory", RESULT, "is REFUSED: this file was uploaded without a preview"
    yield "undo", "IMPORTED", "inventory", RESULT, "is IMPORTED: this import changed too many beans to be undone"
    old = "2026-01-01T00:00:00.000000Z"
    result = {**RESULT, "undoableUntil": old}
    yield "undo", "IMPORTED", "previews", result, f"is IMPORTED: this import could be undone until {old}"


@pytest.mark.parametrize(("action", "status", "folder", "result", "problem"), [*conflicts()])
def test_an_action_that_the_upload_does_not_allow_is_a_409_and_changes_nothing(
    api: Api, table: Records, functions: Lambda, action: str, status: str, folder: str, result: Any, problem: str
) -> None:
    put(table, Status(status), folder, result=result)
    before = table.get(ID)
    assert refused(api.post(f"/uploads/{ID}/{action}", {}), 409, "Conflict") == f"status: {problem}"
    assert table.get(ID) == before
    assert functions.invoked == []


@pytest.mark.parametrize(
    ("action", "body", "problem"),
    [
        ("preview", {"encoding": "latin-1"}, "encoding: must be windows-1252, or left out"),
        ("preview", {"size": 1}, "size: is not a field of this request"),
        *((action, {"encoding": "windows-1252"}, "encoding: is not a field") for action in ("apply", "undo")),
        *((action, [], "body: must be an object") for action in ACTIONS),
    ],
)
def test_a_body_with_other_fields_is_a_400(
    api: Api, table: Records, functions: Lambda, action: str, body: Any, problem: str
) -> None:
    put(table, Status.PREVIEWED)
    assert problem in refused(api.post(f"/uploads/{ID}/{action}", body), 400, "InvalidRequest")
    assert functions.invoked == []


# --- the changes of a preview -----------------------------------------------------------------------------------------


def compared(aws: Aws, table: Records, count: int) -> None:
    """Stores a preview with ``count`` bad rows and one new bean."""
    pages = comparing.Pages(aws.s3, BUCKET, "uploads/1")
    for line in range(1, count + 1):
        pages.add({"change": "bad", "line": line, "reason": "quantity is empty"})
    names = dict.fromkeys(comparing.IDENTITY, "é")
    pages.add({"change": "new", "line": 1, **names, "after": {"price": None, "description": "d", "quantity": 7}})
    pages.close()
    put(table, result={**RESULT, "pages": pages.counts})


@pytest.mark.parametrize("count", [0, 1, 999, 1_000, 1_001, 2_050])
def test_every_change_is_shown_once_over_the_stored_pages(aws: Aws, table: Records, count: int) -> None:
    compared(aws, table, count)
    stored, found, token = table.get(ID), [], None
    for limit in [*[100] * 9, 99, *[100] * 20]:
        changes, token = comparing.shown(stored, Page(limit, token, {"change": "bad"}), aws.s3, BUCKET)
        found += [change["line"] for change in changes]
        assert len(changes) == limit or token is None
        if token is None:
            break
    assert found == [*range(1, count + 1)]


def test_the_route_shows_one_kind_of_changes(api: Api, aws: Aws, table: Records) -> None:
    compared(aws, table, 2)
    lines = {"": [], "?change=bad&limit=1": [1], "?change=bad&limit=1&next=1": [2], "?change=bad&next=2": []}
    lines |= {"?change=new": [1], "?change=changed": [], "?change=bad&next=9999999": []}
    for query, expected in lines.items():
        answer = api.get(f"/uploads/{ID}{query}").json_body
        assert [change["line"] for change in answer["changes"]] == expected, query
        assert answer["next"] == ("1" if query == "?change=bad&limit=1" else None)
        assert is_valid(answer, SCHEMAS["UploadDetails"])


def test_changes_that_have_expired_are_a_404_and_the_upload_still_opens(api: Api, table: Records) -> None:
    put(table, result={**RESULT, "folder": f"uploads/{ID}/1", "pages": {"bad": 1}})
    message = refused(api.get(f"/uploads/{ID}?change=bad"), 404, "NotFound")
    assert message == f"there is no preview of upload {ID}"
    assert api.get(f"/uploads/{ID}").status_code == 200


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("change=nonsense", "change: must be one of changed, new, bad, notMentioned"),
        *((f"change=bad&next={each}", "next: is not a `next` value") for each in ("-1", "x", "%D9%A3", "9" * 8)),
        ("change=bad&limit=101", "limit: must be a whole number from 1 to 100"),
        ("kind=bad", "kind: is not one of the parameters of this route: limit, next, change"),
    ],
)
def test_an_impossible_page_of_changes_is_a_400(api: Api, table: Records, query: str, problem: str) -> None:
    put(table)
    assert problem in refused(api.get(f"/uploads/{ID}?{query}"), 400, "InvalidRequest")
