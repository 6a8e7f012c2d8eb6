"""Rotates the database password that the Lambda functions use.

Secrets Manager calls ``rotate`` for each of the four steps of a rotation. The secret alternates between the logins of
two database users. Each rotation sets a new password for the inactive user, and then writes the name and password of
that user to the secret. A function that read the secret before a rotation can still connect until the next rotation.
The password in the secret always works.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from chalicelib import clients
from chalicelib.database import grant_access
from chalicelib.errors import aws_errors
from chalicelib.logs import logger
from chalicelib.settings import Database

CLONE = "_clone"

log = logger("rotation")


def rotate(event: dict[str, Any], manager: Any, secret: str, admin_secret: str) -> None:
    """Performs one step of a password rotation. Secrets Manager may repeat a step.

    ``manager`` is a Secrets Manager client. If ``rotate`` raises ``Unavailable`` or ``DatabaseRefused``, Secrets
    Manager retries the step.
    """
    if event["SecretId"] != secret:
        raise ValueError(f"this function can rotate only {secret}")
    step, version = event["Step"], event["ClientRequestToken"]
    steps: dict[str, Callable[[], None]] = {
        "createSecret": lambda: _create(manager, secret, version),
        "setSecret": lambda: _set(_pending(manager, secret, version), admin_secret),
        "testSecret": lambda: _test(_pending(manager, secret, version)),
        "finishSecret": lambda: _finish(manager, secret, version),
    }
    with aws_errors():
        steps[step]()
    log.info("rotation step done", extra={"step": step, "version": version})


def _create(manager: Any, secret: str, version: str) -> None:
    try:
        manager.get_secret_value(SecretId=secret, VersionId=version, VersionStage="AWSPENDING")
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
    else:
        return
    current = json.loads(manager.get_secret_value(SecretId=secret)["SecretString"])
    new = {**current, "username": _other_user(current["username"]), "password": secrets.token_urlsafe(32)}
    manager.put_secret_value(
        SecretId=secret, ClientRequestToken=version, SecretString=json.dumps(new), VersionStages=["AWSPENDING"]
    )


def _other_user(user: str) -> str:
    return user.removesuffix(CLONE) if user.endswith(CLONE) else user + CLONE


def _pending(manager: Any, secret: str, version: str) -> Database:
    found = manager.get_secret_value(SecretId=secret, VersionId=version, VersionStage="AWSPENDING")
    return Database.of_secret(found["SecretString"])


def _set(database: Database, admin_secret: str) -> None:
    with clients.mysql(database.logged_in(clients.read_secret(admin_secret))) as connection:
        grant_access(connection, database)


def _test(database: Database) -> None:
    with clients.mysql(database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM suppliers, beans, uploads LIMIT 1")


def _finish(manager: Any, secret: str, version: str) -> None:
    stages = manager.describe_secret(SecretId=secret)["VersionIdsToStages"]
    [current] = [each for each, labels in stages.items() if "AWSCURRENT" in labels]
    if current != version:
        manager.update_secret_version_stage(
            SecretId=secret, VersionStage="AWSCURRENT", MoveToVersionId=version, RemoveFromVersionId=current
        )
