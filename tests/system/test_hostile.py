"""Tests malicious requests, strings and log lines, and searches logs, errors and outputs for secrets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.system.inventory import HEADER
from tests.system.reports import execution_arn
from tests.system.system import System, logged, new_id, wait_for
from tests.system.waiting import changed

CONFIG = Path(__file__).with_name("schemathesis.toml")
SEED = 20261121


@pytest.mark.parametrize(
    ("phases", "examples"),
    [
        pytest.param("fuzzing", 3, id="short"),
        pytest.param("examples,coverage,fuzzing,stateful", 12, id="long", marks=pytest.mark.fuzz),
    ],
)
def test_the_api_matches_its_description_for_any_request(
    system: System, tmp_path: Path, phases: str, examples: int
) -> None:
    """Runs every check of the API fuzzer schemathesis on every route.

    The fixed seed makes all requests and failures reproducible.
    """
    program = Path(sys.executable).with_name("schemathesis")
    # If schemathesis loaded the description from its URL, it would skip the route that serves the description.
    description = tmp_path / "openapi.json"
    description.write_text(system.request("GET", "/openapi.json").text)
    done = subprocess.run(
        [
            *(program, "--config-file", CONFIG, "run", description, "--url", system.env["CAFE_API_URL"]),
            *("--header", f"Authorization: Bearer {system.stack.users.token()}", "--phases", phases),
            *("--max-examples", str(examples), "--seed", str(SEED), "--no-color", "--warnings", "off"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    # schemathesis must have tested every route, even if the server did not respond to a request.
    operations = sum(len(methods) for methods in json.loads(description.read_text())["paths"].values())
    assert f"Tested: {operations}\n" in done.stdout
    assert int(re.findall(r"([0-9]+) generated", done.stdout)[0]) >= examples * operations


# --- Foreign strings in logs


def events(system: System, since: float) -> Iterator[tuple[str, str]]:
    """Yields the log group and message of every log event since a Unix time."""
    logs = system.aws("logs")
    for page in logs.get_paginator("describe_log_groups").paginate():
        for name in (group["logGroupName"] for group in page["logGroups"]):
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=name, startTime=int(since * 1000))
            yield from ((name, event["message"]) for found in pages for event in found["events"])


def api_log(system: System) -> Path:
    return system.stack.folder / "api" / "api.log"


# This string contains every kind of line end, the end of a JSON document, and terminal control codes. The test replaces
# ``%s`` with a unique id.
FORGED = 'x\r\n{"level": "ERROR", "message": "%s"}\u2028%s\u2029%s\x85%s\x0b%s\x1b[2K\x1b[1A%s"}'


def test_no_foreign_string_can_forge_a_log_record(system: System) -> None:
    began, mark = time.time(), new_id("forged")
    text = FORGED.replace("%s", mark)
    key = system.upload(f"photos/{text}", b"x")
    order = {"orderID": text, "customerID": text, "item": text, text: 1}
    assert system.request("POST", "/orders", order).status == 400
    # Anyone with write access to the queue could send this malformed message. The first failed attempt does not create
    # a dead letter.
    message = {"messageId": text, "receiptHandle": "r", "body": json.dumps({"placedAt": text, "note": None})}
    message |= {"attributes": {"ApproximateReceiveCount": "1"}, "eventSource": "aws:sqs", "messageAttributes": {}}
    system.invoke("store_orders", {"Records": [message]})
    # These strings are allowed in an order.
    texts = {"customerID": f"a\u2028{mark}\u2029", "item": f"\u2028{mark}", "note": f"a\n{{}}\n{mark}"}
    system.post("/orders", {"orderID": mark, **texts})
    system.request("GET", f"/orders/x%0D%0A{mark}%1B%5B2K%E2%80%A8", X_Forged=f"a\t{mark}")
    system.request("POST", "/create_report", Idempotency_Key=f"a\t{mark}")
    system.notification(json.dumps(key)[1:-1], "upload")
    system.notification(mark, "order")

    lines = [line for _, line in events(system, began) if mark in line]
    assert [line for line in lines if "message refused" in line]
    for line in lines:
        record = json.loads(line)
        assert record["logger"].startswith("cafe.")
        assert record["level"] != "ERROR" or record["message"] == "message refused"
        assert line.splitlines() == [line]
        assert "\x1b" not in line
    assert sum(json.loads(line)["message"] == "upload received" for line in lines) == 1
    for line in api_log(system).read_text().split("\n"):
        if mark in line:
            assert (line.startswith("{") and json.loads(line)["logger"]) or re.match(r"127\.0\.0\.1 - - \[", line), line
            assert line.isprintable()


def test_values_that_look_like_sql_are_imported_unchanged(system: System) -> None:
    hostile = [
        "Robert'); DROP TABLE beans; --",
        'x" OR ""="',
        "back\\slash\\'",
        "%s %(name)s {0} ${x}",
        "/* */ # -- ;",
        "\u02bc\uff07 OR 1=1",
        "$(id) `id` =1+1",
    ]
    supplier = f"{new_id('Hostile')} ' \" \\ ; --"
    rows = [
        ",".join('"' + cell.replace('"', '""') + '"' for cell in (supplier, text, text, text, text, "7")) + "\n"
        for text in hostile
    ]
    key = system.upload(f"inventory/{new_id()}'--.csv", HEADER + "".join(rows))
    assert "7 rows imported" in system.notification(key)["message"]
    query = (
        "SELECT type, product_name, price, description FROM beans JOIN suppliers ON suppliers.id = supplier_id"
        " WHERE name = %s ORDER BY beans.id"
    )
    assert sorted(system.sql(query, supplier)) == sorted((text,) * 4 for text in hostile)


# --- Secrets


def secrets(system: System) -> list[re.Pattern[str]]:
    """Returns patterns that match every secret of the stack.

    MiniStack's root keys have no pattern, because both are `test` and not secret.
    """
    patterns = [
        r"X-Amz-Signature=",
        r"X-Amz-Credential=",
        r"X-Amz-Security-Token",
        r"\bASIA[A-Z0-9]{16}",
        "aws_secret_acc",
        # This pattern matches a JSON Web Token, its header or its claims.
        r"\beyJ[A-Za-z0-9_-]{20}",
    ]
    patterns += [re.escape(password) for password in system.stack.users.passwords.values()]
    patterns += [re.escape(system.env[name]) for name in ("DB_PASSWORD", "DB_ADMIN_PASSWORD")]
    return [re.compile(pattern, re.IGNORECASE) for pattern in patterns]


def test_no_log_error_or_execution_output_contains_a_secret(system: System) -> None:
    """The test runs flows while MySQL, AWS and clients cause errors."""
    began, mine, said_before = time.time(), new_id("secret"), api_log(system).stat().st_size
    system.post("/orders", {"orderID": mine, "customerID": "c", "item": "i"})
    system.notification(system.upload(f"inventory/{mine}.csv", "no inventory\n"))
    made = [system.report({"kind": kind}) for kind in ("inventory", "storage")]
    assert all(report["url"] and "X-Amz-Signature=" in report["url"] for report in made)
    with system.without("read_inventory", "s3:PutObject"):
        failed = system.report()
    with_password = f"ALTER USER '{system.env['DB_USER']}'@'%%' IDENTIFIED BY %s"
    with changed(partial(system.sql, with_password), system.env["DB_PASSWORD"], "another"):
        refused = system.report()
    assert (failed["status"], refused["status"]) == ("FAILED", "FAILED")
    assert "refuses" in refused["error"]
    errors = [
        system.request("GET", f"/reports/{mine}").text,
        system.request("GET", "/orders?next=x").text,
        system.request("POST", "/orders", b"{").text,
        system.request("GET", "/orders", Authorization=system.stack.users.token()[:-9]).text,
        system.request("GET", system.env["REST_API_URL"] + "/orders", Authorization="Bearer eyJ" + "x" * 40).text,
    ]
    system.notification(mine, "order")
    wait_for(lambda: logged(system, "announce_orders", mine), "the order's last record")

    def everything() -> Iterator[tuple[str, str]]:
        yield from events(system, began)
        yield "the API's log", api_log(system).read_bytes()[said_before:].decode()
        yield from (("an error", text) for text in errors)
        for report in (*made, failed, refused):
            listed = system.get(f"/reports?kind={report['kind']}&limit=100")["reports"]
            yield "a list", json.dumps([each for each in listed if each["reportId"] == report["reportId"]])
            arn = execution_arn(system, report["reportId"])
            found = system.aws("stepfunctions").describe_execution(executionArn=arn)
            yield arn, " ".join(str(found.get(name)) for name in ("input", "output", "error", "cause"))

    texts = list(everything())
    assert len(texts) > 20
    for place, text in texts:
        for secret in secrets(system):
            assert not secret.search(text), f"{secret.pattern} is in {place}: {text[:300]}"


def test_a_report_opens_only_with_its_link(system: System) -> None:
    report = system.report()
    address = report["url"].partition("?")[0]
    assert system.request("GET", report["url"]).status == 200
    assert system.request("GET", address).status == 403
    # Requests without credentials must not list the bucket's contents.
    assert system.request("GET", address.partition("/inventory/")[0]).status == 403
