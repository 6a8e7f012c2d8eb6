"""Tests deploys that change only the code."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from chalice import Chalice

from infra.deploy import code, triggers
from infra.deploy.target import Target

CONFIG: dict[str, Any] = {
    "lambda_timeout": 30,
    "stages": {"dev": {"environment_variables": {"TABLE": "t", "CAFE_BUILD": "1"}, "lambda_functions": {"a": {}}}},
}


def changed(*path: str, to: str) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    place = config
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = to
    return config


def test_only_the_build_may_differ() -> None:
    variables = ("stages", "dev", "environment_variables")
    assert code.is_only_change(changed(*variables, "CAFE_BUILD", to="2"), CONFIG)
    assert not code.is_only_change(changed(*variables, "TABLE", to="2"), CONFIG)
    assert not code.is_only_change(changed("lambda_timeout", to="31"), CONFIG)


def test_the_new_code_comes_with_its_processor() -> None:
    """Otherwise ``migrate``, which is updated before the other functions, could not load its compiled modules."""
    lambda_ = Mock()
    config = changed("stages", "dev", "lambda_architecture", to="arm64")
    code.update_function(lambda_, Target("dev", Path(), False, {}, None), config, "a", {"S3Key": "key"})
    assert lambda_.update_function_code.call_args.kwargs["Architectures"] == ["arm64"]
    assert not code.is_only_change(config, CONFIG)


def app(path: str = "/orders", text: str = "hello", queue: str = "orders", **options: Any) -> Chalice:
    app = Chalice("cafe")

    @app.route(path, **options)
    def orders() -> str:
        return text

    @app.on_sqs_message(queue)
    def store_orders(event: object) -> None:
        print(text)

    return app


def test_a_description_changes_with_the_decorators_and_not_with_the_code() -> None:
    described = triggers.describe(app())
    assert triggers.describe(app(text="goodbye")) == described
    for other in (app("/order"), app(queue="other"), app(methods=["POST"]), app(api_key_required=True)):
        assert triggers.describe(other) != described


def test_code_that_cannot_be_imported_stops_the_deploy_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(triggers.DeployError, match=r"app\.py cannot be imported:\n[\s\S]*nothing_of_this_name"):
        triggers.read(tmp_path, {})
