"""Tests how the Uploads tab sends files, and how a file is previewed, applied and undone in the deployed system."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.console import Person
from tests.browser.fake_uploads import FILE, ID, unread, upload, with_fake
from tests.browser.steps import a_file, beans, choose, expect_preview, sending
from tests.system.inventory import HEADER, stock
from tests.system.system import System, new_id


def test_a_file_is_previewed_applied_and_undone(visit: Visit, manager: Person, system: System) -> None:
    supplier, name = new_id("supplier"), f"{new_id('monday')}.csv"
    console = visit(manager)
    console.go("Uploads")
    choose(console, a_file(name, f"{HEADER}{supplier},Arabica,Sidra,9.80,Plum,4\n{supplier},Arabica,Geisha,9,Fig,-3\n"))
    view = expect_preview(console, name)
    expect(view).to_contain_text("This file would add 1 bean, and leave out 1 bad row.")
    expect(view.get_by_role("region", name="Bad rows 1").get_by_role("listitem")).to_contain_text("line 3")
    assert stock(system, supplier) == {}

    view.get_by_role("button", name="Apply").click()
    expect(view).to_contain_text("Imported: 1 new, 1 bad row.")
    assert stock(system, supplier) == {"Sidra": 4}

    view.get_by_role("button", name="Undo").click()
    console.page.get_by_role("dialog").get_by_role("button", name="Undo the import").click()
    expect(view).to_contain_text(f"Undone for 1 bean by {manager.name}")
    assert stock(system, supplier) == {}
    view.get_by_role("link", name="All uploads").click()
    mine = view.get_by_role("listitem").filter(has_text=name)
    for text in ("Undone for 1 bean", f"by {manager.name}"):
        expect(mine).to_contain_text(text)


def test_a_dropped_file_is_sent_for_a_preview_and_shown_while_it_is_read(visit: Visit, manager: Person) -> None:
    states = [unread("WAITING"), unread("PREVIEWING", rowsRead=0), unread("PREVIEWING", rowsRead=150_000)]
    console, fake = with_fake(visit, manager, offer=[*states, upload("PREVIEWED")])
    files = console.page.evaluate_handle(
        "([name, text]) => { const all = new DataTransfer(); all.items.add(new File([text], name)); return all; }",
        [FILE, beans("bean")],
    )
    place = console.page.get_by_text("or drop it here")
    for event in ("dragenter", "dragover", "drop"):
        place.dispatch_event(event, {"dataTransfer": files})
    expect(console.page).to_have_url(f"{console.address}/#uploads/{ID}")
    expect(console.page.get_by_text("The file is being read … 150,000 rows so far")).to_be_visible()
    expect_preview(console, FILE)
    expect(console.page.get_by_role("status").filter(has_text=f"{FILE}: Not applied yet")).to_be_attached()
    assert fake.actions == [("offer", {"filename": FILE, "size": len(beans("bean")), "preview": True})]


def test_of_several_files_each_gets_a_line_in_the_list(visit: Visit, manager: Person) -> None:
    console, fake = with_fake(visit, manager, offer=[upload("PREVIEWED")])
    choose(console, a_file(FILE, "a"), a_file("empty.csv", ""))
    expect(sending(console, "empty.csv")).to_contain_text("The file is empty.")
    listed = console.page.get_by_role("region", name="Recent uploads").get_by_role("listitem")
    expect(listed.filter(has_text=FILE)).to_contain_text("Not applied yet3 new, 1 changed, 4 unchanged, 2 bad rows")
    expect(sending(console, FILE)).to_have_count(0)
    assert len(fake.actions) == 1


def test_a_file_that_is_not_a_csv_is_refused_before_it_is_sent(visit: Visit, manager: Person, system: System) -> None:
    console, _ = with_fake(visit, manager, offer="filename: must end in .csv")
    console.expect_complaint("status of 400.*/uploads")
    choose(console, a_file("menu.pdf", "%PDF"))
    expect(sending(console, "menu.pdf")).to_contain_text("must end in .csv")
    expect(sending(console, "menu.pdf").get_by_role("button")).to_have_count(0)
    assert [each.url for each in console.requests if system.env["UPLOADS_BUCKET"] in each.url] == []


def test_a_file_that_s3_refuses_can_be_sent_again(visit: Visit, manager: Person, system: System) -> None:
    console, _ = with_fake(visit, manager, offer=[upload("PREVIEWED")])
    console.expect_complaint("status of 403")
    # The file upload must be the only request to the uploads bucket.
    bucket = f"**/{system.env['UPLOADS_BUCKET']}*"
    refusal = "<Error><Code>AccessDenied</Code><Message>Policy expired</Message></Error>"
    console.page.route(bucket, lambda route: route.fulfill(status=403, body=refusal), times=1)
    choose(console, a_file(FILE, beans("bean")))
    expect(sending(console, FILE)).to_contain_text("The upload form has expired. Try again.")
    sending(console, FILE).get_by_role("button", name="Try again").click()
    expect_preview(console, FILE)
