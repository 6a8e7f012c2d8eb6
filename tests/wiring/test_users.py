"""``make user``: a new person, one who is there already, and every way to ask for one wrongly."""

from __future__ import annotations

import re
from typing import Any

import boto3
import pytest

from infra import users
from infra.users import Made
from tests.wiring.stage import resolve

STACK = """
Resources:
  Topic: {Type: AWS::SNS::Topic}
Outputs:
  UserPoolId: {Value: %s}
"""


@pytest.fixture
def cognito(aws: None) -> Any:
    return boto3.client("cognito-idp")


@pytest.fixture
def pool_id(cognito: Any) -> str:
    """A pool with the template's policy and groups, deployed as the stage `prod`."""
    template = resolve("prod")
    policies = template.properties("UserPool")["Policies"]
    pool: str = cognito.create_user_pool(PoolName="cafe-prod-users", Policies=policies)["UserPool"]["Id"]
    for group in template.of_type("AWS::Cognito::UserPoolGroup").values():
        cognito.create_group(UserPoolId=pool, GroupName=group["GroupName"])
    boto3.client("cloudformation").create_stack(StackName="cafe-prod-resources", TemplateBody=STACK % pool)
    return pool


def groups(cognito: Any, pool_id: str, name: str) -> list[str]:
    found = cognito.admin_list_groups_for_user(UserPoolId=pool_id, Username=name)["Groups"]
    return sorted(each["GroupName"] for each in found)


def has_signed_in(cognito: Any, pool_id: str, name: str) -> None:
    """And has chosen a password."""
    cognito.admin_set_user_password(UserPoolId=pool_id, Username=name, Password=users.new_password(), Permanent=True)


def test_the_groups_are_those_of_the_template() -> None:
    made = resolve().of_type("AWS::Cognito::UserPoolGroup").values()
    assert sorted(users.GROUPS) == sorted(each["GroupName"] for each in made)


def test_every_password_is_one_that_the_pool_takes() -> None:
    policy = resolve().properties("UserPool")["Policies"]["PasswordPolicy"]
    made = {users.new_password() for _ in range(1000)}
    assert len(made) == 1000
    for password in made:
        assert len(password) >= policy["MinimumLength"]
        assert all(re.search(kind, password) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
        assert not set(password) & set("0O1lI")


def test_a_new_person_gets_a_password_that_is_shown_once_and_asks_for_another(
    cognito: Any, pool_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert users.main(["ana", "staff", "prod"]) == 0
    said = capsys.readouterr().out
    [password] = re.findall(r"^    (\S+)$", said, re.MULTILINE)
    assert "ana can sign in as a member of staff" in said
    assert groups(cognito, pool_id, "ana") == ["staff"]
    found = cognito.admin_get_user(UserPoolId=pool_id, Username="ana")
    assert found["UserStatus"] == "FORCE_CHANGE_PASSWORD"
    client = cognito.create_user_pool_client(
        UserPoolId=pool_id, ClientName="console", ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH"]
    )["UserPoolClient"]["ClientId"]
    answer = cognito.initiate_auth(
        ClientId=client,
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": "ana", "PASSWORD": password},
    )
    assert answer["ChallengeName"] == "NEW_PASSWORD_REQUIRED"


def test_a_person_who_is_there_gets_the_group_and_keeps_the_password(
    cognito: Any, pool_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    users.make(cognito, pool_id, "ana", "staff")
    has_signed_in(cognito, pool_id, "ana")
    assert users.main(["ana", "managers", "prod"]) == 0
    assert "existed already, and is a member of managers" in capsys.readouterr().out
    assert groups(cognito, pool_id, "ana") == ["managers", "staff"]


def test_a_person_who_has_never_signed_in_gets_another_password(cognito: Any, pool_id: str) -> None:
    first, second = (users.make(cognito, pool_id, "ana", "staff") for _ in range(2))
    assert second.password not in (None, first.password)
    assert cognito.admin_get_user(UserPoolId=pool_id, Username="ana")["UserStatus"] == "FORCE_CHANGE_PASSWORD"


def test_a_person_who_has_the_group_stays_as_they_are(
    cognito: Any, pool_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert users.make(cognito, pool_id, "ana", "staff").password
    has_signed_in(cognito, pool_id, "ana")
    assert users.make(cognito, pool_id, "ana", "staff") == Made(None, False)
    assert users.main(["ana", "staff", "prod"]) == 0
    assert "exists already as a member of staff: nothing was changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("", "staff", "prod"), "name the person and the group: make user NAME=ana GROUP=staff"),
        (("ana", "", "prod"), "name the person and the group: make user NAME=ana GROUP=staff"),
        (("ana", "boss", "prod"), "GROUP must be staff or managers, not 'boss'"),
        (("ana b", "staff", "prod"), "NAME must be at most 128 characters without a space, not 'ana b'"),
        (("a" * 129, "staff", "prod"), "NAME must be at most 128 characters without a space"),
        (("ana", "staff", "pord"), "there is no stage pord at https://cloudformation.eu-central-1.amazonaws.com"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    cognito: Any, pool_id: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], problem: str
) -> None:
    assert users.main([*arguments]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"user: {problem}")
    assert cognito.list_users(UserPoolId=pool_id)["Users"] == []


def test_a_stage_from_before_there_was_a_sign_in_is_to_be_deployed_again(
    aws: None, capsys: pytest.CaptureFixture[str]
) -> None:
    old = STACK.replace("UserPoolId", "TopicArn") % "arn"
    boto3.client("cloudformation").create_stack(StackName="cafe-old-resources", TemplateBody=old)
    assert users.main(["ana", "staff", "old"]) == 1
    assert "old has no user pool yet: run `make deploy STAGE=old`" in capsys.readouterr().err


def test_what_aws_refuses_is_said(
    cognito: Any, pool_id: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cognito.delete_group(UserPoolId=pool_id, GroupName="staff")
    assert users.main(["ana", "staff", "prod"]) == 1
    assert capsys.readouterr().err.startswith("user: An error occurred (ResourceNotFoundException)")
    # And made good by the next try, which shows a password.
    cognito.create_group(UserPoolId=pool_id, GroupName="staff")
    assert users.main(["ana", "staff", "prod"]) == 0
    assert "ana can sign in" in capsys.readouterr().out
    assert groups(cognito, pool_id, "ana") == ["staff"]
