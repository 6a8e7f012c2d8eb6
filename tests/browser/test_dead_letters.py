"""Tests that the Dead letters tab lists, puts back and discards failed messages, and shows what became of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visit
from tests.browser.console import Console, Person
from tests.browser.steps import intercept
from tests.system.letters import Letters, failed_upload, order_message, own_letters
from tests.system.system import System, stored


@pytest.fixture
def letters(system: System) -> Iterator[Letters]:
    with own_letters(system) as letters:
        yield letters


ORDER = {"id": "m1", "letter": "m1", "kind": "order", "what": "order d1 of customer Zoë", "why": "no such table"}
ORDER |= {"since": "2026-11-29T10:00:00.000000Z", "tries": 300}
ORDER |= {"content": "\u202egnp.exe <img src=x onerror=hacked=1>\x07" + 3_000 * "x"}


def page_of(*letters: dict[str, Any], state: str = "") -> dict[str, Any]:
    """Returns the API's list of dead letters. ``state`` is the state of ``ORDER`` after it was handled."""
    handled = [{**ORDER, "by": "ana", "at": "2099-01-01T00:00:00Z", "state": state}] if state else []
    return {"deadLetters": letters, "total": len(letters), "handled": handled}


def with_letter(visit: Visit, person: Person, action: str, *answers: dict[str, Any]) -> tuple[Console, list[Any]]:
    """Opens the tab with the fake dead letter ``ORDER``. The tab shows the last page in the returned list."""
    console, pages, left = visit(), [page_of(ORDER)], list(answers)
    intercept(console, "GET", "dead-letters", lambda route: route.fulfill(json=pages[-1]))
    intercept(console, "POST", f"dead-letters/{action}", lambda route: route.fulfill(**left.pop(0)))
    console.open("#dead-letters")
    console.sign_in(person)
    return console, pages


def letter(console: Console, about: str) -> Locator:
    console.view("Dead letters")
    return console.page.locator("#dead-letters-list > li").filter(has_text=about)


def handled(console: Console, about: str) -> Locator:
    return console.page.get_by_role("region", name="Handled").get_by_role("listitem").filter(has_text=about)


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
    expect(handled(console, order_id)).to_contain_text("put back by manager")
    stored(system, order_id)
    expect(handled(console, order_id)).to_contain_text("Done")


def test_all_dead_letters_of_a_kind_are_put_back_together(
    letters: Letters, visit: Visit, manager: Person, system: System
) -> None:
    ids, file = [letters.new_id(), letters.new_id()], f"{letters.new_id('u')}.csv"
    letters.put("FAILURES_QUEUE_URL", failed_upload(system, f"inventory/{file}"))
    for each in ids:
        letters.put("ORDERS_DEAD_LETTER_URL", order_message(each))
    console = visit(manager, "#dead-letters")
    for each in (*ids, f"upload {file}"):
        expect(letter(console, each)).to_be_visible()
    console.page.get_by_role("radio", name="orders").check(force=True)
    expect(letter(console, file)).to_have_count(0)
    console.page.get_by_role("button", name="Put all orders back").click()
    dialog = console.page.get_by_role("dialog")
    expect(dialog).to_contain_text("A message that fails again returns to this list.")
    dialog.get_by_role("button", name="Put back").click()
    for each in ids:
        expect(letter(console, each)).to_have_count(0)
        stored(system, each)
    expect(letter(console, file)).to_be_visible()


def test_a_letter_that_was_put_back_is_followed_until_it_has_failed_again(visit: Visit, manager: Person) -> None:
    # At first, another reader holds the message, so the redrive does not find it.
    answers = [{"json": {"redriven": number, "kept": [], "left": 0}} for number in (0, 1)]
    console, pages = with_letter(visit, manager, "redrive", *answers)
    letter(console, "order d1").get_by_role("button", name="Put back").click()
    pages.append(page_of(state="ON_ITS_WAY"))
    console.page.get_by_role("dialog").get_by_role("button", name="Put back").click()
    expect(handled(console, "On its way")).to_be_visible()
    pages.append(page_of({**ORDER, "id": "m3", "tries": 301}, state="FAILED_AGAIN"))
    # The tab usually refreshes every 30 seconds.
    expect(handled(console, "Failed again")).to_be_visible(timeout=15_000)
    expect(
        console.page.get_by_role("status").filter(has_text="order d1 of customer Zoë: Failed again")
    ).to_be_attached()
    expect(letter(console, "301 tries")).to_be_visible()


def test_a_letter_is_discarded_only_after_its_text_was_shown(visit: Visit, manager: Person) -> None:
    answers = [{"status": 503, "json": {"Message": "No SQS"}}, {"json": {"discarded": 1, "kept": [], "left": 0}}]
    console, pages = with_letter(visit, manager, "discard", *answers)
    console.expect_complaint("status of 503.*/discard")
    letter(console, "order d1").get_by_role("button", name="Discard").click()
    pages.append(page_of(state="DISCARDED"))
    dialog = console.page.get_by_role("dialog", name="Discard it?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    assert dialog.locator("pre").text_content() == r"\u{202e}gnp.exe <img src=x onerror=hacked=1>\u{7}" + 3_000 * "x"
    dialog.get_by_role("button", name="Discard").click()
    expect(dialog.get_by_role("alert")).to_have_text("No SQS")
    dialog.get_by_role("button", name="Discard").click()
    expect(console.page.get_by_text("1 dead letter discarded.")).to_be_visible()
    handled(console, "discarded by ana").get_by_text("Show the message").click()
    expect(handled(console, "discarded by ana").locator("pre")).to_be_visible()
