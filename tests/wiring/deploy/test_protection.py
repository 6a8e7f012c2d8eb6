"""Tests what is protected from deletion, and when the deploy removes the protection."""

from __future__ import annotations

from typing import Any

import pytest

from infra.deploy import protection
from infra.deploy.target import Target
from tests.wiring.fakes import CloudFormation, accepts
from tests.wiring.stage import resolve

TEMPLATE = resolve()
POOL = {
    "Id": "eu_1",
    "Name": "cafe-test-users",
    "DeletionProtection": "ACTIVE",
    "Policies": {"PasswordPolicy": {"MinimumLength": 12}, "SignInPolicy": {"AllowedFirstAuthFactors": ["PASSWORD"]}},
    "AccountRecoverySetting": {"RecoveryMechanisms": [{"Name": "admin_only", "Priority": 1}]},
    "UserPoolTags": {"app": "cafe", "stage": "test"},
}


class Cognito:
    """Fakes Cognito with two user pools. UpdateUserPool resets each setting that it is not given."""

    def __init__(self) -> None:
        self.pools: dict[str, dict[str, Any]] = {"eu_1": POOL, "eu_2": {**POOL, "Id": "eu_2", "Name": "cafe-t-users"}}

    def get_paginator(self, operation: str) -> Any:
        assert operation == "list_user_pools"
        return self

    def paginate(self, **given: Any) -> list[dict[str, Any]]:
        return [{"UserPools": [each]} for each in self.pools.values()]

    def describe_user_pool(self, UserPoolId: str) -> dict[str, Any]:  # noqa: N803
        return {"UserPool": self.pools[UserPoolId]}

    def update_user_pool(self, **given: Any) -> None:
        accepts("cognito-idp", "UpdateUserPool", given)
        pool_id = given.pop("UserPoolId")
        self.pools[pool_id] = {"Id": pool_id, "Name": self.pools[pool_id]["Name"], **given}


def test_tables_and_users_are_protected_and_outlive_a_stack_that_replaces_them() -> None:
    tables = [each for each in TEMPLATE.resources.values() if each["Type"] == "AWS::DynamoDB::Table"]
    assert len(tables) == 4
    for each in tables:
        assert each["Properties"]["DeletionProtectionEnabled"] is True
        # CloudFormation could not delete a protected table when it rolls back a new stack.
        assert (each["DeletionPolicy"], each["UpdateReplacePolicy"]) == ("Retain", "Retain")
    pool = TEMPLATE.resources["UserPool"]
    assert pool["Properties"]["DeletionProtection"] == "ACTIVE"
    assert pool["UpdateReplacePolicy"] == "Retain"
    # A retained pool cannot be imported, so the pool of a deleted stack must not stay.
    assert "DeletionPolicy" not in pool


def test_an_unprotected_user_pool_keeps_the_settings_that_protect_its_users(target: Target) -> None:
    """If the removal is interrupted, nobody may sign up, and the deployer still needs the tags to delete the pool."""
    cognito = Cognito()
    protection.remove_from_users(target, {"cognito-idp": cognito}.__getitem__)
    assert cognito.pools["eu_2"]["DeletionProtection"] == "ACTIVE"
    properties = TEMPLATE.properties("UserPool")
    assert cognito.pools["eu_1"] == {
        **POOL,
        "DeletionProtection": "INACTIVE",
        "AdminCreateUserConfig": properties["AdminCreateUserConfig"],
        "Policies": {"PasswordPolicy": {"MinimumLength": 12}},
    }
    kept = {*protection.POOL_SETTINGS, "AdminCreateUserConfig", "Policies", "DeletionProtection", "UserPoolTags"}
    assert properties.keys() <= {*kept, "UserPoolName", "UsernameConfiguration"}


@pytest.mark.parametrize("part", ["database", "resources"])
@pytest.mark.parametrize(
    ("status", "goes"), [("ROLLBACK_FAILED", True), ("UPDATE_COMPLETE", False), ("DELETE_FAILED", False), (None, False)]
)
def test_the_protection_goes_without_a_question_only_if_the_stack_was_never_complete(
    target: Target, part: str, status: str | None, goes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the protection would not keep people from deleting a complete stack manually."""
    removed: list[str] = []
    for name in ("cluster", "users"):
        monkeypatch.setattr(protection, f"remove_from_{name}", lambda *_, name=name: removed.append(name))
    protection.remove_after_failure(target, part, {"cloudformation": CloudFormation(status)}.__getitem__)
    assert removed == ([{"database": "cluster", "resources": "users"}[part]] if goes else [])
