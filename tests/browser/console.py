"""A browser page that shows the console, with a record of its requests, errors and warnings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Request, expect

TABS = ("Today", "Orders", "Reports", "Uploads", "Inbox", "Dead letters")
COGNITO = "AWSCognitoIdentityProviderService."
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
# The browser behaves like that of a user in Zürich who prefers British English and reduced motion.
DEFAULTS = {"viewport": DESKTOP, "locale": "en-GB", "timezone_id": "Europe/Zurich", "reduced_motion": "reduce"}


@dataclass(frozen=True)
class Person:
    name: str
    password: str


@dataclass
class Console:
    """The web console, opened in Chromium at ``address``. ``env`` contains the addresses of the local stack.

    ``requests`` records all requests. ``complaints`` records the errors and warnings in Chromium's console. Every
    complaint must match a pattern in ``expected`` or ``allowed``. Every pattern in ``expected`` must match at least one
    complaint.
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
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location['url']})")

    def expect_complaint(self, pattern: str) -> None:
        """Expects a browser error or warning that matches a pattern, such as ``404.*/orders``.

        Browsers log every HTTP error response, even if the page handles it.
        """
        self.expected.append(pattern)

    def save(self, path: Path) -> None:
        """Writes a screenshot, and a text file with the requests and complaints."""
        self.page.screenshot(path=path.with_suffix(".png"), full_page=True)
        requests = [f"{each.method} {each.url}" for each in self.requests]
        path.with_suffix(".txt").write_text("\n".join([self.page.url, *self.complaints, *requests]) + "\n")

    def close(self) -> None:
        self.context.close()

    def check(self) -> None:
        """Checks that all requests were allowed, no URL contained a token, and all complaints were expected."""
        foreign = [f"{each.method} {each.url}" for each in self.requests if not self._may_ask(each)]
        assert not foreign, f"requests to other hosts: {foreign}"
        # Every JSON Web Token starts with ``eyJ``.
        with_token = [each.url for each in self.requests if "eyJ" in each.url]
        assert not with_token, f"URLs with a token: {with_token}"
        patterns = [*self.expected, *self.allowed]
        unexpected = [each for each in self.complaints if not any(re.search(one, each) for one in patterns)]
        assert not unexpected, f"unexpected complaints: {unexpected}"
        missing = [one for one in self.expected if not any(re.search(one, each) for each in self.complaints)]
        assert not missing, f"expected complaints that did not occur: {missing}"

    def _may_ask(self, request: Request) -> bool:
        """Returns whether a request is for the page's files, the API, the user pool or the uploads bucket.

        The local AWS emulator serves all services on one host, so the host name does not identify the service.
        """
        url, cloud = request.url, self.env["AWS_ENDPOINT_URL"]
        if f"{url}/".startswith((f"{self.address}/", "data:")):
            return True
        if url == f"{cloud}/":
            return str(request.headers.get("x-amz-target")).startswith(COGNITO)
        bucket = f"{cloud}/{self.env['UPLOADS_BUCKET']}"
        return request.method == "POST" and url in (bucket, f"{bucket}/")

    # --- actions of a person

    def open(self, tab: str = "") -> None:
        """Loads the page with the URL fragment ``tab``, such as ``#orders``."""
        self.page.goto(f"{self.address}/{tab}")

    def enter(self, name: str, password: str) -> None:
        """Fills in the sign-in form and submits it."""
        self.page.get_by_label("Name", exact=True).fill(name)
        self.page.get_by_label("Password", exact=True).fill(password)
        self.page.get_by_role("button", name="Sign in").click()

    def sign_in(self, person: Person) -> None:
        self.enter(person.name, person.password)
        expect(self.page.get_by_role("button", name="Sign out")).to_be_visible()

    def go(self, tab: str) -> Locator:
        """Opens a tab with its link in the navigation bar. Returns the section of the page that the tab shows."""
        # The name of a link may end with a number of failures today, or of unread messages.
        self.page.get_by_role("navigation").get_by_role("link", name=re.compile(rf"^{tab}\b")).click()
        return self.view(tab)

    def view(self, tab: str) -> Locator:
        view = self.page.get_by_role("region", name=tab, exact=True)
        expect(view).to_be_visible()
        return view

    def calls(self, method: str, path: str) -> list[Any]:
        """Returns the bodies of all requests with this method and API path, in the order in which they were sent."""
        url = f"{self.address}/{path}"
        return [each.post_data_json for each in self.requests if each.method == method and each.url == url]
