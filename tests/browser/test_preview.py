"""Tests how the console shows an upload's preview, its outcome and its undo. The tests fake the API's responses."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visit
from tests.browser.console import Console, Person
from tests.browser.fake_uploads import (
    COUNTS,
    DIFFERENCES,
    FILE,
    ID,
    SAMPLES,
    UNDO,
    bean,
    unread,
    upload,
    values,
    with_fake,
)
from tests.browser.test_keyboard import tab_to

PREVIEW = f"#uploads/{ID}"
UNDONE = "Undone for 4 beans, 22 kept"
TOO_LARGE = "This import cannot be undone, because it changes more than 100,000 beans."


def section(console: Console, name: str) -> Locator:
    return console.view("Uploads").get_by_role("region", name=name, exact=True)


def press(console: Console, name: str) -> None:
    """Presses a button with the keyboard. Then the page's heading must have the focus."""
    button = console.page.get_by_role("button", name=name, exact=True)
    tab_to(button)
    console.page.keyboard.press("Enter")
    expect(console.page.get_by_role("heading", name=FILE, level=1)).to_be_focused()


def undo(console: Console, button: Locator) -> None:
    """Undoes an import after the confirmation was cancelled once."""
    dialog = console.page.get_by_role("dialog", name="Undo this import?")
    for answer in ("Cancel", "Undo the import"):
        button.click()
        expect(dialog).to_contain_text(FILE)
        dialog.get_by_role("button", name=answer).click()
        expect(dialog).to_be_hidden()


def test_a_preview_shows_what_a_file_would_change_and_cancel_only_closes_it(visit: Visit, manager: Person) -> None:
    console, fake = with_fake(visit, manager, upload("PREVIEWED"))
    view = console.view("Uploads")
    view.get_by_role("link", name=FILE).click()
    for text in ("Not applied yet uploaded by ana", "390 Bytes, UTF-8 with semicolons"):
        expect(view).to_contain_text(text)
    expect(view).to_contain_text("Columns that are not used: sku")
    expect(view).to_contain_text("This file would add 3 beans and change 1 bean, and leave out 2 bad rows.")
    expect(view).to_contain_text("You can undo it within 90 days.")
    expect(view.locator("dl.totals")).to_have_text("Changed1New3Unchanged4Bad rows2Not in the file1")
    changed = section(console, "Changed 1").get_by_role("listitem")
    expect(changed).to_contain_text("Geisha La Palma Café Altura · Arabica")
    expect(changed.locator("del")).to_have_text(["12", "16,40"])
    expect(changed.locator("ins")).to_have_text(["40", "18,50"])
    expect(changed).not_to_contain_text("description")
    expect(section(console, "New 3").get_by_role("listitem").last).to_contain_text("Sidra")
    expect(section(console, "New 3").get_by_role("listitem").last).not_to_contain_text("description")
    expect(section(console, "Bad rows 2").get_by_role("listitem").first).to_have_text("quantity is emptyline 4")
    expect(section(console, "Not in the file 1")).to_contain_text("They stay as they are.Old Harvest")
    view.get_by_role("link", name="Bad rows").click()
    expect(view.get_by_role("heading", name="Bad rows 2")).to_be_focused()
    expect(view.get_by_role("heading", name="Bad rows 2")).to_be_in_viewport()

    view.get_by_role("button", name="Cancel").click()
    expect(view.get_by_role("heading", name="Uploads", level=1)).to_be_focused()
    assert fake.actions == []
    view.get_by_role("link", name=FILE).click()
    expect(view.get_by_role("button", name="Apply")).to_be_visible()


