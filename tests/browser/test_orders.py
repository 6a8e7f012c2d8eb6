"""Tests the Orders tab: placing orders, changing them, the day and the search, and several people at once."""

from __future__ import annotations

import random
import re
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Make, Visit
from tests.browser.console import DEFAULTS, Console, Person
from tests.browser.steps import (
    change,
    expect_one_order,
    expect_placed,
    fill,
    intercept,
    new_customer,
    order_form,
    order_row,
    place,
    send_order,
    with_clock,
)
from tests.system.system import System, new_id, wait_for

# The scripts press a button of an order at once, and read the status of each order that is shown.
PRESS = """([orderID, name]) => {
  const row = document.querySelector(`#orders-open [data-key="${orderID}"]`);
  row?.querySelector(`button[aria-label^="${name}"]`)?.click();
  document.getElementById("ask-yes").checkVisibility() && document.getElementById("ask-yes").click();
}"""
SHOWN = """() => Object.fromEntries([...document.querySelectorAll("#view-orders tr[data-key]")].map((row) =>
  [row.dataset.key, row.querySelector(".badge").textContent.toUpperCase()]))"""
# Counts what a person does: presses of the mouse, of keys, and values that are filled in.
COUNT_STEPS = """() => {
  window.steps = 0;
  for (const type of ["mousedown", "keydown", "input"]) addEventListener(type, () => (window.steps += 1), true);
}"""
IN_VIEW = """() => [...document.querySelectorAll("#orders-open tbody tr")].filter((row) =>
  row.getBoundingClientRect().bottom <= innerHeight).length"""
ZONE = ZoneInfo(str(DEFAULTS["timezone_id"]))


def test_an_order_is_placed_followed_to_the_table_and_opened(visit: Visit, staff: Person, system: System) -> None:
    customer = new_customer()
    console = visit(staff)
    view = console.go("Orders")
    # The page first misses the stored order, as if the order were still in the queue.
    waiting = [True]

    def without(route: Route) -> None:
        answer = route.fetch().json()
        answer["orders"] = [each for each in answer["orders"] if not waiting or each["customerID"] != customer]
        route.fulfill(json=answer)

    intercept(console, "GET", "orders", without)
    send_order(console, customer, {"Flat white": "2", "Croissant": "1"}, note="No sugar, please")
    row = order_row(console, customer)
    expect(row).to_contain_text("On its way")
    form = order_form(view)
    expect(form.get_by_label("Customer")).to_have_value("")
    expect(form.get_by_label("Customer")).to_be_focused()
    waiting.clear()
    console.page.unroute_all(behavior="wait")
    expect(row).to_contain_text("Placed")
    for text in ("2 Flat white, Croissant", "No sugar, please"):
        expect(row).to_contain_text(text)

    row.get_by_role("link").click()
    dialog = console.page.get_by_role("dialog", name=f"Order of {customer}")
    for text in ("2 Flat white, Croissant", staff.name):
        expect(dialog).to_contain_text(text)
    expect(dialog.get_by_label("Note")).to_have_value("No sugar, please")
    [order] = system.all(f"/orders?customerID={customer}", "orders")
    assert order["items"] == [{"item": "Flat white", "quantity": 2}, {"item": "Croissant", "quantity": 1}]
    assert (order["note"], order["requestedBy"]) == ("No sugar, please", staff.name)
    expect(console.page).to_have_url(f"{console.address}/#orders/{order['orderID']}")


def test_a_quantity_before_the_item_and_enter_in_the_note_save_steps(
    visit: Visit, staff: Person, system: System
) -> None:
    customer = new_customer()
    console = visit(staff)
    form = order_form(console.view("Orders"))
    fill(form, customer, {"3x Cortado": "1"}, "first line")
    form.get_by_label("Note").press("Shift+Enter")
    form.get_by_label("Note").press_sequentially("second line")
    form.get_by_label("Note").press("Enter")
    expect_placed(console, customer)
    [order] = system.all(f"/orders?customerID={customer}", "orders")
    assert (order["items"], order["note"]) == ([{"item": "Cortado", "quantity": 3}], "first line\nsecond line")


