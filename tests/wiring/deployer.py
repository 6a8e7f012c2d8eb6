"""Reads the policies in ``infra/deployer`` and decides requests with them, as IAM does."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from typing import Any

from tests.wiring.permissions import as_list
from tests.wiring.stage import ROOT

# The policies, keyed by the names that they have on AWS.
POLICIES = {file.stem: json.loads(file.read_text()) for file in sorted((ROOT / "infra" / "deployer").glob("*.json"))}
BOUNDARY: list[dict[str, Any]] = POLICIES["cafe-boundary"]["Statement"]
STATEMENTS: list[dict[str, Any]] = [
    each for name in POLICIES if name != "cafe-boundary" for each in POLICIES[name]["Statement"]
]

Context = dict[str, str]
IF_EXISTS = "StringLikeIfExists"
HERE = "eu-central-1:123456789012"
ROLE = "arn:aws:iam::123456789012:role/cafe-prod-resources-ApiRole-1A2B3C"
ITSELF = "arn:aws:iam::123456789012:role/deployers/cafe-deployer"
LIMIT = "arn:aws:iam::123456789012:policy/deployers/cafe-boundary"
LIMITED = {"iam:PermissionsBoundary": LIMIT}
OWN, NEW = {"aws:ResourceTag/app": "cafe"}, {"aws:RequestTag/app": "cafe"}
THROUGH = {"aws:CalledVia": "cloudformation.amazonaws.com"}
API_NAME = "apigateway:Resource/ApiName"
MAKE_USER = (
    *(f"Admin{call}User" for call in ("Create", "Delete", "Disable", "Enable", "Get")),
    *("AdminListGroupsForUser", "AdminUserGlobalSignOut", "DescribeUserPoolClient", "ListUsersInGroup"),
)
POOL = f"arn:aws:cognito-idp:{HERE}:userpool/eu-central-1_x"

# Requests that the policies must allow (True), and similar requests that they must deny (False).
ATTEMPTS: list[tuple[bool, str, str, Context]] = [
    (True, "iam:CreateRole", ROLE, LIMITED),
    (False, "iam:CreateRole", ROLE, {}),
    (False, "iam:CreateRole", ROLE, {"iam:PermissionsBoundary": "arn:aws:iam::aws:policy/AdministratorAccess"}),
    (True, "iam:PutRolePolicy", ROLE, LIMITED),
    (False, "iam:PutRolePolicy", ROLE, {}),
    (True, "iam:PutRolePermissionsBoundary", ROLE, LIMITED),
    (False, "iam:PutRolePermissionsBoundary", ROLE, {"iam:PermissionsBoundary": "arn:aws:iam::aws:policy/PowerUser"}),
    (False, "iam:DeleteRolePermissionsBoundary", ROLE, LIMITED),
    (False, "iam:AttachRolePolicy", ROLE, LIMITED),
    (True, "iam:PassRole", ROLE, {"iam:PassedToService": "lambda.amazonaws.com"}),
    (False, "iam:PassRole", ROLE, {"iam:PassedToService": "cloudformation.amazonaws.com"}),
    *(
        (False, f"iam:{change}", ITSELF, LIMITED)
        for change in ("AttachRolePolicy", "PutRolePolicy", "DeleteRolePolicy")
    ),
    *((False, f"iam:{change}", ITSELF, {}) for change in ("UpdateAssumeRolePolicy", "DeleteRole", "TagRole")),
    *((False, f"iam:{change}PolicyVersion", LIMIT, {}) for change in ("Create", "Delete", "SetDefault")),
    (False, "iam:CreateUser", "arn:aws:iam::123456789012:user/cafe-admin", LIMITED),
    (True, "ec2:CreateVpc", f"arn:aws:ec2:{HERE}:vpc/vpc-1", NEW),
    (False, "ec2:CreateVpc", f"arn:aws:ec2:{HERE}:vpc/vpc-1", {}),
    (True, "ec2:CreateSubnet", f"arn:aws:ec2:{HERE}:vpc/vpc-1", OWN),
    (False, "ec2:CreateSubnet", f"arn:aws:ec2:{HERE}:vpc/vpc-1", NEW),
    (True, "ec2:CreateTags", f"arn:aws:ec2:{HERE}:vpc/vpc-1", {"ec2:CreateAction": "CreateVpc"}),
    (False, "ec2:CreateTags", f"arn:aws:ec2:{HERE}:vpc/vpc-1", NEW),
    (False, "ec2:CreateTags", f"arn:aws:ec2:{HERE}:instance/i-1", {"ec2:CreateAction": "RunInstances"}),
    *(
        (bool(tags), f"ec2:{action}", f"arn:aws:ec2:{HERE}:{resource}", tags)
        for tags in (OWN, {})
        for action, resource in (
            ("AssociateRouteTable", "route-table/rtb-1"),
            ("AssociateRouteTable", "subnet/subnet-1"),
            ("AuthorizeSecurityGroupEgress", "security-group/sg-1"),
            ("AuthorizeSecurityGroupIngress", "security-group/sg-1"),
            ("ModifySubnetAttribute", "subnet/subnet-1"),
            ("ModifyVpcAttribute", "vpc/vpc-1"),
        )
    ),
    (True, "cognito-idp:TagResource", POOL, NEW | THROUGH),
    (False, "cognito-idp:TagResource", POOL, NEW),
    # Cognito also checks TagResource when `make destroy` removes a pool's protection with UpdateUserPool.
    (True, "cognito-idp:TagResource", POOL, NEW | OWN),
    # `make user` runs with the same permissions as the deploy.
    *((own, f"cognito-idp:{call}", POOL, OWN if own else {}) for own in (True, False) for call in MAKE_USER),
    (True, "logs:PutQueryDefinition", "*", THROUGH),
    (False, "logs:PutQueryDefinition", "*", {}),
    # Version 0.1.0 named its API "cafe".
    *(
        (name != "tills", "apigateway:DELETE", "arn:aws:apigateway:eu-central-1::/restapis/1", {API_NAME: name})
        for name in ("cafe", "cafe-prod", "tills")
    ),
]


def matches(patterns: Any, value: str) -> bool:
    return any(fnmatch.fnmatchcase(value, each) for each in as_list(patterns))


def holds(statement: Mapping[str, Any], context: Context) -> bool:
    """Returns whether a request with these context values meets the conditions of a policy statement."""
    # The comparison is the same for every operator in the policies, because only patterns contain wildcards.
    conditions = statement.get("Condition", {})
    assert conditions.keys() <= {"ArnLike", "Bool", "ForAnyValue:StringEquals", "StringEquals", "StringLike", IF_EXISTS}
    return all(
        matches(expected, context[key]) if key in context else operator == IF_EXISTS
        for operator, values in conditions.items()
        for key, expected in values.items()
    )


def allows(statements: list[dict[str, Any]], action: str, resource: str, context: Context | None = None) -> bool:
    """Returns whether the statements allow a request. Without ``context``, every condition is met."""
    effects = {
        each["Effect"]
        for each in statements
        if matches(each["Action"], action)
        and matches(each["Resource"], resource)
        and (context is None or holds(each, context))
    }
    return effects == {"Allow"}
