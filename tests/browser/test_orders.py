"""Tests the Orders tab. The tests place orders, wait until the orders are stored, list them and open them."""

from __future__ import annotations

import re

from playwright.sync_api import Route, expect

from tests.browser.conftest import Visit
from tests.browser.console import Person
from tests.browser.steps import expect_one_order, fill, intercept, new_customer, order_form, place, send_order
from tests.system.system import System


def test_an_order_is_placed_followed_to_the_table_and_opened(visit: Visit, staff: Person, system: System) -> None:
    customer = new_customer()
    console = visit(staff)
    view = console.go("Orders")
    send_order(console, customer, {"Flat white": "2", "Croissant": "1"}, note="No sugar, please")

    way = view.get_by_role("region", name="On their way").get_by_role("listitem").filter(has_text=customer).first
    expect(way).to_contain_text("Queued")
    expect(way.get_by_role("link", name="Placed")).to_be_visible()
    expect(way).to_contain_text("after")
    expect(order_form(view).get_by_label("Customer")).to_have_value("")

    row = view.get_by_role("region", name="Placed orders").get_by_role("listitem").filter(has_text=customer)
    expect(row).to_contain_text("2 Flat white, Croissant")
    expect(row.locator("time")).to_have_text(re.compile(r"^\d+:\d\d$"))
    row.get_by_role("link").click()
    dialog = console.page.get_by_role("dialog", name=f"Order of {customer}")
    expect(dialog.get_by_role("row", name="Flat white 2")).to_be_visible()
    for text in ("No sugar, please", staff.name):
        expect(dialog).to_contain_text(text)

    [order] = system.all(f"/orders?customerID={customer}", "orders")
    assert order["items"] == [{"item": "Flat white", "quantity": 2}, {"item": "Croissant", "quantity": 1}]
    assert (order["note"], order["requestedBy"]) == ("No sugar, please", staff.name)
    expect(console.page).to_have_url(f"{console.address}/#orders/{order['orderID']}")


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


def test_orders_can_be_filtered_by_customer(visit: Visit, staff: Person, system: System) -> None:
    [mine], [other] = place(system, new_customer()), place(system, new_customer())
    console = visit(staff, "#orders")
    placed = console.page.get_by_role("region", name="Placed orders").get_by_role("listitem")
    expect(placed.filter(has_text=other["customerID"])).to_be_visible()
    console.page.get_by_role("searchbox").fill(mine["customerID"])
    console.page.keyboard.press("Enter")
    orders = console.page.get_by_role("region", name=f"Orders of {mine['customerID']}").get_by_role("listitem")
    expect(orders).to_have_count(1)
    expect(orders).to_contain_text(mine["orderID"])
    console.page.get_by_role("searchbox").fill("")
    expect(placed.filter(has_text=other["customerID"])).to_be_visible()

    console.page.get_by_role("searchbox").fill(new_customer())
    console.page.get_by_role("button", name="Show", exact=True).click()
    expect(console.page.get_by_text("No order of this customer", exact=True)).to_be_visible()


def test_older_orders_are_loaded_page_by_page(visit: Visit, staff: Person, system: System) -> None:
    customer = new_customer()
    place(system, customer, 30)
    console = visit(staff, "#orders")
    console.page.get_by_role("searchbox").fill(customer)
    console.page.keyboard.press("Enter")
    orders = console.page.get_by_role("region", name=f"Orders of {customer}").get_by_role("listitem")
    expect(orders).to_have_count(25)
    console.page.get_by_role("button", name="Show older orders").click()
    expect(orders).to_have_count(30)
    expect(console.page.get_by_role("button", name="Show older orders")).to_be_hidden()


WRONG = {
    "Customer": ("x" * 65, "must have 1 to 64 characters, but has 65"),
    "Item": ("", "must have 1 to 200 characters"),
    "Quantity": ("two", "must be a whole number from 1 to 10,000"),
    "Note": ("x" * 501, "must have 0 to 500 characters, but has 501"),
}


def test_a_wrong_value_is_explained_beside_its_field(visit: Visit, staff: Person) -> None:
    console = visit(staff, "#orders")
    console.expect_complaint("status of 400.*/orders")
    form = order_form(console.view("Orders"))
    fill(form, new_customer(), {"Espresso": "1"})
    for label, (value, message) in WRONG.items():
        wrong = form.get_by_label(label, exact=label == "Item")
        wrong.fill(value)
        form.get_by_role("button", name="Place the order").click()
        expect(wrong).to_be_focused()
        expect(wrong).to_have_attribute("aria-invalid", "true")
        expect(wrong).to_have_accessible_description(re.compile(f"^{message}"))
        wrong.fill("7")
    form.get_by_role("button", name="Place the order").click()
    expect(console.page.get_by_role("region", name="On their way")).to_be_visible()


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
