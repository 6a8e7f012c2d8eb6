"""Fixtures for the browser tests: Chromium, the deployed console's pages, and the people who use it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from infra import users
from local import chromium
from local.processes import StackError
from tests.browser.console import DEFAULTS, Console, Person
from tests.system.evidence import failed, folder_of
from tests.system.people import add
from tests.system.system import System

# Opens the page at an address, by default the API's, and signs in a person if given. Playwright gets the options.
Visit = Callable[..., Console]
# Adds a person to the user pool, in a group.
Make = Callable[..., Person]

# The time limit for every wait is generous, because a slow machine must not fail the tests.
SECONDS = 30
expect.set_options(timeout=SECONDS * 1000)


@pytest.fixture(scope="session", autouse=True)
def program() -> Path:
    """Returns the path of Chromium. This runs before the system starts, because without Chromium all tests skip."""
    found = chromium.find()
    if found:
        return found
    try:
        return chromium.install()
    except StackError as error:
        pytest.skip(str(error))


# In a session scope, Playwright's event loop would affect all later tests of this worker.
@pytest.fixture(scope="module")
def browser(program: Path) -> Iterator[Browser]:
    with chromium.running(program) as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser, system: System, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Opens pages. ``Console.check`` must pass for each page at the end. A failed test leaves screenshots."""
    consoles: list[Console] = []

    def visit(person: Person | None = None, tab: str = "", address: str | None = None, **options: Any) -> Console:
        context = browser.new_context(**{**DEFAULTS, **options})
        context.set_default_timeout(SECONDS * 1000)
        consoles.append(Console(context, address or system.env["CAFE_API_URL"], system.env))
        consoles[-1].open(tab)
        if person:
            consoles[-1].sign_in(person)
        return consoles[-1]

    yield visit
    if failed(request.node):
        for number, console in enumerate(consoles, 1):
            console.save(folder_of(request.node.nodeid) / f"page-{number}")
    for console in consoles:
        console.close()
    for console in consoles:
        console.check()


@pytest.fixture(scope="session")
def people(system: System) -> Make:
    """Adds a person to a group. With ``chosen``, the person has already replaced the temporary password."""
    cognito, pool = system.aws("cognito-idp"), system.env["USER_POOL_ID"]

    def make(group: str, name: str | None = None, *, chosen: bool = True) -> Person:
        name = name or f"{group}-{secrets.token_hex(3)}"
        password = add(cognito, pool, name, group) if chosen else users.make(cognito, pool, name, group).password
        assert password, f"the user {name} already exists"
        return Person(name, password)

    return make


@pytest.fixture(scope="session")
def manager(system: System) -> Person:
    return Person("manager", system.stack.users.passwords["manager"])


@pytest.fixture(scope="session")
def staff(system: System) -> Person:
    return Person("staff", system.stack.users.passwords["staff"])
