"""Fakes a Cognito user pool that signs tokens and publishes its public keys."""

from __future__ import annotations

import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

REGION = "us-east-1"
POOL_ID = f"{REGION}_Cafe12345"
CLIENT_ID = "3n4b5urk1ft4fl3mg5e62d9ado"
ISSUER = f"https://cognito-idp.{REGION}.amazonaws.com/{POOL_ID}"
KEYS_URL = f"{ISSUER}/.well-known/jwks.json"


@cache
def private_key(key_id: str) -> RSAPrivateKey:
    """Returns the private key with this id. Keys are cached, because generating a key is slow."""
    return generate_private_key(65537, 2048)


class Pool:
    """Fakes a user pool with a key named ``first``. The attribute ``asked`` lists the requested URLs."""

    def __init__(self) -> None:
        self.key_ids = ["first"]
        self.asked: list[str] = []
        self.failure: Exception | None = None

    def fetch(self, url: str) -> bytes:
        """Replaces ``chalicelib.sign_in.fetch``, and raises ``failure`` if that attribute is set."""
        self.asked.append(url)
        if self.failure:
            raise self.failure
        # Like Cognito, the fake pool also publishes a key for access tokens.
        public = [published(key_id) for key_id in ["access", *self.key_ids]]
        return json.dumps({"keys": public}).encode()

    def token(self, name: str = "mia", *groups: str, key_id: str = "first", **claims: Any) -> str:
        """Returns an id token like those from Cognito, without the claims that are None."""
        now = int(time.time())
        made = {
            "sub": "4db3ac98-120e-4c30-8c92-0dee6acaa826",
            "iss": ISSUER,
            "aud": CLIENT_ID,
            "token_use": "id",
            "auth_time": now,
            "iat": now,
            "exp": now + 3600,
            "cognito:username": name,
            "cognito:groups": list(groups) or None,
            **claims,
        }
        present = {claim: value for claim, value in made.items() if value is not None}
        return jwt.encode(present, private_key(key_id), "RS256", {"kid": key_id})


def published(key_id: str) -> dict[str, Any]:
    """Returns the public part of a key in the format that Cognito publishes."""
    key: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(private_key(key_id).public_key(), as_dict=True)
    return {**key, "kid": key_id, "alg": "RS256", "use": "sig"}
