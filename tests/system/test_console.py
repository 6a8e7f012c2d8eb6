"""The console's page, as a browser gets it: by `chalice local`, and behind API Gateway's stage path."""

from __future__ import annotations

import html
import re
from urllib.parse import urljoin

import pytest

from tests.system.system import Answer, System


@pytest.fixture(params=["chalice local", "API Gateway"])
def address(system: System, request: pytest.FixtureRequest) -> str:
    return system.env["CAFE_API_URL" if request.param == "chalice local" else "REST_API_URL"]


def files(page: Answer) -> list[str]:
    """The addresses of the files that the page loads."""
    [base] = re.findall(r'<base href="([^"]+)">', page.text)
    named = re.findall(r'(?:src|href)="(console/[^"]+)"', page.text)
    assert named
    return [urljoin(html.unescape(base), html.unescape(name)) for name in named]


@pytest.mark.parametrize("slash", ["/", ""])
def test_the_page_and_its_files_open_wherever_the_api_is(system: System, address: str, slash: str) -> None:
    page = system.request("GET", address + slash)
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    types = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
    for file in files(page):
        assert file.startswith(f"{address}/console/")
        # A browser's own header, in which the first type is the one that API Gateway looks at.
        answer = system.request("GET", file, Accept="image/avif,image/webp,*/*;q=0.8", Accept_Encoding="gzip, br")
        assert (answer.status, answer.headers["Content-Type"]) == (200, types[file.rsplit(".", 1)[1]])
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_may_ask_the_user_pool_and_the_uploads_bucket_and_no_other_host(system: System, address: str) -> None:
    policy = system.request("GET", address + "/").headers["Content-Security-Policy"]
    cloud, bucket = system.env["AWS_ENDPOINT_URL"], system.env["UPLOADS_BUCKET"]
    assert f"connect-src 'self' {cloud} {cloud}/{bucket}; " in policy
    assert set(re.findall(r"https?://[^/;\s]+", policy)) == {cloud}


def test_what_a_browser_has_already_is_not_sent_again_and_keeps_its_type(system: System, address: str) -> None:
    for path in (address + "/", *files(system.request("GET", address + "/"))):
        first = system.request("GET", path)
        again = system.request("GET", path, If_None_Match=first.headers["ETag"])
        assert (again.status, again.text) == (304, "")
        assert again.headers["Content-Type"] == first.headers["Content-Type"]


@pytest.mark.parametrize(
    "name", ["none.js", "index.html", "__init__.py", "%2e%2e%2fsettings.py", "..%2f..%2fapp.py", "console.css%00", "%"]
)
def test_nothing_else_of_the_package_is_given_away(system: System, address: str, name: str) -> None:
    answer = system.request("GET", f"{address}/console/{name}")
    assert answer.status in (400, 403, 404)
    assert "import" not in answer.text


def test_a_report_that_was_requested_is_at_the_address_that_is_told(system: System, address: str) -> None:
    answer = system.request("POST", f"{address}/create_report")
    assert answer.headers["Location"] == f"{address}/reports/{answer.json['reportId']}"
    assert system.request("GET", answer.headers["Location"]).json["reportId"] == answer.json["reportId"]
