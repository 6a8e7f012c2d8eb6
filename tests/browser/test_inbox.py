"""The inbox, by the page: newest first, by kind, and what is new arrives by itself."""

from __future__ import annotations

import secrets

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.console import Person
from tests.system.system import System


def publish(system: System, subject: str, message: str = "Some words", kind: str = "order") -> None:
    """A notification, as the flows send it."""
    system.aws("sns").publish(
        TopicArn=system.env["TOPIC_ARN"],
        Subject=subject,
        Message=message,
        MessageAttributes={"kind": {"DataType": "String", "StringValue": kind}},
    )
    system.notification(subject, kind)


def test_a_message_is_listed_unfolded_and_leads_to_what_it_is_about(
    visit: Visit, manager: Person, system: System
) -> None:
    customer = f"table-{secrets.token_hex(3)}"
    order_id = system.post("/orders", {"customerID": customer, "item": "Mocha"})["orderID"]
    system.notification(order_id, "order")
    console = visit(manager)
    view = console.go("Inbox")
    message = view.get_by_role("listitem").filter(has_text=customer)
    message.get_by_text(customer).first.click()
    message.get_by_role("link", name=order_id).click()
    expect(console.page.get_by_role("dialog", name=f"Order of {customer}")).to_be_visible()


def test_the_newest_is_first_and_new_ones_arrive_by_themselves(visit: Visit, manager: Person, system: System) -> None:
    first, second = f"first {secrets.token_hex(3)}", f"second {secrets.token_hex(3)}"
    publish(system, first)
    console = visit()
    console.page.clock.install()
    console.open("#inbox")
    console.sign_in(manager)
    view = console.view("Inbox")
    expect(view.get_by_role("listitem").first).to_contain_text(first)
    publish(system, second)
    console.page.clock.run_for("00:15")
    expect(view.get_by_role("listitem").first).to_contain_text(second)
    expect(view.get_by_role("listitem").nth(1)).to_contain_text(first)
    expect(console.page.get_by_role("status").filter(has_text=f"New: {second}")).to_be_attached()


def test_one_kind_is_shown_or_all(visit: Visit, manager: Person, system: System) -> None:
    upload, storage = f"upload {secrets.token_hex(3)}", f"storage {secrets.token_hex(3)}"
    publish(system, upload, kind="upload")
    publish(system, storage, kind="storage")
    console = visit(manager, "#inbox")
    view = console.view("Inbox")
    messages = view.get_by_role("listitem")
    expect(messages.filter(has_text=upload)).to_be_visible()
    view.get_by_text("Storage", exact=True).check()
    expect(messages.filter(has_text=upload)).to_have_count(0)
    expect(messages.filter(has_text=storage)).to_be_visible()
    view.get_by_text("All", exact=True).check()
    expect(messages.filter(has_text=upload)).to_be_visible()
