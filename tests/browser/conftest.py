"""Fixtures for browser tests in Chromium against the deployed console."""

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

# A ``Visit`` function opens the console and can sign a person in. All other options are passed to Playwright.
Visit = Callable[..., Console]
# A ``Make`` function adds a person to a group of the user pool.
Make = Callable[..., Person]

# Every wait has a generous time limit because some machines are slow.
SECONDS = 30
expect.set_options(timeout=SECONDS * 1000)


@pytest.fixture(scope="session", autouse=True)
def program() -> Path:
    """Returns the path of the Chromium program, after installing Chromium if necessary.

    This fixture runs before the deployed system starts, because all browser tests are skipped without Chromium.
    """
    found = chromium.find()
    if found:
        return found
    try:
        return chromium.install()
    except StackError as error:
        pytest.skip(str(error))


# With session scope, Playwright's event loop would also affect all later tests in this worker process.
@pytest.fixture(scope="module")
def browser(program: Path) -> Iterator[Browser]:
    with chromium.running(program) as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser, system: System, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Opens pages. When a test ends, ``Console.check`` must pass for each open page.

    A failed test saves a screenshot of each page.
    """
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
    """Returns a function that adds a person to a group of the user pool.

    If ``chosen`` is true, the person already has a permanent password.
    """
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
