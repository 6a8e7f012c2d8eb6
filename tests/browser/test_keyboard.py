"""Tests that the whole console works with the keyboard alone and that the focus is always visible."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visit
from tests.browser.console import PHONE, TABS, Console, Person
from tests.browser.fake_uploads import upload, with_fake
from tests.browser.steps import new_customer, order_row, place
from tests.system.system import System

# ``MOST`` limits how often a loop presses Tab. Every page has fewer Tab stops than this limit.
MOST = 150
# This script counts the elements that Tab reaches. In a group of radio buttons, Tab reaches only the checked button.
STOPS = """() => {
  const wanted = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  const shown = [...document.querySelectorAll(wanted)].filter((each) => !each.disabled && each.checkVisibility());
  return shown.filter((each) => each.type !== "radio" || each.checked).length;
}"""
# This script returns the focused element and whether its focus is visible. The script returns null for an element that
# already had the focus.
FOCUSED = """() => {
  const element = document.activeElement;
  if (element === document.body) return null;
  window.stops ??= [];
  if (window.stops.includes(element)) return null;
  window.stops.push(element);
  // A radio button's outline is on its label. A link may cover its whole row with ::after.
  const marked = [[element], [element, "::after"], ...[...(element.labels ?? [])].map((label) => [label])];
  const seen = marked.some((each) => getComputedStyle(...each).outlineStyle !== "none");
  return [element.outerHTML.slice(0, 200), seen];
}"""


def tab_to(place: Locator, key: str = "Tab") -> None:
    """Presses the Tab key, or Shift+Tab, until the element ``place`` has the focus."""
    for _ in range(MOST):
        if place.evaluate("(element) => element === document.activeElement"):
            return
        place.page.keyboard.press(key)
    raise AssertionError(f"Tab does not reach {place}")


def sign_in(console: Console, person: Person) -> None:
    """Signs in with the keyboard. The name field must have the focus when the page opens."""
    expect(console.page.get_by_label("Name", exact=True)).to_be_focused()
    console.page.keyboard.type(person.name)
    console.page.keyboard.press("Tab")
    console.page.keyboard.type(person.password)
    console.page.keyboard.press("Enter")
    expect(console.page.get_by_role("button", name="Sign out")).to_be_visible()


def test_from_signing_in_to_an_order_and_back_without_a_mouse(visit: Visit, staff: Person) -> None:
    customer = new_customer()
    console = visit()
    keyboard = console.page.keyboard
    sign_in(console, staff)
    # Staff begin with the orders.
    expect(console.page.get_by_role("heading", name="Orders", level=1)).to_be_focused()
    tab_to(console.page.get_by_label("Customer", exact=True))
    keyboard.type(customer)
    tab_to(console.page.get_by_label("Item", exact=True))
    keyboard.type("Espresso")
    tab_to(console.page.get_by_role("button", name="Add another item"))
    keyboard.press("Enter")
    expect(console.page.get_by_label("Item 2", exact=True)).to_be_focused()
    keyboard.type("Tea")
    tab_to(console.page.get_by_role("button", name="Place the order"))
    keyboard.press("Enter")
    expect(console.page.get_by_label("Customer", exact=True)).to_be_focused()
    tab_to(console.page.get_by_role("searchbox"), "Shift+Tab")
    keyboard.type(customer)
    mine = order_row(console, customer).get_by_role("link")
    tab_to(mine)
    keyboard.press("Enter")
    dialog = console.page.get_by_role("dialog")
    expect(dialog).to_contain_text("Espresso, Tea")
    keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(mine).to_be_focused()
    tab_to(console.page.get_by_role("button", name="Sign out"))
    keyboard.press("Enter")
    expect(console.page.get_by_label("Name", exact=True)).to_be_focused()


def test_the_first_tab_stop_skips_to_the_content(visit: Visit, staff: Person) -> None:
    console = visit(staff, "#inbox")
    console.page.reload()
    console.view("Inbox")
    console.page.keyboard.press("Tab")
    skip = console.page.get_by_role("link", name="Skip to main content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    console.page.keyboard.press("Enter")
    expect(console.page.get_by_role("main")).to_be_focused()


@pytest.mark.parametrize("viewport", [None, PHONE], ids=["desktop", "phone"])
def test_tab_stops_at_every_control_and_shows_the_focus(
    visit: Visit, manager: Person, system: System, viewport: dict[str, int] | None
) -> None:
    customer = new_customer()
    place(system, customer)
    uploads = [upload("IMPORTED"), upload("PREVIEWED", uploadId="1" * 12, filename="friday.csv")]
    console, _ = with_fake(visit, manager, *uploads, options={"viewport": viewport} if viewport else {})
    for tab in TABS:
        view = console.go(tab)
        expect(view.get_by_text("Loading")).to_have_count(0)
        if tab == "Orders":
            view.get_by_role("searchbox").fill(customer)
            expect(order_row(console, customer)).to_be_visible()
        console.page.evaluate("() => { window.stops = []; document.activeElement.blur(); }")
        stops = []
        for _ in range(MOST):
            console.page.keyboard.press("Tab")
            stop = console.page.evaluate(FOCUSED)
            if stop:
                stops.append(stop)
            elif stops and len(stops) >= console.page.evaluate(STOPS):
                break
        assert [html for html, seen in stops if not seen] == []
        assert len(stops) == console.page.evaluate(STOPS), tab
