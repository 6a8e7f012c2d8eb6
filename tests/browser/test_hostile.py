"""Text that would be a program, in every place where somebody can put some: it is shown as the text that it is."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Make, Visit
from tests.browser.console import Console, Person
from tests.browser.test_inbox import publish
from tests.browser.test_orders import fill, order_form
from tests.browser.test_uploads import HEAD, a_file, upload
from tests.system.system import System
from tests.system.test_dead_letters import new_id, order, put

IMAGE = "<img src=x onerror=hacked=1>"
SCRIPT = "\"'><script>hacked=1</script>"
# What no text may become: elements that the page itself has none of, attributes with a program, and links to one.
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
    """As ``visit``; at the end, in no page has any text become more than text."""
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
    customer = f"{IMAGE} {secrets.token_hex(3)}"
    console = harmless(manager, "#orders")
    view = console.view("Orders")
    fill(order_form(view), customer, {IMAGE: "1", SCRIPT: "2"}, note=f"{IMAGE} {SCRIPT}")
    view.get_by_role("button", name="Place the order").click()
    way = view.get_by_role("region", name="On their way")
    way.get_by_role("link", name="Placed").click()
    is_shown(console.page.get_by_role("dialog"), customer, SCRIPT, f"{IMAGE} {SCRIPT}")
    console.page.get_by_role("button", name=f"All orders of {customer}").click()
    is_shown(view.get_by_role("region", name=f"Orders of {customer}"), customer, SCRIPT)

    system.notification(customer, "order")
    message = console.go("Inbox").get_by_role("listitem").filter(has_text=customer)
    message.locator("summary").click()
    is_shown(message, customer)


def test_an_order_that_is_refused_stays_text(harmless: Visit, staff: Person) -> None:
    console = harmless(staff, "#orders")
    console.expect_complaint("status of 400.*/orders")
    form = order_form(console.view("Orders"))
    fill(form, 3 * IMAGE, {IMAGE: IMAGE})
    form.get_by_role("button", name="Place the order").click()
    expect(form.get_by_label("Quantity")).to_have_attribute("aria-invalid", "true")


def test_a_filter_of_orders_stays_text(harmless: Visit, staff: Person) -> None:
    nobody = IMAGE + secrets.token_hex(3)
    console = harmless(staff, "#orders")
    console.page.get_by_role("searchbox").fill(nobody)
    console.page.keyboard.press("Enter")
    is_shown(console.view("Orders"), f"Orders of {nobody}", f"Nothing is placed for {nobody} yet.")


def test_a_files_name_its_columns_and_its_cells_stay_text(harmless: Visit, manager: Person, system: System) -> None:
    mark = secrets.token_hex(3)
    names = [f"{IMAGE}{mark}.csv", f"columns{mark}.csv"]
    cells = ",".join([IMAGE, SCRIPT.replace('"', '""'), f"{IMAGE}{mark}", IMAGE, IMAGE])
    quoted = '"' + cells.replace(",", '","') + '"'
    files = [
        a_file(names[0], f'{HEAD}{quoted},"7"\n{quoted},"{IMAGE}"\n'),
        a_file(names[1], f"{IMAGE},{SCRIPT}\n"),
    ]
    console = harmless(manager, "#uploads")
    console.page.get_by_label("Choose a CSV file").set_input_files(files)
    is_shown(upload(console, names[0]), names[0], "1 row imported", f"line 3: quantity is '{IMAGE}'")
    is_shown(upload(console, names[1]), "must name the columns")
    is_shown(console.page.get_by_role("region", name="What came in lately"), IMAGE)

    report = system.report({})
    console.open(f"#reports/{report['reportId']}")
    with console.page.expect_popup() as opened:
        console.page.get_by_role("link", name="Open the report").click()
    page = opened.value
    expect(page.get_by_text(f"{IMAGE}{mark}").first).to_be_attached()
    assert page.evaluate("window.hacked ?? null") is None
    assert page.locator("img").count() == 0
    page.close()


def test_a_notification_stays_text(harmless: Visit, manager: Person, system: System) -> None:
    subject = f"{IMAGE} {secrets.token_hex(3)}"
    lines = [
        SCRIPT,
        "javascript:hacked=1",
        'https://x.example/"onmouseover=hacked=1',
        "http://<img/src=x/onerror=hacked=1>",
    ]
    publish(system, subject, "\n".join(lines), kind="order")
    console = harmless(manager, "#inbox")
    message = console.page.get_by_role("listitem").filter(has_text=subject)
    message.locator("summary").click()
    is_shown(message, *lines[:2])
    addresses = [link.get_attribute("href") for link in message.get_by_role("link").all()]
    assert addresses == ['https://x.example/"onmouseover=hacked=1']
    is_shown(console.go("Today"), subject)


def test_a_dead_letter_stays_text(harmless: Visit, manager: Person, system: System) -> None:
    order_id = new_id()
    put(system, "ORDERS_DEAD_LETTER_URL", {**order(order_id), "customerID": IMAGE})
    console = harmless(manager, "#dead-letters")
    letter = console.page.get_by_role("listitem").filter(has_text=order_id)
    is_shown(letter, IMAGE)
    letter.get_by_role("button", name="Put back").click()
    is_shown(console.page.get_by_role("dialog"), IMAGE)
    console.page.get_by_role("dialog").get_by_role("button", name="Put back").click()
    expect(letter).to_have_count(0)


def test_a_bucket_and_why_it_could_not_be_read_stay_text(harmless: Visit, manager: Person, system: System) -> None:
    """No bucket can have such a name, here or on AWS, so the answer is changed on its way to the page."""
    report = system.report({"kind": "storage", "mode": "listing"})
    summary = report["summary"] | {
        "buckets": [{"name": IMAGE, "bytes": 7, "objects": 1}],
        "errors": [{"bucket": SCRIPT, "error": IMAGE}],
    }
    console = harmless()
    path = f"{console.address}/reports/{report['reportId']}"
    console.page.route(path, lambda route: route.fulfill(json={**report, "summary": summary}))
    console.open(f"#reports/{report['reportId']}")
    console.sign_in(manager)
    is_shown(console.view("Reports"), f"{IMAGE} 7 Bytes", f"{SCRIPT}: {IMAGE}")
    console.page.get_by_role("link", name="All reports").click()
    is_shown(console.page.get_by_role("region", name="Storage"), IMAGE)


def test_why_a_report_failed_stays_text(harmless: Visit, manager: Person, system: System) -> None:
    """MySQL's words, and what was asked of it, are in such a cause."""
    report = system.report({})
    console = harmless()
    path = f"{console.address}/reports/{report['reportId']}"
    failed = {**report, "status": "FAILED", "error": SCRIPT, "requestedBy": IMAGE, "summary": None, "url": None}

    def fail(route: Any) -> None:
        states = json.loads(route.fetch().text())
        for state in states["states"]:
            state |= {"status": "failed", "error": IMAGE}
        route.fulfill(json=states)

    console.page.route(path, lambda route: route.fulfill(json=failed))
    console.page.route(f"{path}/history", fail)
    console.open(f"#reports/{report['reportId']}")
    console.sign_in(manager)
    view = console.view("Reports")
    view.get_by_text("Step by step").click()
    is_shown(view, SCRIPT, IMAGE)


