"""Uploads, by the page: a file chosen or dropped, and what came of its import, line by line."""

from __future__ import annotations

import re
import secrets
from typing import Any

from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visit
from tests.browser.console import Console, Person
from tests.system.system import System

HEAD = "supplier_name,type,product_name,price,description,quantity\n"


def a_file(name: str, text: str) -> Any:
    return {"name": name, "mimeType": "text/csv", "buffer": text.encode()}


def beans(product: str) -> str:
    """Two good rows, and two bad ones, on the lines 3 and 5."""
    return (
        f"{HEAD}Hillside,Arabica,{product} 1,9.80,Plum,4\n"
        f"Hillside,Arabica,{product} 2,9.80,Plum,-3\n"
        f"Hillside,Arabica,{product} 3,9.80,Plum,7\n"
        f"Hillside,Arabica,{product} 4,9.80,Plum,a few\n"
    )


def upload(console: Console, name: str) -> Locator:
    """The line of a file that is being sent, or was."""
    return console.page.get_by_role("region", name="Your uploads").get_by_role("listitem").filter(has_text=name)


def test_a_file_is_sent_and_its_import_told_line_by_line(visit: Visit, manager: Person, system: System) -> None:
    product, name = secrets.token_hex(4), f"monday-{secrets.token_hex(3)}.csv"
    console = visit(manager)
    view = console.go("Uploads")
    view.get_by_label("Choose a CSV file").set_input_files(a_file(name, beans(product)))
    mine = upload(console, name)
    expect(mine).to_contain_text("2 rows imported")
    lines = mine.get_by_role("listitem")
    expect(lines.filter(has_text=re.compile(r"^line 3: quantity is '-3'"))).to_be_visible()
    expect(lines.filter(has_text=re.compile(r"^line 5: quantity is 'a few'"))).to_be_visible()
    expect(mine.get_by_role("progressbar")).to_be_hidden()
    rows = system.sql("SELECT quantity FROM beans WHERE product_name LIKE %s ORDER BY quantity", f"{product} %")
    assert rows == [(4,), (7,)]
    came_in = view.get_by_role("region", name="What came in lately").get_by_role("listitem").first
    expect(came_in).to_contain_text(name.removesuffix(".csv"))


def test_a_file_is_dropped_in(visit: Visit, manager: Person) -> None:
    name = f"dropped-{secrets.token_hex(3)}.csv"
    console = visit(manager, "#uploads")
    files = console.page.evaluate_handle(
        "([name, text]) => { const all = new DataTransfer(); all.items.add(new File([text], name)); return all; }",
        [name, beans(secrets.token_hex(4))],
    )
    place = console.page.get_by_text("or drop it here")
    for event in ("dragenter", "dragover", "drop"):
        place.dispatch_event(event, {"dataTransfer": files})
    expect(upload(console, name)).to_contain_text("2 rows imported")


def test_several_files_are_told_each_by_its_own_outcome(visit: Visit, manager: Person) -> None:
    names = [f"{number}-{secrets.token_hex(3)}.csv" for number in range(3)]
    console = visit(manager, "#uploads")
    texts = [beans(secrets.token_hex(4)), "neither,of,these,columns\n", HEAD]
    files = [a_file(name, text) for name, text in zip(names, texts, strict=True)]
    console.page.get_by_label("Choose a CSV file").set_input_files(files)
    for name, outcome in zip(names, ["2 rows imported", "must name the columns", "0 rows"], strict=True):
        expect(upload(console, name)).to_contain_text(outcome)


def test_what_is_no_csv_file_is_refused_before_it_is_sent(visit: Visit, manager: Person, system: System) -> None:
    console = visit(manager, "#uploads")
    console.expect_complaint("status of 400.*/uploads")
    console.page.get_by_label("Choose a CSV file").set_input_files(
        [a_file("menu.pdf", "%PDF"), a_file("nothing.csv", "")]
    )
    expect(upload(console, "menu.pdf")).to_contain_text("must end in .csv")
    expect(upload(console, "nothing.csv")).to_contain_text("The file is empty.")
    assert [each.url for each in console.requests if system.env["UPLOADS_BUCKET"] in each.url] == []


def test_what_the_storage_refuses_is_said_and_can_be_tried_again(visit: Visit, manager: Person, system: System) -> None:
    name = f"late-{secrets.token_hex(3)}.csv"
    console = visit(manager, "#uploads")
    console.expect_complaint("status of 403")
    bucket = f"**/{system.env['UPLOADS_BUCKET']}*"
    refusal = "<Error><Code>AccessDenied</Code><Message>Policy expired</Message></Error>"
    console.page.route(bucket, lambda route: route.fulfill(status=403, body=refusal), times=1)
    console.page.get_by_label("Choose a CSV file").set_input_files(a_file(name, beans(secrets.token_hex(4))))
    expect(upload(console, name)).to_contain_text("The time for sending it is over: try again.")
    upload(console, name).get_by_role("button", name="Try again").click()
    expect(upload(console, name)).to_contain_text("2 rows imported")
