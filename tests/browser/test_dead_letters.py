"""Dead letters, by the page: what waits, why, and putting it back, which asks once."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visit
from tests.browser.console import Console, Person
from tests.system.system import System, wait_for
from tests.system.test_dead_letters import new_id, order, put


def letter(console: Console, about: str) -> Locator:
    return console.view("Dead letters").get_by_role("listitem").filter(has_text=about)


def is_stored(system: System, order_id: str) -> None:
    wait_for(lambda: system.request("GET", f"/orders/{order_id}").status == 200, "the order")


def test_a_dead_order_says_why_and_is_put_back_once_that_is_confirmed(
    visit: Visit, manager: Person, system: System
) -> None:
    order_id = new_id()
    put(system, "ORDERS_DEAD_LETTER_URL", order(order_id))
    console = visit(manager)
    console.go("Dead letters")
    mine = letter(console, order_id)
    expect(mine).to_contain_text("of customer Zoë")
    back = mine.get_by_role("button", name="Put back")
    dialog = console.page.get_by_role("dialog", name="Put it back?")

    back.click()
    expect(dialog).to_contain_text(order_id)
    dialog.get_by_role("button", name="Leave it").click()
    expect(dialog).to_be_hidden()
    assert console.calls("POST", "dead-letters/redrive") == []

    back.click()
    dialog.get_by_role("button", name="Put back").click()
    expect(console.page.get_by_text(re.compile("^1 dead letter put back"))).to_be_visible()
    expect(mine).to_have_count(0)
    assert len(console.calls("POST", "dead-letters/redrive")) == 1
    is_stored(system, order_id)


def test_all_are_put_back_at_once_and_what_fails_again_comes_back(
    visit: Visit, manager: Person, system: System
) -> None:
    ids = [new_id(), new_id()]
    for each in ids:
        put(system, "ORDERS_DEAD_LETTER_URL", order(each))
    console = visit(manager, "#dead-letters")
    for each in ids:
        expect(letter(console, each)).to_be_visible()
    console.page.get_by_role("button", name="Put all of it back").click()
    dialog = console.page.get_by_role("dialog")
    expect(dialog).to_contain_text("What fails again comes back here.")
    dialog.get_by_role("button", name="Put back").click()
    for each in ids:
        expect(letter(console, each)).to_have_count(0)
        is_stored(system, each)