def test_a_persons_name_stays_text(harmless: Visit, people: Make, system: System) -> None:
    """A user pool takes all of these characters."""
    person = people("managers", f"<svg/onload=hacked=1>{secrets.token_hex(3)}")
    console = harmless(person, "#orders")
    is_shown(console.page.get_by_role("banner"), person.name)
    view = console.view("Orders")
    fill(order_form(view), "table-1", {"Espresso": "1"})
    view.get_by_role("button", name="Place the order").click()
    view.get_by_role("link", name="Placed", exact=True).click()
    is_shown(console.page.get_by_role("dialog"), person.name)


@pytest.mark.parametrize(("tab", "title"), [("orders/", "Orders"), ("reports/", "Report"), ("", "Today")])
def test_the_address_stays_text(harmless: Visit, manager: Person, tab: str, title: str) -> None:
    console = harmless(manager, "#inbox")
    # Some are none of an order or a report, and the API says so.
    console.allowed.append(r"status of 40[034].*/(orders|reports)/")
    for text in (IMAGE, SCRIPT, "javascript:hacked=1", "..%2F..%2Fhealth", "%", "%E0%A4%A", "constructor", "__proto__"):
        console.page.evaluate("(hash) => { location.hash = hash; }", tab + text)
        expect(console.page.get_by_role("heading", name=title, exact=True, level=1)).to_be_visible()
        if tab == "orders/":
            expect(console.page.get_by_role("dialog")).to_contain_text("There is none with this id")
            console.page.keyboard.press("Escape")
        console.page.evaluate("location.hash = 'inbox'")
        expect(console.page.get_by_role("heading", name="Inbox", level=1)).to_be_visible()
