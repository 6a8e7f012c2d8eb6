"""Reads the environment variables that ``infra/deploy`` sets from the outputs of the resources stack."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from chalicelib.errors import DatabaseRefused, MissingSettings

VERSION = "0.2.0"
DOLLAR = "$"
LOW_STOCK = 20
# A cold start creates about 100,000 objects and hardly any garbage. Looking for garbage would take a tenth of its time.
GARBAGE_THRESHOLD = 200_000


@dataclass(frozen=True)
class Database:
    """The address of the inventory database, with a user name and a password."""

    host: str
    port: int
    name: str
    user: str
    password: str

    @classmethod
    def of_secret(cls, text: str) -> Database:
        """Parses the JSON of an RDS secret. Error messages never contain values from the secret."""
        host, port, name, user, password = _of_json(text, "host", "port", "dbname", "username", "password")
        if not port.isdecimal():
            raise DatabaseRefused("the port in the MySQL secret is not a number")
        return cls(host, int(port), name, user, password)

    def logged_in(self, text: str) -> Database:
        """Returns the same database with the login from another secret, such as the administrator secret from RDS."""
        user, password = _of_json(text, "username", "password")
        return replace(self, user=user, password=password)


def _of_json(text: str, *names: str) -> list[str]:
    try:
        content = json.loads(text)
    except ValueError:
        raise DatabaseRefused("the MySQL secret is not JSON") from None
    missing = [name for name in names if not (isinstance(content, dict) and content.get(name))]
    if missing:
        raise DatabaseRefused(f"the MySQL secret has no {', '.join(missing)}")
    return [str(content[name]) for name in names]


def database_secret(environment: Mapping[str, str] = os.environ) -> str:
    """Returns the ARN of the secret that contains the MySQL address and login.

    Raises ``MissingSettings`` in Lambda functions that do not use MySQL.
    """
    [arn] = _require(["DB_SECRET_ARN"], environment)
    return arn


def database_admin_secret(environment: Mapping[str, str] = os.environ) -> str | None:
    """Returns the ARN of the secret for the MySQL administrator, or None.

    Only the functions ``migrate`` and ``rotate_password`` have this ARN in their environment.
    """
    return environment.get("DB_ADMIN_SECRET_ARN")


@dataclass(frozen=True)
class Settings:
    """The names and ARNs of the resources of a stage.

    Each field has an environment variable with the same name in capitals.

    ``orders_since`` is the day on which the orders table was created, as ``YYYY-MM-DD``. The list of orders goes back
    to ``orders_since``.
    """

    cafe_stage: str
    orders_queue_url: str
    orders_queue_arn: str
    orders_dead_letter_url: str
    retries_queue_url: str
    retries_queue_arn: str
    failures_queue_url: str
    orders_table: str
    orders_stream_arn: str
    orders_since: str
    notifications_table: str
    requests_table: str
    uploads_table: str
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
        """Reads the settings from the environment.

        Raises ``MissingSettings`` if environment variables are missing or empty.
        """
        return cls(*_require([field.name.upper() for field in fields(cls)], environment))

    @property
    def issuer(self) -> str:
        """The issuer URL in tokens from the user pool."""
        return f"https://cognito-idp.{self.user_pool_id.partition('_')[0]}.amazonaws.com/{self.user_pool_id}"


def cognito_endpoint(settings: Settings, environment: Mapping[str, str] = os.environ) -> str:
    """Returns AWS_ENDPOINT_URL if the variable is set, and otherwise the Cognito URL from the token issuer."""
    return environment.get("AWS_ENDPOINT_URL") or settings.issuer.rpartition("/")[0]


def has_own_endpoint(environment: Mapping[str, str] = os.environ) -> bool:
    """Returns True if AWS_ENDPOINT_URL replaces AWS's own addresses, as it does on the local cloud."""
    return bool(environment.get("AWS_ENDPOINT_URL"))


def uploads_url(settings: Settings, environment: Mapping[str, str] = os.environ) -> str:
    """Returns the URL of the uploads bucket, to which upload links point."""
    if endpoint := environment.get("AWS_ENDPOINT_URL"):
        return f"{endpoint}/{settings.uploads_bucket}"
    region = settings.user_pool_id.partition("_")[0]
    # In us-east-1, the oldest region, the URL of a bucket does not include the region.
    return f"https://{settings.uploads_bucket}.{'s3' if region == 'us-east-1' else f's3.{region}'}.amazonaws.com/"


def trace_path(environment: Mapping[str, str] = os.environ) -> str:
    """Returns the path of the trace page on the local API server, or an empty string on AWS."""
    return environment.get("CAFE_TRACE_PATH", "")


def first_retry_seconds(environment: Mapping[str, str] = os.environ) -> float:
    """Returns the delay in seconds before the first retry of a failed message. Tests use a fraction of a second."""
    return float(environment.get("FIRST_RETRY_SECONDS") or 1)


def longest_retry_seconds(environment: Mapping[str, str] = os.environ) -> float:
    """Returns the maximum number of seconds between two tries of a failed message."""
    return float(environment.get("LONGEST_RETRY_SECONDS") or 300)


def currency(environment: Mapping[str, str] = os.environ) -> str:
    """Returns the café's currency sign, which prices in the inventory may have."""
    return environment.get("CURRENCY") or DOLLAR


def low_stock(environment: Mapping[str, str] = os.environ) -> int:
    """Returns the largest quantity of a bean that is low in stock."""
    return int(environment.get("LOW_STOCK") or LOW_STOCK)


def stage(environment: Mapping[str, str] = os.environ) -> str:
    """Returns the stage name for metrics, or ``none`` if no stage is set, for example in a test."""
    return environment.get("CAFE_STAGE") or "none"


def _require(names: list[str], environment: Mapping[str, str]) -> list[str]:
    missing = [name for name in names if not environment.get(name)]
    if missing:
        raise MissingSettings(missing)
    return [environment[name] for name in names]
