"""The console's page and its files, as the API gives them."""

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import pytest
from chalice.app import Request
from chalice.test import HTTPResponse

from chalicelib import clients, console
from chalicelib.errors import NotFound
from chalicelib.settings import VERSION, Settings, cognito_endpoint, uploads_url
from tests.unit.api import Api
from tests.unit.cloud import ENVIRONMENT

SETTINGS = Settings.read(ENVIRONMENT)
FILES = sorted(path.name for path in console.FOLDER.iterdir() if path.suffix in console.TYPES)


class Page(HTMLParser):
    """What the page's elements say of where they lead and what they are told."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.base = ""
        self.told: dict[str, str] = {}
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "base":
            # A browser takes the first one, and for all addresses: also for those before it.
            self.base = self.base or given["href"]
        elif tag == "meta" and given.get("name", "").startswith("cafe-"):
            self.told[given["name"]] = given["content"]
        self.addresses += [given[name] for name in ("src", "href") if name in given and tag != "base"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.inline += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]


def request(headers: dict[str, str] | None = None, path: str = "/") -> Request:
    event = {
        "requestContext": {"httpMethod": "GET", "resourcePath": "/", "path": path},
        "headers": headers or {},
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "body": None,
    }
    return Request(event, None)


def page(headers: dict[str, str] | None = None, path: str = "/") -> Page:
    return Page(console.page(request(headers, path), SETTINGS).body)


# --- GET / ------------------------------------------------------------------------------------------------------------


def test_the_console_is_a_web_page(api: Api) -> None:
    response = api.get("/")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.body.startswith(b"<!doctype html>")


def test_the_page_is_told_where_everything_is(api: Api) -> None:
    told = Page(api.get("/").body.decode()).told
    assert told == {
        "cafe-cognito-endpoint": "https://cognito-idp.us-east-1.amazonaws.com",
        "cafe-client-id": ENVIRONMENT["USER_POOL_CLIENT_ID"],
        "cafe-uploads-url": "https://cafe-test-uploads-123456789012.s3.amazonaws.com/",
        "cafe-stage": "test",
        "cafe-version": VERSION,
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


def test_every_file_that_the_page_names_is_there(api: Api) -> None:
    files = [address for address in page().addresses if address.startswith("console/")]
    assert files
    for address in files:
        assert api.get(f"/{address}").status_code == 200, address


def test_what_the_page_is_told_stays_text() -> None:
    evil = '"><script>alert(1)</script>&'
    found = page({"host": evil})
    assert found.base == f"http://{evil}/"
    assert not found.inline


def test_the_page_has_nothing_that_its_policy_would_stop() -> None:
    assert page().inline == []


@pytest.mark.parametrize("path", ["/", *(f"/console/{name}" for name in FILES)])
def test_nothing_but_what_the_page_needs_is_allowed(api: Api, path: str) -> None:
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


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "ap-southeast-2"])
@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:4566"])
def test_the_address_of_the_uploads_is_the_one_that_links_to_it_have(
    monkeypatch: pytest.MonkeyPatch, region: str, endpoint: str | None
) -> None:
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    settings = Settings.read({**ENVIRONMENT, "USER_POOL_ID": f"{region}_x"})
    s3 = clients._make("s3", region)
    assert uploads_url(settings) == s3.generate_presigned_post(settings.uploads_bucket, "key")["url"]
    assert cognito_endpoint(settings) == (endpoint or f"https://cognito-idp.{region}.amazonaws.com")


# --- GET /console/{file} ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_each_file_has_its_type_and_its_very_content(api: Api, name: str) -> None:
    response = api.get(f"/console/{name}")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == console.TYPES["." + name.rsplit(".", 1)[1]]
    assert response.body == (console.FOLDER / name).read_bytes()


def test_every_file_of_the_folder_is_the_page_its_code_or_is_served() -> None:
    others = {path.name for path in console.FOLDER.iterdir() if path.name not in FILES}
    assert others - {"__pycache__"} == {"__init__.py", "index.html"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_never_taken_for_binary(name: str) -> None:
    """Chalice refuses a binary one to whoever does not ask for exactly its type."""
    kind = console.TYPES["." + name.rsplit(".", 1)[1]].partition(";")[0]
    from app import app

    assert kind not in app.api.binary_types


@pytest.mark.parametrize(
    "name",
    [
        "none.js",
        "__init__.py",
        "index.html",
        "..",
        ".",
        "",
        "../index.html",
        "../../app.py",
        "..%2Fopenapi.json",
        "%2e%2e%2f%2e%2e%2fapp.py",
        "..\\app.py",
        "/etc/passwd",
        "console.css/",
        "./console.css",
        "CONSOLE.CSS",
        "console.css\x00",
        "console.css%00.js",
        "*.css",
        "é.js",
        "x" * 5_000,
    ],
)
def test_whatever_else_is_asked_for_is_not_there(name: str) -> None:
    with pytest.raises(NotFound) as caught:
        console.file(request(), SETTINGS, name)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["none.js", "__init__.py", "index.html", "..", "%2e%2e%2fapp.py", "console.css%00"])
def test_a_file_that_is_not_there_is_a_404(api: Api, name: str) -> None:
    response = api.get(f"/console/{name}")
    assert (response.status_code, response.json_body["Code"]) == (404, "NotFound")


# --- What a browser keeps ---------------------------------------------------------------------------------------------


def kept(response: HTTPResponse) -> str:
    tag: str = response.headers["ETag"]
    assert re.fullmatch(r'W/"[0-9a-f]{32}"', tag)
    return tag


@pytest.mark.parametrize("path", ["/", "/console/console.css"])
def test_what_a_browser_has_is_asked_for_each_time_and_not_sent_again(api: Api, path: str) -> None:
    first = api.get(path)
    assert first.headers["Cache-Control"] == "no-cache"
    tag = kept(first)
    for known in (tag, f'"other", {tag}', tag.removeprefix("W/")):
        again = api.get(path, **{"if-none-match": known})
        assert (again.status_code, again.body) == (304, b"")
        # What it keeps has the headers of this answer from now on.
        assert {**again.headers, "X-Request-Id": first.headers["X-Request-Id"]}.items() >= first.headers.items()
    for other in ("", '"other"', "*", 'W/""'):
        assert api.get(path, **{"if-none-match": other}).status_code == 200


def test_after_a_deploy_nothing_old_is_shown(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    paths = ("/", "/console/console.css")
    before = {path: kept(api.get(path)) for path in paths}
    for path in console.FOLDER.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes() + b"\n")
    monkeypatch.setattr(console, "FOLDER", tmp_path)
    for path in paths:
        assert api.get(path, **{"if-none-match": before[path]}).status_code == 200


def test_another_policy_is_another_page_though_its_text_is_the_same() -> None:
    one, other = (
        console._answer(request(), Settings.read({**ENVIRONMENT, "UPLOADS_BUCKET": bucket}), "text", "text/html")
        for bucket in ("a", "b")
    )
    assert one.headers["ETag"] != other.headers["ETag"]


# --- What the page is made of -----------------------------------------------------------------------------------------


def scripts() -> dict[str, str]:
    return {name: (console.FOLDER / name).read_text("utf-8") for name in FILES if name.endswith(".js")}


def test_the_whole_page_is_smaller_than_150_kb() -> None:
    sizes = {name: (console.FOLDER / name).stat().st_size for name in (*FILES, "index.html")}
    assert sum(sizes.values()) < 150_000, sizes


def test_every_module_is_fetched_with_the_page_and_not_once_another_names_it() -> None:
    named = {name for text in scripts().values() for name in re.findall(r'from "\./([a-z-]+\.js)"', text)}
    preloaded = {address.removeprefix("console/") for address in page().addresses if address.endswith(".js")}
    assert named | {"main.js"} == preloaded == set(scripts())


def test_no_text_is_ever_parsed_as_html_or_code() -> None:
    parsers = r"innerHTML|outerHTML|insertAdjacentHTML|setHTML|DOMParser|createContextualFragment|document\.write"
    for name, text in scripts().items():
        found = re.findall(rf"{parsers}|\beval\(|new Function|setAttribute\(\"(?:style|on)", text)
        assert not found, (name, found)


def test_every_element_that_a_script_looks_for_is_in_the_page_or_made_by_one() -> None:
    everything = [(console.FOLDER / "index.html").read_text("utf-8"), *scripts().values()]
    known = {name for text in everything for name in re.findall(r'\bid(?:=|: )"([\w-]+)"', text)}
    for name, text in scripts().items():
        assert set(re.findall(r'\$\("([\w-]+)"\)', text)) <= known, name
