"""Describes and translates AWS errors for the storage report."""

from __future__ import annotations

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.errors import StorageRefused, Unavailable, is_transient

ERROR_CHARACTERS = 300


def describe(error: ClientError | BotoCoreError) -> str:
    """Returns the code and message of an AWS error, shortened to 300 characters."""
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        text = f"{details.get('Code', 'Unknown')}: {details.get('Message') or 'no message'}"
    else:
        text = str(error)
    return text[:ERROR_CHARACTERS]


def translate(error: ClientError | BotoCoreError, what: str) -> StorageRefused | Unavailable:
    """Translates an AWS error into ``StorageRefused`` or ``Unavailable``. The error message starts with ``what``."""
    text = f"{what}: {describe(error)}"
    return StorageRefused(text) if isinstance(error, ClientError) and not is_transient(error) else Unavailable(text)
