"""Tests the inventory report (flow 1) from the API to the inbox and the finished page.

The flow uses a state machine, MySQL, S3 and SNS.
"""

from __future__ import annotations

import csv
import io
import re
import secrets

from chalicelib.reports.inventory import COLUMNS, QUERY, SELECTED_COLUMNS
from tests.system.inventory import table_renamed
from tests.system.system import LOOSE_TABLES, System, new_id


def test_a_report_is_requested_followed_and_opened(system: System) -> None:
    product = new_id("bean")
    system.sql("INSERT INTO beans (supplier_id, type, product_name, quantity) VALUES (NULL, 'x', %s, 7)", product)
    answer = system.request("POST", "/create_report")
    assert answer.status == 202
    started = answer.json
    report_id = started["reportId"]
    assert started == {"reportId": report_id, "kind": "inventory", "status": "RUNNING", "href": f"/reports/{report_id}"}
    assert answer.headers["Location"] == system.env["CAFE_API_URL"] + started["href"]

    report = system.ended(report_id)
    system.sql("DELETE FROM beans WHERE product_name = %s", product)
    assert (report["status"], report["error"]) == ("SUCCEEDED", None)
    assert report["startedAt"] < report["finishedAt"] < report["expiresAt"]
    page = system.request("GET", report["url"])
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert product in page.text
    # The notification contains a separate link that opens without credentials.
    entry = system.notification(report_id, "report")
    link, page = re.findall(r"http\S+", entry["message"])
    assert page == f"{system.env['CAFE_API_URL']}/#reports/inventory~{report_id}/"
    assert system.sent_by(None).request("GET", link).status == 200
    assert entry["facts"] == {"id": report_id, "kind": "inventory", "outcome": "succeeded"}
    for kind, count in (("inventory", 1), ("storage", 0)):
        listed = [each["reportId"] for each in system.all(f"/reports?kind={kind}", "reports")]
        assert listed.count(report_id) == count


def test_a_report_its_mail_and_today_say_what_changed_since_the_report_before(system: System) -> None:
    gone, falling, new = (new_id("bean") for _ in range(3))
    insert = "INSERT INTO beans (type, product_name, quantity) VALUES ('x', %s, %s)"
    system.sql(insert, gone, 5)
    system.sql(insert, falling, 900_000)
    try:
        first = system.report()["summary"]
        system.sql("DELETE FROM beans WHERE product_name = %s", gone)
        system.sql("UPDATE beans SET quantity = -900000 WHERE product_name = %s", falling)
        system.sql(insert, new, 100)
        report = system.report()
    finally:
        system.sql("DELETE FROM beans WHERE product_name IN (%s, %s, %s)", gone, falling, new)
    low, changes = report["summary"]["low"], report["summary"]["changes"]
    assert changes["since"] == first["generatedAt"]
    words = f"1 new ('{new}'), 1 gone ('{gone}'), 1 with less in stock ('{falling}'), 1 now low in stock ('{falling}')."
    assert changes["text"] == words
    assert low["beans"][0] == {"name": falling, "supplier": "No supplier on record", "quantity": -900_000}
    assert (low["count"], low["limit"]) == (first["low"]["count"], 20)
    page = system.request("GET", report["url"]).text
    assert [page.count(each) for each in (gone, falling, new)] == [1, 4, 2]
    message = system.notification(report["reportId"], "report")["message"]
    assert message.split("\n")[1] == f"Since the report of {first['generatedAt']}: {words}"
    figures = {"href": f"/reports/{report['reportId']}", "generatedAt": report["summary"]["generatedAt"]}
    assert system.sent_by("staff").get("/today")["lowStock"] == {**figures, **low}


def test_cells_of_any_length_are_read_as_pymysql_reads_them(system: System) -> None:
    name = secrets.token_hex(8)
    for count in (0, 1, 62, 63, 64, 125, 126, 250, 251, 255):
        values = (name, f"{count}", "x" * count, "é" * count, count - 100)
        system.sql(
            "INSERT INTO beans (type, product_name, price, description, quantity) VALUES (%s, %s, %s, %s, %s)", *values
        )
    system.sql("INSERT INTO beans (type, description) VALUES (%s, %s)", name, "☕" * 255)
    try:
        read = system.call("read_inventory", {"reportId": name})
        expected = system.sql(f"{QUERY.partition(' ORDER BY')[0]} WHERE beans.type = %s ORDER BY beans.id", name)
    finally:
        system.sql("DELETE FROM beans WHERE type = %s", name)
    body = system.aws("s3").get_object(Bucket=system.env["REPORTS_BUCKET"], Key=read["csvKey"])["Body"].read()
    rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")) if row[7] == name]
    texts = (["" if cell is None else str(cell) for cell in row] for row in expected)
    assert rows == [[row[SELECTED_COLUMNS.index(column)] for column in COLUMNS] for row in texts]
    assert len(rows) == 11


def test_the_same_key_returns_the_same_report_even_after_it_ended(system: System) -> None:
    key = secrets.token_hex(8)
    first = system.post("/create_report", {}, Idempotency_Key=key)
    assert system.post("/create_report", {}, Idempotency_Key=key) == first
    system.ended(first["reportId"])
    assert system.post("/create_report", None, Idempotency_Key=key) == first

    executions = system.aws("stepfunctions").list_executions(stateMachineArn=system.env["INVENTORY_REPORT_ARN"])
    assert [each["name"] for each in executions["executions"]].count(first["reportId"]) == 1
    assert system.request("POST", "/create_report", {"kind": "storage"}, Idempotency_Key=key).status == 409


def test_tables_without_constraints_can_be_empty_or_have_missing_values(system: System) -> None:
    with table_renamed(system, "beans"), table_renamed(system, "suppliers"):
        for statement in filter(str.strip, LOOSE_TABLES.format(charset="latin1").split(";")):
            system.sql(statement)
        try:
            empty = system.report()
            system.sql("INSERT INTO suppliers (name, email) VALUES ('Caf\u00e9 <b>', NULL), (NULL, ''), ('', NULL)")
            system.sql(
                "INSERT INTO beans (supplier_id, type, product_name, price, quantity) VALUES "
                "(1, NULL, '=1+1', 'cheap', 5), (2, '', NULL, NULL, NULL), (3, 'x', 'y', '', -2), "
                "(99, 'x', '<script>', '12.50', 1), (NULL, '', '', '1', 0)"
            )
            report = system.report()
        finally:
            system.sql("DROP TABLE beans, suppliers")
    assert (empty["summary"]["rows"], empty["summary"]["suppliers"], empty["summary"]["quantity"]) == (0, 0, 0)
    assert system.request("GET", empty["url"]).status == 200
    assert report["status"] == "SUCCEEDED", report["error"]
    assert (report["summary"]["rows"], report["summary"]["suppliers"]) == (5, 3)
    page = system.request("GET", report["url"]).text
    assert "Café &lt;b&gt;" in page
    assert "&lt;script&gt;" in page
