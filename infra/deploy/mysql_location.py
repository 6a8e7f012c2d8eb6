"""The location of a stage's MySQL: its secrets and its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.functions import MYSQL_ADMINISTRATORS, MYSQL_USERS


@dataclass(frozen=True)
class MysqlLocation:
    """The ARNs of MySQL's secrets, and the network that reaches it. Without subnets it is reachable from everywhere."""

    secret: str
    admin_secret: str = ""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> MysqlLocation | None:
        """Returns the location in DB_SECRET_ARN, DB_ADMIN_SECRET_ARN, SUBNET_IDS and SECURITY_GROUP_IDS.

        Raises ``ValueError`` if they contradict each other, and returns None if there are none.
        """
        names = ("DB_SECRET_ARN", "DB_ADMIN_SECRET_ARN", "SUBNET_IDS", "SECURITY_GROUP_IDS")
        secret, admin_secret, subnets, security_groups = (variables.get(name, "").strip() for name in names)
        if not secret:
            if alone := [name for name in names if variables.get(name)]:
                raise ValueError(f"{', '.join(alone)}: set DB_SECRET_ARN, the secret of a database, as well")
            return None
        if bool(subnets) != bool(security_groups):
            raise ValueError("SUBNET_IDS and SECURITY_GROUP_IDS: set both or neither")
        return cls(secret, admin_secret, _ids(subnets), _ids(security_groups))

    @property
    def parameters(self) -> dict[str, str]:
        """All parameters of ``resources.yaml`` about MySQL, so that none of a previous database remains."""
        return {
            "DbSecretArn": self.secret,
            "DbAdminSecretArn": self.admin_secret,
            "DbInVpc": str(bool(self.subnets)).lower(),
        }

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables with the secrets' ARNs."""
        return {
            "DB_SECRET_ARN": self.secret,
            **({"DB_ADMIN_SECRET_ARN": self.admin_secret} if self.admin_secret else {}),
        }

    def configuration(self, function: str) -> dict[str, Any]:
        """Returns Chalice's configuration of ``function`` for this database."""
        if function not in MYSQL_USERS:
            return {}
        variables = self.variables if function in MYSQL_ADMINISTRATORS else {"DB_SECRET_ARN": self.secret}
        network = {"subnet_ids": list(self.subnets), "security_group_ids": list(self.security_groups)}
        return {"environment_variables": variables, **(network if self.subnets else {})}


def _ids(text: str) -> tuple[str, ...]:
    # The order does not matter to AWS, and must not look like a change.
    return tuple(sorted(text.replace(",", " ").split()))
