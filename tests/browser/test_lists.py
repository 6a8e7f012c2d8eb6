"""Tests what each list shows while it loads, after an error, and when it is empty.

The tests fake the API's responses.
"""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Visit
from tests.browser.console import Person

NONE: dict[str, Any] = {"next": None}
NO_LETTERS: dict[str, Any] = {"deadLetters": [], "total": 0}
LISTS = {
    # Each row contains a tab, its API request, the name of its list, an empty response, and the text for an empty list.
    "orders": ("#orders", "**/orders?*", "orders", NONE | {"orders": []}, "No open orders"),
    "reports": ("#reports", "**/reports?limit=*", "reports", NONE | {"reports": []}, "No reports yet"),
    "storage": ("#reports", "**/reports?kind=*", "storage", NONE | {"reports": []}, "Nothing measured yet"),
    "uploads": ("#uploads", "**/uploads?*", "uploads", NONE | {"uploads": []}, "No uploads"),
    "inbox": ("#inbox", "**/notifications?*", "messages", NONE | {"notifications": []}, "Nothing yet"),
    "dead letters": ("#dead-letters", "**/dead-letters?*", "dead letters", NO_LETTERS, "No dead letters"),
    "news": ("#today", "**/notifications?*", "news", NONE | {"notifications": []}, "No news yet"),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_shows_that_it_loads_why_it_failed_and_that_it_is_empty(
    visit: Visit, manager: Person, name: str
) -> None:
    tab, asked, called, nothing, words = LISTS[name]
    console = visit()
    console.expect_complaint("status of 400")
    held: list[Route] = []
    console.page.route(asked, lambda route: held.append(route))
    console.open(tab)
    console.sign_in(manager)
    loading = console.page.get_by_text(f"Loading {called} …", exact=True)
    expect(loading).to_be_visible()

    for route in held:
        route.fulfill(status=400, json={"Code": "BadRequestError", "Message": "the till is jammed"})
    expect(console.page.get_by_text("cannot be shown: the till is jammed")).to_be_visible()
    expect(loading).to_be_hidden()

    console.page.unroute(asked)
    console.page.route(asked, lambda route: route.fulfill(json=nothing))
    console.page.get_by_role("button", name="Try again").click()
    expect(console.page.get_by_text(words, exact=True)).to_be_visible()
    expect(console.page.get_by_text("cannot be shown")).to_be_hidden()
