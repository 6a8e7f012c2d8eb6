"""Tests that the console is safe from script injection.

The page must show HTML and script code from every input as plain text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Make, Visit
from tests.browser.console import Console, Person
from tests.browser.fake_uploads import CHANGES, DIFFERENCES, ID, SAMPLES, UNDO, upload, with_fake
from tests.browser.steps import intercept, new_customer, order_row, publish, send_order
from tests.system.inventory import HEADER
from tests.system.letters import order_message, own_letters
from tests.system.system import System, new_id

IMAGE = "<img src=x onerror=hacked=1>"
SCRIPT = "\"'><script>hacked=1</script>"
# This script finds injected elements, event handler attributes, and links that run scripts.
BECAME = """() => {
  const all = [...document.querySelectorAll("*")];
  const strange = "img, iframe, object, embed, script:not([src]), body :is(style, base)";
  const found = all.filter((each) => each.matches(strange));
  found.push(...all.filter((each) => [...each.attributes].some(({ name }) => name.startsWith("on"))));
  found.push(...all.filter((each) => /^(javascript|data:text.html)/i.test(each.getAttribute("href") ?? "")));
  return [window.hacked ?? null, ...found.map((each) => each.outerHTML)];
}"""


@pytest.fixture
def harmless(visit: Visit) -> Iterator[Visit]:
    """Opens pages in the same way as ``visit``. At the end, the test fails if a page contains injected content."""
    consoles: list[Console] = []

    def watched(*given: Any, **options: Any) -> Console:
        consoles.append(visit(*given, **options))
        return consoles[-1]

    yield watched
    for console in consoles:
        assert console.page.evaluate(BECAME) == [None]


def is_shown(place: Locator, *texts: str) -> None:
    for text in texts:
        expect(place).to_contain_text(text)


def test_an_order_stays_text(harmless: Visit, manager: Person, system: System) -> None:
    customer, note = f"{IMAGE} {new_id('c')}", f"{IMAGE} {SCRIPT}"
    console = harmless(manager, "#orders")
    console.expect_complaint("status of 400.*/orders")
    view = console.view("Orders")
    send_order(console, 3 * IMAGE, {IMAGE: IMAGE})
    expect(view.get_by_label("Quantity")).to_have_attribute("aria-invalid", "true")
    console.page.reload()
    send_order(console, customer, {IMAGE: "1"}, note)
    row = order_row(console, customer)
    row.get_by_role("link").click()
    is_shown(console.page.get_by_role("dialog"), customer, note)
    console.page.get_by_role("link", name=f"Orders of {customer}").click()
    expect(row).to_have_count(1)
    is_shown(row, customer, IMAGE, SCRIPT)
    row.get_by_role("button", name="Cancel").click()
    is_shown(console.page.get_by_role("dialog"), customer, IMAGE)
    console.page.keyboard.press("Escape")
    nobody = IMAGE + new_id("c")
    console.page.get_by_role("searchbox").fill(nobody)
    is_shown(view, f"No open order contains “{nobody}”.")

    system.notification(customer, "order")
    message = console.go("Inbox").get_by_role("listitem").filter(has_text=customer).first
    message.locator("summary").click()
    is_shown(message, customer)


def test_a_files_cells_stay_text_in_a_report(harmless: Visit, manager: Person, system: System) -> None:
    mark = new_id("u")
    cells = ",".join([IMAGE, SCRIPT.replace('"', '""'), f"{IMAGE}{mark}", IMAGE, IMAGE])
    quoted = '"' + cells.replace(",", '","') + '"'
    system.notification(system.upload(f"inventory/{mark}.csv", f'{HEADER}{quoted},"7"\n'), "upload")
    console = harmless(manager)
    report = system.report({})
    console.open(f"#reports/{report['reportId']}")
    with console.page.expect_popup() as opened:
        console.page.get_by_role("link", name="Open the report").click()
    page = opened.value
    expect(page.get_by_text(f"{IMAGE}{mark}").first).to_be_attached()
    assert page.evaluate("window.hacked ?? null") is None
    assert page.locator("img").count() == 0
    page.close()


def hostile(given: Any) -> Any:
    """Returns the same JSON with HTML in place of each cell, name and sentence."""
    kept = ("uploadId", "status", "uploadedAt", "undoneAt", "undoableUntil", "looksLike", "change")
    if isinstance(given, dict):
        return {name: value if name in kept else hostile(value) for name, value in given.items()}
    if isinstance(given, list):
        return [hostile(each) for each in given]
    return f"{IMAGE}{SCRIPT}" if isinstance(given, str) else given


@pytest.mark.parametrize("status", ["PREVIEWED", "IMPORTED", "REFUSED", "OUTDATED", "UNDONE"])
def test_an_uploads_texts_stay_text(harmless: Visit, manager: Person, status: str) -> None:
    more = {"reason": "why", "looksLike": "windows-1252", "samples": SAMPLES, "differences": DIFFERENCES, "undo": UNDO}
    given = hostile(upload(status, **more))
    console, _ = with_fake(harmless, manager, given, changes=hostile(CHANGES))
    is_shown(console.page.get_by_role("region", name="Recent uploads"), given["filename"])
    console.open(f"#uploads/{ID}")
    view = console.view("Uploads")
    is_shown(view.get_by_role("heading", level=1), IMAGE)
    is_shown(view.locator("#upload-outcome, #upload-changes").filter(visible=True).last, IMAGE, SCRIPT)
    if status == "IMPORTED":
        view.get_by_role("button", name="Undo").click()
        is_shown(console.page.get_by_role("dialog"), IMAGE)


def test_a_notification_stays_text(harmless: Visit, manager: Person, system: System) -> None:
    subject, address = f"{IMAGE} {new_id('n')}", 'https://x.example/"onmouseover=hacked=1'
    lines = [SCRIPT, "javascript:hacked=1", address, "http://<img/src=x/onerror=hacked=1>"]
    publish(system, subject, "\n".join(lines), kind="order")
    console = harmless(manager, "#inbox")
    message = console.page.get_by_role("listitem").filter(has_text=subject)
    message.locator("summary").click()
    is_shown(message, *lines[:2])
    assert [link.get_attribute("href") for link in message.get_by_role("link").all()] == [address]
    is_shown(console.go("Today"), subject)


def test_a_dead_letter_stays_text(harmless: Visit, manager: Person, system: System) -> None:
    with own_letters(system) as letters:
        order_id = letters.new_id()
        letters.put("ORDERS_DEAD_LETTER_URL", order_message(order_id, customerID=IMAGE))
        console = harmless(manager, "#dead-letters")
        letter = console.page.locator("#dead-letters-list > li").filter(has_text=order_id)
        is_shown(letter, IMAGE)
        letter.get_by_role("button", name="Put back").click()
        is_shown(console.page.get_by_role("dialog"), IMAGE)
        console.page.get_by_role("dialog").get_by_role("button", name="Put back").click()
        expect(letter).to_have_count(0)


def test_errors_of_aws_and_mysql_in_a_report_stay_text(harmless: Visit, manager: Person, system: System) -> None:
    """The test fakes the API's responses, because S3 does not allow HTML in bucket names."""
    measured, failed = system.report({"kind": "storage"}), system.report({})
    buckets = [{"name": IMAGE, "bytes": 7, "objects": 1}]
    measured["summary"] |= {"buckets": buckets, "errors": [{"bucket": SCRIPT, "error": IMAGE}]}
    failed |= {"status": "FAILED", "error": SCRIPT, "requestedBy": IMAGE, "summary": None, "url": None}
    storage, inventory = (f"reports/{each['reportId']}" for each in (measured, failed))

    def fail(route: Any) -> None:
        states = json.loads(route.fetch().text())
        for state in states["states"]:
            state |= {"status": "failed", "error": IMAGE}
        route.fulfill(json=states)

    console = harmless()
    intercept(console, "GET", storage, lambda route: route.fulfill(json=measured))
    intercept(console, "GET", inventory, lambda route: route.fulfill(json=failed))
    intercept(console, "GET", f"{inventory}/history", fail)
    console.open(f"#{storage}")
    console.sign_in(manager)
    view = console.view("Reports")
    is_shown(view, f"{IMAGE} 7 Bytes", f"{SCRIPT}: {IMAGE}")
    console.page.get_by_role("link", name="All reports").click()
    is_shown(console.page.get_by_role("region", name="Storage"), IMAGE)
    console.open(f"#{inventory}")
    view.get_by_text("Step by step").click()
    is_shown(view, SCRIPT, IMAGE)


