"""Tests that a lost connection or response never loses input and never places an order twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Visit
from tests.browser.console import Person
from tests.browser.fake_uploads import FILE, upload, with_fake
from tests.browser.steps import (
    a_file,
    beans,
    choose,
    drop,
    expect_one_order,
    expect_preview,
    intercept,
    lose,
    new_customer,
    order_form,
    order_row,
    place,
    refuse,
    send_order,
    with_clock,
)
from tests.system.system import System

OFFLINE = "ERR_INTERNET_DISCONNECTED"
NO_CONNECTION = "No connection."


def test_while_offline_the_list_stays_and_an_order_is_sent_automatically_once_online(
    visit: Visit, staff: Person, system: System
) -> None:
    before, after, customer = new_customer(), new_customer(), new_customer()
    place(system, before)
    console = with_clock(visit(), staff, "#orders")
    console.expect_complaint(OFFLINE)
    expect(order_row(console, before)).to_be_visible()
    console.context.set_offline(True)
    place(system, after)
    send_order(console, customer)
    expect(console.page.get_by_text(NO_CONNECTION)).to_be_visible()
    console.page.clock.run_for("01:00")
    expect(order_row(console, before)).to_be_visible()
    expect(order_form(console.view("Orders")).get_by_label("Customer")).to_have_value(customer)

    console.context.set_offline(False)
    expect(console.page.get_by_text(NO_CONNECTION)).to_be_hidden()
    expect(order_row(console, after)).to_be_visible()
    expect_one_order(console, system, customer)


def test_a_person_can_retry_immediately(visit: Visit, staff: Person) -> None:
    console = with_clock(visit(), staff)
    console.expect_complaint("Failed to load resource")
    outage: list[Any] = [True]
    # Any response would end the outage, also that of the inbox, which the page reads every 30 s.
    for path in ("health", "notifications", "orders"):
        intercept(console, "GET", path, lambda route: route.abort() if outage else route.fallback())
    console.open("#orders?day=2026-01-05")
    expect(console.page.get_by_text(NO_CONNECTION)).to_be_visible()
    # While the clock stands still, the page does not retry by itself.
    console.page.clock.pause_at(datetime.now(UTC) + timedelta(minutes=1))
    again = console.page.get_by_role("button", name="Try now")
    expect(again).to_have_attribute("aria-busy", "false")
    outage.clear()
    again.click()
    expect(console.page.get_by_text(NO_CONNECTION)).to_be_hidden()
    expect(console.page.get_by_text("No open orders", exact=True)).to_be_visible()


@pytest.mark.parametrize(
    ("fault", "times", "complaint"),
    [(lose, 1, "ERR_FAILED"), (refuse(503), 2, "status of 503")],
    ids=["lost response", "503"],
)
def test_a_retry_after_a_temporary_fault_places_the_same_order(
    visit: Visit, staff: Person, system: System, fault: Callable[[Route], None], times: int, complaint: str
) -> None:
    customer = new_customer()
    console = visit(staff, "#orders")
    console.expect_complaint(complaint)
    intercept(console, "POST", "orders", fault, times)
    send_order(console, customer)
    expect_one_order(console, system, customer)
    sent = [each for each in console.requests if (each.method, each.url) == ("POST", f"{console.address}/orders")]
    assert len(sent) == times + 1
    assert len({each.headers["idempotency-key"] for each in sent}) == 1


def test_a_retry_after_a_reload_places_the_same_order(visit: Visit, staff: Person, system: System) -> None:
    customer = new_customer()
    console = visit(staff, "#orders")
    console.expect_complaint("ERR_FAILED")
    intercept(console, "POST", "orders", lose)
    intercept(console, "GET", "health", drop)
    send_order(console, customer)
    expect(console.page.get_by_text(NO_CONNECTION)).to_be_visible()
    console.page.unroute_all()
    console.page.reload()
    console.page.get_by_role("button", name="Place the order").click()
    expect_one_order(console, system, customer)


def test_an_upload_continues_after_the_connection_was_lost(visit: Visit, manager: Person, system: System) -> None:
    console, _ = with_fake(visit, manager, offer=[upload("PREVIEWED")])
    console.expect_complaint("ERR_FAILED")
    # The file upload must be the only request to the uploads bucket.
    console.page.route(f"**/{system.env['UPLOADS_BUCKET']}*", drop, times=1)
    choose(console, a_file(FILE, beans("bean")))
    expect_preview(console, FILE)


def test_signing_in_without_a_connection_says_so(visit: Visit, staff: Person) -> None:
    console = visit()
    console.expect_complaint(OFFLINE)
    console.context.set_offline(True)
    console.enter(staff.name, staff.password)
    expect(console.page.get_by_role("alert")).to_contain_text(NO_CONNECTION)
    console.context.set_offline(False)
    console.page.get_by_role("button", name="Sign in").click()
    expect(console.page.get_by_role("button", name="Sign out")).to_be_visible()
