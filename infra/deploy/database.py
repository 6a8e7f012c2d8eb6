"""A stage's MySQL: which one it is, and how its functions get there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The functions that talk to MySQL, and so the only ones that may read its secret.
FUNCTIONS = ("read_inventory", "receive_upload")


@dataclass(frozen=True)
class Place:
    """Where MySQL is: ``secret`` is the ARN of the secret that says how it is reached."""

    secret: str

    @classmethod
    def given(cls, environment: Mapping[str, str]) -> Place | None:
        """The database that DB_SECRET_ARN names."""
        secret = environment.get("DB_SECRET_ARN")
        return cls(secret) if secret else None

    @property
    def parameters(self) -> dict[str, str]:
        """Those of the resources template."""
        return {"DbSecretArn": self.secret}

    def configuration(self, function: str) -> dict[str, Any]:
        """What Chalice has to know of it for ``function``."""
        if function not in FUNCTIONS:
            return {}
        return {"environment_variables": {"DB_SECRET_ARN": self.secret}}