def test_an_order_that_is_not_stored_after_a_minute_says_so(visit: Visit, staff: Person) -> None:
    console = visit()
    console.page.clock.install()
    console.open("#orders")
    console.sign_in(staff)
    intercept(console, "POST", "orders", lambda route: route.fulfill(status=202, json={"orderID": "lost"}))
    customer = new_customer()
    send_order(console, customer)
    row = order_row(console, customer)
    expect(row).to_contain_text("On its way")
    for _ in range(8):
        console.page.clock.run_for("00:10")
    expect(row).to_contain_text("Not stored after a minute")


def test_an_order_opens_by_its_address_and_an_unknown_id_is_reported(
    visit: Visit, staff: Person, system: System
) -> None:
    [placed] = place(system, new_customer())
    console = visit(staff, f"#orders/{placed['orderID']}")
    dialog = console.page.get_by_role("dialog")
    expect(dialog).to_contain_text("Mocha")
    dialog.get_by_role("button", name="Close").click()
    expect(console.page).to_have_url(f"{console.address}/#orders")

    console.expect_complaint("status of 404.*/orders/nowhere")
    console.open("#orders/nowhere")
    expect(dialog).to_contain_text("No order has this id")


def test_an_order_opened_as_another_closes_stays_open(visit: Visit, staff: Person, system: System) -> None:
    customer, first = new_customer(), new_id("o")
    second = f"{first}0"
    items = {each: f"Tea {each}" for each in (first, second)}
    system.post("/orders", [{"customerID": customer, "orderID": each, "item": item} for each, item in items.items()])
    wait_for(lambda: len(system.all(f"/orders?customerID={customer}", "orders")) == len(items), "both orders")
    console = visit(staff, f"#orders/{first}")
    dialog = console.page.get_by_role("dialog")
    expect(dialog).to_contain_text(items[first])
    # The browser reports that a dialog has closed only with the next frame.
    close_and_open = "(hash) => { document.getElementById('order').close(); location.hash = hash; }"
    console.page.evaluate(close_and_open, f"orders/{second}")
    expect(dialog).to_contain_text(items[second])
    expect(console.page).to_have_url(f"{console.address}/#orders/{second}")


def test_twenty_open_orders_fit_a_screen(visit: Visit, staff: Person, system: System) -> None:
    place(system, new_customer(), 25)
    console = visit(staff, "#orders", viewport={"width": 1440, "height": 900})
    expect(console.page.get_by_role("table", name="Open orders").get_by_role("row").nth(25)).to_be_attached()
    assert console.page.evaluate(IN_VIEW) >= 20


def test_five_orders_from_placing_to_serving_in_25_steps(visit: Visit, staff: Person, system: System) -> None:
    console = visit(staff, "#orders")
    form = order_form(console.view("Orders"))
    console.page.evaluate(COUNT_STEPS)
    customers = [new_customer() for _ in range(5)]
    for customer in customers:
        form.get_by_label("Customer").fill(customer)
        form.get_by_label("Item", exact=True).fill("Espresso")
        console.page.keyboard.press("Enter")
        expect(order_row(console, customer)).to_be_visible()
    for customer in customers:
        expect_placed(console, customer)
    # When a poll moves a row, the page ignores presses for 0.4 s.
    console.page.wait_for_timeout(500)
    first, second, *others = (order_row(console, customer) for customer in customers)
    first.get_by_role("button", name="Correct").click()
    dialog = console.page.get_by_role("dialog")
    dialog.get_by_label("Item", exact=True).fill("Ristretto")
    console.page.keyboard.press("Enter")
    expect(first).to_contain_text("Ristretto")
    second.get_by_role("button", name="Cancel").click()
    dialog.get_by_role("button", name="Cancel the order").click()
    for row in (first, *others):
        row.get_by_role("button", name="as Served").click()
    for row in (first, second, *others):
        expect(row).to_have_count(0)
    assert 20 < console.page.evaluate("steps") <= 25
    ended = [system.all(f"/orders?customerID={customer}", "orders")[0] for customer in customers]
    assert [each["status"] for each in ended] == ["SERVED", "CANCELLED", *["SERVED"] * 3]
    changes = system.get(f"/orders/{ended[0]['orderID']}")["changes"]
    assert [each["change"] for each in changes] == ["CORRECTED", "READY", "SERVED"]
    assert changes[0]["before"]["items"] == [{"item": "Espresso", "quantity": 1}]


