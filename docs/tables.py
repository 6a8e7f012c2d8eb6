"""Generates the tables in ``docs/``. ``make check`` verifies the tables with ``cog --check``.

``.venv/bin/cog -r -I docs -p 'import tables' docs/*.md docs/decisions/*.md`` regenerates the tables.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from chalicelib.dead_letters.reasons import MAY_PASS  # noqa: E402
from chalicelib.sign_in import ROUTES  # noqa: E402
from infra.deploy.target import REPOSITORY, Target  # noqa: E402
from infra.functions import NAMES  # noqa: E402
from local.ministack import launcher  # noqa: E402
from tests.template import load  # noqa: E402
from tests.wiring.permissions import Permission, allowed, functions  # noqa: E402
from tests.wiring.stage import rendered, resolve  # noqa: E402

# openapi.json uses Python names for path parameters, and the documents use API names.
PATH_NAMES = {"report_id": "reportId", "order_id": "orderID", "upload_id": "uploadId"}
# The deploy determines the values of these parameters.
PREFIX_LISTS = ("S3PrefixList", "DynamoDbPrefixList")
DATABASE = ("DbSecretArn", "DbAdminSecretArn", "DbInVpc")
SET_BY_THE_DEPLOY = ("Stage", "Local", *DATABASE, "ConsoleUrl", *PREFIX_LISTS, "Zones")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines) + "\n"


def code(names: Iterable[str]) -> str:
    """Returns names in backticks, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


# --- the API ----------------------------------------------------------------------------------------------------------


def routes() -> str:
    """Returns a table with the callers, purpose and query parameters of each route."""
    description = json.loads((ROOT / "chalicelib" / "openapi.json").read_text())
    shared = description["components"]["parameters"]
    rows = []
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parameters = [
                shared[each["$ref"].rpartition("/")[2]] if "$ref" in each else each
                for each in operation.get("parameters", [])
            ]
            query = [each["name"] for each in parameters if each["in"] == "query"]
            shown = re.sub(r"\{(\w+)\}", lambda match: f"{{{PATH_NAMES.get(match[1], match[1])}}}", path)
            who = ROUTES[method.upper(), path]
            rows.append([f"`{method.upper()} {shown}`", who, operation["summary"], code(query)])
    return table(["Route", "Who", "Purpose", "Query"], rows)


# --- parameters -------------------------------------------------------------------------------------------------------


def parameters(file: str) -> str:
    """Returns a table of the template parameters that people can set, with their defaults."""
    declared: dict[str, Any] = load(rendered(file))["Parameters"]
    # Both templates have the parameter LogRetentionDays, but only one table lists it.
    twice = ("LogRetentionDays",) if file == "database.yaml" else ()
    rows = [
        [f"`{name}`", str(each["Default"]), each["Description"]]
        for name, each in declared.items()
        if name not in (*SET_BY_THE_DEPLOY, *twice)
    ]
    return table(["Parameter", "Default", "Meaning"], rows)


def set_by_the_deploy() -> str:
    """Returns a sentence listing the parameters that the deploy sets."""
    return f"The deploy sets {code(SET_BY_THE_DEPLOY)}.\n"


# --- alarms -----------------------------------------------------------------------------------------------------------


def passing_reasons() -> str:
    """Returns a table of the errors that may pass."""
    return table(["Error", "May pass, because"], ([f"`{name}`", cause] for name, cause in MAY_PASS.items()))


