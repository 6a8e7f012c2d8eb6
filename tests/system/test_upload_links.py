"""Tests that S3 accepts only the intended upload for a link from the API."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
import urllib3

from chalicelib.timeline import timestamp
from chalicelib.uploads import links
from chalicelib.uploads.records import Records
from tests.system.inventory import HEADER, stock
from tests.system.system import Answer, System, new_id

Link = dict[str, Any]


def offered(system: System, **body: Any) -> Link:
    answer = system.request("POST", "/uploads", {"filename": "beans.csv", **body})
    assert answer.status == 201, answer.text
    link: Link = answer.json
    return link


def send(link: Link, content: bytes, *, without: str = "", origin: str | None = None, **fields: str) -> Answer:
    """Sends the upload form as a browser does.

    ``fields`` replaces form fields, and ``without`` names a field to omit.
    """
    form: list[Any] = [(name, value) for name, value in {**link["fields"], **fields}.items() if name != without]
    form.append(("file", ("beans.csv", content, "text/csv")))
    headers = {"Origin": origin} if origin else {}
    answer = urllib3.request("POST", link["url"], fields=form, headers=headers, retries=False, timeout=60)
    return Answer(answer.status, answer.headers, answer.data.decode())


def exists(system: System, key: str) -> bool:
    listed = system.aws("s3").list_objects_v2(Bucket=system.env["UPLOADS_BUCKET"], Prefix=key)
    return key in [each["Key"] for each in listed.get("Contents", [])]


def refused(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status, answer.text
    assert re.findall(r"<Code>(\w+)</Code>", answer.text) == [code]


def test_a_file_sent_with_a_link_is_imported_and_announced(system: System) -> None:
    supplier = new_id("Link")
    link = offered(system, size=100)
    assert link["expiresAt"] > timestamp(datetime.now(UTC))
    answer = send(link, f"{HEADER}{supplier},Arabica,Huila,16.40,,40\n{supplier},,,,,x\n".encode())
    assert answer.status == 204, answer.text
    entry = system.notification(link["key"], "upload")
    assert "1 row imported: 1 new" in entry["message"]
    assert "line 3: " in entry["message"]
    assert stock(system, supplier) == {"Huila": 40}


def test_a_file_larger_than_an_import_takes_is_refused_by_s3(system: System) -> None:
    link = offered(system)
    refused(send(link, b"x" * (link["maxBytes"] + 1)), 400, "EntityTooLarge")
    refused(send(link, b""), 400, "EntityTooSmall")
    assert not exists(system, link["key"])


def test_a_link_accepts_no_other_type_and_no_other_key(system: System) -> None:
    link, other = offered(system), f"{new_id('other')}.csv"
    refused(send(link, b"x", **{"Content-Type": "text/html"}), 403, "AccessDenied")
    refused(send(link, b"x", without="Content-Type"), 403, "AccessDenied")
    for key in (f"inventory/{other}", link["key"] + ".html", f"photos/{other}"):
        refused(send(link, b"x", key=key), 403, "AccessDenied")
        assert not exists(system, key)
    # An upload link does not allow the uploader to make the file public.
    refused(send(link, b"x", acl="public-read"), 403, "AccessDenied")
    assert not exists(system, link["key"])


def test_a_link_that_has_expired_is_refused(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "LINK_SECONDS", -1)
    s3, bucket = system.aws("s3"), system.env["UPLOADS_BUCKET"]
    records, wish = Records(system.aws("dynamodb"), system.env["UPLOADS_TABLE"]), links.Wish("beans.csv", preview=False)
    link = links.offer(wish, "ana", s3=s3, bucket=bucket, records=records, now=datetime.now(UTC))
    refused(send(link, b"x"), 403, "AccessDenied")
    assert not exists(system, link["key"])


# --- Other websites ---------------------------------------------------------------------------------------------------


def preflight(link: Link, origin: str, method: str = "POST") -> Answer:
    headers = {"Origin": origin, "Access-Control-Request-Method": method}
    answer = urllib3.request("OPTIONS", link["url"], headers=headers, retries=False, timeout=30)
    return Answer(answer.status, answer.headers, answer.data.decode())


def test_only_the_consoles_page_may_upload(system: System) -> None:
    link = offered(system)
    page = system.env["CAFE_API_URL"]
    asked = preflight(link, page)
    assert asked.status == 200
    assert asked.headers["Access-Control-Allow-Origin"] == page
    assert asked.headers["Access-Control-Allow-Methods"] == "POST"
    answer = send(link, b"x", origin=page)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, page)
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null", page + ".evil.example"):
        assert preflight(link, origin).status == 403
        assert "Access-Control-Allow-Origin" not in send(link, b"x", origin=origin).headers
    for method in ("GET", "PUT", "DELETE"):
        assert preflight(link, page, method).status == 403
    system.notification(link["key"], "upload")
