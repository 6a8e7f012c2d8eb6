"""Tests which files an upload link accepts, and which conditions the link signs."""

import base64
import json
import re
from datetime import UTC, datetime
from typing import Any
from unittest.mock import call, create_autospec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import clients
from chalicelib.errors import InvalidRequest
from chalicelib.uploads import links
from chalicelib.uploads.links import Wish
from chalicelib.uploads.records import Records
from chalicelib.uploads.upload import Upload
from tests.unit.api import Api
from tests.unit.cloud import ENVIRONMENT, Aws
from tests.unit.signing import REGION

NOW = datetime(2026, 11, 21, 23, 59, 15, 123456, UTC)
KEY = re.compile(r"(inventory|previews)/2026-11-21-([0-9a-f]{12})/([A-Za-z0-9_.-]{1,80})\.csv")
BUCKET = ENVIRONMENT["UPLOADS_BUCKET"]


def offer(filename: str = "beans.csv", *, preview: bool = False, records: Any = None) -> dict[str, Any]:
    records = records or create_autospec(Records, instance=True)
    wish = Wish(filename, preview)
    return links.offer(wish, "ana", s3=clients.aws("s3", REGION), bucket=BUCKET, records=records, now=NOW)


def refused(body: Any) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        links.parse(body)
    return [str(each) for each in caught.value.problems]


def test_all_problems_are_named_at_once() -> None:
    assert refused({"size": 0, "name": "x", "filename": ""}) == [
        "name: is not a field of an upload",
        "filename: must be a string of 1 to 255 characters",
        "size: must be a whole number of bytes, from 1 to 50,000,000",
    ]
    assert refused({}) == ["filename: is missing"]
    for preview in (None, 1, "true"):
        assert refused({"filename": "a.csv", "preview": preview}) == ["preview: must be true or false"]
    for body in (None, [], "beans.csv", 5):
        assert refused(body) == ["body: must be an object with filename"]
    for name in (None, 5, "x" * 256, ["beans.csv"]):
        assert refused({"filename": name}) == ["filename: must be a string of 1 to 255 characters"]
    for name in ("beans.xlsx", "beans", "csv", "beans.csv ", "beans.csv\n", "beans.csv.exe"):
        assert refused({"filename": name}) == ["filename: must end in .csv"]


def test_a_link_is_for_one_key_one_type_ten_minutes_and_50_mb() -> None:
    link = offer()
    assert offer()["key"] != link["key"]
    assert Upload(link["key"], 1, "e", "0A", "ObjectCreated:Post", "now").is_csv_in("inventory")
    policy = json.loads(base64.b64decode(link["fields"]["policy"]))
    wanted = [{"bucket": BUCKET}, {"key": link["key"]}, {"Content-Type": "text/csv"}]
    assert [
        each for each in [*wanted, ["content-length-range", 1, 50_000_000]] if each not in policy["conditions"]
    ] == []
    # The test compares with the current time, because botocore reads the real clock.
    ends = datetime.fromisoformat(policy["expiration"])
    assert abs((ends - datetime.now(UTC)).total_seconds() - 600) < 60
    assert (link["expiresAt"], link["maxBytes"]) == ("2026-11-22T00:09:15.123456Z", 50_000_000)
    fields = [link["fields"][name] for name in ("key", "Content-Type", "x-amz-algorithm")]
    assert fields == [link["key"], "text/csv", "AWS4-HMAC-SHA256"]


@pytest.mark.parametrize(
    ("filename", "safe"),
    [
        *(("beans.csv", "beans"), ("Beans 2026-11.CSV", "Beans-2026-11"), ("Café crème.csv", "Cafe-creme")),
        *(("D:\\stock\\beans.csv", "beans"), ("../../../etc/passwd.csv", "passwd"), ("-rf *.csv", "rf")),
        *((name, "upload") for name in ("..csv", "☕.csv", ".csv", "a/.csv")),
        *(("<script>alert(1)</script>.csv", "script"), ("a${filename}b.csv", "a-filename-b")),
        *(("x" * 251 + ".csv", "x" * 80), ("a\x00b\nc\ud800.csv", "a-b-c"), ("beans.csv.csv", "beans.csv")),
    ],
)
def test_the_key_has_the_safe_part_of_the_name(filename: str, safe: str) -> None:
    found = KEY.fullmatch(offer(filename)["key"])
    assert found
    assert found[3] == safe


@given(st.text(max_size=251))
def test_the_key_is_safe_whatever_the_name_is(name: str) -> None:
    assert KEY.fullmatch(offer(links.parse({"filename": f"{name}.csv"}).filename)["key"])


@pytest.mark.parametrize(
    ("body", "folder"), [({}, "inventory"), ({"preview": False}, "inventory"), ({"preview": True}, "previews")]
)
def test_a_preview_has_a_folder_of_its_own_and_the_id_in_the_key_is_recorded(body: Any, folder: str) -> None:
    records = create_autospec(Records, instance=True)
    wish = links.parse({"filename": "Café.csv", **body})
    link = offer(wish.filename, preview=wish.preview, records=records)
    found = KEY.fullmatch(link["key"])
    assert found
    assert found.groups()[:2] == (folder, link["uploadId"])
    assert Upload(link["key"], 1, "e", "0A", "ObjectCreated:Post", "now").id == link["uploadId"]
    assert records.mock_calls == [call.offer(link["uploadId"], link["key"], "Café.csv", "ana", NOW)]


def test_a_manager_gets_a_link_and_the_log_has_the_key_and_no_signature(api: Api, aws: Aws, log_lines: Any) -> None:
    response = api.post("/uploads", {"filename": "beans.csv"})
    assert response.status_code == 201
    link = response.json_body
    assert list(link) == ["uploadId", "key", "url", "fields", "expiresAt", "maxBytes"]
    assert link["url"] == f"https://{BUCKET}.s3.amazonaws.com/"
    assert link["key"] in log_lines.getvalue()
    assert link["fields"]["x-amz-signature"] not in log_lines.getvalue()
    assert api.sent_by("ana", "staff").post("/uploads", {"filename": "beans.csv"}).status_code == 403
