"""Creates a user of a stage: ``make user NAME=ana GROUP=staff STAGE=prod``.

    python -m infra.users NAME GROUP STAGE

The account and the region come from the environment, as for the deploy.
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
# Characters that are easily confused are left out.
CHARACTERS = "".join(sorted(set(string.ascii_letters + string.digits) - set("0O1lI")))


class Made(NamedTuple):
    """The result of ``make``.

    ``password`` is None if the user has signed in before. ``added`` tells whether the user has just joined the group,
    and ``replaced`` whether the password replaces an earlier one.
    """

    password: str | None
    added: bool
    replaced: bool = False


def new_password() -> str:
    """Returns a password that meets the pool's policy: four groups of five characters that are easy to read aloud."""
    while True:
        password = "-".join("".join(secrets.choice(CHARACTERS) for _ in range(5)) for _ in range(4))
        if all(re.search(kind, password) for kind in ("[a-z]", "[A-Z]", "[0-9]")):
            return password


def make(cognito: Any, pool_id: str, name: str, group: str) -> Made:
    """Creates a user with a password for the first sign-in, or adds an existing user to the group.

    A user who has never signed in receives a new password, because the old one may be lost or expired. The password of
    a user who has signed in never changes.
    """
    password: str | None = new_password()
    replaced = False
    try:
        # Cognito must not send the password, because the pool has no e-mail addresses or phone numbers.
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
    """Returns the message that the terminal shows."""
    if made.password:
        earlier = f"{name} already existed but never signed in, so the earlier password is no longer valid.\n"
        return (
            f"{earlier if made.replaced else ''}"
            f"{name} can sign in as a member of {group}, with the password\n\n    {made.password}\n\n"
            "This password is shown only once. The console asks for a new one at the first sign-in."
        )
    if made.added:
        return f"{name} already existed, and will be a member of {group} from the next sign-in token on"
    return f"{name} is already a member of {group}: nothing was changed"


def validation_error(name: str, group: str) -> str | None:
    """Returns what is wrong with the arguments, or None."""
    if not name or not group:
        return "name the person and the group: make user NAME=ana GROUP=staff"
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
