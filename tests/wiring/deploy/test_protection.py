"""Tests what is protected from deletion, and when the deploy removes the protection."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from infra.deploy import protection
from infra.deploy.target import Target
from tests.wiring.fakes import CloudFormation, accepts
from tests.wiring.template import Template


def test_tables_and_users_are_protected_and_outlive_a_stack_that_replaces_them(template: Template) -> None:
    tables = [each for each in template.resources.values() if each["Type"] == "AWS::DynamoDB::Table"]
    assert len(tables) >= 4
    for each in tables:
        assert each["Properties"]["DeletionProtectionEnabled"] is True
        assert (each["DeletionPolicy"], each["UpdateReplacePolicy"]) == ("Retain", "Retain")
    pool = template.resources["UserPool"]
    assert pool["Properties"]["DeletionProtection"] == "ACTIVE"
    # A pool cannot be imported, so a deleted stack must not leave one behind.
    assert (pool["DeletionPolicy"], pool["UpdateReplacePolicy"]) == ("Delete", "Retain")


def test_an_unprotected_user_pool_keeps_its_other_settings(target: Target, template: Template) -> None:
    """UpdateUserPool resets every setting that it is not given."""
    properties = template.properties("UserPool")
    pool = {**properties, "UserPoolTags": {"app": "cafe", "aws:cloudformation:stack-name": "cafe-test-resources"}}
    names = [{"Id": f"eu_{stage}", "Name": f"cafe-{stage}-users"} for stage in ("t", "test", "test-2")]
    updated: list[dict[str, Any]] = []
    cognito = SimpleNamespace(
        get_paginator=lambda _: SimpleNamespace(paginate=lambda **_: [{"UserPools": names}]),
        describe_user_pool=lambda **_: {"UserPool": pool},
        update_user_pool=lambda **given: updated.append(given),
    )
    protection.remove_from_users(target, {"cognito-idp": cognito}.__getitem__)
    [given] = updated
    accepts("cognito-idp", "UpdateUserPool", given)
    kept = {name: value for name, value in pool.items() if name not in ("UserPoolName", "UsernameConfiguration")}
    kept["UserPoolTags"] = {"app": "cafe"}
    assert given == {**kept, "UserPoolId": "eu_test", "DeletionProtection": "INACTIVE"}


@pytest.mark.parametrize(("part", "name"), [("database", "cluster"), ("resources", "users")])
@pytest.mark.parametrize(
    ("status", "goes"),
    [
        *(("ROLLBACK_FAILED", True), ("DELETE_FAILED", True), ("UPDATE_COMPLETE", False), (None, False)),
        # An interrupted deploy left a rollback, which fails later.
        ("ROLLBACK_IN_PROGRESS", True),
    ],
)
def test_the_protection_goes_without_a_question_only_if_the_stack_was_never_complete(
    target: Target,
    part: str,
    name: str,
    status: str | None,
    goes: bool,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    removed: list[str] = []
    for each in ("cluster", "users"):
        monkeypatch.setattr(protection, f"remove_from_{each}", lambda *_, each=each: removed.append(each))
    cfn = CloudFormation(status, "ROLLBACK_FAILED")
    protection.remove_after_failure(target, part, {"cloudformation": cfn}.__getitem__, said.append)
    assert removed == ([name] if goes else [])
