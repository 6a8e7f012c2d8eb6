"""Flow 1, whole: REST -> state machine -> MySQL -> S3 -> SNS -> inbox, and what a person gets at its end."""

import csv
import io
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from chalicelib.reports.inventory import QUERY
from tests.system.system import System, wait_for


def link_in(message: str) -> str:
    found = re.search(r"http\S+", message)
    assert found, message
    return found[0]


@contextmanager
def table_renamed(system: System, table: str) -> Iterator[None]:
    system.sql(f"RENAME TABLE {table} TO {table}_away")
    try:
        yield
    finally:
        system.sql(f"RENAME TABLE {table}_away TO {table}")


def test_a_report_is_requested_followed_and_opened(system: System) -> None:
    answer = system.request("POST", "/create_report")
    assert answer.status == 202
    started = answer.json
    assert started == {
        "reportId": started["reportId"],
        "kind": "inventory",
        "status": "RUNNING",
        "href": f"/reports/{started['reportId']}",
    }
    assert answer.headers["Location"] == system.env["CAFE_API_URL"] + started["href"]

    report = system.ended(started["reportId"])
    [(rows, suppliers, quantity)] = system.sql(
        "SELECT COUNT(*), COUNT(DISTINCT suppliers.id), SUM(quantity) "
        "FROM beans LEFT JOIN suppliers ON supplier_id = suppliers.id"
    )
    assert report["status"] == "SUCCEEDED"
    assert report["error"] is None
    assert report["startedAt"] < report["finishedAt"] < report["expiresAt"]
    summary = report["summary"]
    assert (summary["rows"], summary["suppliers"], summary["quantity"]) == (rows, suppliers, quantity)

    page = system.request("GET", report["url"])
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    [(product,)] = system.sql("SELECT product_name FROM beans WHERE product_name <> '' ORDER BY id LIMIT 1")
    assert product in page.text
    assert started["reportId"] in [each["reportId"] for each in system.all("/reports?kind=inventory", "reports")]
    assert started["reportId"] not in [each["reportId"] for each in system.all("/reports?kind=storage", "reports")]


def test_the_mail_names_the_report_and_its_link_opens_without_any_credentials(system: System) -> None:
    report = system.report()
    told = system.notification(report["reportId"], "report")
    assert system.request("GET", link_in(told["message"])).status == 200
    assert told["facts"] == {"id": report["reportId"], "kind": "inventory", "outcome": "succeeded"}


def test_the_csv_in_the_bucket_has_every_row_of_the_database(system: System) -> None:
    report = system.report()
    key = f"inventory/{report['reportId']}/inventory.csv"
    body = system.aws("s3").get_object(Bucket=system.env["REPORTS_BUCKET"], Key=key)["Body"].read()
    rows = list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"))))
    ids = [str(row[0]) for row in system.sql("SELECT id FROM beans ORDER BY id")]
    assert [row["bean_id"] for row in rows] == ids


def test_every_cell_is_read_as_pymysql_reads_it_however_long_it_is(system: System) -> None:
    name = secrets.token_hex(8)
    for count in (0, 1, 62, 63, 64, 125, 126, 250, 251, 255):
        values = (name, f"{count}", "x" * count, "é" * count, count - 100)
        system.sql(
            "INSERT INTO beans (type, product_name, price, description, quantity) VALUES (%s, %s, %s, %s, %s)", *values
        )
    system.sql("INSERT INTO beans (type, description) VALUES (%s, %s)", name, "☕" * 255)
    try:
        ok, read = system.invoke("read_inventory", {"reportId": name})
        assert ok, read
        expected = system.sql(f"{QUERY.partition(' ORDER BY')[0]} WHERE beans.type = %s ORDER BY beans.id", name)
    finally:
        system.sql("DELETE FROM beans WHERE type = %s", name)
    body = system.aws("s3").get_object(Bucket=system.env["REPORTS_BUCKET"], Key=read["csvKey"])["Body"].read()
    rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")) if row[7] == name]
    assert rows == [["" if cell is None else str(cell) for cell in row] for row in expected]
    assert len(rows) == 11


def test_the_same_key_is_the_same_report_even_after_it_has_ended(system: System) -> None:
    key = secrets.token_hex(8)
    first = system.post("/create_report", {}, Idempotency_Key=key)
    assert system.post("/create_report", {}, Idempotency_Key=key) == first
    system.ended(first["reportId"])
    assert system.post("/create_report", None, Idempotency_Key=key) == first

    executions = system.aws("stepfunctions").list_executions(stateMachineArn=system.env["INVENTORY_REPORT_ARN"])
    assert [each["name"] for each in executions["executions"]].count(first["reportId"]) == 1
    assert system.request("POST", "/create_report", {"kind": "storage"}, Idempotency_Key=key).status == 409


def test_ten_calls_with_one_key_at_the_same_moment_are_one_report(system: System) -> None:
    key = secrets.token_hex(8)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: system.post("/create_report", {}, Idempotency_Key=key), range(10)))
    assert answers == answers[:1] * 10
    executions = system.aws("stepfunctions").list_executions(stateMachineArn=system.env["INVENTORY_REPORT_ARN"])
    assert [each["name"] for each in executions["executions"]].count(f"inventory-{key}") == 1


