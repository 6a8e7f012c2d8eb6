"""Deploys a change of code alone: updates all functions to the same package in parallel, without Chalice."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from infra.deploy.project import RUNTIME
from infra.deploy.target import Clients, Target

# Lambda limits the number of function updates per second.
SIMULTANEOUS = 5


def update(target: Target, config: Mapping[str, Any], package: Mapping[str, str], clients: Clients) -> None:
    """Updates the functions to ``package``, which is ``{"S3Bucket": name, "S3Key": key}``.

    Only the variable that identifies the build changes in their configuration.
    """
    lambda_ = clients("lambda")
    [stage] = config["stages"].values()

    def update_function(name: str) -> None:
        function = target.function(name)
        variables = {
            **stage["environment_variables"],
            **stage["lambda_functions"][name].get("environment_variables", {}),
        }
        lambda_.update_function_configuration(
            FunctionName=function, Runtime=RUNTIME, Environment={"Variables": variables}
        )
        lambda_.get_waiter("function_updated_v2").wait(FunctionName=function)
        lambda_.update_function_code(FunctionName=function, **package)
        lambda_.get_waiter("function_updated_v2").wait(FunctionName=function)

    with ThreadPoolExecutor(SIMULTANEOUS) as pool:
        list(pool.map(update_function, stage["lambda_functions"]))


def is_only_change(config: Mapping[str, Any], serving: Mapping[str, Any]) -> bool:
    """Returns whether two configurations differ only in the build."""
    return _without_build(config) == _without_build(serving)


def _without_build(config: Mapping[str, Any]) -> dict[str, Any]:
    stages = {
        name: {**stage, "environment_variables": {**stage["environment_variables"], "CAFE_BUILD": ""}}
        for name, stage in config["stages"].items()
    }
    return {**config, "stages": stages}
