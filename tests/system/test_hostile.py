"""What nobody meant well: requests, texts that pretend to be records, and looking for secrets where there are none."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.system.system import System, wait_for

CONFIG = Path(__file__).with_name("schemathesis.toml")
# Enough to reach each check on each route, and always the same requests: a failure repeats.
EXAMPLES = 12
SEED = 20261121


def test_the_api_keeps_its_description_whatever_is_sent(system: System, tmp_path: Path) -> None:
    """Every check of schemathesis on every route: no 500, documented statuses, types, headers and bodies, no request
    refused that the description allows, none taken that it forbids."""
    program = Path(sys.executable).with_name("schemathesis")
    # As a file: given by its address, the route of that address would be left out.
    description = tmp_path / "openapi.json"
    description.write_text(system.request("GET", "/openapi.json").text)
    done = subprocess.run(
        [
            *(program, "--config-file", CONFIG, "run", description, "--url", system.env["CAFE_API_URL"]),
            *("--header", f"Authorization: Bearer {system.stack.users.token()}"),
            *("--max-examples", str(EXAMPLES), "--seed", str(SEED), "--no-color", "--warnings", "off"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    # It has tried every route, and not stopped at a server that did not answer.
    operations = sum(len(methods) for methods in json.loads(description.read_text())["paths"].values())
    assert f"Tested: {operations}\n" in done.stdout
    assert int(re.findall(r"([0-9]+) generated", done.stdout)[0]) > 50 * operations


# --- What comes from elsewhere and reaches a log


def events(system: System) -> Iterator[tuple[str, str]]:
    """Everything that is in CloudWatch's logs, each with its group."""
    logs = system.aws("logs")
    for page in logs.get_paginator("describe_log_groups").paginate():
        for group in page["logGroups"]:
            name = group["logGroupName"]
            for found in logs.get_paginator("filter_log_events").paginate(logGroupName=name):
                yield from ((name, event["message"]) for event in found["events"])


def api_log(system: System) -> str:
    return (system.stack.folder / "api" / "api.log").read_text()


# Line ends of every kind, an end of a JSON text, and what moves a terminal's cursor.
FORGED = (
    'x\r\n{"level": "ERROR", "message": "forged"}\u2028forged\u2029forged\x85forged\x0bforged\x1b[2K\x1b[1Aforged"}'
)


def test_no_text_from_elsewhere_makes_a_second_record_of_a_log(system: System) -> None:
    system.upload(f"photos/{FORGED}", b"x")
    order = {"orderID": FORGED, "customerID": FORGED, "item": FORGED, FORGED: 1}
    assert system.request("POST", "/orders", order).status == 400
    # What is no order, from whoever may write to the queue; the dead letter is not of interest here.
    event = {
        "Records": [
            {"messageId": FORGED, "receiptHandle": "r", "body": json.dumps({"placedAt": FORGED, "note": None})}
            | {"attributes": {"ApproximateReceiveCount": "1"}, "eventSource": "aws:sqs", "messageAttributes": {}}
        ]
    }
    system.invoke("store_orders", event)
    # These two are ordinary texts of an order.
    lines = {
        "orderID": "forged-1",
        "customerID": "a\u2028forged\u2029",
        "item": "\u2028forged",
        "note": "a\n{}\nforged",
    }
    system.post("/orders", lines)
    system.request("GET", "/orders/x%0D%0Aforged%1B%5B2K%E2%80%A8", X_Forged="a\tforged")
    system.request("POST", "/create_report", Idempotency_Key="a\tforged")

    def logged(text: str) -> list[str]:
        return [line for _, line in events(system) if text in line]

    wait_for(lambda: logged("photos/x") and logged('"order announced", "orderID": "forged-1"'), "the records")
    assert logged("message refused")
    for line in logged("forged"):
        record = json.loads(line)
        assert record["logger"].startswith("cafe.")
        assert record["level"] != "ERROR" or record["message"] == "message refused"
        assert line.splitlines() == [line]
        assert "\x1b" not in line
    # One record says that it came, and one that it was announced.
    assert len([line for line in logged("upload received") if "photos/x" in line]) == 1
    for line in api_log(system).split("\n"):
        if "forged" in line:
            assert (line.startswith("{") and json.loads(line)["logger"]) or re.match(r"127\.0\.0\.1 - - \[", line), line
            assert line.isprintable()


