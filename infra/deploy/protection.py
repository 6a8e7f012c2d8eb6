"""Removes the deletion protection of a stage's tables, users and MySQL cluster, so that they can be deleted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from infra.deploy import stacks
from infra.deploy.target import Clients, Say, Target


def user_pools(target: Target, cognito: Any) -> Iterator[str]:
    """Yields the ids of the stage's user pools. An update that replaces the pool leaves the old pool behind."""
    for page in cognito.get_paginator("list_user_pools").paginate(PaginationConfig={"PageSize": 60}):
        yield from (each["Id"] for each in page["UserPools"] if each["Name"] == f"cafe-{target.stage}-users")


def remove_from_users(target: Target, clients: Clients) -> None:
    """Removes the protection of the user pools, and keeps their other settings, which UpdateUserPool would reset.

    If the removal is interrupted, nobody may sign up, and the deployer's permissions still depend on the tags.
    """
    cognito = clients("cognito-idp")
    for pool_id in user_pools(target, cognito):
        pool = cognito.describe_user_pool(UserPoolId=pool_id)["UserPool"]
        cognito.update_user_pool(
            UserPoolId=pool_id,
            DeletionProtection="INACTIVE",
            AdminCreateUserConfig={"AllowAdminCreateUserOnly": True},
            Policies={"PasswordPolicy": pool["Policies"]["PasswordPolicy"]},
            # Only AWS itself can set tags that begin with "aws:".
            UserPoolTags={key: value for key, value in pool.get("UserPoolTags", {}).items() if key[:4] != "aws:"},
            **{name: pool[name] for name in ("AccountRecoverySetting",) if pool.get(name)},
        )


def remove_from_table(dynamodb: Any, table: str) -> None:
    if dynamodb.describe_table(TableName=table)["Table"].get("DeletionProtectionEnabled"):
        dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False)
        dynamodb.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 2})


def remove_from_cluster(target: Target, clients: Clients) -> None:
    rds = clients("rds")
    # The database cluster may already have been deleted.
    with suppress(rds.exceptions.DBClusterNotFoundFault):
        rds.modify_db_cluster(DBClusterIdentifier=f"cafe-{target.stage}", DeletionProtection=False)


def remove_after_failure(target: Target, part: str, clients: Clients, say: Say) -> None:
    """Removes the protection of the users or the database if their stack could not be created.

    Waits for a rollback that is still running, because an interrupted deploy may have left it.

    CloudFormation cannot delete a protected resource. Tables stay protected, because they may be an earlier stage's.
    """
    cfn, name = clients("cloudformation"), target.stack(part)
    stack = stacks.find(cfn, name)
    if stack and stack["StackStatus"] == "ROLLBACK_IN_PROGRESS":
        stack = stacks.wait(cfn, name, say)
    if stack and stack["StackStatus"] in stacks.UNUSABLE:
        {"database": remove_from_cluster, "resources": remove_from_users}[part](target, clients)
