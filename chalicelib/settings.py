"""Every environment variable that the code reads; ``infra/deploy`` writes them from the resources stack."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from chalicelib.errors import DatabaseRefused, MissingSettings

VERSION = "0.2.0"


@dataclass(frozen=True)
class Database:
    """Where the inventory is, and as whom it is read."""

    host: str
    port: int
    name: str
    user: str
    password: str

    @classmethod
    def of_secret(cls, text: str) -> Database:
        """From a secret's JSON, with RDS's own names. Raises ``DatabaseRefused``, which has no word of it."""
        host, port, name, user, password = _of_json(text, "host", "port", "dbname", "username", "password")
        if not port.isdecimal():
            raise DatabaseRefused("the port in MySQL's secret is no number")
        return cls(host, int(port), name, user, password)

    def logged_in(self, text: str) -> Database:
        """The same, as the user of another secret, which may say nothing else, as RDS's own of an administrator."""
        user, password = _of_json(text, "username", "password")
        return replace(self, user=user, password=password)


def _of_json(text: str, *names: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        raise DatabaseRefused("MySQL's secret is no JSON") from None
    lacking = [name for name in names if not (isinstance(found, dict) and found.get(name))]
    if lacking:
        raise DatabaseRefused(f"MySQL's secret has no {', '.join(lacking)}")
    return [str(found[name]) for name in names]


def database_secret(environment: Mapping[str, str] = os.environ) -> str:
    """The ARN of the secret that says how MySQL is reached. Only the functions that talk to MySQL have it.

    Raises ``MissingSettings``.
    """
    [arn] = _require(["DB_SECRET_ARN"], environment)
    return arn


def database_admin_secret(environment: Mapping[str, str] = os.environ) -> str | None:
    """The ARN of the secret that has MySQL's administrator; only the functions that look after MySQL itself have it."""
    return environment.get("DB_ADMIN_SECRET_ARN")


@dataclass(frozen=True)
class Settings:
    """Names and ARNs of the resources, each from the environment variable of the same name in capitals.

    ``orders_since`` is the day the orders table was made, as ``YYYY-MM-DD``: no list looks back further.
    """

    cafe_stage: str
    orders_queue_url: str
    orders_queue_arn: str
    orders_dead_letter_url: str
    failures_queue_url: str
    orders_table: str
    orders_stream_arn: str
    orders_since: str
    notifications_table: str
    requests_table: str
    topic_arn: str
    alarms_topic_arn: str
    reports_bucket: str
    uploads_bucket: str
    inventory_report_arn: str
    storage_report_arn: str
    user_pool_id: str
    user_pool_client_id: str

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises ``MissingSettings`` with the names of all that is missing or empty."""
        return cls(*_require([field.name.upper() for field in fields(cls)], environment))

    @property
    def issuer(self) -> str:
        """Of the user pool's tokens."""
        return f"https://cognito-idp.{self.user_pool_id.partition('_')[0]}.amazonaws.com/{self.user_pool_id}"


def cognito_endpoint(settings: Settings, environment: Mapping[str, str] = os.environ) -> str:
    """Where the user pool is: beside all else of AWS where AWS_ENDPOINT_URL is set, else where its issuer is."""
    return environment.get("AWS_ENDPOINT_URL") or settings.issuer.rpartition("/")[0]


def uploads_url(settings: Settings, environment: Mapping[str, str] = os.environ) -> str:
    """The uploads bucket's address, as botocore has it in its links."""
    if endpoint := environment.get("AWS_ENDPOINT_URL"):
        return f"{endpoint}/{settings.uploads_bucket}"
    region = settings.user_pool_id.partition("_")[0]
    # The buckets of the first region have kept the name of before there were others.
    return f"https://{settings.uploads_bucket}.{'s3' if region == 'us-east-1' else f's3.{region}'}.amazonaws.com/"


def first_retry_seconds(environment: Mapping[str, str] = os.environ) -> int:
    """Seconds until a failed order comes back; each later delay is twice as long. Stacks for tests set 0."""
    return int(environment.get("ORDERS_RETRY_SECONDS") or 1)


def stage(environment: Mapping[str, str] = os.environ) -> str:
    """The stage's name alone, for metrics; a module that is used without the app, as by a test, has none."""
    return environment.get("CAFE_STAGE") or "none"


def _require(names: list[str], environment: Mapping[str, str]) -> list[str]:
    missing = [name for name in names if not environment.get(name)]
    if missing:
        raise MissingSettings(missing)
    return [environment[name] for name in names]
