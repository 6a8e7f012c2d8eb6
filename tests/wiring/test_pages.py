"""Tests that the figures and names in docs/architecture.md, docs/deploying.md and the README match the code."""

from __future__ import annotations

import json
import re
from typing import Any

from benchmarks import load, money
from chalicelib import reports, retries
from chalicelib.orders import store
from chalicelib.settings import longest_retry_seconds
from chalicelib.storage import report, shares, splitting
from chalicelib.uploads import links
from infra.deploy import deployment, preflight, project, releases
from infra.functions import NAMES
from tests.deploying.account import LISTS
from tests.deploying.steps import STEPS
from tests.wiring.deployer import POLICIES
from tests.wiring.stage import ROOT
from tests.wiring.template import Template

# --- docs/architecture.md ---------------------------------------------------------------------------------------------


ARCHITECTURE = load.PAGE.read_text()


def test_the_loads_use_the_batches_the_limits_and_the_indexes_that_are_deployed(app: Any, template: Template) -> None:
    sources: dict[str, Any] = {each.name: each for each in app.event_sources}
    assert sources["store_orders"].batch_size == sources["announce_orders"].batch_size == money.BATCH
    assert sources["store_orders"].maximum_concurrency == load.STORE_CONCURRENCY
    assert template.outputs["ApiRateLimit"] == str(load.ACCEPTED_REQUESTS)
    tables = template.of_type("AWS::DynamoDB::Table")
    indexes = {
        name: [each["IndexName"] for each in table.get("GlobalSecondaryIndexes", [])] for name, table in tables.items()
    }
    assert indexes == {
        "OrdersTable": ["byPeriod", "byCustomer"],
        "NotificationsTable": ["byPeriod"],
        "RequestsTable": [],
        "UploadsTable": ["byPeriod"],
    }
    assert all("WarmThroughput" not in table for table in tables.values())


def test_the_diagram_has_every_function_of_the_flows(functions: set[str]) -> None:
    diagram = ARCHITECTURE.split("```mermaid")[1].split("```")[0]
    drawn = set(re.findall(r"\b[a-z]+_[a-z]+\b|\bauthorize\b", diagram))
    assert drawn == {"api_handler", *functions} - {"migrate", "rotate_password"}


def test_the_flows_have_the_numbers_of_the_code() -> None:
    numbers = {
        "INSERT of 25 in a call": store.STATEMENTS == 25,
        "up to 5 minutes, for 24 hours": longest_retry_seconds({}) == 300 and retries.GIVE_UP_SECONDS == 24 * 3600,
        "a link for an hour": reports.LINK_SECONDS == 3_600,
        "for one file and ten minutes": links.LINK_SECONDS == 600,
        "done within two minutes": report.TURN_SECONDS == 120,
        "at most six times": report.ROUNDS == 6,
        "up to 16 at once": shares.SHARES == 16,
    }
    assert [words for words, holds in numbers.items() if not (holds and words in ARCHITECTURE)] == []


def test_the_page_on_the_storage_report_has_the_numbers_of_the_code() -> None:
    page = " ".join((ROOT / "docs" / "decisions" / "storage.md").read_text().split())
    assert f"at most {splitting.SPLIT_BUDGET} times, plus once for every {splitting.PAGES_PER_SPLIT} pages" in page
    assert f"up to {shares.SHARES} functions share" in page


# --- docs/deploying.md and the README ---------------------------------------------------------------------------------


def test_the_page_on_deploying_has_the_numbers_of_the_code() -> None:
    page = " ".join((ROOT / "docs" / "deploying.md").read_text().split())
    for words, number in {
        r"a stage has (\d+) functions": len(NAMES),
        r"each of the last (\w+) releases": {10: "ten"}[releases.KEPT],
        r"is empty \| yes, (\d+) lists": len(LISTS),
        r"a deploy killed after each of (\d+) steps": len(STEPS),
    }.items():
        assert re.findall(words, page) == [str(number)], words
    versions = [each.removeprefix("python") for each in project.RUNTIMES]
    assert f"{', '.join(versions[:-1])} or {versions[-1]}, depending on" in page
    assert f"for policy in {' '.join(POLICIES)}; do aws iam create-policy --path /deployers/" in page
    assert f"for part in {' '.join(each.stem.rpartition('-')[2] for each in preflight.POLICIES)}; do" in page


def test_the_page_on_deploying_has_the_price_of_idle_pollers(app: Any) -> None:
    prices = json.loads((money.HERE / "prices.json").read_text())["prices"]
    cents, beyond = (
        f"{polls * prices['sqs.per_1000000'] / 10_000:.0f} cents"
        for polls in (money.idle_polls(), money.idle_polls() - 1_000_000)
    )
    page = (ROOT / "docs" / "deploying.md").read_text()
    assert f"| polling of two queues; {beyond} beyond SQS's free tier | {cents} | {cents} |" in page


def test_the_page_on_deploying_lists_the_steps_of_a_deploy_in_their_order() -> None:
    page = (ROOT / "docs" / "deploying.md").read_text()
    table = page.split("| Step | Shows | If it fails |\n| --- | --- | --- |\n")[1].split("\n\n")[0].splitlines()
    for step, row in zip(deployment.STEPS, table, strict=True):
        assert step.name in row.split("|")[1]


def test_the_readmes_section_on_aws_is_ten_lines_and_has_every_command() -> None:
    section = (ROOT / "README.md").read_text().split("\n## Deploying to AWS\n")[1].split("\n## ")[0].strip()
    assert len(section.splitlines()) <= 10
    commands = [f"make {each} STAGE=" for each in ("deploy", "user", "rollback", "destroy")]
    for needed in ("infra/deployer", *commands, "KEEP_DATA=1", "docs/deploying.md", "dollars a month"):
        assert needed in section
