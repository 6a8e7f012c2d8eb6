"""Creates, disables, enables and removes users of a stage.

The command ``make user NAME=ana GROUP=staff STAGE=prod`` runs ``python -m infra.users NAME GROUP STAGE``. The AWS
account and region come from the environment.
"""

from __future__ import annotations

import json
import re
import secrets
import string
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from infra import arguments as types
from infra.deploy.stacks import outputs_of
from infra.deploy.target import FAILURES, DeployError, client

GROUPS = ("staff", "managers")
NAME = re.compile(r"\S{1,128}")
# Passwords do not contain characters that are easily confused, such as 0 and O.
CHARACTERS = "".join(sorted(set(string.ascii_letters + string.digits) - set("0O1lI")))

# API Gateway caches the authorizer's answer, so an expired token can work for a minute longer.
CACHED = timedelta(minutes=1)


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
    has signed in before, the password does not change. Raises ``DeployError`` if the user is disabled.
    """
    password: str | None = new_password()
    replaced = False
    try:
        # Cognito must not send the password, because users have no e-mail address or phone number.
        cognito.admin_create_user(
            UserPoolId=pool_id, Username=name, TemporaryPassword=password, MessageAction="SUPPRESS"
        )
    except cognito.exceptions.UsernameExistsException:
        user = cognito.admin_get_user(UserPoolId=pool_id, Username=name)
        if not user["Enabled"]:
            raise DeployError(
                f"{name} is disabled: run `make user NAME={name} ENABLE=1` with the same STAGE first, then this again"
            ) from None
        if user["UserStatus"] == "FORCE_CHANGE_PASSWORD":
            cognito.admin_set_user_password(UserPoolId=pool_id, Username=name, Password=password, Permanent=False)
            replaced = True
        else:
            password = None
    pages = cognito.get_paginator("admin_list_groups_for_user").paginate(UserPoolId=pool_id, Username=name)
    if group in [each["GroupName"] for page in pages for each in page["Groups"]]:
        return Made(password, False, replaced)
    cognito.admin_add_user_to_group(UserPoolId=pool_id, Username=name, GroupName=group)
    return Made(password, True, replaced)


def result_message(name: str, group: str, result: Made) -> str:
    """Returns a message that describes the result of ``make``."""
    if result.password:
        earlier = "The user already existed but never signed in, so the earlier password is no longer valid.\n"
        return (
            f"{earlier if result.replaced else ''}"
            f"{name} is a member of {group}. The password is\n\n    {result.password}\n\n"
            "This password is shown only once. The console asks for a new password at the first sign-in."
        )
    if result.added:
        return f"{name} already existed and was added to {group}. The change takes effect at the next sign-in."
    return f"{name} is already a member of {group}: nothing was changed"


def change(cognito: Any, outputs: Mapping[str, str], name: str, action: str, *, forced: bool = False) -> str:
    """Disables, enables or removes a user, and returns a message that describes the result.

    ``action`` is ``disable``, ``enable`` or ``remove``. Raises ``DeployError`` if the user does not exist, and also if
    no other manager could sign in afterwards, unless ``forced`` is true.
    """
    pool_id = outputs["USER_POOL_ID"]
    user = {"UserPoolId": pool_id, "Username": name}
    try:
        stored = cognito.admin_get_user(**user)
    except cognito.exceptions.UserNotFoundException:
        raise DeployError(f"there is no user {name}: check NAME") from None
    if action == "enable":
        cognito.admin_enable_user(**user)
        return f"{name} can sign in again with the same password."
    if not forced and _is_last_manager(cognito, pool_id, stored["Username"]):
        raise DeployError(f"{name} is the last manager who can sign in: create another one first, or add YES=1")
    settings = cognito.describe_user_pool_client(UserPoolId=pool_id, ClientId=outputs["USER_POOL_CLIENT_ID"])
    validity = settings["UserPoolClient"]
    # MiniStack returns the number as text.
    lifetime = timedelta(**{validity["TokenValidityUnits"]["IdToken"]: int(validity["IdTokenValidity"])})
    if action == "remove":
        # This also revokes the refresh tokens.
        cognito.admin_delete_user(**user)
    elif stored["Enabled"]:
        # This revokes refresh tokens. It comes first, because Cognito might refuse it for a disabled user.
        cognito.admin_user_global_sign_out(**user)
        cognito.admin_disable_user(**user)
    return (
        f"{name} {'was removed' if action == 'remove' else 'can no longer sign in'}. "
        f"The API accepts this user's last token until {datetime.now(UTC) + lifetime + CACHED:%H:%M} UTC at the latest."
    )


def _is_last_manager(cognito: Any, pool_id: str, username: str) -> bool:
    pages = cognito.get_paginator("list_users_in_group").paginate(UserPoolId=pool_id, GroupName="managers")
    statuses = {user["Username"]: user["UserStatus"] for page in pages for user in page["Users"] if user["Enabled"]}
    # A manager with only a temporary password does not count, because that password expires.
    return statuses.pop(username, None) is not None and "CONFIRMED" not in statuses.values()


def run(cognito: Any, outputs: Mapping[str, str], given: Namespace) -> str:
    """Does what valid arguments of ``make user`` ask for, and returns a message that describes the result."""
    if given.actions:
        return change(cognito, outputs, given.name, given.actions[0], forced=given.yes)
    return result_message(given.name, given.group, make(cognito, outputs["USER_POOL_ID"], given.name, given.group))


def validation_error(name: str, group: str, actions: Sequence[str] = ()) -> str | None:
    """Returns an error message if the arguments are invalid, and None otherwise."""
    if len(actions) > 1:
        return "use only one of DISABLE, ENABLE and REMOVE"
    if actions and group:
        return f"GROUP has no meaning with {actions[0].upper()}: leave GROUP out"
    if actions and not name:
        return f"NAME is required, as in `make user NAME=ana {actions[0].upper()}=1`"
    if not actions and not (name and group):
        return "NAME and GROUP are required, as in `make user NAME=ana GROUP=staff`"
    if not actions and group not in GROUPS:
        return f"GROUP must be {' or '.join(GROUPS)}, not {json.dumps(group)}"
    if not NAME.fullmatch(name):
        return f"NAME must be at most 128 characters and contain no spaces; got {json.dumps(name)}"
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = types.Parser(prog="python -m infra.users", description="Creates or changes a user of a stage.")
    types.add_user(parser)
    parser.add_argument("stage", metavar="STAGE", type=types.stage)
    given = parser.parse_args(arguments)
    problem = validation_error(given.name, given.group, given.actions)
    try:
        if problem:
            raise DeployError(problem)
        outputs = outputs_of(given.stage, client("cloudformation"))
        if "USER_POOL_ID" not in outputs:
            raise DeployError(f"{given.stage} has no user pool yet: run `make deploy STAGE={given.stage}`")
        print(run(client("cognito-idp"), outputs, given))
    except FAILURES as error:
        print(f"user: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
