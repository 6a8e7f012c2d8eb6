"""Makes a person who may sign in: ``make user NAME=ana GROUP=staff STAGE=prod``.

    python -m infra.users NAME GROUP STAGE

The user pool is that of the stage, wherever AWS is: the environment says so, as for the deploy.
"""

from __future__ import annotations

import argparse
import re
import secrets
import string
import sys
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from infra.deploy.stacks import outputs_of
from infra.deploy.target import DeployError, client

GROUPS = ("staff", "managers")
NAME = re.compile(r"\S{1,128}")
# Without those that look like others.
CHARACTERS = "".join(sorted(set(string.ascii_letters + string.digits) - set("0O1lI")))


class Made(NamedTuple):
    """``password`` is None for who has signed in before, and ``added`` says whether the group is new to them."""

    password: str | None
    added: bool


def new_password() -> str:
    """Such as the pool's policy takes: 20 characters, by five, that can be read out."""
    while True:
        password = "-".join("".join(secrets.choice(CHARACTERS) for _ in range(5)) for _ in range(4))
        if all(re.search(kind, password) for kind in ("[a-z]", "[A-Z]", "[0-9]")):
            return password


def make(cognito: Any, pool_id: str, name: str, group: str) -> Made:
    """A person of the group, with a password for the first sign-in only; whoever is there already gets the group.

    Who has never signed in gets a new password: the one before may be lost, or too old.
    """
    password: str | None = new_password()
    try:
        # Without a message: the pool knows no address.
        cognito.admin_create_user(
            UserPoolId=pool_id, Username=name, TemporaryPassword=password, MessageAction="SUPPRESS"
        )
    except cognito.exceptions.UsernameExistsException:
        if cognito.admin_get_user(UserPoolId=pool_id, Username=name)["UserStatus"] == "FORCE_CHANGE_PASSWORD":
            cognito.admin_set_user_password(UserPoolId=pool_id, Username=name, Password=password, Permanent=False)
        else:
            password = None
    pages = cognito.get_paginator("admin_list_groups_for_user").paginate(UserPoolId=pool_id, Username=name)
    if group in [each["GroupName"] for page in pages for each in page["Groups"]]:
        return Made(password, False)
    cognito.admin_add_user_to_group(UserPoolId=pool_id, Username=name, GroupName=group)
    return Made(password, True)


def told(name: str, group: str, made: Made) -> str:
    """What the person at the terminal is told of it."""
    if made.password:
        return (
            f"{name} may sign in now, of the group {group}, with the password\n\n    {made.password}\n\n"
            "It is shown this once. The console asks for a new one at the first sign-in."
        )
    if made.added:
        return f"{name} was there already, and is of the group {group} from the next token on"
    return f"{name} is there already, of the group {group}: nothing was changed"


def wrong(name: str, group: str) -> str | None:
    """What is wrong with what was given, if anything is."""
    if not name or not group:
        return "name the person and the group: make user NAME=ana GROUP=staff"
    if group not in GROUPS:
        return f"GROUP must be {' or '.join(GROUPS)}, not {group!r}"
    if not NAME.fullmatch(name):
        return f"NAME must be at most 128 characters without a space, not {name!r}"
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.users", description="Makes a person who may sign in.")
    for name in ("name", "group", "stage"):
        parser.add_argument(name)
    given = parser.parse_args(arguments)
    problem = wrong(given.name, given.group)
    try:
        if problem:
            raise DeployError(problem)
        pool_id = outputs_of(given.stage, client("cloudformation")).get("USER_POOL_ID")
        if pool_id is None:
            raise DeployError(f"{given.stage} has no user pool yet: `make deploy STAGE={given.stage}` makes it")
        print(told(given.name, given.group, make(client("cognito-idp"), pool_id, given.name, given.group)))
    except (DeployError, BotoCoreError, ClientError) as error:
        print(f"user: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
