"""Tests that the Inbox tab shows the newest message first, filters messages by kind and updates automatically."""

from __future__ import annotations

import json
import re

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.console import Person
from tests.browser.steps import new_customer, publish, with_clock
from tests.system.system import System, new_id


def test_a_message_can_be_unfolded_and_links_to_its_order(visit: Visit, manager: Person, system: System) -> None:
    customer = new_customer()
    order_id = system.post("/orders", {"customerID": customer, "item": "Mocha"})["orderID"]
    system.notification(order_id, "order")
    console = visit(manager)
    view = console.go("Inbox")
    message = view.get_by_role("listitem").filter(has_text=customer)
    message.get_by_text(customer).first.click()
    message.get_by_role("link", name=order_id).click()
    expect(console.page.get_by_role("dialog", name=f"Order of {customer}")).to_be_visible()


def test_the_newest_message_is_first_new_ones_appear_automatically_and_a_kind_can_be_chosen(
    visit: Visit, manager: Person, system: System
) -> None:
    first, second = new_id("first"), new_id("second")
    publish(system, first, kind="upload")
    console = with_clock(visit(), manager, "#inbox")
    view = console.view("Inbox")
    entries = view.get_by_role("listitem")
    expect(entries.filter(has_text=first)).to_be_visible()
    publish(system, second, kind="storage")
    console.page.clock.run_for("00:15")
    expect(entries.filter(has_text=second)).to_be_visible()
    expect(console.page.get_by_role("status").filter(has_text=second)).to_be_attached()
    shown = [name for text in entries.all_inner_texts() for name in (first, second) if name in text]
    assert shown == [second, first]

    view.get_by_text("Storage", exact=True).check()
    expect(entries.filter(has_text=first)).to_have_count(0)
    expect(entries.filter(has_text=second)).to_be_visible()
    view.get_by_text("All", exact=True).check()
    expect(entries.filter(has_text=first)).to_be_visible()


def test_the_title_of_an_upload_names_its_file_and_not_its_s3_key(
    visit: Visit, manager: Person, system: System
) -> None:
    file = f"{new_id('monday')}.csv"
    key = f"previews/2026-11-29-0123456789ab/{file}"
    publish(system, f"Upload: 2 rows imported, 0 bad ({key})", f"{key} was received.\n2 rows imported.", kind="upload")
    console = visit(manager)
    title = f"Upload: 2 rows imported, 0 bad ({file})"
    expect(console.view("Today").get_by_text(title, exact=True)).to_be_visible()
    message = console.go("Inbox").get_by_role("listitem").filter(has_text=file)
    expect(message.locator("summary")).to_have_text(re.compile(rf"{re.escape(title)}2 rows imported\.$"))
    message.locator("summary").click()
    expect(message.get_by_text(key)).to_be_visible()


def test_an_alarm_is_a_sentence_and_not_json(visit: Visit, manager: Person, system: System) -> None:
    name = new_id("queue")
    alarm = {"AlarmName": f"cafe-dev-{name}", "AlarmDescription": "An order waits. Runbook: Dead letters"}
    for state in ("ALARM", "OK"):
        publish(system, f"{state}: {name}", json.dumps({**alarm, "NewStateValue": state}), kind="alarm")
    messages = visit(manager, "#inbox").page.get_by_role("listitem").filter(has_text=name)
    # Messages from the same second have no order.
    expect(messages.filter(has_text=f"OK: {name}")).to_contain_text("This is no longer the case: An order waits.")
    expect(messages.filter(has_text=f"Alarm: {name}")).to_contain_text(f"Alarm: {name}An order waits. What to do: see")