def alarms() -> str:
    """Returns a table of alarms with their metrics, thresholds and runbook headings. Similar alarms share a row."""
    target = Target("<stage>", REPOSITORY, False, {}, None)
    names = {target.function(name) for name in NAMES}
    basic = {each["AlarmName"] for each in resolve(Watching="basic").of_type("AWS::CloudWatch::Alarm").values()}
    grouped: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for alarm in resolve().of_type("AWS::CloudWatch::Alarm").values():
        function = next((each["Value"] for each in alarm["Dimensions"] if each["Value"] in names), "")
        short = alarm["AlarmName"].removeprefix("cafe-<stage>-")
        if alarm["AlarmName"] not in basic and function:
            short = f"<function>-{short.rpartition('-')[2]}"
        heading = alarm["AlarmDescription"].partition(" Runbook: ")[2]
        kind = alarm.get("Statistic") or alarm["ExtendedStatistic"]
        minutes = f"{alarm['EvaluationPeriods']} × {alarm['Period'] // 60}".removeprefix("1 × ")
        metric = f"{alarm['Namespace'].removeprefix('AWS/')} `{alarm['MetricName']}`, {kind} of {minutes} min"
        level = "basic" if alarm["AlarmName"] in basic else "full"
        grouped.setdefault((short, metric, level, heading), []).append(alarm)
    rows = []
    for (short, metric, level, heading), same in grouped.items():
        thresholds = sorted({each["Threshold"] for each in same})
        above = " to ".join(f"{each:,}" for each in dict.fromkeys((thresholds[0], thresholds[-1])))
        rows.append([f"`{short}`", metric, above, level, f"[{heading}](#{anchor(heading)})"])
    return table(["Alarm", "Metric", "Above", "`Watching`", "Heading"], rows)


def anchor(heading: str) -> str:
    """Returns the anchor that GitHub generates for a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


# --- permissions ------------------------------------------------------------------------------------------------------


def permissions(group: str) -> str:
    """Returns a table of the permissions in one group of ``docs/permissions.yaml``, with the reasons.

    Raises ``ValueError`` if the file and the roles in the template differ.
    """
    reasons = yaml.safe_load((ROOT / "docs" / "permissions.yaml").read_text())
    granted = permissions_granted()
    explained: list[Permission] = []
    shown: dict[str, list[list[str]]] = {}
    for name, entries in reasons.items():
        if name == "sources":
            continue
        for entry in entries:
            roles = entry.get("roles", functions())
            found = [
                one_permission(granted, role, action, end)
                for role in roles
                for action in entry["actions"]
                for end in entry["resources"]
            ]
            explained += found
            resources = [each.resource for each in found]
            if "roles" not in entry:
                resources = [resource.replace(functions()[found[0].role], "<function>") for resource in resources[:1]]
            title, url = reasons["sources"][entry["source"]] if "source" in entry else ("", "")
            cells = [
                code(entry["actions"]),
                code(dict.fromkeys(resources)),
                entry["for"],
                f"[{title}]({url})" if url else "removal",
            ]
            shown.setdefault(name, []).append([code(roles), *cells] if "roles" in entry else cells)
    if sorted(explained) != sorted(granted):
        missing = sorted({str(each) for each in set(granted) ^ set(explained)})
        raise ValueError("docs/permissions.yaml and the template's roles differ:\n" + "\n".join(missing))
    head = ["Action", "Resource", "Needed for", "Proof"]
    return table(head if len(shown[group][0]) == len(head) else ["Role", *head], shown[group])


@cache
def permissions_granted() -> list[Permission]:
    """Returns the permissions of all roles in the template, including the roles of schedules."""
    return allowed(resolve(StorageReportSchedule="rate(1 day)", InventoryReportSchedule="rate(1 day)"))


def one_permission(granted: list[Permission], role: str, action: str, end: str) -> Permission:
    """Returns the permission of the role for ``action`` whose resource ends with ``end``.

    If ``end`` is ``*``, the resource must be exactly ``*``.
    """
    found = [
        each
        for each in granted
        if (each.role, each.action) == (role, action)
        and (each.resource == end if end == "*" else each.resource.endswith(end))
    ]
    if len(found) != 1:
        raise ValueError(f"docs/permissions.yaml: {role} has {len(found)} permissions for {action} on …{end}")
    return found[0]


# --- the local cloud --------------------------------------------------------------------------------------------------


def patches() -> str:
    """Returns a table of MiniStack patches, with the first sentence of each docstring."""
    rows = [[f"`{patch.__name__}`", first_sentence(patch.__doc__ or "")] for patch in launcher.patches()]
    return table(["Patch", "AWS behavior that MiniStack lacks"], rows)


def first_sentence(text: str) -> str:
    """Returns the first sentence of a docstring as Markdown."""
    sentence = re.split(r"(?<=\.)\s|:\s", " ".join(text.split("\n\n")[0].split()), maxsplit=1)[0]
    return sentence.rstrip(".").replace("``", "`") + "."