def test_the_keyboard_changes_orders_and_the_focus_stays_in_the_table(
    visit: Visit, staff: Person, system: System
) -> None:
    customer = new_customer()
    place(system, customer, 2)
    console = visit(staff, f"#orders?q={customer}")
    expect(order_row(console, customer)).to_have_count(2)
    first = order_row(console, customer).filter(
        has_text=order_row(console, customer).first.locator("td").nth(1).inner_text()
    )
    ready, served = (re.compile(f"Mark the order of {customer} at .* as {status}") for status in ("Ready", "Served"))
    first.get_by_role("button", name=ready).focus()
    console.page.keyboard.press("Enter")
    expect(first.get_by_role("button", name=served)).to_be_focused()
    expect(console.page.get_by_role("status").get_by_text(f"The order of {customer} is ready.")).to_be_attached()
    console.page.keyboard.press("Enter")
    expect(order_row(console, customer)).to_have_count(1)
    expect(order_row(console, customer).get_by_role("button", name=ready)).to_be_focused()

    for _ in range(3):
        console.page.keyboard.press("Tab")
    console.page.keyboard.press("Enter")
    dialog = console.page.get_by_role("dialog", name=f"Cancel the order of {customer}?")
    expect(dialog.get_by_role("button", name="Keep the order")).to_be_focused()
    console.page.keyboard.press("Escape")
    expect(console.page.get_by_role("button", name=f"Cancel the order of {customer}")).to_be_focused()
    console.page.keyboard.press("Enter")
    console.page.keyboard.press("Shift+Tab")
    console.page.keyboard.press("Enter")
    expect(order_row(console, customer)).to_have_count(0)
    expect(console.page.get_by_role("heading", name="0 of")).to_be_focused()


def test_a_change_by_another_person_is_shown(visit: Visit, staff: Person, system: System) -> None:
    customer = new_customer()
    [order] = place(system, customer)
    console = visit(staff, f"#orders?q={customer}")
    row = order_row(console, customer)
    expect(row.locator(".badge")).to_have_text("Placed")
    change(system, order, status="READY")
    expect(row.locator(".badge")).to_have_text("Ready")
    change(system, order, "READY", status="SERVED")
    expect(row).to_have_count(0)
    console.page.get_by_text(re.compile("1 of .* done orders?")).click()
    done = console.page.get_by_role("table", name="Done orders").get_by_role("row").filter(has_text=customer)
    expect(done).to_contain_text("by manager")


def test_a_conflict_is_explained_beside_the_order(visit: Visit, staff: Person, system: System) -> None:
    customer = new_customer()
    [order] = place(system, customer)
    console = visit(staff, f"#orders?q={customer}")
    console.expect_complaint("status of 409")
    row = order_row(console, customer)
    expect(row).to_be_visible()
    # The list is older than the other changes, as if the index of the table were behind.
    intercept(console, "GET", "orders", lambda route: route.fulfill(json={"orders": [order], "next": None}))
    change(system, order, status="READY")
    change(system, order, "READY", status="SERVED")
    row.get_by_role("button", name="as Ready").click()
    expect(row).to_contain_text(re.compile(r"manager has already marked it as served at \d?\d:\d\d\."))
    expect(row).to_contain_text("Served")
    row.get_by_role("button", name="OK").click()
    expect(row).to_have_count(0)


