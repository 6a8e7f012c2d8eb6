"""Orders, by the page: placed, followed from the queue to the table, listed and opened."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visit
from tests.browser.console import Person
from tests.system.system import System, wait_for


def new_customer() -> str:
    return f"table-{secrets.token_hex(3)}"


def place(system: System, customer: str, count: int = 1) -> list[dict[str, Any]]:
    """So many orders of the customer, stored by now."""
    system.post("/orders", [{"customerID": customer, "item": f"Mocha {number}"} for number in range(count)])

    def stored() -> list[dict[str, Any]]:
        found = system.all(f"/orders?customerID={customer}", "orders")
        return found if len(found) == count else []

    return wait_for(stored, f"the orders of {customer}")


def order_form(view: Locator) -> Locator:
    return view.locator("form", has=view.page.get_by_role("heading", name="New order"))


def fill(form: Locator, customer: str, items: Mapping[str, str], note: str = "") -> None:
    form.get_by_label("Customer").fill(customer)
    for number, (item, quantity) in enumerate(items.items(), 1):
        if number > 1:
            form.get_by_role("button", name="Add another item").click()
        form.get_by_label(named("Item", number), exact=True).fill(item)
        form.get_by_label(named("Quantity", number), exact=True).fill(quantity)
    form.get_by_label("Note").fill(note)


def named(label: str, number: int) -> str:
    """A field's label: the first item is just an item."""
    return f"{label} {number}" if number > 1 else label


def test_an_order_is_placed_followed_to_the_table_and_opened(visit: Visit, staff: Person, system: System) -> None:
    customer = new_customer()
    console = visit(staff)
    view = console.go("Orders")
    fill(order_form(view), customer, {"Flat white": "2", "Croissant": "1"}, note="No sugar, please")
    view.get_by_role("button", name="Place the order").click()

    way = view.get_by_role("region", name="On their way").get_by_role("listitem").filter(has_text=customer).first
    expect(way).to_contain_text("Queued")
    expect(way.get_by_role("link", name="Placed")).to_be_visible()
    expect(way).to_contain_text("after")
    expect(order_form(view).get_by_label("Customer")).to_have_value("")

    row = view.get_by_role("region", name="Placed orders").get_by_role("listitem").filter(has_text=customer)
    expect(row).to_contain_text("2 Flat white, Croissant")
    expect(row).to_contain_text("just now")
    row.get_by_role("link").click()
    dialog = console.page.get_by_role("dialog", name=f"Order of {customer}")
    expect(dialog.get_by_role("row", name="Flat white 2")).to_be_visible()
    for text in ("No sugar, please", staff.name):
        expect(dialog).to_contain_text(text)

    [order] = system.all(f"/orders?customerID={customer}", "orders")
    assert order["items"] == [{"item": "Flat white", "quantity": 2}, {"item": "Croissant", "quantity": 1}]
    assert (order["note"], order["requestedBy"]) == ("No sugar, please", staff.name)
    expect(console.page).to_have_url(f"{console.address}/#orders/{order['orderID']}")


def test_an_order_opens_by_its_address_and_one_that_is_not_there_is_said(
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
    expect(dialog).to_contain_text("There is none with this id")


def test_only_the_orders_of_one_customer_are_shown_and_all_again(visit: Visit, staff: Person, system: System) -> None:
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

    console.page.get_by_role("searchbox").fill("nobody-at-all")
    console.page.get_by_role("button", name="Show", exact=True).click()
    expect(console.page.get_by_text("No order of this customer", exact=True)).to_be_visible()


def test_older_orders_come_page_by_page(visit: Visit, staff: Person, system: System) -> None:
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


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("Customer", "", "must have 1 to 64 characters"),
        ("Customer", "x" * 65, "must have 1 to 64 characters, and has 65"),
        ("Item", "", "must have 1 to 200 characters"),
        ("Item", "x" * 201, "must have 1 to 200 characters, and has 201"),
        ("Quantity", "0", "must be a whole number from 1 to 10,000"),
        ("Quantity", "two", "must be a whole number from 1 to 10,000"),
        ("Note", "x" * 501, "must have 0 to 500 characters, and has 501"),
    ],
    ids=lambda value: value[:10],
)
def test_what_is_wrong_is_said_beside_its_field(
    visit: Visit, staff: Person, label: str, value: str, message: str
) -> None:
    console = visit(staff, "#orders")
    console.expect_complaint("status of 400.*/orders")
    form = order_form(console.view("Orders"))
    fill(form, "table-1", {"Espresso": "1"})
    wrong = form.get_by_label(label, exact=label == "Item")
    wrong.fill(value)
    form.get_by_role("button", name="Place the order").click()
    expect(wrong).to_be_focused()
    expect(wrong).to_have_attribute("aria-invalid", "true")
    expect(wrong).to_have_accessible_description(re.compile(f"^{message}"))
    wrong.fill("7")
    form.get_by_role("button", name="Place the order").click()
    expect(console.page.get_by_role("region", name="On their way")).to_be_visible()


def test_what_was_typed_is_there_after_a_reload(visit: Visit, staff: Person) -> None:
    console = visit(staff, "#orders")
    fill(order_form(console.view("Orders")), "table-9", {"Espresso": "1", "Tea": "3"}, note="later")
    console.page.reload()
    form = order_form(console.view("Orders"))
    expect(form.get_by_label("Customer")).to_have_value("table-9")
    expect(form.get_by_label("Item 2", exact=True)).to_have_value("Tea")
    expect(form.get_by_label("Quantity 2", exact=True)).to_have_value("3")
    expect(form.get_by_label("Note")).to_have_value("later")


def test_a_second_click_on_the_button_is_no_second_order(visit: Visit, staff: Person, system: System) -> None:
    customer = new_customer()
    console = visit(staff, "#orders")
    form = order_form(console.view("Orders"))
    fill(form, customer, {"Espresso": "1"})
    form.get_by_role("button", name="Place the order").dblclick()
    expect(console.page.get_by_role("link", name="Placed", exact=True)).to_be_visible()
    assert len(console.calls("POST", "orders")) == 1
    assert len(system.all(f"/orders?customerID={customer}", "orders")) == 1
