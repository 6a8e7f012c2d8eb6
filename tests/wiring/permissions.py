"""The tables of ``docs/permissions.md``, and the same facts read from the template."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from tests.wiring.conftest import ROOT
from tests.wiring.template import Template

PAGE = ROOT / "docs" / "permissions.md"


class Permission(NamedTuple):
    role: str
    action: str
    resource: str


class Row(NamedTuple):
    """One permission as the page documents it. ``enforced`` says whether the local cloud asks for it."""

    permission: Permission
    reason: str
    enforced: bool


def documented(functions: dict[str, str]) -> list[Row]:
    """Every permission of the page. ``functions`` has the deployed name of the function of each role."""
    rows: list[Row] = []
    for line in PAGE.read_text().splitlines():
        if not line.startswith("| `"):
            continue
        *cells, reason, local = (cell.strip() for cell in line.strip("|").split("|"))
        assert local in ("enforced", "not enforced"), line
        actions, [resource] = re.findall("`([^`]+)`", cells[-2]), re.findall("`([^`]+)`", cells[-1])
        # A row without a role is of the table of all functions.
        roles = functions if len(cells) == 2 else re.findall("`([^`]+)`", cells[0])
        rows += [
            Row(
                Permission(role, action, resource.replace("<function>", functions.get(role, ""))),
                reason,
                local == "enforced",
            )
            for role in roles
            for action in actions
        ]
    return rows


def allowed(template: Template) -> list[Permission]:
    """Every permission that the template's roles have."""
    policies = [
        (role, policy)
        for role, properties in template.of_type("AWS::IAM::Role").items()
        for policy in properties["Policies"]
    ]
    # Those that several roles have.
    policies += [(role, policy) for policy in template.of_type("AWS::IAM::Policy").values() for role in policy["Roles"]]
    return [
        Permission(role, action, resource)
        for role, policy in policies
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    ]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
