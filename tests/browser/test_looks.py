"""Tests the accessibility and layout of every tab in both themes, on a desktop and on a phone.

The accessibility checker axe-core must report no violation. The screenshots go to ``.local/screenshots``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Make, Visit
from tests.browser.console import DESKTOP, PHONE, TABS, Console, Person
from tests.browser.fake_storage import WITH_VERSIONS, storage_report, with_reports
from tests.browser.fake_uploads import DIFFERENCES, SAMPLES, UNDO, unread, upload, with_fake
from tests.browser.steps import new_customer, order_row, place, publish
from tests.system.letters import order_message, own_letters
from tests.system.system import ROOT, System, new_id

SCREENSHOTS = ROOT / ".local" / "screenshots"
DEVICES = {"desktop": DESKTOP, "phone": PHONE}


def looks(*short: str) -> pytest.MarkDecorator:
    """Runs a test in every theme on every device. Combinations that are missing from ``short`` are marked ``long``."""
    return pytest.mark.parametrize(
        ("theme", "device"),
        [
            pytest.param(theme, device, marks=() if f"{theme}-{device}" in short else pytest.mark.long)
            for theme in ("light", "dark")
            for device in DEVICES
        ],
    )


# This script waits until all animations end, because an element that fades in has the wrong color at first.
STILL = """() => {
  const ending = document.getAnimations().filter((each) => each.effect.getComputedTiming().endTime < Infinity);
  return Promise.all(ending.map((each) => each.finished));
}"""


def look_at(console: Console, name: str) -> None:
    """Saves a screenshot.

    The accessibility checker axe-core must report no violation, and the page must fit the width of its window.
    """
    page = console.page
    page.evaluate(STILL)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
    violations = Axe().run(page).response["violations"]
    assert not violations, "; ".join(f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in violations)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.fixture
def dead_order(system: System) -> Iterator[str]:
    """Puts an order in the dead-letter queue for the duration of a test, and yields the order's id."""
    with own_letters(system) as letters:
        order_id = letters.new_id()
        letters.put("ORDERS_DEAD_LETTER_URL", order_message(order_id))
        yield order_id


@pytest.fixture
def appear(visit: Visit, theme: str, device: str) -> Callable[..., Console]:
    def appear(*given: Any) -> Console:
        phone = {"is_mobile": True, "has_touch": True} if device == "phone" else {}
        return visit(*given, color_scheme=theme, viewport=DEVICES[device], **phone)

    return appear


@looks("light-desktop", "dark-phone")
def test_every_tab_is_accessible(
    dead_order: str, appear: Callable[..., Console], manager: Person, system: System, theme: str, device: str
) -> None:
    place(system, new_customer())
    publish(system, f"Upload: 2 rows imported, 1 bad ({new_id('u')})", "inventory/a.csv\nline 4: no", kind="upload")
    system.report({"kind": "storage"})
    console, _ = with_fake(appear, manager, *UPLOADS)
    for tab in TABS:
        view = console.go(tab)
        expect(view.get_by_text("Loading")).to_have_count(0)
        expect(view.locator("li, #orders-open tbody tr").filter(visible=True).first).to_be_visible()
        look_at(console, f"{tab.lower().replace(' ', '-')}-{theme}-{device}")


@looks("light-phone")
def test_every_dialog_and_detail_is_accessible(
    dead_order: str, appear: Callable[..., Console], manager: Person, system: System, theme: str, device: str
) -> None:
    [placed] = place(system, new_customer())
    report = system.report({})

    console = appear()
    expect(console.page.get_by_role("heading", name="Sign in")).to_be_visible()
    look_at(console, f"sign-in-{theme}-{device}")
    console.sign_in(manager)
    console.open(f"#orders/{placed['orderID']}")
    expect(console.page.get_by_role("dialog")).to_contain_text("Mocha")
    look_at(console, f"order-{theme}-{device}")
    console.page.keyboard.press("Escape")
    console.page.get_by_role("button", name="Cancel the order").first.click()
    look_at(console, f"order-cancel-{theme}-{device}")
    console.page.keyboard.press("Escape")
    console.page.get_by_role("button", name="Export as CSV").click()
    look_at(console, f"export-{theme}-{device}")
    # The address changes while the dialog is open, as with the browser's back button.
    console.open(f"#reports/{report['reportId']}")
    expect(console.page.get_by_role("link", name="Open the report")).to_be_visible()
    look_at(console, f"report-{theme}-{device}")
    console.page.get_by_text("Show the failure path").click()
    console.page.get_by_text("Step by step").click()
    look_at(console, f"report-steps-{theme}-{device}")
    console.open("#dead-letters")
    letter = console.page.get_by_role("listitem").filter(has_text=dead_order)
    letter.get_by_role("button", name="Discard").click()
    look_at(console, f"discard-{theme}-{device}")


