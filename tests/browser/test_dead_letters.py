"""Tests that the Dead letters tab lists failed messages with their errors, and redrives them after a confirmation."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visit
from tests.browser.console import Console, Person
from tests.system.letters import Letters, order_message, own_letters
from tests.system.system import System, stored


@pytest.fixture
def letters(system: System) -> Iterator[Letters]:
    with own_letters(system) as letters:
        yield letters


def letter(console: Console, about: str) -> Locator:
    return console.view("Dead letters").get_by_role("listitem").filter(has_text=about)


def test_a_dead_order_shows_its_customer_and_is_put_back_after_a_confirmation(
    letters: Letters, visit: Visit, manager: Person, system: System
) -> None:
    order_id = letters.new_id()
    letters.put("ORDERS_DEAD_LETTER_URL", order_message(order_id))
    console = visit(manager)
    console.go("Dead letters")
    mine = letter(console, order_id)
    expect(mine).to_contain_text("of customer Zoë")
    back = mine.get_by_role("button", name="Put back")
    dialog = console.page.get_by_role("dialog", name="Put it back?")

    back.click()
    expect(dialog).to_contain_text(order_id)
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert console.calls("POST", "dead-letters/redrive") == []

    back.click()
    dialog.get_by_role("button", name="Put back").click()
    expect(console.page.get_by_text(re.compile("^1 dead letter put back"))).to_be_visible()
    expect(mine).to_have_count(0)
    assert len(console.calls("POST", "dead-letters/redrive")) == 1
    stored(system, order_id)


def test_all_dead_letters_are_put_back_together(
    letters: Letters, visit: Visit, manager: Person, system: System
) -> None:
    ids = [letters.new_id(), letters.new_id()]
    for each in ids:
        letters.put("ORDERS_DEAD_LETTER_URL", order_message(each))
    console = visit(manager, "#dead-letters")
    for each in ids:
        expect(letter(console, each)).to_be_visible()
    console.page.get_by_role("button", name="Put all back").click()
    dialog = console.page.get_by_role("dialog")
    expect(dialog).to_contain_text("A message that fails again returns to this list.")
    dialog.get_by_role("button", name="Put back").click()
    for each in ids:
        expect(letter(console, each)).to_have_count(0)
        stored(system, each)
