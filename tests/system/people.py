"""Adds people to a user pool, and signs them in."""

from __future__ import annotations

from typing import Any

from infra import users


def add(cognito: Any, pool_id: str, name: str, *groups: str) -> str:
    """Adds a person with a permanent password. Returns the password."""
    who, password = {"UserPoolId": pool_id, "Username": name}, users.new_password()
    cognito.admin_create_user(**who, MessageAction="SUPPRESS")
    cognito.admin_set_user_password(**who, Password=password, Permanent=True)
    for group in groups:
        cognito.admin_add_user_to_group(**who, GroupName=group)
    return password


def sign_in(cognito: Any, client_id: str, name: str, password: str) -> dict[str, Any]:
    """Signs in, and returns the user pool's response.

    The response contains tokens or the challenge to choose a password.
    """
    given = {"USERNAME": name, "PASSWORD": password}
    return dict(cognito.initiate_auth(ClientId=client_id, AuthFlow="USER_PASSWORD_AUTH", AuthParameters=given))


def choose(cognito: Any, client_id: str, session: str, name: str, password: str) -> dict[str, Any]:
    """Chooses a new password in place of a temporary one. Returns the response, which contains tokens."""
    responses = {"USERNAME": name, "NEW_PASSWORD": password}
    return dict(
        cognito.respond_to_auth_challenge(
            ClientId=client_id, ChallengeName="NEW_PASSWORD_REQUIRED", Session=session, ChallengeResponses=responses
        )
    )