@looks("dark-desktop")
def test_every_error_is_accessible(
    appear: Callable[..., Console], people: Make, system: System, theme: str, device: str
) -> None:
    person = people("staff")
    console = appear()
    console.expect_complaint("status of 400")
    console.enter(person.name, "wrong")
    expect(console.page.get_by_role("alert")).to_be_visible()
    look_at(console, f"wrong-password-{theme}-{device}")
    guest = people("staff", chosen=False)
    console.enter(guest.name, guest.password)
    console.page.get_by_label("New password", exact=True).fill("aB")
    console.page.get_by_role("button", name="Save this password").click()
    look_at(console, f"new-password-{theme}-{device}")
    console.open()
    console.sign_in(person)
    console.go("Reports")
    look_at(console, f"no-permission-{theme}-{device}")
    view = console.go("Orders")
    if device == "phone":
        view.get_by_role("button", name="New order").click()
    view.get_by_role("button", name="Place the order").click()
    expect(view.locator("[aria-invalid=true]").first).to_be_visible()
    look_at(console, f"wrong-order-{theme}-{device}")

    console.allowed.append("ERR_INTERNET_DISCONNECTED")
    console.context.set_offline(True)
    console.page.evaluate("dispatchEvent(new Event('offline'))")
    expect(console.page.get_by_text("No connection.")).to_be_visible()
    look_at(console, f"no-connection-{theme}-{device}")
    console.context.set_offline(False)


UPLOADS = [
    upload("PREVIEWED"),
    unread("PREVIEWING", uploadId="1" * 12, rowsRead=150_000),
    upload("IMPORTED", uploadId="2" * 12),
    upload("UNDONE", uploadId="3" * 12, undo=UNDO),
    upload("OUTDATED", uploadId="4" * 12, reason="3 beans have changed.", differences=DIFFERENCES),
    unread("REFUSED", uploadId="5" * 12, reason="not UTF-8", looksLike="windows-1252", samples=SAMPLES),
]


@looks("light-phone", "dark-desktop")
def test_every_state_of_an_upload_is_accessible(
    appear: Callable[..., Console], manager: Person, theme: str, device: str
) -> None:
    console, _ = with_fake(appear, manager, *UPLOADS)
    for each in UPLOADS:
        console.open(f"#uploads/{each['uploadId']}")
        view = console.view("Uploads")
        expect(view.get_by_role("heading", name=each["filename"], level=1)).to_be_visible()
        if each["counts"] and each["status"] != "OUTDATED":
            expect(view).to_contain_text("Old Harvest")
        look_at(console, f"upload-{each['status'].lower()}-{theme}-{device}")
        if each["status"] == "IMPORTED":
            view.get_by_role("button", name="Undo").click()
            look_at(console, f"undo-{theme}-{device}")
            console.page.keyboard.press("Escape")


@looks("light-desktop", "dark-phone")
def test_parts_and_growth_of_storage_are_accessible(
    appear: Callable[..., Console], manager: Person, theme: str, device: str
) -> None:
    console = appear()
    view = with_reports(console, manager, storage_report("SUCCEEDED", summary=WITH_VERSIONS))
    view.get_by_role("radio", name="Storage").check()
    expect(view.get_by_role("heading", name="Growth")).to_be_visible()
    look_at(console, f"storage-{theme}-{device}")
    printed(console.page)
    expect(view.get_by_role("img").first).to_be_visible()


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Los_Angeles", "Asia/Kolkata"])
def test_times_are_in_the_viewers_time_zone(visit: Visit, manager: Person, system: System, zone: str) -> None:
    [placed] = place(system, new_customer())
    local = datetime.fromisoformat(placed["placedAt"]).astimezone(ZoneInfo(zone))
    console = visit(manager, f"#orders/{placed['orderID']}", timezone_id=zone)
    dialog = console.page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"{local:%A}")
    expect(dialog).to_contain_text(f" {local.hour}:{local:%M:%S}")


