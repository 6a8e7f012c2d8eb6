"""Tests the console's page and files as the API serves them."""

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import pytest
from chalice.app import Request
from chalice.test import HTTPResponse

from chalicelib import clients, console
from chalicelib.errors import NotFound
from chalicelib.settings import Settings, cognito_endpoint, uploads_url
from tests.unit.api import Api, app, gateway_event
from tests.unit.cloud import ENVIRONMENT

SETTINGS = Settings.read(ENVIRONMENT)
FILES = sorted(path.name for path in console.FOLDER.iterdir() if path.suffix in console.TYPES)


class Page(HTMLParser):
    """Collects the URLs, settings and inline code from the page's elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.base = ""
        self.settings: dict[str, str] = {}
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "base":
            # A browser applies the first <base> element to all URLs, even to those before it.
            self.base = self.base or given["href"]
        elif tag == "meta" and given.get("name", "").startswith("cafe-"):
            self.settings[given["name"]] = given["content"]
        self.addresses += [given[name] for name in ("src", "href") if name in given and tag != "base"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.inline += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]


def page(headers: dict[str, str] | None = None, path: str = "/") -> Page:
    asked = Request(gateway_event(context={"path": path}, headers=headers or {}), None)
    return Page(console.page(asked, SETTINGS).body)


def test_the_console_is_a_web_page_that_knows_the_addresses_it_needs(api: Api) -> None:
    response = api.get("/")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.body.startswith(b"<!doctype html>")
    assert Page(response.body.decode()).settings == {
        "cafe-cognito-endpoint": "https://cognito-idp.us-east-1.amazonaws.com",
        "cafe-client-id": ENVIRONMENT["USER_POOL_CLIENT_ID"],
        "cafe-stage": "test",
        # Only the local stack serves the page of a trace.
        "cafe-trace": "",
    }


@pytest.mark.parametrize(
    ("path", "base"),
    [("/", "https://x.example/"), ("/api/", "https://x.example/api/"), ("/api", "https://x.example/api/")],
    ids=["chalice local", "a stage", "a stage without its last slash"],
)
def test_every_address_of_the_page_leads_to_this_api(path: str, base: str) -> None:
    found = page({"host": "x.example", "x-forwarded-proto": "https"}, path)
    assert found.base == base
    assert found.addresses
    for address in found.addresses:
        assert urljoin(base, address).startswith(base)


def test_the_page_has_no_inline_code_even_with_an_evil_host() -> None:
    evil = '"><script>alert(1)</script>&'
    found = page({"host": evil})
    assert found.base == f"http://{evil}/"
    assert found.inline == page().inline == []


@pytest.mark.parametrize("path", ["/", "/console/main.js"])
def test_the_policy_allows_only_what_the_page_needs(api: Api, path: str) -> None:
    headers = api.get(path).headers
    assert headers["Content-Security-Policy"].split("; ") == [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self' https://cognito-idp.us-east-1.amazonaws.com"
        " https://cafe-test-uploads-123456789012.s3.amazonaws.com/",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:4566"])
def test_the_address_of_the_uploads_is_the_one_in_their_links(
    monkeypatch: pytest.MonkeyPatch, region: str, endpoint: str | None
) -> None:
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    settings = Settings.read({**ENVIRONMENT, "USER_POOL_ID": f"{region}_x"})
    s3 = clients._make("s3", region)
    assert uploads_url(settings) == s3.generate_presigned_post(settings.uploads_bucket, "key")["url"]
    assert cognito_endpoint(settings) == (endpoint or f"https://cognito-idp.{region}.amazonaws.com")


@pytest.mark.parametrize("name", FILES)
def test_each_file_has_its_type_and_its_content(api: Api, name: str) -> None:
    response = api.get(f"/console/{name}")
    kind = console.TYPES["." + name.rsplit(".", 1)[1]]
    assert (response.status_code, response.headers["Content-Type"]) == (200, kind)
    assert response.body == (console.FOLDER / name).read_bytes()
    # Chalice rejects a request for a binary file unless the client accepts exactly the file's type.
    assert kind.partition(";")[0] not in app.app.api.binary_types


def test_every_file_in_the_folder_is_the_page_its_code_or_a_served_file() -> None:
    others = {path.name for path in console.FOLDER.iterdir() if path.name not in FILES}
    assert others - {"__pycache__"} == {"__init__.py", "index.html"}


@pytest.mark.parametrize(
    "name",
    [
        *("none.js", "__init__.py", "index.html", "..", "", "../index.html", "../../app.py", "..%2Fopenapi.json"),
        *("/etc/passwd", "console.css/", "./console.css", "CONSOLE.CSS", "console.css\x00", "*.css", "x" * 5_000),
    ],
)
def test_no_other_name_returns_a_file(name: str) -> None:
    with pytest.raises(NotFound) as caught:
        console.file(Request(gateway_event(), None), SETTINGS, name)
    assert len(str(caught.value)) < 400


def kept(response: HTTPResponse) -> str:
    tag: str = response.headers["ETag"]
    assert re.fullmatch(r'W/"[0-9a-f]{32}"', tag)
    return tag


@pytest.mark.parametrize("path", ["/", "/console/console.css"])
def test_an_unchanged_file_is_not_sent_again(api: Api, path: str) -> None:
    first = api.get(path)
    assert first.headers["Cache-Control"] == "no-cache"
    tag = kept(first)
    for known in (tag, f'"other", {tag}', tag.removeprefix("W/")):
        again = api.get(path, **{"if-none-match": known})
        assert (again.status_code, again.body) == (304, b"")
        # A browser copies the headers of a 304 response to its cached file, so the response needs all headers.
        assert {**again.headers, "X-Request-Id": first.headers["X-Request-Id"]}.items() >= first.headers.items()
    for other in ("", '"other"', "*", 'W/""'):
        assert api.get(path, **{"if-none-match": other}).status_code == 200


def test_a_changed_file_or_policy_is_sent_again(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    paths = ("/", "/console/console.css")
    before = {path: kept(api.get(path)) for path in paths}
    asked = Request(gateway_event(), None)
    other = console._answer(asked, Settings.read({**ENVIRONMENT, "UPLOADS_BUCKET": "b"}), "", "")
    assert other.headers["ETag"] != console._answer(asked, SETTINGS, "", "").headers["ETag"]
    for path in console.FOLDER.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes() + b"\n")
    monkeypatch.setattr(console, "FOLDER", tmp_path)
    for path in paths:
        assert api.get(path, **{"if-none-match": before[path]}).status_code == 200


def scripts() -> dict[str, str]:
    return {name: (console.FOLDER / name).read_text("utf-8") for name in FILES if name.endswith(".js")}


def test_the_whole_page_as_served_is_smaller_than_200_kb(api: Api) -> None:
    sizes = {path: len(api.get(path).body) for path in ("/", *(f"/console/{name}" for name in FILES))}
    assert sum(sizes.values()) < 200_000, sizes


def test_every_module_is_preloaded_with_the_page() -> None:
    named = {name for text in scripts().values() for name in re.findall(r'from "\./([a-z-]+\.js)"', text)}
    preloaded = {address.removeprefix("console/") for address in page().addresses if address.endswith(".js")}
    assert named | {"main.js"} == preloaded == set(scripts())


def test_no_script_parses_text_as_html_or_code() -> None:
    parsers = r"innerHTML|outerHTML|insertAdjacentHTML|setHTML|DOMParser|createContextualFragment|document\.write"
    for name, text in scripts().items():
        found = re.findall(rf"{parsers}|\beval\(|new Function|setAttribute\(\"(?:style|on)", text)
        assert not found, (name, found)
