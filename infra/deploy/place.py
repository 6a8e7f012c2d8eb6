"""Where a stage's MySQL is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.functions import MYSQL_ADMINISTRATORS, MYSQL_USERS


@dataclass(frozen=True)
class Place:
    """Where MySQL is: the ARNs of its secrets, and the network from which it can be reached, if not from everywhere."""

    secret: str
    admin_secret: str = ""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()

    @classmethod
    def given(cls, environment: Mapping[str, str]) -> Place | None:
        """The database that DB_SECRET_ARN names, with DB_ADMIN_SECRET_ARN, SUBNET_IDS and SECURITY_GROUP_IDS.

        Raises ``ValueError`` where these make no sense.
        """
        names = ("DB_SECRET_ARN", "DB_ADMIN_SECRET_ARN", "SUBNET_IDS", "SECURITY_GROUP_IDS")
        secret, admin_secret, subnets, security_groups = (environment.get(name, "").strip() for name in names)
        if not secret:
            if alone := [name for name in names if environment.get(name)]:
                raise ValueError(f"{', '.join(alone)}: of no use without DB_SECRET_ARN, the secret of a database")
            return None
        if bool(subnets) != bool(security_groups):
            raise ValueError("SUBNET_IDS and SECURITY_GROUP_IDS: both of them, or neither")
        return cls(secret, admin_secret, _ids(subnets), _ids(security_groups))

    @property
    def parameters(self) -> dict[str, str]:
        """Those of the resources template, all of them: what was set for another database does not stay."""
        return {
            "DbSecretArn": self.secret,
            "DbAdminSecretArn": self.admin_secret,
            "DbInVpc": str(bool(self.subnets)).lower(),
        }

    @property
    def variables(self) -> dict[str, str]:
        """Those of the environment that name its secrets."""
        return {
            "DB_SECRET_ARN": self.secret,
            **({"DB_ADMIN_SECRET_ARN": self.admin_secret} if self.admin_secret else {}),
        }

    def configuration(self, function: str) -> dict[str, Any]:
        """What Chalice has to know of it for ``function``."""
        if function not in MYSQL_USERS:
            return {}
        variables = self.variables if function in MYSQL_ADMINISTRATORS else {"DB_SECRET_ARN": self.secret}
        network = {"subnet_ids": list(self.subnets), "security_group_ids": list(self.security_groups)}
        return {"environment_variables": variables, **(network if self.subnets else {})}


def _ids(text: str) -> tuple[str, ...]:
    # AWS tells them in any order.
    return tuple(sorted(text.replace(",", " ").split()))
