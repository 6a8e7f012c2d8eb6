"""Helpers for browser tests that place orders, upload files, publish notifications or intercept requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from playwright.sync_api import Locator, Route, expect

from tests.browser.console import Console, Person
from tests.system.inventory import HEADER
from tests.system.system import System, new_id, wait_for

# --- Intercepted requests


def intercept(
    console: Console, method: str, path: str, handle: Callable[[Route], None], times: int | None = None
) -> list[str]:
    """Passes API requests with this method and path to ``handle``. ``times`` limits the number of intercepted requests.

    Returns a list that collects the URLs of the intercepted requests. All other requests go to the real API.
    """
    met: list[str] = []

    def route(given: Route) -> None:
        if given.request.method == method and (times is None or len(met) < times):
            met.append(given.request.url)
            handle(given)
        else:
            given.fallback()

    console.page.route(re.compile(rf"^{re.escape(f'{console.address}/{path}')}(\?.*)?$"), route)
    return met


def refuse(status: int, message: str = "no") -> Callable[[Route], None]:
    return lambda route: route.fulfill(status=status, json={"Message": message})


def lose(route: Route) -> None:
    """Forwards the request to the API, but drops the response."""
    assert route.fetch().status == 202
    route.abort()


def drop(route: Route) -> None:
    route.abort()


# --- A page whose clock the test controls


def with_clock(console: Console, person: Person, tab: str = "") -> Console:
    """Installs Playwright's fake clock, opens the tab and signs in."""
    console.page.clock.install()
    console.open(tab)
    console.sign_in(person)
    return console


# --- Orders


def new_customer() -> str:
    return new_id("table")


def place(system: System, customer: str, count: int = 1) -> list[dict[str, Any]]:
    """Places ``count`` orders for ``customer``, waits until all are stored, and returns them."""
    system.post("/orders", [{"customerID": customer, "item": f"Mocha {number}"} for number in range(count)])

    def found() -> list[dict[str, Any]]:
        orders = system.all(f"/orders?customerID={customer}", "orders")
        return orders if len(orders) == count else []

    return wait_for(found, f"the orders of {customer}")


def order_form(view: Locator) -> Locator:
    return view.locator("form", has=view.page.get_by_role("heading", name="New order"))


def field_label(label: str, number: int) -> str:
    """Returns a form field's label for the order item with this number. The labels of the first item have no number."""
    return f"{label} {number}" if number > 1 else label


def fill(form: Locator, customer: str, items: Mapping[str, str], note: str = "") -> None:
    form.get_by_label("Customer").fill(customer)
    for number, (item, quantity) in enumerate(items.items(), 1):
        if number > 1:
            form.get_by_role("button", name="Add another item").click()
        form.get_by_label(field_label("Item", number), exact=True).fill(item)
        form.get_by_label(field_label("Quantity", number), exact=True).fill(quantity)
    form.get_by_label("Note").fill(note)


def send_order(console: Console, customer: str, items: Mapping[str, str] | None = None, note: str = "") -> None:
    form = order_form(console.view("Orders"))
    fill(form, customer, items or {"Espresso": "1"}, note)
    form.get_by_role("button", name="Place the order").click()


def order_row(console: Console, customer: str) -> Locator:
    """Returns the customer's rows in the table of open orders."""
    return console.page.get_by_role("table", name="Open orders").get_by_role("row").filter(has_text=customer)


def change(system: System, order: Mapping[str, Any], present: str = "PLACED", **given: Any) -> None:
    """Changes an order with the API, as another person."""
    answer = system.request("PATCH", f"/orders/{order['orderID']}", {"from": present, **given})
    assert answer.status == 200, answer.text


def expect_placed(console: Console, customer: str) -> None:
    """Expects the page to show that the customer's order was placed."""
    expect(order_row(console, customer)).to_contain_text("Placed")


def expect_one_order(console: Console, system: System, customer: str) -> None:
    expect_placed(console, customer)
    assert len(system.all(f"/orders?customerID={customer}", "orders")) == 1


# --- Uploads


def a_file(name: str, text: str) -> Any:
    return {"name": name, "mimeType": "text/csv", "buffer": text.encode()}


def beans(product: str) -> str:
    """Returns an inventory CSV with two valid rows, and with invalid rows on lines 3 and 5."""
    quantities = enumerate(("4", "-3", "7", "a few"), 1)
    return HEADER + "".join(f"Hillside,Arabica,{product} {n},9.80,Plum,{quantity}\n" for n, quantity in quantities)


def choose(console: Console, *files: Any) -> None:
    console.page.get_by_label("Choose a CSV file").set_input_files(list(files))


def sending(console: Console, name: str) -> Locator:
    """Returns a file's entry in the list of files that the page sends."""
    return console.page.get_by_role("region", name="Your uploads").get_by_role("listitem").filter(has_text=name)


def expect_preview(console: Console, name: str) -> Locator:
    """Expects the page to show the preview of the file ``name``. Returns the tab."""
    view = console.view("Uploads")
    expect(view.get_by_role("heading", name=name, level=1)).to_be_visible()
    expect(view).to_contain_text("Nothing has been written yet.")
    return view


# --- Reports and notifications


def request_report(view: Locator) -> str:
    """Requests a report of the selected kind. Returns its id."""
    view.get_by_role("button", name="Request the report").click()
    view.page.wait_for_url(re.compile("#reports/"))
    return view.page.url.rsplit("/", 1)[1]


def publish(system: System, subject: str, message: str = "Some words", kind: str = "order") -> None:
    """Publishes a notification to the SNS topic, and waits until the inbox contains it."""
    system.publish(subject, message, kind=kind)
    system.notification(subject, kind)