def test_a_correction_of_a_corrected_order_is_saved_only_knowingly(visit: Visit, staff: Person, system: System) -> None:
    customer = new_customer()
    [order] = place(system, customer)
    console = visit(staff, f"#orders/{order['orderID']}?q={customer}")
    console.expect_complaint("status of 409")
    dialog = console.page.get_by_role("dialog")
    dialog.get_by_label("Note").fill("Oat milk")
    change(system, order, note="No sugar")
    dialog.get_by_role("button", name="Save the correction").click()
    expect(dialog.get_by_role("alert")).to_contain_text("manager has already corrected it")
    expect(dialog.get_by_label("Note")).to_have_value("Oat milk")
    expect(dialog).to_contain_text("No sugar")
    assert system.get(f"/orders/{order['orderID']}")["note"] == "No sugar"
    dialog.get_by_role("button", name="Save the correction").click()
    expect(order_row(console, customer)).to_contain_text("Oat milk")


def test_a_lost_response_makes_the_change_once(visit: Visit, staff: Person, system: System) -> None:
    customer = new_customer()
    [order] = place(system, customer)
    console = visit(staff, f"#orders?q={customer}")
    console.expect_complaint("ERR_FAILED")

    def lose(route: Route) -> None:
        assert route.fetch().status == 200
        route.abort()

    intercept(console, "PATCH", f"orders/{order['orderID']}", lose, times=1)
    row = order_row(console, customer)
    row.get_by_role("button", name="as Ready").click()
    expect(row.locator(".badge")).to_have_text("Ready")
    assert system.get(f"/orders/{order['orderID']}")["version"] == 1


@pytest.mark.parametrize("status", [202, 400])
def test_a_slow_new_order_leaves_the_correction_of_another_order_alone(
    visit: Visit, staff: Person, system: System, status: int
) -> None:
    customer, other = new_customer(), new_customer()
    [order] = place(system, other)
    console = visit(staff, f"#orders?q={other}")
    console.allowed.append("status of 400")
    held: list[Route] = []
    intercept(console, "POST", "orders", held.append, times=1)
    send_order(console, customer)
    order_row(console, other).get_by_role("button", name="Correct").click()
    dialog = console.page.get_by_role("dialog")
    dialog.get_by_label("Note").fill("Oat milk")
    with console.page.expect_response(lambda response: response.request.method == "POST"):
        held[0].fulfill(status=status, json={"orderID": "slow", "Message": "The kitchen is closed."})
    busy = order_form(console.view("Orders")).locator("[aria-busy=true]")
    expect(busy).to_have_count(0)
    expect(dialog.get_by_label("Note")).to_be_focused()
    expect(dialog.get_by_label("Note")).to_have_value("Oat milk")
    expect(dialog).not_to_contain_text("The kitchen is closed.")
    expect(console.page).to_have_url(re.compile(f"#orders/{order['orderID']}"))
    dialog.get_by_role("button", name="Save the correction").click()
    expect(order_row(console, other)).to_contain_text("Oat milk")
    form = order_form(console.view("Orders"))
    expect(form.get_by_label("Customer")).to_have_value(customer if status == 400 else "")
    expect(form.locator("#order-problem")).to_have_text("The kitchen is closed." if status == 400 else "")


def test_a_correction_that_fails_after_its_dialog_was_closed_says_so_in_the_row(
    visit: Visit, staff: Person, system: System
) -> None:
    customer = new_customer()
    [order] = place(system, customer)
    console = visit(staff, f"#orders/{order['orderID']}?q={customer}")
    console.expect_complaint("status of 400")
    held: list[Route] = []
    intercept(console, "PATCH", f"orders/{order['orderID']}", held.append, times=1)
    dialog = console.page.get_by_role("dialog")
    dialog.get_by_label("Note").fill("Oat milk")
    dialog.get_by_role("button", name="Save the correction").click()
    while not held:
        console.page.wait_for_timeout(10)
    dialog.get_by_role("button", name="Close").click()
    held[0].fulfill(status=400, json={"Message": "The kitchen is closed."})
    row = order_row(console, customer)
    expect(row).to_contain_text("The kitchen is closed.")
    expect(console.page.locator("#order-problem")).to_have_text("")
    # The reason leaves when the order changes.
    change(system, order, status="READY")
    expect(row.locator(".badge")).to_have_text("Ready")
    expect(row).not_to_contain_text("The kitchen is closed.")


