"""Defines the stage that the wiring tests examine: its account, its parameters and its resolved template."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import boto3

from infra.deploy import stacks
from infra.deploy.mysql_location import MysqlLocation
from tests.wiring.template import Template

ROOT = Path(__file__).parents[2]
SCHEDULES = {"StorageReportSchedule": "cron(0 6 * * ? *)", "InventoryReportSchedule": "cron(0 6 ? * MON *)"}
MACHINES = {"InventoryReport": "inventory_report.asl.json", "StorageReport": "storage_report.asl.json"}
ACCOUNT, REGION = "123456789012", "eu-central-1"
rendered = cache(stacks.template)


@cache
def client(service: str) -> Any:
    """Returns a client that all tests with the ``aws`` fixture share."""
    return boto3.client(service, REGION)  # type: ignore[call-overload]


def place(stage: str = "test", region: str = REGION, account: str = ACCOUNT) -> MysqlLocation:
    """Returns the location of a stage's own MySQL database on AWS."""
    secrets = f"arn:aws:secretsmanager:{region}:{account}:secret"
    return MysqlLocation(
        f"{secrets}:cafe-{stage}-database-<random>",
        f"{secrets}:rds!cluster-<id>-<random>",
        ("subnet-1", "subnet-2"),
        ("sg-1",),
    )


def resolve(
    stage: str = "<stage>", region: str = "<region>", account: str = "<account>", **parameters: str
) -> Template:
    """Resolves the resources template with these parameters.

    The default names are the placeholders in the documentation.
    """
    given = {"Stage": stage, **place(stage, region, account).parameters, **parameters}
    return Template(rendered(), given, region=region, account=account)


def as_variables(outputs: dict[str, str]) -> dict[str, str]:
    """Returns the outputs of a stack, keyed by environment variable."""
    return {stacks.variable(name): value for name, value in outputs.items()}