def test_values_that_would_end_a_statement_of_sql_are_imported_as_they_are(system: System) -> None:
    hostile = [
        "Robert'); DROP TABLE beans; --",
        'x" OR ""="',
        "back\\slash\\'",
        "%s %(name)s {0} ${x}",
        "/* */ # -- ;",
        "\u02bc\uff07 OR 1=1",
        "$(id) `id` =1+1",
    ]
    supplier = "Hostile ' \" \\ ; --"
    rows = "".join(
        ",".join('"' + cell.replace('"', '""') + '"' for cell in (supplier, text, text, text, text, "7")) + "\n"
        for text in hostile
    )
    key = system.upload(
        "inventory/hostile'--.csv", "supplier_name,type,product_name,price,description,quantity\n" + rows
    )
    assert "7 rows imported" in system.notification(key)["message"]
    query = (
        "SELECT type, product_name, price, description FROM beans JOIN suppliers ON suppliers.id = supplier_id"
        " WHERE name = %s ORDER BY beans.id"
    )
    assert sorted(system.sql(query, supplier)) == sorted((text,) * 4 for text in hostile)


# --- Secrets


def secrets(system: System) -> list[re.Pattern[str]]:
    """What must be nowhere but where it belongs. MiniStack's own key pair is the word `test`, and no secret."""
    patterns = [
        r"X-Amz-Signature=",
        r"X-Amz-Credential=",
        r"X-Amz-Security-Token",
        r"\bASIA[A-Z0-9]{16}",
        "aws_secret_acc",
        # A token, or any part of one that is JSON.
        r"\beyJ[A-Za-z0-9_-]{20}",
    ]
    patterns += [re.escape(password) for password in system.stack.users.passwords.values()]
    patterns += [re.escape(system.env[name]) for name in ("DB_PASSWORD", "DB_ADMIN_PASSWORD")]
    return [re.compile(pattern, re.IGNORECASE) for pattern in patterns]


def test_no_secret_is_in_a_log_an_error_or_the_output_of_an_execution(system: System) -> None:
    """After each flow has run, and after MySQL, AWS and clients were wrong."""
    mine = hashlib.sha256(str(system.stack.folder).encode()).hexdigest()[:12]
    system.post("/orders", {"orderID": f"secret-{mine}", "customerID": "c", "item": "i"})
    system.notification(system.upload(f"inventory/{mine}.csv", "no inventory\n"))
    made = [system.report({"kind": kind}) for kind in ("inventory", "storage")]
    assert all(report["url"] and "X-Amz-Signature=" in report["url"] for report in made)
    with system.without("read_inventory", "s3:PutObject"):
        failed = system.report()
    user = system.env["DB_USER"]
    with_password = f"ALTER USER '{user}'@'%%' IDENTIFIED BY %s"
    system.sql(with_password, "another")
    try:
        refused = system.report()
    finally:
        system.sql(with_password, system.env["DB_PASSWORD"])
    assert (failed["status"], refused["status"]) == ("FAILED", "FAILED")
    errors = [
        system.request("GET", f"/reports/{mine}").text,
        system.request("GET", "/orders?next=x").text,
        system.request("POST", "/orders", b"{").text,
        system.request("GET", "/orders", Authorization=system.stack.users.token()[:-9]).text,
        system.request("GET", system.env["REST_API_URL"] + "/orders", Authorization="Bearer eyJ" + "x" * 40).text,
        str(failed["error"]),
        str(refused["error"]),
    ]
    assert "refuses" in errors[-1]

    def everything() -> Iterator[tuple[str, str]]:
        yield from events(system)
        yield "the API's log", api_log(system)
        yield from (("an error", text) for text in errors)
        yield from (("a list", json.dumps(report)) for report in system.all("/reports", "reports"))
        sfn = system.aws("stepfunctions")
        for machine in sfn.list_state_machines()["stateMachines"]:
            for execution in sfn.list_executions(stateMachineArn=machine["stateMachineArn"])["executions"]:
                found: dict[str, Any] = sfn.describe_execution(executionArn=execution["executionArn"])
                yield found["name"], " ".join(str(found.get(name)) for name in ("input", "output", "error", "cause"))

    wait_for(lambda: [text for _, text in events(system) if f"secret-{mine}" in text], "the order's record")
    looked = 0
    for place, text in everything():
        looked += 1
        for secret in secrets(system):
            assert not secret.search(text), f"{secret.pattern} is in {place}: {text[:300]}"
    assert looked > 20


def test_a_report_opens_by_its_link_and_in_no_other_way(system: System) -> None:
    report = system.report()
    address = report["url"].partition("?")[0]
    assert system.request("GET", report["url"]).status == 200
    assert system.request("GET", address).status == 403
    # The bucket tells nobody what is in it.
    assert system.request("GET", address.partition("/inventory/")[0]).status == 403