def test_a_preview_is_applied_with_the_keyboard(visit: Visit, manager: Person) -> None:
    states = [upload("IMPORTING", rowsRead=0), upload("IMPORTING", rowsRead=3_000), upload("IMPORTED")]
    console, fake = with_fake(visit, manager, upload("PREVIEWED"), tab=PREVIEW, apply=states)
    press(console, "Apply")
    expect(console.page.get_by_text("The file is being imported … 3,000 rows so far")).to_be_visible()
    expect(console.view("Uploads")).to_contain_text("Imported: 3 new, 1 changed, 4 unchanged, 2 bad rows.")
    expect(console.view("Uploads")).to_contain_text("You can undo this import until 27 Feb 2099.")
    expect(console.page.get_by_role("button", name="Apply")).to_have_count(0)
    expect(section(console, "New 3")).to_contain_text("Finca Deborah")
    assert fake.actions == [("apply", {})]


def test_a_file_that_changes_nothing_cannot_be_applied(visit: Visit, manager: Person) -> None:
    counts = {**COUNTS, "new": 0, "updated": 0}
    console, _ = with_fake(visit, manager, upload("PREVIEWED", counts=counts), tab=PREVIEW)
    expect(console.view("Uploads")).to_contain_text("This file would change nothing.")
    expect(console.page.get_by_role("button", name="Apply")).to_have_count(0)
    console.page.get_by_role("button", name="Close").click()
    expect(console.page).to_have_url(f"{console.address}/#uploads")


def test_an_outdated_preview_shows_the_differences_and_is_made_again(visit: Visit, manager: Person) -> None:
    reason = "the stock has changed since the preview"
    outdated = upload("OUTDATED", encoding="windows-1252", reason=reason, differences=DIFFERENCES)
    console, fake = with_fake(
        visit,
        manager,
        upload("PREVIEWED"),
        tab=PREVIEW,
        apply=[upload("IMPORTING"), outdated],
        preview=[unread("PREVIEWING"), upload("PREVIEWED", counts={**COUNTS, "new": 2})],
    )
    press(console, "Apply")
    expect(console.view("Uploads")).to_contain_text(reason)
    rows = section(console, "What is different").get_by_role("listitem")
    for row, text in zip(rows.all(), ("quantity 12 → 9", "has been added since", "is no longer in stock"), strict=True):
        # The text for screen readers differs from the visible text, which has an arrow.
        expect(row).to_contain_text(text.replace("→", "→ becomes"))
    press(console, "New preview")
    expect(console.view("Uploads")).to_contain_text("add 2 beans")
    assert fake.actions == [("apply", {}), ("preview", {"encoding": "windows-1252"})]


def test_a_file_in_windows_1252_is_read_after_its_names_were_shown(visit: Visit, manager: Person) -> None:
    refused = unread("REFUSED", reason="This file is not UTF-8.", looksLike="windows-1252", samples=SAMPLES)
    read = [unread("PREVIEWING"), upload("PREVIEWED", encoding="windows-1252")]
    console, fake = with_fake(visit, manager, refused, tab=PREVIEW, preview=read)
    expect(console.view("Uploads")).to_contain_text("This file is not UTF-8.")
    names = section(console, "Names, read as Windows-1252").get_by_role("listitem")
    expect(names).to_have_text(SAMPLES)
    press(console, "Read it as Windows-1252")
    expect(console.view("Uploads")).to_contain_text("Windows-1252 with semicolons")
    expect(console.page.get_by_role("button", name="Apply")).to_be_visible()
    assert fake.actions == [("preview", {"encoding": "windows-1252"})]