def test_a_page_that_is_open_at_midnight_shows_the_new_day(visit: Visit, staff: Person) -> None:
    console = with_clock(visit(), staff, "#orders")
    page, picker = console.page, console.page.get_by_label("Day", exact=True)

    def without_time(route: Route) -> None:
        """Leaves out the server's time, because the console would set its clock back to today."""
        answer = route.fetch()
        headers = {name: value for name, value in answer.headers.items() if name != "date"}
        route.fulfill(response=answer, headers=headers)

    page.route(f"{console.address}/**", without_time)
    intercept(console, "POST", "orders", lambda route: route.fulfill(status=202, json={"orderID": "late"}))
    intercept(console, "GET", "orders", lambda route: route.fulfill(json={"orders": [], "next": None}))
    customer, today = new_customer(), picker.input_value()
    send_order(console, customer)
    expect(order_row(console, customer)).to_contain_text("On its way")
    page.clock.fast_forward("24:00:00")
    tomorrow = f"{datetime.fromisoformat(today) + timedelta(days=1):%Y-%m-%d}"
    expect(picker).to_have_value(tomorrow)
    expect(picker).to_have_attribute("max", tomorrow)
    expect(page.get_by_role("link", name="The day before")).to_have_attribute("href", f"#orders?day={today}")
    expect(order_row(console, customer)).to_have_count(0)
    page.unroute_all(behavior="ignoreErrors")


def test_a_press_just_after_rows_have_moved_changes_nothing(visit: Visit, staff: Person) -> None:
    console = with_clock(visit(), staff, "#today")
    page = console.page
    placed_at = page.evaluate("new Date().toISOString()")
    order = {"items": [], "note": "", "status": "PLACED", "version": 0, "placedAt": placed_at, "changedAt": placed_at}
    stored = {name: {**order, "orderID": name, "customerID": name} for name in ("Ann", "Ben")}

    def listed(route: Route) -> None:
        found = [each for each in stored.values() if each["status"] in route.request.url]
        route.fulfill(json={"orders": found, "next": None})

    intercept(console, "GET", "orders", listed)
    intercept(console, "GET", "orders/Ann", lambda route: route.fulfill(json=stored["Ann"]))
    ready = {**stored["Ben"], "status": "READY", "version": 1}
    changed = intercept(console, "PATCH", "orders/Ben", lambda route: route.fulfill(json=ready))
    console.go("Orders")
    order_row(console, "Ann").get_by_role("button", name="as Ready").focus()
    now = page.evaluate("Date.now()")
    page.clock.set_fixed_time(now / 1000)
    stored["Ann"] |= {"status": "SERVED", "version": 2, "changedBy": "Zoe"}
    expect(order_row(console, "Ann")).to_have_count(0)
    expect(order_row(console, "Ben").get_by_role("link")).to_be_focused()
    press = order_row(console, "Ben").get_by_role("button", name="as Ready")
    press.click()
    page.clock.set_fixed_time(now / 1000 + 1)
    assert changed == []
    press.click()
    expect(order_row(console, "Ben")).to_contain_text("Ready")
    assert len(changed) == 1


def test_the_focus_stays_in_a_row_that_changed_behind_the_question(visit: Visit, staff: Person, system: System) -> None:
    customer = new_customer()
    [order] = place(system, customer)
    console = visit(staff, f"#orders?q={customer}")
    row = order_row(console, customer)
    row.get_by_role("button", name="Cancel").click()
    change(system, order, status="READY")
    expect(row.locator(".badge")).to_have_text("Ready")
    console.page.keyboard.press("Escape")
    expect(row.get_by_role("link")).to_be_focused()


