"""Tests the parts of the console that only managers may use.

The corresponding API routes are tested in tests/unit/test_sign_in.py.
"""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.console import Person
from tests.system.system import System

MANAGERS = ("Reports", "Uploads", "Dead letters")


def test_a_managers_tab_tells_staff_so_and_sends_no_request(visit: Visit, staff: Person) -> None:
    console = visit(staff, "#inbox")
    for tab in MANAGERS:
        link = console.page.get_by_role("navigation").get_by_role("link", name=tab)
        expect(link).to_have_accessible_name(f"{tab} (managers only)")
        asked = len(console.requests)
        view = console.go(tab)
        expect(view.get_by_role("heading", name="Only for managers")).to_be_visible()
        expect(view.get_by_role("button")).to_have_count(1)
        about = tab.lower().replace(" ", "-")
        assert not [each.url for each in console.requests[asked:] if each.url.startswith(f"{console.address}/{about}")]


def test_staff_read_a_reports_notification_without_its_link(
    visit: Visit, staff: Person, manager: Person, system: System
) -> None:
    report = system.report({})
    system.notification(report["reportId"], "report")
    for person, link in ((staff, 0), (manager, 1)):
        console = visit(person, "#inbox")
        message = console.page.get_by_role("listitem").filter(has_text=report["reportId"])
        message.get_by_role("group").or_(message.locator("summary")).first.click()
        expect(message).to_contain_text("(only managers can open reports)" if not link else "Open it, at")
        expect(message.get_by_role("link", name="Open it")).to_have_count(link)
