"""Tests the Uploads tab. A file is chosen or dropped, and the page shows the result of its import line by line."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.console import Person
from tests.browser.steps import a_file, beans, choose, upload
from tests.system.system import System, new_id


def test_a_file_is_sent_and_its_import_shown_line_by_line(visit: Visit, manager: Person, system: System) -> None:
    product, name = new_id("bean"), f"{new_id('monday')}.csv"
    console = visit(manager)
    view = console.go("Uploads")
    choose(console, a_file(name, beans(product)))
    mine = upload(console, name)
    expect(mine).to_contain_text("2 rows imported")
    lines = mine.get_by_role("listitem")
    expect(lines.filter(has_text=re.compile(r"^line 3: quantity is '-3'"))).to_be_visible()
    expect(lines.filter(has_text=re.compile(r"^line 5: quantity is 'a few'"))).to_be_visible()
    expect(mine.get_by_role("progressbar")).to_be_hidden()
    rows = system.sql("SELECT quantity FROM beans WHERE product_name LIKE %s ORDER BY quantity", f"{product} %")
    assert rows == [(4,), (7,)]
    came_in = view.get_by_role("region", name="Recent uploads").get_by_role("listitem")
    expect(came_in.filter(has_text=name.removesuffix(".csv"))).to_be_visible()


def test_columns_that_were_not_used_are_shown(visit: Visit, manager: Person) -> None:
    name = f"{new_id('columns')}.csv"
    console = visit(manager, "#uploads")
    text = f"sku;Supplier Name;type;product_name;price;description;quantity\n1;{name};Arabica;A;16,40;;4\n"
    choose(console, a_file(name, text))
    mine = upload(console, name)
    expect(mine).to_contain_text("1 row imported, 0 bad, some columns not used")
    expect(mine).to_contain_text("Columns that were not used: 'sku'.")


def test_a_file_is_dropped_onto_the_page(visit: Visit, manager: Person) -> None:
    name = f"{new_id('dropped')}.csv"
    console = visit(manager, "#uploads")
    files = console.page.evaluate_handle(
        "([name, text]) => { const all = new DataTransfer(); all.items.add(new File([text], name)); return all; }",
        [name, beans(name)],
    )
    place = console.page.get_by_text("or drop it here")
    for event in ("dragenter", "dragover", "drop"):
        place.dispatch_event(event, {"dataTransfer": files})
    expect(upload(console, name)).to_contain_text("2 rows imported")


def test_a_file_that_is_not_a_csv_is_refused_before_it_is_sent(visit: Visit, manager: Person, system: System) -> None:
    console = visit(manager, "#uploads")
    console.expect_complaint("status of 400.*/uploads")
    choose(console, a_file("menu.pdf", "%PDF"), a_file("nothing.csv", ""))
    expect(upload(console, "menu.pdf")).to_contain_text("must end in .csv")
    expect(upload(console, "nothing.csv")).to_contain_text("The file is empty.")
    assert [each.url for each in console.requests if system.env["UPLOADS_BUCKET"] in each.url] == []


def test_a_file_that_s3_refuses_can_be_sent_again(visit: Visit, manager: Person, system: System) -> None:
    name = f"{new_id('late')}.csv"
    console = visit(manager, "#uploads")
    console.expect_complaint("status of 403")
    # The file upload is the page's only request to the uploads bucket.
    bucket = f"**/{system.env['UPLOADS_BUCKET']}*"
    refusal = "<Error><Code>AccessDenied</Code><Message>Policy expired</Message></Error>"
    console.page.route(bucket, lambda route: route.fulfill(status=403, body=refusal), times=1)
    choose(console, a_file(name, beans(name)))
    expect(upload(console, name)).to_contain_text("The upload form has expired. Try again.")
    upload(console, name).get_by_role("button", name="Try again").click()
    expect(upload(console, name)).to_contain_text("2 rows imported")
