"""Tests the console behind API Gateway, where the URL path starts with the stage's name."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.console import TABS, Person
from tests.browser.steps import a_file, beans, choose, expect_placed, expect_preview, new_customer, send_order
from tests.system.system import System, new_id


def test_the_main_actions_of_each_tab_work_behind_the_gateway(visit: Visit, manager: Person, system: System) -> None:
    customer, name = new_customer(), f"{new_id('gateway')}.csv"
    console = visit(manager, address=system.env["REST_API_URL"])
    expect(console.page).to_have_url(f"{console.address}/#today")
    for tab in TABS:
        view = console.go(tab)
        expect(view.get_by_text("Loading")).to_have_count(0)
        expect(console.page.get_by_text("cannot be shown")).to_have_count(0)

    console.go("Orders")
    send_order(console, customer)
    expect_placed(console, customer)

    console.go("Uploads")
    choose(console, a_file(name, beans(name)))
    expect_preview(console, name)

    view = console.go("Reports")
    view.get_by_role("button", name="Request the report").click()
    expect(view.get_by_role("link", name="Open the report")).to_be_visible()
    expect(console.page).to_have_url(re.compile(f"^{re.escape(console.address)}/#reports/inventory-"))
    console.page.reload()
    expect(view.get_by_role("link", name="Open the report")).to_be_visible()
    expect(console.go("Inbox").get_by_role("listitem").filter(has_text=customer)).to_be_visible()
