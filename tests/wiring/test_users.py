"""Tests ``make user`` for new, existing, disabled and removed people, and for every error."""

from __future__ import annotations

import re
from typing import Any

import pytest

from infra import users
from infra.users import Made
from tests.system.people import add, sign_in
from tests.wiring.stage import client, resolve

STACK = """
Resources:
  Topic: {Type: AWS::SNS::Topic}
Outputs:
  UserPoolId: {Value: %s}
  UserPoolClientId: {Value: %s}
"""


@pytest.fixture
def cognito(aws: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(users, "client", client)
    return client("cognito-idp")


@pytest.fixture
def pool_id(cognito: Any) -> str:
    """Returns the id of a user pool with the template's password policy and groups, for the stage `prod`."""
    template = resolve("prod")
    policies = template.properties("UserPool")["Policies"]
    pool: str = cognito.create_user_pool(PoolName="cafe-prod-users", Policies=policies)["UserPool"]["Id"]
    for group in template.of_type("AWS::Cognito::UserPoolGroup").values():
        cognito.create_group(UserPoolId=pool, GroupName=group["GroupName"])
    page = cognito.create_user_pool_client(
        UserPoolId=pool,
        ClientName="console",
        ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH"],
        IdTokenValidity=15,
        TokenValidityUnits={"IdToken": "minutes"},
    )["UserPoolClient"]["ClientId"]
    client("cloudformation").create_stack(StackName="cafe-prod-resources", TemplateBody=STACK % (pool, page))
    return pool


def groups(cognito: Any, pool_id: str, name: str) -> list[str]:
    pages = cognito.admin_list_groups_for_user(UserPoolId=pool_id, Username=name)["Groups"]
    return sorted(each["GroupName"] for each in pages)


def test_the_pool_accepts_every_password() -> None:
    policy = resolve().properties("UserPool")["Policies"]["PasswordPolicy"]
    made = {users.new_password() for _ in range(1000)}
    assert len(made) == 1000
    for password in made:
        assert len(password) >= policy["MinimumLength"]
        assert all(re.search(kind, password) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
        assert not set(password) & set("0O1lI")


def test_a_new_person_gets_a_password_for_one_sign_in(
    cognito: Any, pool_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert users.main(["ana", "staff", "prod"]) == 0
    said = capsys.readouterr().out
    [password] = re.findall(r"^    (\S+)$", said, re.MULTILINE)
    assert "ana is a member of staff. The password is" in said
    assert groups(cognito, pool_id, "ana") == ["staff"]
    assert cognito.admin_get_user(UserPoolId=pool_id, Username="ana")["UserStatus"] == "FORCE_CHANGE_PASSWORD"
    [page] = cognito.list_user_pool_clients(UserPoolId=pool_id)["UserPoolClients"]
    answer = sign_in(cognito, page["ClientId"], "ana", password)
    assert answer["ChallengeName"] == "NEW_PASSWORD_REQUIRED"


def test_an_existing_person_gets_the_group_and_keeps_the_password(
    cognito: Any, pool_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (users.make(cognito, pool_id, "ana", "staff") for _ in range(2))
    # The user gets a new password, because the unused first password may be lost.
    assert second.password not in (None, first.password)
    assert cognito.admin_get_user(UserPoolId=pool_id, Username="ana")["UserStatus"] == "FORCE_CHANGE_PASSWORD"
    # The test sets the state that a user has after choosing a password.
    chosen = users.new_password()
    cognito.admin_set_user_password(UserPoolId=pool_id, Username="ana", Password=chosen, Permanent=True)
    assert users.make(cognito, pool_id, "ana", "staff") == Made(None, False)
    assert users.main(["ana", "staff", "prod"]) == 0
    assert "is already a member of staff: nothing was changed" in capsys.readouterr().out
    assert users.main(["ana", "managers", "prod"]) == 0
    assert "already existed and was added to managers" in capsys.readouterr().out
    assert groups(cognito, pool_id, "ana") == ["managers", "staff"]


def is_enabled(cognito: Any, pool_id: str, name: str) -> bool:
    return bool(cognito.admin_get_user(UserPoolId=pool_id, Username=name)["Enabled"])


def test_a_person_is_disabled_enabled_and_removed(
    cognito: Any, pool_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    users.make(cognito, pool_id, "ana", "staff")
    until = r"The API accepts this user's last token until \d\d:\d\d UTC at the latest\.\n"
    assert users.main(["--disable", "--", "ana", "", "prod"]) == 0
    assert re.fullmatch(rf"ana can no longer sign in\. {until}", capsys.readouterr().out)
    assert not is_enabled(cognito, pool_id, "ana")
    assert users.main(["ana", "managers", "prod"]) == 1
    assert capsys.readouterr().err.startswith("user: ana is disabled: run `make user NAME=ana ENABLE=1`")
    assert groups(cognito, pool_id, "ana") == ["staff"]
    assert users.main(["--enable", "--", "ana", "", "prod"]) == 0
    assert capsys.readouterr().out == "ana can sign in again with the same password.\n"
    assert is_enabled(cognito, pool_id, "ana")
    assert users.main(["--remove", "--", "ana", "", "prod"]) == 0
    assert re.fullmatch(rf"ana was removed\. {until}", capsys.readouterr().out)
    assert cognito.list_users(UserPoolId=pool_id)["Users"] == []


@pytest.mark.parametrize("action", ["disable", "remove"])
def test_the_last_manager_stays_unless_yes_is_given(
    cognito: Any, pool_id: str, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    for name in ("ana", "ben"):
        add(cognito, pool_id, name, "managers")
    users.make(cognito, pool_id, "cleo", "staff")
    # A disabled manager cannot help, and a temporary password may have expired, so ana becomes the last manager.
    users.make(cognito, pool_id, "dan", "managers")
    assert users.main(["--disable", "ben", "", "prod"]) == 0
    capsys.readouterr()
    assert users.main([f"--{action}", "ana", "", "prod"]) == 1
    refusal = "user: ana is the last manager who can sign in: create another one first, or add YES=1\n"
    assert capsys.readouterr().err == refusal
    assert is_enabled(cognito, pool_id, "ana")
    for name in ("ben", "cleo"):
        assert users.main([f"--{action}", name, "", "prod"]) == 0
    assert users.main([f"--{action}", "--yes", "ana", "", "prod"]) == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--remove", "ana", "", "prod"), "there is no user ana: check NAME"),
        (("--disable", "--remove", "ana", "", "prod"), "use only one of DISABLE, ENABLE and REMOVE"),
        (("--disable", "ana", "staff", "prod"), "GROUP has no meaning with DISABLE: leave GROUP out"),
        (("--remove", "", "", "prod"), "NAME is required, as in `make user NAME=ana REMOVE=1`"),
        (("", "staff", "prod"), "NAME and GROUP are required, as in `make user NAME=ana GROUP=staff`"),
        (("ana", "", "prod"), "NAME and GROUP are required, as in `make user NAME=ana GROUP=staff`"),
        (("ana", "boss", "prod"), 'GROUP must be staff or managers, not "boss"'),
        (("ana b", "staff", "prod"), 'NAME must be at most 128 characters and contain no spaces; got "ana b"'),
        (("a" * 129, "staff", "prod"), "NAME must be at most 128 characters and contain no spaces"),
        (("ana", "staff", "pord"), "there is no stage pord at https://cloudformation.eu-central-1.amazonaws.com"),
    ],
)
def test_each_error_is_one_line(
    cognito: Any, pool_id: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], problem: str
) -> None:
    assert users.main([*arguments]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"user: {problem}")
    assert cognito.list_users(UserPoolId=pool_id)["Users"] == []


def test_a_stage_without_a_user_pool_must_be_deployed_again(cognito: Any, capsys: pytest.CaptureFixture[str]) -> None:
    old = STACK.replace("UserPoolId", "TopicArn") % ("arn", "page")
    client("cloudformation").create_stack(StackName="cafe-old-resources", TemplateBody=old)
    assert users.main(["ana", "staff", "old"]) == 1
    assert "old has no user pool yet: run `make deploy STAGE=old`" in capsys.readouterr().err


def test_an_error_from_aws_is_shown_and_the_next_try_finishes(
    cognito: Any, pool_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cognito.delete_group(UserPoolId=pool_id, GroupName="staff")
    assert users.main(["ana", "staff", "prod"]) == 1
    assert capsys.readouterr().err.startswith("user: An error occurred (ResourceNotFoundException)")
    cognito.create_group(UserPoolId=pool_id, GroupName="staff")
    assert users.main(["ana", "staff", "prod"]) == 0
    assert "ana is a member of staff" in capsys.readouterr().out
    assert groups(cognito, pool_id, "ana") == ["staff"]
