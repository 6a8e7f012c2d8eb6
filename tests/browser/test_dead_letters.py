"""Tests that the Dead letters tab lists failed messages, puts them back, discards them and shows what became of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import Locator, Route, expect

from chalicelib.timeline import timestamp
from tests.browser.conftest import Visit
from tests.browser.console import Console, Person
from tests.browser.steps import intercept
from tests.system.letters import Letters, failed_upload, order_message, own_letters
from tests.system.system import System, stored


@pytest.fixture
def letters(system: System) -> Iterator[Letters]:
    with own_letters(system) as letters:
        yield letters


HOSTILE = "\u202egnp.evil <img src=x onerror=hacked=1>\x07\n" + 3_000 * "x"
ORDER = {"id": "m1", "letter": "m1", "kind": "order", "what": "order d1 of customer Zoë", "why": "no such table"}
ORDER |= {"since": "2026-11-29T10:00:00.000000Z", "tries": 300, "content": HOSTILE}
HANDLED_AT = timestamp(datetime.now(UTC))


def page_of(*letters: dict[str, Any], handled: str = "") -> dict[str, Any]:
    """Returns the API's list of dead letters. ``handled`` is the state of the letter ``ORDER`` after it was handled."""
    done = [{**ORDER, "by": "ana", "at": HANDLED_AT, "state": handled}] if handled else []
    return {"deadLetters": letters, "total": len(letters), "handled": done}


def with_letter(visit: Visit, person: Person) -> tuple[Console, list[dict[str, Any]]]:
    """Opens the tab with the fake dead letter ``ORDER``. The tab shows the last page in the returned list."""
    console, pages = visit(), [page_of(ORDER)]
    intercept(console, "GET", "dead-letters", lambda route: route.fulfill(json=pages[-1]))
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
    ids, key = [letters.new_id(), letters.new_id()], f"inventory/{letters.new_id('u')}.csv"
    letters.put("FAILURES_QUEUE_URL", failed_upload(system, key))
    for each in ids:
        letters.put("ORDERS_DEAD_LETTER_URL", order_message(each))
    console = visit(manager, "#dead-letters")
    for each in (*ids, key):
        expect(letter(console, each)).to_be_visible()
    console.page.get_by_role("radio", name="orders").check(force=True)
    expect(letter(console, key)).to_have_count(0)
    console.page.get_by_role("button", name="Put all orders back").click()
    dialog = console.page.get_by_role("dialog")
    expect(dialog).to_contain_text("A message that fails again returns to this list.")
    dialog.get_by_role("button", name="Put back").click()
    for each in ids:
        expect(letter(console, each)).to_have_count(0)
        stored(system, each)
    expect(letter(console, key)).to_be_visible()


def test_a_letter_that_was_put_back_is_followed_until_it_has_failed_again(visit: Visit, manager: Person) -> None:
    console, pages = with_letter(visit, manager)
    answers = [0, 1]

    def redrive(route: Route) -> None:
        # At first, another reader holds the message, so the redrive does not find it.
        redriven = answers.pop(0)
        pages.append(page_of(handled="ON_ITS_WAY") if redriven else pages[0])
        route.fulfill(json={"redriven": redriven, "kept": [], "left": 1 - redriven})

    intercept(console, "POST", "dead-letters/redrive", redrive)
    letter(console, "order d1").get_by_role("button", name="Put back").click()
    console.page.get_by_role("dialog").get_by_role("button", name="Put back").click()
    mine = handled(console, "order d1")
    expect(mine).to_contain_text("On its way")
    pages.append(page_of({**ORDER, "id": "m3", "tries": 301}, handled="FAILED_AGAIN"))
    # The tab usually refreshes every 30 seconds.
    expect(mine).to_contain_text("Failed again", timeout=15_000)
    expect(mine).to_contain_text("It is back in the list above")
    expect(
        console.page.get_by_role("status").filter(has_text="order d1 of customer Zoë: Failed again")
    ).to_be_attached()
    expect(letter(console, "order d1")).to_contain_text("301 tries")


def test_a_letter_is_discarded_only_after_its_text_was_shown(visit: Visit, manager: Person) -> None:
    console, pages = with_letter(visit, manager)
    console.expect_complaint("status of 503.*/discard")

    def discard(route: Route) -> None:
        pages.append(page_of(handled="DISCARDED"))
        route.fulfill(json={"discarded": 1, "kept": [], "left": 0})

    intercept(console, "POST", "dead-letters/discard", discard)
    refuse_once = {"status": 503, "json": {"Code": "ServiceUnavailableError", "Message": "SQS is unavailable"}}
    intercept(console, "POST", "dead-letters/discard", lambda route: route.fulfill(**refuse_once), times=1)
    letter(console, "order d1").get_by_role("button", name="Discard").click()
    dialog = console.page.get_by_role("dialog", name="Discard it?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    text = HOSTILE.replace("\u202e", r"\u{202e}").replace("\x07", r"\u{7}")
    assert dialog.locator("pre").text_content() == text
    yes = dialog.get_by_role("button", name="Discard")
    yes.click()
    expect(dialog.get_by_role("alert")).to_have_text("SQS is unavailable")
    yes.click()
    expect(console.page.get_by_text("1 dead letter discarded.")).to_be_visible()
    mine = handled(console, "discarded by ana")
    mine.get_by_text("Show the message").click()
    expect(mine.locator("pre")).to_be_visible()
    assert console.calls("POST", "dead-letters/discard") == 2 * [{"ids": ["m1"]}]
    assert console.page.evaluate("window.hacked ?? null") is None