def test_the_day_and_the_search_are_in_the_address(visit: Visit, staff: Person, system: System) -> None:
    customer = f"Zoë-{new_customer()}"
    place(system, customer)
    console = visit(staff, "#orders")
    page, row = console.page, order_row(console, customer)
    search = page.get_by_role("searchbox", name="Search this day")
    search.fill(f"zoe {customer[4:].upper()}")
    expect(row).to_be_visible()
    expect(page.get_by_role("table", name="Open orders").get_by_role("row")).to_have_count(2)
    page.reload()
    expect(row).to_be_visible()
    expect(search).to_have_value(f"zoe {customer[4:].upper()}")
    search.fill("nobody ordered this")
    expect(page.get_by_text("No open order contains")).to_be_visible()

    yesterday = f"{datetime.now(ZONE) - timedelta(days=1):%Y-%m-%d}"
    search.fill("")
    page.get_by_role("link", name="The day before").click()
    expect(page).to_have_url(f"{console.address}/#orders?day={yesterday}")
    expect(page.get_by_label("Day", exact=True)).to_have_value(yesterday)
    expect(page.get_by_text("No open orders", exact=True)).to_be_visible()
    page.go_back()
    expect(row).to_be_visible()
    page.get_by_label("Day", exact=True).fill("2026-11-05")
    expect(page).to_have_url(f"{console.address}/#orders?day=2026-11-05")
    console.view("Orders").get_by_role("link", name="Today").click()
    expect(row).to_be_visible()


def test_today_tells_of_open_orders_from_yesterday(visit: Visit, staff: Person) -> None:
    console = visit()
    today = f"{datetime.now(ZONE):%Y-%m-%d}"
    order = {"orderID": "o1", "customerID": "Ann", "items": [], "note": None, "status": "READY", "version": 1}

    def answer(route: Route) -> None:
        until = re.search("until=([^&]*)", route.request.url)
        is_before = until and datetime.fromisoformat(until[1].replace("%3A", ":")).astimezone(ZONE).date() <= (
            datetime.fromisoformat(today).date()
        )
        found = [{**order, "placedAt": f"{today}T00:00:00Z"}] if is_before and "PLACED" in route.request.url else []
        route.fulfill(json={"orders": found, "next": None})

    intercept(console, "GET", "orders", answer)
    console.open("#orders")
    console.sign_in(staff)
    expect(console.page.get_by_text("Still open:")).to_be_visible()
    console.page.get_by_role("link", name="1 order from yesterday").click()
    expect(console.page).to_have_url(re.compile(r"#orders\?day="))


def test_an_export_is_one_file_with_all_pages(visit: Visit, staff: Person) -> None:
    console = visit(staff, "#orders")
    held: list[Route] = []

    def answer(route: Route) -> None:
        if "next=" in route.request.url:
            held.append(route)
            return
        headers = {"Content-Type": "text/csv; charset=utf-8", "X-Next": "two"}
        route.fulfill(body="\ufefforderID\r\no1\r\n", headers=headers)

    asked = intercept(console, "GET", "orders.csv", answer)
    page = console.page
    page.get_by_role("button", name="Export as CSV").click()
    dialog = page.get_by_role("dialog", name="Export as CSV")
    for label in ("First day", "Last day"):
        expect(dialog.get_by_label(label)).to_have_attribute("max", f"{datetime.now(ZONE):%Y-%m-%d}")
    dialog.get_by_label("First day").fill("2026-11-29")
    dialog.get_by_label("Last day").fill("2026-11-30")
    for is_stopped in (True, False):
        dialog.get_by_role("button", name="Export", exact=True).click()
        expect(dialog).to_contain_text("16 Bytes so far")
        if is_stopped:
            dialog.get_by_role("button", name="Stop").click()
            expect(dialog).to_contain_text("Stopped. Nothing was saved.")
    while len(held) < 2:
        page.wait_for_timeout(10)
    with page.expect_download() as download:
        held[-1].fulfill(body="o2\r\n", headers={"Content-Type": "text/csv; charset=utf-8"})
    assert download.value.suggested_filename == "orders-2026-11-29-to-2026-11-30.csv"
    assert download.value.path().read_bytes().decode() == "\ufefforderID\r\no1\r\no2\r\n"
    assert "since=2026-11-28T23%3A00%3A00.000Z&until=2026-11-30T23%3A00%3A00.000Z" in asked[0]