@pytest.mark.parametrize("tab", ["#uploads", PREVIEW])
def test_an_undo_is_confirmed_and_names_the_beans_that_it_keeps(visit: Visit, manager: Person, tab: str) -> None:
    undone = [upload("UNDOING"), upload("UNDONE", undo=UNDO)]
    console, fake = with_fake(visit, manager, upload("IMPORTED"), tab=tab, undo=undone)
    view = console.view("Uploads")
    undo(console, view.get_by_role("button", name="Undo"))
    expect(view).to_contain_text(UNDONE)
    expect(view.get_by_role("link", name=FILE).or_(view.get_by_role("heading", name=FILE))).to_be_focused()
    expect(console.page.get_by_role("status").filter(has_text=f"{FILE}: {UNDONE}")).to_be_attached()
    expect(view.get_by_role("button", name="Undo")).to_have_count(0)
    if tab == "#uploads":
        expect(view).to_contain_text("so kept: Sidra 1 (Café Altura, Arabica); Sidra 2 (Café Altura, Arabica);")
        expect(view).to_contain_text("; 19 more")
    else:
        expect(view).to_contain_text(f"{UNDONE} by ben")
        names = view.get_by_role("listitem").filter(has_text="(Café Altura, Arabica)")
        expect(names).to_have_count(20)
        expect(view.get_by_role("listitem").filter(has_text="2 more")).to_be_visible()
    assert fake.actions == [("undo", {})]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (upload("PREVIEWED", undoable=False), TOO_LARGE),
        (upload("IMPORTED", undoable=False, undoableUntil=None), TOO_LARGE),
        (upload("IMPORTED", undoableUntil="2026-11-28T10:00:00.000000Z"), "This import can no longer be undone."),
    ],
    ids=["large preview", "large import", "old import"],
)
def test_an_import_that_cannot_be_undone_says_so(visit: Visit, manager: Person, given: Any, words: str) -> None:
    console, _ = with_fake(visit, manager, given, tab=PREVIEW)
    expect(console.view("Uploads")).to_contain_text(words)
    expect(console.page.get_by_role("button", name="Undo")).to_have_count(0)


def test_a_large_preview_is_shown_page_by_page(visit: Visit, manager: Person) -> None:
    beans = [bean("new", f"Bean {number}", line=number, after=values(number)) for number in range(1, 151)]
    counts = {"new": 150, "updated": 0, "unchanged": 0, "bad": 0, "notMentioned": 0}
    console, _ = with_fake(visit, manager, upload("PREVIEWED", counts=counts), tab=PREVIEW, changes=beans)
    rows = section(console, "New 150").get_by_role("listitem")
    more = section(console, "New 150").get_by_role("button", name="Show more")
    expect(rows).to_have_count(20)
    expect(section(console, "New 150")).to_contain_text("20 of 150")
    more.click()
    expect(rows).to_have_count(120)
    expect(console.page.get_by_role("status").filter(has_text="100 more rows shown, 120 of 150.")).to_be_attached()
    console.page.route("**/uploads/*?change=*", lambda route: route.abort(), times=1)
    console.expect_complaint("ERR_FAILED")
    more.click()
    expect(rows).to_have_count(150)
    expect(more).to_be_hidden()
    expect(rows.last).to_contain_text("Bean 150")


def test_a_file_that_was_put_straight_into_s3_is_listed_as_imported(visit: Visit, manager: Person) -> None:
    console, _ = with_fake(
        visit, manager, upload("IMPORTED", uploadedBy=None, counts=COUNTS | {"notMentioned": None}), changes=[]
    )
    row = console.view("Uploads").get_by_role("listitem").filter(has_text=FILE)
    for text in ("Imported", "3 new, 1 changed", "put straight into S3"):
        expect(row).to_contain_text(text)
    row.get_by_role("link", name=FILE).click()
    expect(console.view("Uploads")).to_contain_text("Imported put straight into S3")
    expect(section(console, "New 3")).to_be_hidden()
    expect(console.view("Uploads").locator("dl.totals")).to_have_text("Changed1New3Unchanged4Bad rows2")


def test_a_refused_action_says_why_and_shows_the_present_state(visit: Visit, manager: Person) -> None:
    reason = "status: is UNDONE, but must be PREVIEWED; read the upload again"
    console, fake = with_fake(visit, manager, upload("PREVIEWED"), tab=PREVIEW, apply=reason)
    console.expect_complaint("status of 409")
    expect(console.page.get_by_role("button", name="Apply")).to_be_visible()
    fake.uploads = [upload("UNDONE", undo=UNDO)]
    console.page.get_by_role("button", name="Apply").click()
    expect(console.page.get_by_role("alert")).to_have_text(reason)
    expect(console.view("Uploads")).to_contain_text(UNDONE)
