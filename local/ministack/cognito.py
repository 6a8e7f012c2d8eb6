"""Patches for Cognito user pools."""

import re
from functools import wraps
from typing import Any


def password_policy() -> None:
    """AWS refuses new passwords that break the user pool's policy, and names the first broken rule.

    MiniStack accepts any password that replaces a temporary password. It also requires a symbol if the policy does not
    mention symbols, and its messages differ. The console shows the messages, and people choose their passwords there.
    """
    from ministack.services import cognito

    rules = {
        "RequireLowercase": ("[a-z]", "lowercase"),
        "RequireUppercase": ("[A-Z]", "uppercase"),
        "RequireNumbers": ("[0-9]", "numeric"),
        "RequireSymbols": (r"""[\^$*.\[\]{}()?\-"!@#%&/\\,><':;|_~`+= ]""", "symbol"),
    }

    def unmet(pool: dict[str, Any], password: str) -> list[str]:
        policy = pool.get("Policies", {}).get("PasswordPolicy", {})
        problems = ["Password not long enough"] if len(password) < policy.get("MinimumLength", 8) else []
        for rule, (pattern, kind) in rules.items():
            if policy.get(rule) and not re.search(pattern, password):
                problems.append(f"Password must have {kind} characters")
        return problems[:1]

    def with_policy(respond: Any) -> Any:
        @wraps(respond)
        def respond_with_policy(data: dict[str, Any]) -> Any:
            pool, _ = cognito._pool_for_client(data.get("ClientId"))
            responses = data.get("ChallengeResponses") or {}
            # MiniStack also takes the new password from the field `PASSWORD`.
            password = responses.get("NEW_PASSWORD") or responses.get("PASSWORD")
            refusal = cognito._validate_password(pool, password) if pool and password else None
            return refusal or respond(data)

        return respond_with_policy

    cognito._password_policy_errors = unmet
    cognito._respond_to_auth_challenge = with_policy(cognito._respond_to_auth_challenge)
    cognito._admin_respond_to_auth_challenge = with_policy(cognito._admin_respond_to_auth_challenge)


def disabled_users() -> None:
    """AWS refuses a disabled user at each step of the sign-in.

    MiniStack refuses a disabled user's password, but not the new password that replaces a temporary one. `make user`
    can disable a person who is just choosing a password.
    """
    from ministack.services import cognito

    refused = cognito._password_signin_refused

    @wraps(refused)
    def refused_or_disabled(user: dict[str, Any]) -> Any:
        if not user.get("Enabled", True):
            return cognito.error_response_json("NotAuthorizedException", "User is disabled.", 400)
        return refused(user)

    cognito._password_signin_refused = refused_or_disabled
