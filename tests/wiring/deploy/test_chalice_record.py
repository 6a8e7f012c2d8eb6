"""Tests how Chalice's record of a stage is rebuilt from the account.

A test in tests/system/test_deploy.py compares the rebuilt record with Chalice's own record.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from infra.deploy import chalice_record
from infra.deploy.target import DeployError, Target


def function(name: str, stage: str | None) -> dict[str, Any]:
    variables = {"CAFE_STAGE": stage} if stage else {}
    return {"FunctionName": name, "FunctionArn": f"arn:{name}", "Environment": {"Variables": variables}}


class Account:
    """Fakes an account with functions and REST APIs, some of which belong to other stages or owners."""

    def __init__(self, *functions: dict[str, Any]) -> None:
        self.functions = list(functions)
        # Maps the id of each API to its name, the function that its only route calls, and its stages.
        self.apis: dict[str, tuple[str, str, list[str]]] = {}

    def client(self, _service: str) -> Any:
        return self

    def get_paginator(self, operation: str) -> Any:
        pages = {
            "list_functions": [{"Functions": [each]} for each in self.functions],
            "get_rest_apis": [{"items": [{"id": api, "name": name}]} for api, (name, *_) in self.apis.items()],
        }
        return SimpleNamespace(paginate=lambda: pages[operation])

    def get_resources(self, restApiId: str, embed: list[str], limit: int) -> dict[str, Any]:  # noqa: N803
        # API Gateway returns 25 resources per call by default, and at most 500.
        assert limit == 500
        function = self.apis[restApiId][1]
        uri = f"arn:aws:apigateway:x:lambda:path/functions/arn:aws:lambda:x:1:function:{function}/invocations"
        return {"items": [{"id": "root"}, {"id": "a", "resourceMethods": {"GET": {"methodIntegration": {"uri": uri}}}}]}

    def get_stages(self, restApiId: str) -> dict[str, Any]:  # noqa: N803
        return {"item": [{"stageName": each} for each in self.apis[restApiId][2]]}


def test_the_api_of_a_stage_is_the_one_that_calls_its_function(target: Target) -> None:
    account = Account()
    account.apis = {
        "other-stage": ("cafe-test-2", "cafe-test-2", ["api"]),
        "cut-off": ("cafe-test", "cafe-test", []),
        "answers": ("cafe-test", "cafe-test", ["api"]),
        "other-app": ("cafe-test", "bar", ["api"]),
        "0.1.0": ("cafe", "cafe-test", ["api"]),
        "0.1.0-of-another-stage": ("cafe", "cafe-test-2", ["api"]),
    }
    # The API that people use must come first.
    assert chalice_record.rest_apis(target, account.client) == ["answers", "0.1.0", "cut-off"]


def test_a_record_is_read_as_it_was_written_and_two_resources_of_one_name_are_an_error(target: Target) -> None:
    twice = [{"name": "store_orders-sqs-event-source"}, {"name": "store_orders"}] * 2
    with pytest.raises(DeployError, match="delete the duplicates: store_orders, store_orders-sqs-event-source"):
        chalice_record.write(target.project, "test", twice)
    assert chalice_record.read(target.project, "test") == []
    written = [{"name": "rest_api", "resource_type": "rest_api", "rest_api_id": "abc"}]
    chalice_record.write(target.project, "test", written)
    assert chalice_record.read(target.project, "test") == written


def test_mappings_that_lambda_is_deleting_are_listed_separately() -> None:
    found = {"store_orders": function("cafe-test-store_orders", "test")}
    mappings = [
        {"UUID": "1", "FunctionArn": "arn:cafe-test-store_orders", "State": "Enabled"},
        {"UUID": "2", "FunctionArn": "arn:cafe-test-store_orders", "State": "Deleting"},
        {"UUID": "3", "FunctionArn": "arn:cafe-test-2-store_orders", "State": "Enabled"},
    ]
    pages = SimpleNamespace(paginate=lambda: [{"EventSourceMappings": mappings}])
    lambda_ = SimpleNamespace(get_paginator=lambda _: pages)
    assert [each["UUID"] for _, each in chalice_record.mappings(found, lambda _: lambda_)] == ["1"]
    assert [each["UUID"] for _, each in chalice_record.mappings(found, lambda _: lambda_, deleting=True)] == ["2"]