@pytest.mark.parametrize("seconds", [0, pytest.param(120, marks=pytest.mark.long)])
def test_random_taps_in_two_browsers_lose_no_change(
    visit: Visit, staff: Person, people: Make, system: System, seconds: int
) -> None:
    """Rounds of 100 taps on 50 orders, until ``seconds`` have passed. Both pages end equal to the table."""
    chance, end = random.Random(7), monotonic() + seconds
    consoles = [visit(staff), visit(people("staff"))]
    for console in consoles:
        console.allowed.append("status of 409")
    while True:
        customer = new_customer()
        orders = [each["orderID"] for each in place(system, customer, 50)]
        for console in consoles:
            console.requests.clear()
            console.open(f"#orders?q={customer}")
            expect(order_row(console, customer)).to_have_count(50)
        for _ in range(100):
            order_id = chance.choice(orders)
            # Often both people press a button of the same order at the same time.
            for console in chance.choice((consoles, consoles[:1], consoles[1:])):
                name = chance.choice(("Mark", "Mark", "Mark", "Cancel"))
                console.page.evaluate(PRESS, [order_id, name])
        for console in consoles:
            console.page.locator("#orders-done summary").click()
            expect(console.page.locator("#view-orders [aria-busy=true]")).to_have_count(0)
        stored = {order_id: system.get(f"/orders/{order_id}") for order_id in orders}
        statuses = {order_id: order["status"] for order_id, order in stored.items()}
        for console in consoles:
            wait_for(partial(shows, console, statuses), "the page to equal the table")
        made = sum(made_by(console) for console in consoles)
        assert made == sum(order["version"] for order in stored.values()) > 0
        assert all(order["version"] == len(order["changes"]) for order in stored.values())
        for console in consoles:
            console.page.locator("#orders-done summary").click()
        if monotonic() > end:
            return


def shows(console: Console, statuses: dict[str, str]) -> bool:
    return bool(console.page.evaluate(SHOWN) == statuses)


def made_by(console: Console) -> int:
    """Returns how many changes of this page the API has made."""
    answers = [each.response() for each in console.requests if each.method == "PATCH"]
    return sum(answer is not None and answer.status == 200 for answer in answers)


WRONG = {
    "Customer": ("x" * 65, "must have 1 to 64 characters, but has 65"),
    "Item": ("", "must have 1 to 200 characters"),
    "Quantity": ("two", "must be a whole number from 1 to 10,000"),
    "Note": ("x" * 501, "must have 0 to 500 characters, but has 501"),
}


def test_a_wrong_value_is_explained_beside_its_field(visit: Visit, staff: Person) -> None:
    console = visit(staff, "#orders")
    console.expect_complaint("status of 400.*/orders")
    form, customer = order_form(console.view("Orders")), new_customer()
    fill(form, customer, {"Espresso": "1"})
    for label, (value, message) in WRONG.items():
        wrong = form.get_by_label(label, exact=label == "Item")
        wrong.fill(value)
        form.get_by_role("button", name="Place the order").click()
        expect(wrong).to_be_focused()
        expect(wrong).to_have_attribute("aria-invalid", "true")
        expect(wrong).to_have_accessible_description(re.compile(f"^{message}"))
        wrong.fill(customer if label == "Customer" else "7")
    form.get_by_role("button", name="Place the order").click()
    expect(order_row(console, customer)).to_be_visible()


def test_a_double_click_places_one_order(visit: Visit, staff: Person, system: System) -> None:
    customer = new_customer()
    console = visit(staff, "#orders")
    # The test holds the request back until after both clicks. Otherwise, the response could clear the form between the
    # clicks.
    held: list[Route] = []
    intercept(console, "POST", "orders", held.append, times=1)
    form = order_form(console.view("Orders"))
    fill(form, customer, {"Espresso": "1"})
    button = form.get_by_role("button", name="Place the order")
    button.dblclick()
    expect(button).to_have_attribute("aria-busy", "true")
    while not held:
        console.page.wait_for_timeout(10)
    held[0].continue_()
    expect_one_order(console, system, customer)
    assert len(console.calls("POST", "orders")) == 1
