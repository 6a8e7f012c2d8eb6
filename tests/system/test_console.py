"""The console's page as a browser gets it: by `chalice local`, and behind API Gateway's stage path."""

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
    """The addresses of the files that the page loads."""
    [base] = re.findall(r'<base href="([^"]+)">', page.text)
    named = re.findall(r'(?:src|href)="(console/[^"]+)"', page.text)
    assert named
    return [urljoin(html.unescape(base), html.unescape(name)) for name in named]


def test_the_page_and_its_files_open_and_are_not_sent_twice(system: System, address: str) -> None:
    # Browsers keep the slash at the end, and people leave it out.
    for url in (address, address + "/"):
        page = system.request("GET", url)
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    for url in (address + "/", *files(page)):
        # A browser's own header, in which the first type is the one that API Gateway looks at.
        answer = system.request("GET", url, Accept="image/avif,image/webp,*/*;q=0.8", Accept_Encoding="gzip, br")
        expected = (
            TYPES[url.rsplit(".", 1)[1]] if url.startswith(f"{address}/console/") else page.headers["Content-Type"]
        )
        assert (answer.status, answer.headers["Content-Type"]) == (200, expected)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        again = system.request("GET", url, If_None_Match=answer.headers["ETag"])
        assert (again.status, again.text, again.headers["Content-Type"]) == (304, "", expected)


def test_the_page_may_ask_the_user_pool_and_the_uploads_bucket_and_no_other_host(system: System, address: str) -> None:
    policy = system.request("GET", address + "/").headers["Content-Security-Policy"]
    cloud, bucket = system.stack.cloud.endpoint, system.env["UPLOADS_BUCKET"]
    assert f"connect-src 'self' {cloud} {cloud}/{bucket}; " in policy
    assert set(re.findall(r"https?://[^/;\s]+", policy)) == {cloud}


def test_no_other_file_of_the_package_is_given_away(system: System, address: str) -> None:
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


def test_a_requested_report_is_at_the_location_of_the_answer(system: System, address: str) -> None:
    answer = system.request("POST", f"{address}/create_report")
    report_id = answer.json["reportId"]
    assert answer.headers["Location"] == f"{address}/reports/{report_id}"
    assert system.request("GET", answer.headers["Location"]).json["reportId"] == report_id
    system.ended(report_id)