def test_a_persons_name_stays_text(harmless: Visit, people: Make) -> None:
    """The person's name contains HTML, because Cognito user pools allow it."""
    person = people("managers", f"<svg/onload=hacked=1>{new_id('p')}")
    console = harmless(person, "#orders")
    is_shown(console.page.get_by_role("banner"), person.name)
    customer = new_customer()
    send_order(console, customer)
    order_row(console, customer).get_by_role("link").click()
    is_shown(console.page.get_by_role("dialog"), person.name)


@pytest.mark.parametrize(
    ("tab", "title"), [("orders/", "Orders"), ("reports/", "Report"), ("uploads/", "Upload"), ("", "Today")]
)
def test_the_address_stays_text(harmless: Visit, manager: Person, tab: str, title: str) -> None:
    console = harmless(manager, "#inbox")
    # The API rejects strings that are not valid ids.
    console.allowed.append(r"status of 40[034].*/(orders|reports|uploads)/")
    for text in (IMAGE, SCRIPT, "javascript:hacked=1", "..%2F..%2Fhealth", "%", "%E0%A4%A", "constructor", "__proto__"):
        console.page.evaluate("(hash) => { location.hash = hash; }", tab + text)
        expect(console.page.get_by_role("heading", name=title, exact=True, level=1)).to_be_visible()
        if tab == "orders/":
            expect(console.page.get_by_role("dialog")).to_contain_text("No order has this id")
            console.page.keyboard.press("Escape")
        console.page.evaluate("location.hash = 'inbox'")
        expect(console.page.get_by_role("heading", name="Inbox", level=1)).to_be_visible()
