"""A rotation of the functions' password, by the deployed function on the real server.

The local cloud calls no rotation function, so the tests send the event that AWS sends for each of the four steps.
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

# `make verify-deploy` runs them: a rotation is set by a deploy to AWS.
pytestmark = pytest.mark.long

STEPS = ["createSecret", "setSecret", "testSecret", "finishSecret"]


class Rotation:
    def __init__(self, system: System) -> None:
        self.system = system
        self.secrets = system.aws("secretsmanager")
        self.arn = system.env["DB_SECRET_ARN"]
        # As long as a version's id is on AWS.
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
    # `migrate` gives the user the password of the secret.
    system.call("migrate", {})
    system.sql("DROP USER IF EXISTS 'cafe_functions_clone'@'%%'")


def can_sign_in(database: Database) -> bool:
    try:
        with clients.mysql(database):
            return True
    except PasswordRefused:
        return False


def test_two_users_take_turns_and_the_one_before_works_until_the_next_rotation(rotation: Rotation) -> None:
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


def test_the_functions_work_at_every_moment_of_a_rotation(rotation: Rotation) -> None:
    system = rotation.system
    for step in STEPS:
        rotation.run([step])
        system.call("read_inventory", {"reportId": "rotation"})
    # Also a process that has not read the secret yet: a changed environment makes one.
    lambda_, name = system.aws("lambda"), "cafe-dev-read_inventory"
    variables = lambda_.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    lambda_.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
    system.call("read_inventory", {"reportId": "rotation"})


def test_each_step_may_come_again(rotation: Rotation) -> None:
    rotation.run([step for step in STEPS for _ in range(2)])
    assert can_sign_in(rotation.current)


def test_the_secret_stays_the_same_until_the_rotation_is_finished(rotation: Rotation) -> None:
    before = rotation.secret()
    rotation.run(STEPS[:3])
    assert rotation.secret() == before
    pending = json.loads(rotation.secret(VersionStage="AWSPENDING"))
    assert pending.keys() == json.loads(before).keys()
    assert pending["host"] == rotation.current.host


def test_a_password_that_was_not_set_does_not_pass_the_test(rotation: Rotation) -> None:
    rotation.run(["createSecret"])
    ok, error = rotation.step("testSecret")
    assert (ok, error["errorType"]) == (False, "PasswordRefused")


def test_the_next_user_has_the_rights_of_the_one_before_and_no_more(rotation: Rotation) -> None:
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
    assert "this function rotates only" in error["errorMessage"]
