"""Tests that the navigation counts the failures and messages that a person has not looked at.

The tests fake the API's responses, because other tests fail reports and publish messages at the same time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visit
from tests.browser.console import Console, Person
from tests.browser.steps import intercept, with_clock
from tests.system.waiting import wait_for

MINUTE = timedelta(minutes=1)


def link(console: Console, tab: str) -> Locator:
    return console.page.locator(f"nav a[href='#{tab}']")


def today(reports: int, uploads: int, letters: int) -> dict[str, Any]:
    """Returns the API's response about a day with these numbers of failures."""
    return {
        "orders": {"stored": 0, "waiting": 0, "hours": [], "more": False},
        "reports": {"running": 0, "succeeded": 5, "failed": reports, "more": False},
        "uploads": {"imported": 5, "notImported": uploads, "other": 0, "more": False},
        "failures": {"deadLetters": letters, "alarms": 0, "more": False},
    }


def message(number: int, sent_at: datetime, kind: str = "order", **others: Any) -> dict[str, Any]:
    given = {"messageId": f"m-{number}", "kind": kind, "subject": f"Message {number}", "message": "Words", "facts": {}}
    return {**given, "sentAt": f"{sent_at:%Y-%m-%dT%H:%M:%S.%f}Z", **others}


def with_answers(console: Console, person: Person, tab: str, figures: dict[str, Any], messages: list[Any]) -> list[str]:
    """Opens the page with fake figures and messages. Returns the URLs of the requests for the figures."""
    asked = intercept(console, "GET", "today", lambda route: route.fulfill(json=figures))
    page = {"notifications": messages, "next": None}
    intercept(console, "GET", "notifications", lambda route: route.fulfill(json=page))
    with_clock(console, person, tab)
    return asked


def test_failures_are_counted_on_every_tab_until_a_manager_looks(visit: Visit, manager: Person) -> None:
    figures = today(2, 1, 3)
    console = visit()
    asked = with_answers(console, manager, "#orders", figures, [])
    expect(link(console, "reports")).to_have_accessible_name("Reports 2 new failures today")
    expect(link(console, "uploads")).to_have_accessible_name("Uploads 1 new failure today")
    expect(link(console, "dead-letters")).to_have_accessible_name("Dead letters 3 waiting")

    console.go("Reports")
    expect(link(console, "reports")).to_have_accessible_name("Reports")
    expect(link(console, "uploads")).to_have_accessible_name("Uploads 1 new failure today")
    console.go("Inbox")
    figures["reports"]["failed"] = 3
    console.page.clock.run_for("00:31")
    expect(link(console, "reports")).to_have_accessible_name("Reports 1 new failure today")
    expect(console.page.get_by_role("status").filter(has_text="Reports: 1 new failure today")).to_be_attached()

    # The Today tab shows the same figures, so they are not requested twice.
    console.go("Today")
    expect(console.view("Today")).to_contain_text("3 failed")
    before = len(asked)
    console.page.clock.run_for("00:31")
    assert len(asked) - before <= 2
    console.page.clock.fast_forward("24:00:00")
    expect(link(console, "reports")).to_have_accessible_name("Reports 3 new failures today")

    console.open("#orders")
    console.page.reload()
    expect(link(console, "reports")).to_have_accessible_name(re.compile("Reports . new failures? today"))


def test_staff_have_no_counts_of_failures(visit: Visit, staff: Person) -> None:
    console = visit()
    with_answers(console, staff, "#today", today(2, 1, 3), [])
    expect(console.view("Today")).to_contain_text("2 failed")
    for tab in ("Reports", "Uploads", "Dead letters"):
        name = f"{tab} (managers only)"
        expect(link(console, tab.lower().replace(" ", "-"))).to_have_accessible_name(name)


def test_messages_are_unread_until_the_person_leaves_the_inbox(visit: Visit, staff: Person) -> None:
    now = datetime.now(UTC)
    messages = [message(1, now - MINUTE)]
    console = visit()
    with_answers(console, staff, "#orders", today(0, 0, 0), messages)
    expect(link(console, "inbox")).to_have_accessible_name("Inbox")
    messages.insert(0, message(2, now + MINUTE))
    console.page.clock.run_for("00:31")
    expect(link(console, "inbox")).to_have_accessible_name("Inbox 1 unread")
    messages.insert(0, message(3, now + MINUTE, "upload", facts={"outcome": "notImported"}))
    console.page.clock.run_for("00:31")
    expect(link(console, "inbox")).to_have_accessible_name("Inbox 2 unread, with a failure")

    entries = console.go("Inbox").get_by_role("listitem")
    expect(link(console, "inbox")).to_have_accessible_name("Inbox")
    for number, is_new in ((1, False), (2, True), (3, True)):
        entry = entries.filter(has_text=f"Message {number}")
        expect(entry.get_by_text("New", exact=True)).to_be_visible(visible=is_new)
    console.go("Orders")
    console.go("Inbox")
    expect(entries.filter(has_text="Message 3")).to_be_visible()
    expect(entries.get_by_text("New", exact=True).filter(visible=True)).to_have_count(0)

    # Another person in the same browser has other unread messages, and signing out forgets nothing.
    leave = console.page.get_by_role("button", name="Sign out")
    leave.click()
    # Signing out reloads the page. Another navigation would cancel the reload.
    expect(leave).to_be_hidden()
    messages[:0] = [message(number, now + 2 * MINUTE) for number in range(20, 0, -1)]
    console.open("#orders")
    # The page first asks other tabs for a session, and its clock stands still.
    name = console.page.get_by_label("Name", exact=True)
    wait_for(lambda: name.is_visible() or console.page.clock.run_for("00:01"), "the sign-in form")
    console.sign_in(staff)
    expect(link(console, "inbox")).to_have_accessible_name("Inbox 20 unread")


def test_a_full_page_of_unread_messages_says_that_there_may_be_more(visit: Visit, staff: Person) -> None:
    console = visit()
    answer = {"notifications": [], "next": "more"}
    intercept(console, "GET", "notifications", lambda route: route.fulfill(json=answer))
    with_clock(console, staff, "#orders")
    expect(link(console, "inbox")).to_have_accessible_name("Inbox")
    answer["notifications"] = [message(number, datetime.now(UTC) + MINUTE) for number in range(20)]
    console.page.clock.run_for("00:31")
    expect(link(console, "inbox")).to_have_accessible_name("Inbox 20+ unread")


def test_good_and_bad_messages_have_different_icons(visit: Visit, manager: Person) -> None:
    now = datetime.now(UTC)
    kinds = [("report", "succeeded"), ("storage", "failed"), ("upload", "imported"), ("upload", "notImported")]
    messages = [message(number, now, kind, facts={"outcome": what}) for number, (kind, what) in enumerate(kinds)]
    console = visit()
    with_answers(console, manager, "#inbox", today(0, 0, 0), [*messages, message(4, now, "alarm")])
    view = console.view("Inbox")
    icons = ["done", "alarm", "done", "alarm", "alarm"]
    for number, icon in enumerate(icons):
        row = view.get_by_role("listitem").filter(has_text=f"Message {number}")
        expect(row.locator("use").first).to_have_attribute("href", f"#icon-{icon}")
