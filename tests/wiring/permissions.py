"""Reads the permissions in the tables of ``docs/permissions.md`` and in the template."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from infra.deploy.target import REPOSITORY, Target
from infra.functions import NAMES
from tests.wiring.stage import ROOT
from tests.wiring.template import Template

PAGE = ROOT / "docs" / "permissions.md"
SOURCE = re.compile(r"\[[^]]+\]\((https://docs\.aws\.amazon\.com/[^)]+)\)")


class Permission(NamedTuple):
    role: str
    action: str
    resource: str


class Row(NamedTuple):
    """A permission as docs/permissions.md documents it.

    The field ``source`` is empty if a test proves that the permission is needed.
    """

    permission: Permission
    reason: str
    source: str


def role_of(function: str) -> str:
    return f"{'api' if function == 'api_handler' else function}_role".title().replace("_", "")


def functions() -> dict[str, str]:
    """Returns the deployed names of the functions, keyed by role."""
    target = Target("<stage>", REPOSITORY, False, {}, None)
    return {role_of(name): target.function(name) for name in NAMES}


def documented(functions: dict[str, str]) -> list[Row]:
    """Returns every permission in docs/permissions.md.

    ``functions`` contains the deployed names, keyed by role.
    """
    rows: list[Row] = []
    for line in PAGE.read_text().splitlines():
        if not line.startswith("| `"):
            continue
        *cells, reason, proof = (cell.strip() for cell in line.strip("|").split("|"))
        source = "" if proof == "removal" else SOURCE.fullmatch(proof)
        assert source is not None, line
        actions, resources = re.findall("`([^`]+)`", cells[-2]), re.findall("`([^`]+)`", cells[-1])
        # A table row without a role applies to all functions.
        roles = functions if len(cells) == 2 else re.findall("`([^`]+)`", cells[0])
        rows += [
            Row(
                Permission(role, action, resource.replace("<function>", functions.get(role, ""))),
                reason,
                source and source[1],
            )
            for role in roles
            for action in actions
            for resource in resources
        ]
    return rows


def allowed(template: Template) -> list[Permission]:
    """Returns every permission that the template's roles have."""
    policies = [
        (role, policy)
        for role, properties in template.of_type("AWS::IAM::Role").items()
        for policy in properties["Policies"]
    ]
    # A policy that is a separate resource belongs to several roles.
    policies += [(role, policy) for policy in template.of_type("AWS::IAM::Policy").values() for role in policy["Roles"]]
    return [
        Permission(role, action, resource)
        for role, policy in policies
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    ]


def permission_of(page: list[Row], role: str, action: str, resource: str) -> Permission:
    """Returns a role's only permission with this action and a resource that ends with ``resource``."""
    [permission] = [
        row.permission
        for row in page
        if row.permission[:2] == (role, action) and row.permission.resource.endswith(resource)
    ]
    return permission


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
