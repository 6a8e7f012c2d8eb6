"""Tests the console's page as a browser loads it from `chalice local` and from API Gateway."""

from __future__ import annotations

import html
import re
from urllib.parse import urljoin

import pytest

from tests.system.system import Answer, System

TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


@pytest.fixture(params=["chalice local", "API Gateway"])
def address(system: System, request: pytest.FixtureRequest) -> str:
    return system.env["CAFE_API_URL" if request.param == "chalice local" else "REST_API_URL"]


def files(page: Answer) -> list[str]:
    """Returns the addresses of the files that the page loads."""
    [base] = re.findall(r'<base href="([^"]+)">', page.text)
    named = re.findall(r'(?:src|href)="(console/[^"]+)"', page.text)
    assert named
    return [urljoin(html.unescape(base), html.unescape(name)) for name in named]


def test_the_page_and_its_files_open_and_can_be_cached(system: System, address: str) -> None:
    # The page must open with and without a trailing slash in its address.
    for url in (address, address + "/"):
        page = system.request("GET", url)
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    for url in (address + "/", *files(page)):
        # A real browser sends this Accept header, and API Gateway considers only its first type.
        answer = system.request("GET", url, Accept="image/avif,image/webp,*/*;q=0.8", Accept_Encoding="gzip, br")
        expected = (
            TYPES[url.rsplit(".", 1)[1]] if url.startswith(f"{address}/console/") else page.headers["Content-Type"]
        )
        assert (answer.status, answer.headers["Content-Type"]) == (200, expected)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        again = system.request("GET", url, If_None_Match=answer.headers["ETag"])
        assert (again.status, again.text, again.headers["Content-Type"]) == (304, "", expected)


def test_the_page_may_connect_only_to_the_api_the_user_pool_and_the_uploads_bucket(
    system: System, address: str
) -> None:
    policy = system.request("GET", address + "/").headers["Content-Security-Policy"]
    cloud, bucket = system.stack.cloud.endpoint, system.env["UPLOADS_BUCKET"]
    assert f"connect-src 'self' {cloud} {cloud}/{bucket}; " in policy
    assert set(re.findall(r"https?://[^/;\s]+", policy)) == {cloud}


def test_no_other_file_of_the_package_is_served(system: System, address: str) -> None:
    for name in (
        "none.js",
        "index.html",
        "__init__.py",
        "%2e%2e%2fsettings.py",
        "..%2f..%2fapp.py",
        "console.css%00",
        "%",
    ):
        answer = system.request("GET", f"{address}/console/{name}")
        assert answer.status in (400, 403, 404), name
        assert "import" not in answer.text


def test_the_location_header_leads_to_the_requested_report(system: System, address: str) -> None:
    answer = system.request("POST", f"{address}/create_report")
    report_id = answer.json["reportId"]
    assert answer.headers["Location"] == f"{address}/reports/{report_id}"
    assert system.request("GET", answer.headers["Location"]).json["reportId"] == report_id
    system.ended(report_id)
