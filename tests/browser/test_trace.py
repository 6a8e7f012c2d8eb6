"""Tests the links of the local console to the page of ``make trace``, and that page."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.console import PHONE, Console, Person
from tests.system.system import System, new_id, wait_for


def opened(console: Console) -> Page:
    """Follows the link to the picture of all hops, and returns its page."""
    with console.page.expect_popup() as popup:
        console.page.get_by_role("link", name="Show every hop").click()
    return popup.value


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_report_opens_by_its_link_and_works_by_keyboard_and_on_a_phone(
    visit: Visit, manager: Person, system: System, scheme: str
) -> None:
    report = system.report({})
    console = visit(manager, f"#reports/{report['reportId']}", color_scheme=scheme)
    page = opened(console)
    expect(page.get_by_role("heading", level=1)).to_have_text(report["reportId"])
    expect(page.locator("summary", has_text="ReadInventory")).to_be_visible()
    function = page.locator("summary", has_text="read_inventory")
    function.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("inventory read")).to_be_visible()
    assert not Axe().run(page).response["violations"]
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_orders_and_uploads_have_the_link_too(visit: Visit, manager: Person, system: System) -> None:
    order_id, key = new_id("order"), system.upload(f"inventory/{new_id('file')}.csv", "no columns")
    system.post("/orders", {"orderID": order_id, "customerID": "c", "item": "Mocha"})
    wait_for(lambda: system.request("GET", f"/orders/{order_id}").status == 200, "the order")
    console = visit(manager, f"#orders/{order_id}")
    expect(opened(console).get_by_role("list").get_by_text("store_orders", exact=True)).to_be_visible()
    found = wait_for(lambda: [each for each in system.get("/uploads")["uploads"] if each["key"] == key], "the upload")
    console = visit(manager, f"#uploads/{found[0]['uploadId']}")
    expect(opened(console).get_by_role("list").get_by_text(re.compile("MySQL import")).first).to_be_visible()
