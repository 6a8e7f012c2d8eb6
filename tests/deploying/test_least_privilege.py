"""No role may do more than its function does: each right that the local cloud enforces is taken away, and is missed.

The others are those that a service uses in a role's name: the same exercises and whole flows go on without all of them,
so it is the sources in docs/permissions.md that vouch for these.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from local.cloud import REGION
from tests.deploying.conftest import Checkout, Place
from tests.deploying.exercises import EXERCISES, Exercise, Stage, dead_order
from tests.system.conftest import wait_for
from tests.wiring.permissions import Permission, Row, as_list, documented, found
from tests.wiring.permissions import functions as functions_of

pytestmark = pytest.mark.long

RIGHTS = [(exercise, right) for exercise in EXERCISES for right in exercise.rights]


def named(value: Any) -> str:
    if isinstance(value, Exercise):
        return value.role
    return " ".join(value)


@pytest.fixture(scope="module")
def stage(place: Place, here: Checkout) -> Stage:
    here.deploy("graded")
    return Stage(place, "graded")


@pytest.fixture(scope="module")
def page() -> list[Row]:
    return documented(functions_of())


class Role:
    """A role of the stage, as it is deployed."""

    def __init__(self, stage: Stage, name: str) -> None:
        self._stage = stage
        self._iam = stage.aws("iam")
        prefix = f"cafe-{stage.name}-resources-{name}-"
        pages = self._iam.get_paginator("list_roles").paginate()
        [self.name] = [
            each["RoleName"] for page in pages for each in page["Roles"] if each["RoleName"].startswith(prefix)
        ]

    @contextmanager
    def without(self, rights: list[tuple[str, str]]) -> Iterator[None]:
        """For a while the role lacks these pairs of an action and a resource, and has all its others."""
        [policy] = self._iam.list_role_policies(RoleName=self.name)["PolicyNames"]
        document = self._iam.get_role_policy(RoleName=self.name, PolicyName=policy)["PolicyDocument"]
        pairs = [
            (action, resource)
            for statement in document["Statement"]
            for action in as_list(statement["Action"])
            for resource in as_list(statement["Resource"])
        ]
        assert not set(rights) - set(pairs), "the role never had these"
        left = [pair for pair in pairs if pair not in rights]
        # A policy without a statement is none.
        nothing = ("sts:GetCallerIdentity", "arn:aws:iam::000000000000:role/nobody")
        statements = [
            {"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in left or [nothing]
        ]
        self._put(policy, {**document, "Statement": statements})
        try:
            yield
        finally:
            self._put(policy, document)

    def _put(self, policy: str, document: Any) -> None:
        self._iam.put_role_policy(RoleName=self.name, PolicyName=policy, PolicyDocument=json.dumps(document))


def deployed(stage: Stage, permission: Permission) -> tuple[str, str]:
    """The permission's action, and its resource as the stage has it."""
    resource = permission.resource
    for name, value in {"stage": stage.name, "region": REGION, "account": "000000000000"}.items():
        resource = resource.replace(f"<{name}>", value)
    variables = {
        "/stream/<time>": "ORDERS_STREAM_ARN",
        "-database-<random>": "DB_SECRET_ARN",
        "!cluster-<id>-<random>": "DB_ADMIN_SECRET_ARN",
    }
    for end, variable in variables.items():
        if resource.endswith(end):
            resource = stage.variables("rotate_password")[variable]
    return permission.action, resource


@pytest.mark.parametrize("exercise", EXERCISES, ids=[f"{each.role} {named(each.rights[0])}" for each in EXERCISES])
def test_with_its_rights_a_function_is_refused_nothing(stage: Stage, exercise: Exercise) -> None:
    answer = exercise.run(stage)
    assert answer.ok, answer.said
    assert not answer.refused, answer.said


@pytest.mark.parametrize(("exercise", "right"), RIGHTS, ids=named)
def test_without_one_of_its_rights_it_is_refused(
    stage: Stage, page: list[Row], exercise: Exercise, right: tuple[str, str]
) -> None:
    permission = found(page, exercise.role, *right)
    with Role(stage, exercise.role).without([deployed(stage, permission)]):
        answer = exercise.run(stage)
    assert answer.refused, answer.said


def test_what_is_not_proved_so_is_not_asked_for_here(stage: Stage, page: list[Row]) -> None:
    """Without all of it at once every exercise works, and so do the flows from end to end."""
    here = [row.permission for row in page if row.source and not row.permission.action.startswith("ec2:")]
    with ExitStack() as stack:
        for name in {each.role for each in here}:
            rights = [deployed(stage, each) for each in here if each.role == name]
            stack.enter_context(Role(stage, name).without(rights))
        for exercise in EXERCISES:
            answer = exercise.run(stage)
            assert answer.ok, answer.said
            assert not answer.refused, answer.said
        for kind in ("inventory", "storage"):
            name = stage.execution(kind)
            wait_for(partial_status(stage, kind, name), f"the {kind} report")
        order = dead_order(stage)
        stage.aws("sqs").send_message(QueueUrl=stage.queue("orders"), MessageBody=json.dumps(order))
        wait_for(lambda: order["orderID"] in stage.api("GET", "/notifications").said, "the order's announcement")


def partial_status(stage: Stage, kind: str, name: str) -> Callable[[], bool]:
    def look() -> bool:
        status = stage.content(stage.api("GET", f"/reports/{{{name}}}"))["status"]
        assert status in ("RUNNING", "SUCCEEDED")
        return bool(status == "SUCCEEDED")

    return look