TIMES = """async () => {
  const { inZone, short, midnight, fileNames } = await import("./console/format.js");
  const at = (days, year = 0) => {
    const date = midnight(days);
    date.setHours(14, 5);
    date.setFullYear(date.getFullYear() - year);
    return date;
  };
  const today = at(0);
  return [
    short(today),
    short(at(1)),
    short(at(400)),
    inZone(`sent ${today.toISOString()}, [1.0 (29/11/25 10:00:00)]`),
    inZone("a report of 2026-13-45T99:99:99Z"),
    fileNames("Upload: not imported (inventory/2026/a.csv)"),
  ];
}"""


def test_a_time_is_written_one_way_in_lists_and_in_texts_from_the_api(visit: Visit) -> None:
    today, yesterday, long_ago, sent, no_time, title = visit(timezone_id="Asia/Kolkata").page.evaluate(TIMES)
    assert today == "14:05"
    assert re.fullmatch(r"\d+ \w{3,4}( \d{4})?, 14:05", yesterday)
    assert re.fullmatch(r"\d+ \w{3,4} \d{4}, 14:05", long_ago)
    assert sent == "sent 14:05, [1.0 (29 Nov 2025, 15:30)]"
    assert no_time == "a report of 2026-13-45T99:99:99Z"
    assert title == "Upload: not imported (a.csv)"


def printed(page: Page) -> int:
    """Prints the page. Nothing may be cut off, or be darker than its paper. Returns the number of sheets."""
    page.emulate_media(media="print", color_scheme="dark")
    # This is the width of an A4 page without its margins.
    page.set_viewport_size({"width": 688, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    return len(re.findall(rb"/Type /Page\b", page.pdf(format="A4")))


def test_the_console_is_printed_without_its_controls(visit: Visit, manager: Person, system: System) -> None:
    subject = new_id("printed")
    publish(system, subject)
    console, _ = with_fake(visit, manager, *UPLOADS, tab="#uploads")
    view = console.view("Uploads")
    expect(view.get_by_role("listitem").first).to_be_visible()
    assert printed(console.page) == 1
    expect(view.get_by_text("monday-delivery.csv").first).to_be_visible()
    for control in (console.page.locator(".tabs"), view.get_by_text("Undo", exact=True).first):
        expect(control).to_be_hidden()
    console.open("#inbox")
    expect(console.page.get_by_text(subject)).to_be_visible()

    customer, note = new_customer(), "Oat milk, and the bill to table nine, please. " * 3
    system.post("/orders", [{"customerID": customer, "item": "Mocha", "note": note}])
    console.open(f"#orders?q={customer}")
    row = order_row(console, customer)
    expect(row).to_contain_text("Placed")
    printed(console.page)
    view = console.view("Orders")
    for control in (
        view.get_by_role("searchbox"),
        view.locator("header .button").first,
        row.get_by_role("button").first,
    ):
        expect(control).to_be_hidden()
    assert row.locator("td").nth(2).evaluate("cell => cell.scrollWidth <= cell.clientWidth")


def test_a_report_is_printed_with_a_heading_on_each_sheet(visit: Visit, manager: Person, system: System) -> None:
    report = system.report({"kind": "storage"})
    console = visit(manager, f"#reports/{report['reportId']}")
    with console.page.expect_popup() as opened:
        console.page.get_by_role("link", name="Open the report").click()
    page = opened.value
    expect(page.get_by_role("heading", name="Storage")).to_be_visible()
    page.evaluate(
        "const row = document.querySelector('tbody tr'); for (let i = 0; i < 70; i++) row.after(row.cloneNode(true))"
    )
    # Without the bars, about 40 rows fit on a sheet, and a heading that is sticky would not be repeated.
    assert printed(page) in (2, 3)
    assert page.evaluate("getComputedStyle(document.querySelector('thead')).display") == "table-header-group"
    assert page.evaluate("getComputedStyle(document.querySelector('th')).position") == "static"
    page.close()
