"""What Chalice cannot set, the check, and whether anything has to be deployed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from infra.deploy import project, record, wiring
from infra.deploy.target import Say, Target
from tests.wiring.fakes import DEPLOYED, OUTPUTS, Account


@pytest.fixture
def config(target: Target) -> dict[str, Any]:
    return project.configure(target, OUTPUTS, "2026-11-21", 10)


@pytest.fixture
def account(target: Target, config: dict[str, Any], said: list[str]) -> Account:
    """Everything deployed and completed."""
    account = Account(target, config["stages"]["test"])
    complete(target, account, said.append)
    return account


def complete(target: Target, account: Account, say: Say = print) -> None:
    wiring.complete(target, wiring.wanted(target, DEPLOYED), account.client, say)


@pytest.fixture
def check(account: Account, target: Target, config: dict[str, Any]) -> Callable[[], list[str]]:
    return lambda: wiring.check(target, config, wiring.wanted(target, DEPLOYED), account.client)


def test_a_whole_deploy_passes_the_check(check: Callable[[], list[str]]) -> None:
    assert check() == []


def test_completing_sets_what_chalice_cannot(account: Account) -> None:
    lambda_ = account.lambda_
    [queue] = lambda_.mappings["cafe-test-store_orders"]
    assert queue["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    [stream] = lambda_.mappings["cafe-test-announce_orders"]
    assert stream["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert stream["BisectBatchOnFunctionError"] is True
    assert 0 < stream["MaximumRetryAttempts"] <= 10_000
    # A day later the stream has forgotten what the failure destination points at.
    assert 0 < stream["MaximumRecordAgeInSeconds"] < 24 * 3600
    assert stream["DestinationConfig"] == {"OnFailure": {"Destination": OUTPUTS["FAILURES_QUEUE_ARN"]}}
    assert lambda_.invocations.keys() == {
        "cafe-test-receive_upload",
        "cafe-test-record_notification",
        "cafe-test-record_alarm",
        # Where a person puts a dead letter back.
        "cafe-test-announce_orders",
    }
    for invocation in lambda_.invocations.values():
        assert invocation["DestinationConfig"] == {"OnFailure": {"Destination": OUTPUTS["FAILURES_QUEUE_ARN"]}}


def test_completing_gives_the_functions_subscriptions_a_queue_for_failures_and_leaves_those_of_people(
    account: Account,
) -> None:
    topics = {OUTPUTS["TOPIC_ARN"]: "record_notification", OUTPUTS["ALARMS_TOPIC_ARN"]: "record_alarm"}
    assert {name: json.loads(policy) for name, policy in account.redrive_policies.items()} == {
        f"{topic}:arn:cafe-test-{function}": {"deadLetterTargetArn": OUTPUTS["FAILURES_QUEUE_ARN"]}
        for topic, function in topics.items()
    }


def test_completing_opens_the_uploads_bucket_to_the_consoles_page_and_to_no_other(
    account: Account, target: Target
) -> None:
    [rule] = account.cors
    assert rule["AllowedOrigins"] == ["https://abc.execute-api.eu-central-1.amazonaws.com"]
    assert rule["AllowedMethods"] == ["POST"]
    assert "AllowedHeaders" not in rule
    elsewhere = replace(target, origins=("http://127.0.0.1:8000",))
    complete(elsewhere, account)
    [rule] = account.cors
    assert rule["AllowedOrigins"] == ["http://127.0.0.1:8000", "https://abc.execute-api.eu-central-1.amazonaws.com"]


def test_completing_limits_how_many_requests_the_api_answers_and_has_each_of_them_logged(account: Account) -> None:
    assert account.api["methodSettings"] == {"*/*": {"throttlingRateLimit": 100.0, "throttlingBurstLimit": 200}}
    access_log = account.api["accessLogSettings"]
    assert access_log["destinationArn"].endswith(":log-group:/aws/apigateway/cafe-test-access")
    line = json.loads(access_log["format"])
    # API Gateway wants it, and `make trace` follows it.
    assert line["requestId"] == "$context.requestId"
    # What a client sends comes in none of these, but for its path's route: nobody forges a line.
    assert not [each for each in line.values() if re.search("header|userAgent|context.path|query", each)]


def test_where_api_gateway_may_write_no_logs_all_else_is_set_and_the_account_is_left_as_it_is(
    target: Target, config: dict[str, Any], said: list[str]
) -> None:
    account = Account(target, config["stages"]["test"])
    account.gateway = {}
    complete(target, account, said.append)
    assert "API: limits of its requests set" in said
    assert "accessLogSettings" not in account.api
    assert account.gateway == {}
    assert wiring.check(target, config, wiring.wanted(target, DEPLOYED), account.client) == []
    # From the day on which it may.
    account.gateway = {"cloudwatchRoleArn": "arn:aws:iam::123456789012:role/logs"}
    complete(target, account, said.append)
    assert said[-1] == "API: access log set"


STAGE_ARN = "arn:aws:apigateway:eu-central-1::/restapis/abc/stages/api"
ACL = "arn:aws:wafv2:eu-central-1:123456789012:regional/webacl/cafe-test-api/1"


def test_a_web_acl_is_put_in_front_of_the_api_where_there_is_one(account: Account, target: Target) -> None:
    assert account.web_acls == {}
    asked = wiring.wanted(target, {**DEPLOYED, "API_WEB_ACL_ARN": ACL})
    wiring.complete(target, asked, account.client, print)
    assert account.web_acls == {STAGE_ARN: ACL}


@pytest.mark.parametrize(("there", "left"), [(ACL, {}), ("arn:of-somebody-else", {STAGE_ARN: "arn:of-somebody-else"})])
def test_its_own_web_acl_is_taken_away_and_no_other(
    there: str, left: dict[str, str], account: Account, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "rest_apis", lambda *_: ["abc"])
    account.web_acls = {STAGE_ARN: there}
    wiring.take_away(ACL, target, account.client, print)
    assert account.web_acls == left


def test_a_web_acl_that_somebody_took_away_is_missed(account: Account, target: Target, config: dict[str, Any]) -> None:
    asked = wiring.wanted(target, {**DEPLOYED, "API_WEB_ACL_ARN": ACL})
    assert wiring.check(target, config, asked, account.client) == ["API: the web ACL in front of it is None"]


def test_completing_a_second_time_changes_nothing(account: Account, target: Target, said: list[str]) -> None:
    before, lines = account.lambda_.changes, list(said)
    complete(target, account, said.append)
    assert account.lambda_.changes == before
    assert said == lines


def test_completing_sets_again_what_somebody_changed(
    account: Account, target: Target, check: Callable[[], list[str]]
) -> None:
    account.lambda_.mappings["cafe-test-store_orders"][0]["FunctionResponseTypes"] = []
    complete(target, account)
    assert check() == []


def _other(name: str, value: Any) -> Callable[[Account], None]:
    def damage(account: Account) -> None:
        account.lambda_.functions["cafe-test-read_inventory"][name] = value

    return damage


def _without_partial_failures(account: Account) -> None:
    del account.lambda_.mappings["cafe-test-store_orders"][0]["FunctionResponseTypes"]


def _second_mapping(account: Account) -> None:
    mappings = account.lambda_.mappings["cafe-test-store_orders"]
    mappings.append(copy.deepcopy(mappings[0]))


def _no_mapping(account: Account) -> None:
    account.lambda_.mappings["cafe-test-announce_orders"].clear()


def _disabled_mapping(account: Account) -> None:
    account.lambda_.mappings["cafe-test-announce_orders"][0]["State"] = "Disabled"


def _mapping_of_an_older_stream(account: Account) -> None:
    account.lambda_.mappings["cafe-test-announce_orders"][0]["EventSourceArn"] = "arn:old"


def _unbounded_retries(account: Account) -> None:
    account.lambda_.mappings["cafe-test-announce_orders"][0]["MaximumRetryAttempts"] = -1


def _without_a_limit(account: Account) -> None:
    account.lambda_.mappings["cafe-test-store_orders"][0]["ScalingConfig"] = {}


def _many_at_once(account: Account) -> None:
    account.lambda_.mappings["cafe-test-announce_orders"][0]["ParallelizationFactor"] = 10


def _stream_without_failure_destination(account: Account) -> None:
    account.lambda_.mappings["cafe-test-announce_orders"][0]["DestinationConfig"] = {"OnFailure": {}}


def _no_failure_destination(account: Account) -> None:
    del account.lambda_.invocations["cafe-test-receive_upload"]


def _not_subscribed(account: Account) -> None:
    account.subscriptions[OUTPUTS["TOPIC_ARN"]].pop()


def _subscription_without_failure_queue(account: Account) -> None:
    account.redrive_policies.clear()


def _subscribed_twice(account: Account) -> None:
    account.subscriptions[OUTPUTS["ALARMS_TOPIC_ARN"]] *= 2


def _not_notified(account: Account) -> None:
    account.notified.clear()


def _open_to_every_page(account: Account) -> None:
    account.cors[0]["AllowedOrigins"] = ["*"]


def _closed_to_every_page(account: Account) -> None:
    account.cors.clear()


def _other_limit(account: Account) -> None:
    account.api["methodSettings"]["*/*"]["throttlingRateLimit"] = 10_000.0


def _no_limits(account: Account) -> None:
    account.api["methodSettings"] = {}


def _other_access_log(account: Account) -> None:
    account.api["accessLogSettings"] = {}


def _nothing_reserved(account: Account) -> None:
    account.lambda_.reserved.clear()


def _no_function(account: Account) -> None:
    del account.lambda_.functions["cafe-test-measure_buckets"]


def _no_api(account: Account) -> None:
    del account.lambda_.functions["cafe-test"]


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (_no_function, "measure_buckets: is not deployed"),
        (_no_api, "api_handler: is not deployed"),
        (
            _other("Role", "arn:aws:iam::123456789012:role/admin"),
            "read_inventory: Role is arn:aws:iam::123456789012:role/admin",
        ),
        (_other("Timeout", 3), "read_inventory: Timeout is 3, not 300"),
        (_other("MemorySize", 128), "read_inventory: MemorySize is 128, not 512"),
        (_other("VpcConfig", {}), "read_inventory: SubnetIds are [], not ['subnet-1', 'subnet-2']"),
        (_other("VpcConfig", {}), "read_inventory: SecurityGroupIds are [], not ['sg-1']"),
        (_without_partial_failures, "store_orders: its mapping's FunctionResponseTypes is None"),
        (_second_mapping, "store_orders: has 2 event source mappings, not one"),
        (_no_mapping, "announce_orders: has 0 event source mappings, not one"),
        (_disabled_mapping, "announce_orders: its mapping's State is Disabled"),
        (_mapping_of_an_older_stream, "announce_orders: its mapping's EventSourceArn is arn:old"),
        (_unbounded_retries, "announce_orders: its mapping's MaximumRetryAttempts is -1"),
        (_without_a_limit, "store_orders: its mapping's ScalingConfig is {}"),
        (_many_at_once, "announce_orders: its mapping's ParallelizationFactor is 10"),
        (_stream_without_failure_destination, "announce_orders: its mapping's DestinationConfig is {'OnFailure': {}}"),
        (_no_failure_destination, "receive_upload: its DestinationConfig is None"),
        (_not_subscribed, f"record_notification: is subscribed 0 times to {OUTPUTS['TOPIC_ARN']}, not once"),
        (_subscribed_twice, f"record_alarm: is subscribed 2 times to {OUTPUTS['ALARMS_TOPIC_ARN']}, not once"),
        (_subscription_without_failure_queue, "record_alarm: its subscription's RedrivePolicy is {}"),
        (_not_notified, f"receive_upload: the bucket {OUTPUTS['UPLOADS_BUCKET']} notifies []"),
        (
            _open_to_every_page,
            f"POST /uploads: the rules for other origins of {OUTPUTS['UPLOADS_BUCKET']} are "
            "[{'AllowedMethods': ['POST'], 'AllowedOrigins': ['*']",
        ),
        (_other_limit, "API: its throttlingRateLimit is 10000.0"),
        (_no_limits, "API: its throttlingBurstLimit is None"),
        (_other_access_log, "API: its access log is {}"),
        (_nothing_reserved, "receive_upload: 0 are reserved, not 10"),
        (_nothing_reserved, "read_inventory: 0 are reserved, not 10"),
        (_closed_to_every_page, f"POST /uploads: the rules for other origins of {OUTPUTS['UPLOADS_BUCKET']} are []"),
    ],
)
def test_the_check_names_what_is_wrong(
    damage: Callable[[Account], None], line: str, account: Account, check: Callable[[], list[str]]
) -> None:
    damage(account)
    problems = check()
    assert [each for each in problems if each.startswith(line)], problems


@pytest.mark.parametrize(
    ("found", "wanted", "missing"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a"]),
        ({}, {"a": 2}, ["a"]),
        ({"a": None}, {"a": {"b": 1}}, ["a"]),
        ({"a": {"b": 1, "added by AWS": {}}}, {"a": {"b": 1}}, []),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, ["a"]),
        ({"a": ["x", "y"]}, {"a": ["x"]}, ["a"]),
        ({"a": 1, "b": 1}, {"a": 2, "b": 2}, ["a", "b"]),
    ],
)
def test_settings_are_compared_deep_inside_without_what_aws_adds(
    found: dict[str, Any], wanted: dict[str, Any], missing: list[str]
) -> None:
    assert wiring._missing(found, wanted) == missing


def test_what_aws_shows_a_moment_later_is_no_problem() -> None:
    looks = iter([["not subscribed"], ["not subscribed"], []])
    assert wiring.settled(lambda: next(looks)) == []


def test_what_stays_wrong_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "SETTLE_SECONDS", 0)
    assert wiring.settled(lambda: ["not subscribed"]) == ["not subscribed"]


def is_current(account: Account, target: Target, config: dict[str, Any], api: str | None = "abc") -> bool:
    return wiring.is_current(target, config, api, account.client)


def test_functions_that_run_this_very_build_behind_their_api_are_current(
    account: Account, target: Target, config: dict[str, Any]
) -> None:
    assert is_current(account, target, config)


def test_one_function_of_another_build_asks_for_a_deploy(
    account: Account, target: Target, config: dict[str, Any]
) -> None:
    account.lambda_.functions["cafe-test-store_orders"]["Environment"] = {"Variables": {"CAFE_BUILD": "older"}}
    assert not is_current(account, target, config)


def test_a_function_that_is_gone_asks_for_a_deploy(account: Account, target: Target, config: dict[str, Any]) -> None:
    _no_function(account)
    assert not is_current(account, target, config)


@pytest.mark.parametrize("api", [None, "another"])
def test_an_api_that_is_gone_or_never_was_there_asks_for_a_deploy(
    account: Account, target: Target, config: dict[str, Any], api: str | None
) -> None:
    assert not is_current(account, target, config, api)