def test_one_key_for_both_kinds_at_the_same_moment_is_one_report_and_conflicts(system: System) -> None:
    key = secrets.token_hex(8)
    with ThreadPoolExecutor(10) as pool:
        kinds = ["inventory", "storage"] * 5
        answers = list(
            pool.map(lambda kind: system.request("POST", "/create_report", {"kind": kind}, Idempotency_Key=key), kinds)
        )
    assert sorted(answer.status for answer in answers) == [202] * 5 + [409] * 5
    assert len({answer.json["reportId"] for answer in answers if answer.status == 202}) == 1
    known = [system.request("GET", f"/reports/{kind}-{key}").status for kind in ("inventory", "storage")]
    assert sorted(known) == [200, 404]


def test_a_report_that_cannot_be_read_fails_with_a_cause_that_a_person_understands(system: System) -> None:
    with table_renamed(system, "beans"):
        report = system.report()
    assert report["status"] == "FAILED"
    assert report["url"] is None
    assert report["summary"] is None
    assert "beans' doesn't exist" in report["error"]
    assert "Traceback" not in report["error"]
    assert "{" not in report["error"]
    told = system.notification(report["reportId"], "report")
    assert told["subject"] == "Inventory report failed"
    assert told["facts"] == {"id": report["reportId"], "kind": "inventory", "outcome": "failed"}
    assert report["error"] in told["message"]


def test_nobody_gets_a_link_when_the_page_was_not_made(system: System) -> None:
    with system.without("render_report", "s3:PutObject"):
        report = system.report()
    assert report["status"] == "FAILED"
    told = system.notifications(report["reportId"])
    assert [each["subject"] for each in told] == ["Inventory report failed"]
    assert "X-Amz-Signature" not in told[0]["message"]


def test_an_empty_inventory_becomes_a_report_too(system: System) -> None:
    with table_renamed(system, "beans"):
        system.sql("CREATE TABLE beans LIKE beans_away")
        try:
            report = system.report()
        finally:
            system.sql("DROP TABLE beans")
    assert (report["summary"]["rows"], report["summary"]["quantity"]) == (0, 0)
    assert system.request("GET", report["url"]).status == 200


def test_the_loose_tables_of_elsewhere_are_read_without_any_constraint(system: System) -> None:
    with table_renamed(system, "beans"), table_renamed(system, "suppliers"):
        system.sql(
            "CREATE TABLE suppliers (id int auto_increment primary key, name varchar(255), address varchar(255), "
            "city varchar(255), state varchar(255), email varchar(255), phone varchar(100)) CHARSET latin1"
        )
        system.sql(
            "CREATE TABLE beans (id int auto_increment primary key, supplier_id int, type varchar(255), "
            "product_name varchar(255), price varchar(255), description varchar(255), quantity int) CHARSET latin1"
        )
        try:
            system.sql("INSERT INTO suppliers (name, email) VALUES ('Caf\u00e9 <b>', NULL), (NULL, ''), ('', NULL)")
            system.sql(
                "INSERT INTO beans (supplier_id, type, product_name, price, quantity) VALUES "
                "(1, NULL, '=1+1', 'cheap', 5), (2, '', NULL, NULL, NULL), (3, 'x', 'y', '', -2), "
                "(99, 'x', '<script>', '12.50', 1), (NULL, '', '', '1', 0)"
            )
            report = system.report()
            page = system.request("GET", report["url"]).text
        finally:
            system.sql("DROP TABLE beans, suppliers")
    assert report["status"] == "SUCCEEDED", report["error"]
    assert report["summary"]["rows"] == 5
    assert report["summary"]["suppliers"] == 3
    assert "Café &lt;b&gt;" in page
    assert "&lt;script&gt;" in page


def test_a_report_waits_for_a_database_that_comes_back(system: System) -> None:
    database = system.stack.database
    database.process.stop()
    try:
        started = system.post("/create_report")
        wait_for(lambda: retried(system, started["reportId"]), "a first try that failed")
    finally:
        database.launch()
    report = system.ended(started["reportId"])
    assert report["status"] == "SUCCEEDED", report["error"]


def retried(system: System, report_id: str) -> bool:
    arn = system.env["INVENTORY_REPORT_ARN"].replace(":stateMachine:", ":execution:") + f":{report_id}"
    events = system.aws("stepfunctions").get_execution_history(executionArn=arn)["events"]
    return any(event["type"].endswith("Failed") for event in events)


def test_a_database_that_stays_away_is_named_in_the_failure(system: System) -> None:
    database = system.stack.database
    database.process.stop()
    try:
        ok, error = system.invoke("read_inventory", {"reportId": "away"})
    finally:
        database.launch()
    assert not ok
    assert error["errorType"] == "DatabaseUnavailable"
    assert "MySQL at 127.0.0.1" in error["errorMessage"]
    # The worker is warm now, and its next call finds the server again.
    ok, read = system.invoke("read_inventory", {"reportId": "back"})
    assert ok, read


@pytest.mark.parametrize("kind", ["inventory", "storage"])
def test_an_aborted_report_is_shown_as_such_and_told_as_an_alarm(system: System, kind: str) -> None:
    sfn = system.aws("stepfunctions")
    machine = system.env[f"{kind.upper()}_REPORT_ARN"]
    name = f"{kind}-{secrets.token_hex(6)}"
    # Nothing aborts an execution that has ended: it is stopped as soon as it has begun.
    execution = sfn.start_execution(stateMachineArn=machine, name=name)["executionArn"]
    sfn.stop_execution(executionArn=execution)
    report = system.ended(name)
    assert report["status"] == "ABORTED"
    assert report["error"]
    assert report["url"] is None
    assert "ABORTED" in system.notification(name, "alarm")["message"]
