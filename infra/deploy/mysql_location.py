"""Describes where a stage's MySQL database is: its secrets and its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.functions import MYSQL_ADMINISTRATORS, MYSQL_USERS


@dataclass(frozen=True)
class MysqlLocation:
    """The secrets and the network of a MySQL database. Without subnets, the functions run outside a VPC."""

    secret: str
    admin_secret: str = ""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> MysqlLocation | None:
        """Reads the location from DB_SECRET_ARN, DB_ADMIN_SECRET_ARN, SUBNET_IDS and SECURITY_GROUP_IDS.

        Returns None if all of the variables are empty. Raises ``ValueError`` if only some required variables are set.
        """
        names = ("DB_SECRET_ARN", "DB_ADMIN_SECRET_ARN", "SUBNET_IDS", "SECURITY_GROUP_IDS")
        secret, admin_secret, subnets, security_groups = (variables.get(name, "").strip() for name in names)
        if not secret:
            if alone := [name for name in names if variables.get(name)]:
                raise ValueError(f"{', '.join(alone)}: DB_SECRET_ARN must also be set")
            return None
        if bool(subnets) != bool(security_groups):
            raise ValueError("set both SUBNET_IDS and SECURITY_GROUP_IDS, or neither of them")
        return cls(secret, admin_secret, _ids(subnets), _ids(security_groups))

    @property
    def parameters(self) -> dict[str, str]:
        """Returns all MySQL parameters for the template ``resources.yaml``.

        An omitted parameter would keep its previous value.
        """
        return {
            "DbSecretArn": self.secret,
            "DbAdminSecretArn": self.admin_secret,
            "DbInVpc": str(bool(self.subnets)).lower(),
        }

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that contain the ARNs of the secrets."""
        return {
            "DB_SECRET_ARN": self.secret,
            **({"DB_ADMIN_SECRET_ARN": self.admin_secret} if self.admin_secret else {}),
        }

    def configuration(self, function: str) -> dict[str, Any]:
        """Returns the Chalice configuration that lets ``function`` use this database."""
        if function not in MYSQL_USERS:
            return {}
        variables = self.variables if function in MYSQL_ADMINISTRATORS else {"DB_SECRET_ARN": self.secret}
        network = {"subnet_ids": list(self.subnets), "security_group_ids": list(self.security_groups)}
        return {"environment_variables": variables, **(network if self.subnets else {})}


def _ids(text: str) -> tuple[str, ...]:
    # AWS ignores the order of subnet ids and security group ids, so a different order is not a change.
    return tuple(sorted(text.replace(",", " ").split()))
