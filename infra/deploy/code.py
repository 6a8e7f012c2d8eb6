"""Deploys a change that affects only the code. All functions are updated to the same package, without Chalice."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from infra.deploy.project import RUNTIME, architecture
from infra.deploy.target import Clients, Target

# Lambda limits the number of function updates per second.
SIMULTANEOUS = 5


def update(target: Target, config: Mapping[str, Any], package: Mapping[str, str], clients: Clients) -> None:
    """Updates all functions to ``package`` except ``migrate``, which the deploy has already updated."""
    lambda_, names = clients("lambda"), config["stages"][target.stage]["lambda_functions"].keys() - {"migrate"}
    with ThreadPoolExecutor(SIMULTANEOUS) as pool:
        list(pool.map(lambda name: update_function(lambda_, target, config, name, package), names))


def update_function(
    lambda_: Any, target: Target, config: Mapping[str, Any], name: str, package: Mapping[str, str]
) -> None:
    """Updates a function's environment variables and code.

    ``package`` is the location of the new code in S3, as ``{"S3Bucket": name, "S3Key": key}``.
    """
    function, stage = target.function(name), config["stages"][target.stage]
    own = stage["lambda_functions"][name].get("environment_variables", {})
    configured = lambda_.update_function_configuration(
        FunctionName=function, Runtime=RUNTIME, Environment={"Variables": stage["environment_variables"] | own}
    )
    _wait(lambda_, function, configured)
    # `migrate` gets its new package here even if the processor changes.
    processor = {"Architectures": [architecture(config)]}
    _wait(lambda_, function, lambda_.update_function_code(FunctionName=function, **processor, **package))


def _wait(lambda_: Any, function: str, answer: Mapping[str, Any]) -> None:
    """Waits for the end of an update, unless the response to the update already reports its end."""
    if answer.get("LastUpdateStatus") != "Successful":
        lambda_.get_waiter("function_updated_v2").wait(FunctionName=function)


def is_only_change(config: Mapping[str, Any], serving: Mapping[str, Any]) -> bool:
    """Returns whether two Chalice configurations are equal except for the variable CAFE_BUILD."""
    return _without_build(config) == _without_build(serving)


def _without_build(config: Mapping[str, Any]) -> dict[str, Any]:
    stages = {
        name: {**stage, "environment_variables": {**stage["environment_variables"], "CAFE_BUILD": ""}}
        for name, stage in config["stages"].items()
    }
    return {**config, "stages": stages}
