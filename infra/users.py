"""Creates a user of a stage.

The command ``make user NAME=ana GROUP=staff STAGE=prod`` runs ``python -m infra.users NAME GROUP STAGE``. The AWS
account and region come from the environment.
"""

from __future__ import annotations

import json
import re
import secrets
import string
import sys
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from infra import arguments as types
from infra.deploy.stacks import outputs_of
from infra.deploy.target import DeployError, client

GROUPS = ("staff", "managers")
NAME = re.compile(r"\S{1,128}")
# Passwords do not contain characters that are easily confused, such as 0 and O.
CHARACTERS = "".join(sorted(set(string.ascii_letters + string.digits) - set("0O1lI")))


class Made(NamedTuple):
    """The result of the function ``make``.

    ``password`` is None if the user has signed in before. ``added`` is true if the user was not in the group before.
    ``replaced`` is true if the password replaces an earlier password.
    """

    password: str | None
    added: bool
    replaced: bool = False


def new_password() -> str:
    """Returns a random password of four groups of five characters. The password meets the user pool's policy."""
    while True:
        password = "-".join("".join(secrets.choice(CHARACTERS) for _ in range(5)) for _ in range(4))
        if all(re.search(kind, password) for kind in ("[a-z]", "[A-Z]", "[0-9]")):
            return password


def make(cognito: Any, pool_id: str, name: str, group: str) -> Made:
    """Adds a user to the group. A new user is created with a temporary password.

    A user who has never signed in receives a new password, because the old password may be lost or expired. If a user
    has signed in before, the password does not change.
    """
    password: str | None = new_password()
    replaced = False
    try:
        # Cognito must not send the password, because users have no e-mail address or phone number.
        cognito.admin_create_user(
            UserPoolId=pool_id, Username=name, TemporaryPassword=password, MessageAction="SUPPRESS"
        )
    except cognito.exceptions.UsernameExistsException:
        if cognito.admin_get_user(UserPoolId=pool_id, Username=name)["UserStatus"] == "FORCE_CHANGE_PASSWORD":
            cognito.admin_set_user_password(UserPoolId=pool_id, Username=name, Password=password, Permanent=False)
            replaced = True
        else:
            password = None
    pages = cognito.get_paginator("admin_list_groups_for_user").paginate(UserPoolId=pool_id, Username=name)
    if group in [each["GroupName"] for page in pages for each in page["Groups"]]:
        return Made(password, False, replaced)
    cognito.admin_add_user_to_group(UserPoolId=pool_id, Username=name, GroupName=group)
    return Made(password, True, replaced)


def result_message(name: str, group: str, made: Made) -> str:
    """Returns a message that describes the result of ``make``."""
    if made.password:
        earlier = "The user already existed but never signed in, so the earlier password is no longer valid.\n"
        return (
            f"{earlier if made.replaced else ''}"
            f"{name} is a member of {group}. The password is\n\n    {made.password}\n\n"
            "This password is shown only once. The console asks for a new password at the first sign-in."
        )
    if made.added:
        return f"{name} already existed and was added to {group}. The change takes effect at the next sign-in."
    return f"{name} is already a member of {group}: nothing was changed"


def validation_error(name: str, group: str) -> str | None:
    """Returns an error message if the arguments are invalid, and None otherwise."""
    if not name or not group:
        return "NAME and GROUP are required, as in `make user NAME=ana GROUP=staff`"
    if group not in GROUPS:
        return f"GROUP must be {' or '.join(GROUPS)}, not {json.dumps(group)}"
    if not NAME.fullmatch(name):
        return f"NAME must be at most 128 characters and contain no spaces; got {json.dumps(name)}"
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = types.Parser(prog="python -m infra.users", description="Creates a user of a stage.")
    parser.add_argument("name")
    parser.add_argument("group")
    parser.add_argument("stage", metavar="STAGE", type=types.stage)
    given = parser.parse_args(arguments)
    problem = validation_error(given.name, given.group)
    try:
        if problem:
            raise DeployError(problem)
        pool_id = outputs_of(given.stage, client("cloudformation")).get("USER_POOL_ID")
        if pool_id is None:
            raise DeployError(f"{given.stage} has no user pool yet: run `make deploy STAGE={given.stage}`")
        print(result_message(given.name, given.group, make(client("cognito-idp"), pool_id, given.name, given.group)))
    except (DeployError, BotoCoreError, ClientError) as error:
        print(f"user: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
