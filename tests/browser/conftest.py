"""A real Chromium on the deployed system, and the people who use it."""

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
from tests.system.system import System

# Gives the page at the address, or at the API's, to a person who is signed in, if one is named; options are those of
# Playwright's contexts.
Visit = Callable[..., Console]
# Gives a person of a group.
Make = Callable[..., Person]

# No promise of speed: the bound after which waiting has failed.
SECONDS = 30
expect.set_options(timeout=SECONDS * 1000)


@pytest.fixture(scope="session", autouse=True)
def program() -> Path:
    """Before all else: without a browser no system is needed."""
    found = chromium.find()
    if found:
        return found
    try:
        return chromium.install()
    except StackError as error:
        pytest.skip(str(error))


# Not of the session: where Playwright runs, its event loop is the one of all tests of this worker.
@pytest.fixture(scope="module")
def browser(program: Path) -> Iterator[Browser]:
    with chromium.running(program) as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser, system: System, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Opens pages. At the end no page may have done what ``Console.check`` forbids; a failed test keeps pictures."""
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
    """Makes a person of a group; ``chosen`` is whether they have a password of their own choice already."""
    cognito, pool = system.aws("cognito-idp"), system.env["USER_POOL_ID"]

    def make(group: str, name: str | None = None, *, chosen: bool = True) -> Person:
        name = name or f"{group}-{secrets.token_hex(3)}"
        password = users.make(cognito, pool, name, group).password
        assert password, f"there is a {name} already"
        if chosen:
            cognito.admin_set_user_password(UserPoolId=pool, Username=name, Password=password, Permanent=True)
        return Person(name, password)

    return make


@pytest.fixture(scope="session")
def manager(system: System) -> Person:
    return Person("manager", system.stack.users.passwords["manager"])


@pytest.fixture(scope="session")
def staff(system: System) -> Person:
    return Person("staff", system.stack.users.passwords["staff"])
