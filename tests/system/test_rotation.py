"""Tests that the deployed function rotates its database password on a real MySQL server.

The local AWS emulator never calls a rotation function, so the tests send the events of the four rotation steps.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib import clients
from chalicelib.errors import PasswordRefused
from chalicelib.settings import Database
from tests.system.system import System

# `make verify-deploy` runs these tests, because a deploy to AWS sets up the rotation.
pytestmark = pytest.mark.long

STEPS = ["createSecret", "setSecret", "testSecret", "finishSecret"]


class Rotation:
    def __init__(self, system: System) -> None:
        self.system = system
        self.secrets = system.aws("secretsmanager")
        self.arn = system.env["DB_SECRET_ARN"]
        # This version id has the same length as version ids on AWS.
        self.version = secrets.token_hex(16)

    def secret(self, **which: str) -> str:
        return str(self.secrets.get_secret_value(SecretId=self.arn, **which)["SecretString"])

    @property
    def current(self) -> Database:
        return Database.of_secret(self.secret())

    def step(self, step: str, **other: str) -> tuple[bool, Any]:
        event = {"Step": step, "SecretId": self.arn, "ClientRequestToken": self.version, **other}
        return self.system.invoke("rotate_password", event)

    def run(self, steps: list[str]) -> None:
        for each in steps:
            ok, error = self.step(each)
            assert ok, (each, error)


@pytest.fixture
def rotation(system: System) -> Iterator[Rotation]:
    rotation = Rotation(system)
    before = rotation.secret()
    yield rotation
    rotation.secrets.put_secret_value(SecretId=rotation.arn, SecretString=before)
    # The function `migrate` copies the password from the secret to the database user.
    system.call("migrate", {})
    system.sql("DROP USER IF EXISTS 'cafe_functions_clone'@'%%'")


def can_sign_in(database: Database) -> bool:
    try:
        with clients.mysql(database):
            return True
    except PasswordRefused:
        return False


def test_two_users_alternate_and_the_previous_user_works_until_the_next_rotation(rotation: Rotation) -> None:
    first = rotation.current
    rotation.run(STEPS)
    second = rotation.current
    assert (first.user, second.user) == ("cafe_functions", "cafe_functions_clone")
    assert can_sign_in(first)
    assert can_sign_in(second)
    rotation.version = secrets.token_hex(16)
    rotation.run(STEPS)
    third = rotation.current
    assert third.user == "cafe_functions"
    assert len({each.password for each in (first, second, third)}) == 3
    assert (can_sign_in(first), can_sign_in(second), can_sign_in(third)) == (False, True, True)


def test_the_functions_work_after_every_step_of_a_rotation(rotation: Rotation) -> None:
    system = rotation.system
    for step in STEPS:
        rotation.run([step])
        system.call("read_inventory", {"reportId": "rotation"})
    # A new process that has not read the secret yet must also work. Updating the function's configuration starts a new
    # process.
    lambda_, name = system.aws("lambda"), "cafe-dev-read_inventory"
    variables = lambda_.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    lambda_.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
    system.call("read_inventory", {"reportId": "rotation"})


def test_each_step_may_be_repeated(rotation: Rotation) -> None:
    rotation.run([step for step in STEPS for _ in range(2)])
    assert can_sign_in(rotation.current)


def test_the_secret_does_not_change_until_the_rotation_is_finished(rotation: Rotation) -> None:
    before = rotation.secret()
    rotation.run(STEPS[:3])
    assert rotation.secret() == before
    pending = json.loads(rotation.secret(VersionStage="AWSPENDING"))
    assert pending.keys() == json.loads(before).keys()
    assert pending["host"] == rotation.current.host


def test_the_test_step_fails_if_the_password_was_not_set(rotation: Rotation) -> None:
    rotation.run(["createSecret"])
    ok, error = rotation.step("testSecret")
    assert (ok, error["errorType"]) == (False, "PasswordRefused")


def test_both_users_have_the_same_permissions(rotation: Rotation) -> None:
    rotation.run(STEPS)
    grants = [
        {
            row[0].partition(" TO ")[0].partition(" IDENTIFIED")[0]
            for row in rotation.system.sql(f"SHOW GRANTS FOR {user}")
        }
        for user in ("'cafe_functions'@'%%'", "'cafe_functions_clone'@'%%'")
    ]
    assert grants[0] == grants[1]


def test_another_secret_is_not_rotated(rotation: Rotation) -> None:
    ok, error = rotation.step("createSecret", SecretId=f"{rotation.arn}-of-another")
    assert not ok
    assert "this function can rotate only" in error["errorMessage"]
