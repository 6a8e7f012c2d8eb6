"""A stage that can be deployed and rolled back."""

from __future__ import annotations

from dataclasses import dataclass

from infra.deploy import rollback
from infra.deploy.context import Context
from infra.deploy.deployment import STEPS, Deployment
from infra.deploy.target import FAILURES, DeployError


@dataclass(frozen=True)
class Stage(Context):
    def deploy(self) -> dict[str, str]:
        """Deploys this checkout and returns the stage's outputs. If a step fails, restores the previous release."""
        deployment = Deployment(self)
        try:
            for step in STEPS:
                step.run(deployment)
            return deployment.keep_release()
        except FAILURES as error:
            if not deployment.begun:
                raise
            recovery = rollback.recover(self, deployment.releases, deployment.state)
            raise DeployError(f"{error}\n{recovery}") from error

    def rollback(self) -> dict[str, str]:
        """Restores the previous release and returns its outputs."""
        return rollback.roll_back(self)
