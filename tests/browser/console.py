"""The console as a person has it: one page of Chromium, and a record of what it asked for and complained of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, ConsoleMessage, Error, Locator, Request, expect

TABS = ("Today", "Orders", "Reports", "Uploads", "Inbox", "Dead letters")
COGNITO = "AWSCognitoIdentityProviderService."
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
# Those of a person in Zürich who reads English, at a desk; they want nothing to move.
DEFAULTS = {"viewport": DESKTOP, "locale": "en-GB", "timezone_id": "Europe/Zurich", "reduced_motion": "reduce"}


@dataclass(frozen=True)
class Person:
    name: str
    password: str


@dataclass
class Console:
    """The page at ``address``, which is the API's. ``env`` is the stack's, and says what else it may ask.

    All that it asks for is in ``requests``. What Chromium's console says of errors and warnings has to be ``expected``,
    and then has to be said, or to be ``allowed``.
    """

    context: BrowserContext
    address: str
    env: Mapping[str, str]
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page = self.context.new_page()
        self.page.on("request", self._note)
        self.page.on("console", self._hear)
        self.page.on("pageerror", self._catch)

    def _note(self, request: Request) -> None:
        self.requests.append(request)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location['url']})")

    def _catch(self, error: Error) -> None:
        self.complaints.append(f"uncaught: {error}")

    def expect_complaint(self, pattern: str) -> None:
        """Such as ``404.*/orders``: a browser logs every answer that is a refusal, whatever the page makes of it."""
        self.expected.append(pattern)

    def save(self, path: Path) -> None:
        """Writes a screenshot, and beside it the requests and what Chromium's console said."""
        self.page.screenshot(path=path.with_suffix(".png"), full_page=True)
        requests = [f"{each.method} {each.url}" for each in self.requests]
        path.with_suffix(".txt").write_text("\n".join([self.page.url, *self.complaints, *requests]) + "\n")

    def close(self) -> None:
        self.context.close()

    def check(self) -> None:
        """That it asked no other host, told no address a secret, and complained of nothing but what was expected."""
        foreign = [f"{each.method} {each.url}" for each in self.requests if not self._may_ask(each)]
        assert not foreign, f"the page asked elsewhere: {foreign}"
        # Every part of a JSON Web Token begins so.
        told = [each.url for each in self.requests if "eyJ" in each.url]
        assert not told, f"a token is in an address: {told}"
        known = [*self.expected, *self.allowed]
        unexpected = [each for each in self.complaints if not any(re.search(one, each) for one in known)]
        assert not unexpected, f"Chromium's console says {unexpected}"
        missing = [one for one in self.expected if not any(re.search(one, each) for each in self.complaints)]
        assert not missing, f"Chromium's console does not say {missing}"

    def _may_ask(self, request: Request) -> bool:
        """Its own files and API, the user pool, and the uploads bucket; all of AWS is one host here."""
        url, cloud = request.url, self.env["AWS_ENDPOINT_URL"]
        if f"{url}/".startswith((f"{self.address}/", "data:")):
            return True
        if url == f"{cloud}/":
            return str(request.headers.get("x-amz-target")).startswith(COGNITO)
        bucket = f"{cloud}/{self.env['UPLOADS_BUCKET']}"
        return request.method == "POST" and url in (bucket, f"{bucket}/")

    # --- what a person does

    def open(self, tab: str = "") -> None:
        """Loads the page at the address of ``tab``, such as ``#orders``."""
        self.page.goto(f"{self.address}/{tab}")

    def enter(self, name: str, password: str) -> None:
        """Fills the sign-in form, and sends it."""
        self.page.get_by_label("Name", exact=True).fill(name)
        self.page.get_by_label("Password", exact=True).fill(password)
        self.page.get_by_role("button", name="Sign in").click()

    def sign_in(self, person: Person) -> None:
        self.enter(person.name, person.password)
        expect(self.page.get_by_role("button", name="Sign out")).to_be_visible()

    def go(self, tab: str) -> Locator:
        """Chooses a tab, and gives its part of the page."""
        self.page.get_by_role("navigation").get_by_role("link", name=tab).click()
        return self.view(tab)

    def view(self, tab: str) -> Locator:
        view = self.page.get_by_role("region", name=tab, exact=True)
        expect(view).to_be_visible()
        return view

    def calls(self, method: str, path: str) -> list[Any]:
        """The bodies of the requests that were sent to this path of the API, in their order."""
        wanted = f"{self.address}/{path}"
        return [each.post_data_json for each in self.requests if each.method == method and each.url == wanted]
