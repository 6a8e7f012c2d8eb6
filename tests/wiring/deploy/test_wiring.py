"""Tests the settings that Chalice does not support, the check of a deploy, and when functions must be deployed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from infra.deploy import api_settings, chalice_record, project, wiring
from infra.deploy.target import Say, Target
from tests.wiring.fakes import DEPLOYED, OUTPUTS, Account


@pytest.fixture
def config(target: Target) -> dict[str, Any]:
    return project.configure(target, OUTPUTS, "2026-11-21", 10)


@pytest.fixture
def account(target: Target, config: dict[str, Any], said: list[str]) -> Account:
    """Returns a fake account in which everything is deployed and every setting is complete."""
    account = Account(target, config["stages"]["test"])
    complete(target, account, said.append)
    return account


def complete(target: Target, account: Account, say: Say = print) -> None:
    wiring.apply(target, wiring.desired(target, DEPLOYED), account.client, say)


@pytest.fixture
def check(account: Account, target: Target, config: dict[str, Any]) -> Callable[[], list[str]]:
    return lambda: wiring.check(target, config, wiring.desired(target, DEPLOYED), account.client)


def test_completing_sets_what_chalice_cannot(account: Account) -> None:
    lambda_, failures = account.lambda_, {"OnFailure": {"Destination": OUTPUTS["RETRIES_QUEUE_ARN"]}}
    for name, concurrency in (("store_orders", 10), ("retry_failures", 2)):
        [queue] = lambda_.mappings[f"cafe-test-{name}"]
        assert queue["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert queue["ScalingConfig"] == {"MaximumConcurrency": concurrency}
    [stream] = lambda_.mappings["cafe-test-announce_orders"]
    assert stream["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert stream["BisectBatchOnFunctionError"] is True
    assert stream["MaximumRetryAttempts"] == -1
    # A record must go to the failure destination before the stream deletes it after a day. The failure destination
    # stores only a record's position in the stream.
    assert 0 < stream["MaximumRecordAgeInSeconds"] < 24 * 3600
    assert stream["DestinationConfig"] == failures
    # A redrive also invokes announce_orders asynchronously.
    asynchronous = ("receive_upload", "record_notification", "record_alarm", "announce_orders")
    assert lambda_.invocations.keys() == {f"cafe-test-{name}" for name in asynchronous}
    assert all(each["DestinationConfig"] == failures for each in lambda_.invocations.values())


def test_completing_gives_only_the_functions_subscriptions_a_dead_letter_queue(
    account: Account,
) -> None:
    topics = {OUTPUTS["TOPIC_ARN"]: "record_notification", OUTPUTS["ALARMS_TOPIC_ARN"]: "record_alarm"}
    assert {name: json.loads(policy) for name, policy in account.redrive_policies.items()} == {
        f"{topic}:arn:cafe-test-{function}": {"deadLetterTargetArn": OUTPUTS["RETRIES_QUEUE_ARN"]}
        for topic, function in topics.items()
    }


def test_completing_opens_the_uploads_bucket_to_the_consoles_pages_only(account: Account, target: Target) -> None:
    page = "https://abc.execute-api.eu-central-1.amazonaws.com"
    [rule] = account.cors
    assert (rule["AllowedOrigins"], rule["AllowedMethods"]) == ([page], ["POST"])
    assert "AllowedHeaders" not in rule
    complete(replace(target, origins=("http://127.0.0.1:8000",)), account)
    [rule] = account.cors
    assert rule["AllowedOrigins"] == ["http://127.0.0.1:8000", page]


def test_completing_limits_the_apis_requests_and_logs_all_of_them(account: Account) -> None:
    limits = {name: each["throttlingRateLimit"] for name, each in account.api["methodSettings"].items()}
    # API Gateway encodes the slashes of a path, and applies the limits of `*/*` to each method by itself.
    pages = ("~1/GET", "~1console~1{file}/GET", "~1openapi.json/GET", "~1health/GET", "~1health/HEAD")
    assert limits == {"*/*": 100.0, **dict.fromkeys(pages, 10.0)}
    assert {each["throttlingBurstLimit"] for each in account.api["methodSettings"].values()} == {200}
    access_log = account.api["accessLogSettings"]
    assert access_log["destinationArn"].endswith(":log-group:/aws/apigateway/cafe-test-access")
    line = json.loads(access_log["format"])
    # API Gateway requires the request id in an access log, and `make trace` searches for the id.
    assert line["requestId"] == "$context.requestId"
    # No value in the access log comes from a client, so a client cannot forge a line.
    assert not [each for each in line.values() if re.search("header|userAgent|context.path|query", each)]


def test_the_least_limit_of_an_open_route_is_one_request_a_second() -> None:
    few = {**DEPLOYED, "API_RATE_LIMIT": "4"}
    assert api_settings.desired(few)["openMethods"]["~1health/GET"]["throttlingRateLimit"] == 1


def test_the_local_cloud_names_methods_otherwise_and_an_older_release_has_no_limits_for_open_routes(
    account: Account, said: list[str]
) -> None:
    settings = api_settings.desired(DEPLOYED)
    methods = account.api["methodSettings"]
    account.api["methodSettings"] = {key.replace("~1", "/"): limits for key, limits in methods.items()}
    assert api_settings.differences(settings, account.client) == []
    account.api["methodSettings"] = {"*/*": methods["*/*"]}
    older = {name: value for name, value in settings.items() if name != "openMethods"}
    api_settings.apply(older, account.client, said.append)
    assert api_settings.differences(older, account.client) == []
    assert len(api_settings.differences(settings, account.client)) == 10


def test_without_an_accounts_log_role_everything_else_is_set_and_the_account_stays_unchanged(
    target: Target, config: dict[str, Any], said: list[str]
) -> None:
    account = Account(target, config["stages"]["test"])
    account.gateway = {}
    complete(target, account, said.append)
    assert "API: request limits set" in said
    assert "accessLogSettings" not in account.api
    assert account.gateway == {}
    assert wiring.check(target, config, wiring.desired(target, DEPLOYED), account.client) == []
    # The account gets the logging role before the next deploy.
    account.gateway = {"cloudwatchRoleArn": "arn:aws:iam::123456789012:role/logs"}
    complete(target, account, said.append)
    assert said[-1] == "API: access log set"


STAGE_ARN = "arn:aws:apigateway:eu-central-1::/restapis/abc/stages/api"
ACL = "arn:aws:wafv2:eu-central-1:123456789012:regional/webacl/cafe-test-api/1"


def test_a_web_acl_is_associated_with_the_api_if_the_stack_has_one(account: Account, target: Target) -> None:
    assert account.web_acls == {}
    asked = wiring.desired(target, {**DEPLOYED, "API_WEB_ACL_ARN": ACL})
    wiring.apply(target, asked, account.client, print)
    assert account.web_acls == {STAGE_ARN: ACL}


@pytest.mark.parametrize(("acl", "left"), [(ACL, {}), ("arn:of-somebody-else", {STAGE_ARN: "arn:of-somebody-else"})])
def test_only_the_stages_own_web_acl_is_removed(
    acl: str, left: dict[str, str], account: Account, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chalice_record, "rest_apis", lambda *_: ["abc"])
    account.web_acls = {STAGE_ARN: acl}
    api_settings.disassociate(ACL, target, account.client, print)
    assert account.web_acls == left


def test_completing_a_second_time_changes_nothing_unless_somebody_changed_a_setting(
    account: Account, target: Target, said: list[str], check: Callable[[], list[str]]
) -> None:
    before, lines = account.lambda_.changes, list(said)
    complete(target, account, said.append)
    assert (account.lambda_.changes, said) == (before, lines)
    account.lambda_.mappings["cafe-test-store_orders"][0]["FunctionResponseTypes"] = []
    # An older release sends failed events to another queue.
    older = {"OnFailure": {"Destination": OUTPUTS["FAILURES_QUEUE_ARN"]}}
    account.lambda_.invocations["cafe-test-receive_upload"]["DestinationConfig"] = older
    account.redrive_policies = dict.fromkeys(account.redrive_policies, json.dumps({"deadLetterTargetArn": "arn:older"}))
    complete(target, account)
    assert check() == []


# --- the check --------------------------------------------------------------------------------------------------------


def read_inventory(account: Account) -> dict[str, Any]:
    return account.lambda_.functions["cafe-test-read_inventory"]


def mappings(account: Account, function: str) -> list[dict[str, Any]]:
    return account.lambda_.mappings[f"cafe-test-{function}"]


# Each row contains a change that damages a complete deploy, and the start of the line that reports the damage.
DAMAGES: list[tuple[Callable[[Account], Any], str]] = [
    (lambda it: it.lambda_.functions.pop("cafe-test-measure_buckets"), "measure_buckets: is not deployed"),
    (lambda it: read_inventory(it).update(Role="arn:admin"), "read_inventory: Role is arn:admin"),
    (lambda it: read_inventory(it).update(Architectures=[]), 'read_inventory: Architectures is [], not ["arm64"]'),
    (lambda it: read_inventory(it).update(VpcConfig={}), 'read_inventory: SecurityGroupIds are [], not ["sg-1"]'),
    (lambda it: it.lambda_.reserved.clear(), "read_inventory: its reserved concurrency is 0, not 10"),
    (
        lambda it: mappings(it, "store_orders")[0].pop("FunctionResponseTypes"),
        "store_orders: its mapping's FunctionResponseTypes is not set",
    ),
    (
        lambda it: mappings(it, "store_orders").append({"State": "Enabled"}),
        "store_orders: has 2 event source mappings instead of one",
    ),
    (
        lambda it: mappings(it, "announce_orders")[0].update(State="Disabled"),
        "announce_orders: its mapping's State is Disabled",
    ),
    (
        lambda it: it.lambda_.invocations.pop("cafe-test-receive_upload"),
        "receive_upload: its DestinationConfig is not set",
    ),
    (
        lambda it: it.subscriptions[OUTPUTS["ALARMS_TOPIC_ARN"]].append("arn:cafe-test-record_alarm"),
        f"record_alarm: has 2 subscriptions to {OUTPUTS['ALARMS_TOPIC_ARN']} instead of one",
    ),
    (lambda it: it.redrive_policies.clear(), "record_alarm: its subscription's RedrivePolicy is {}"),
    (lambda it: it.notified.clear(), f"receive_upload: the bucket {OUTPUTS['UPLOADS_BUCKET']} notifies []"),
    (
        lambda it: it.cors[0].update(AllowedOrigins=["*"]),
        f"POST /uploads: the CORS rules of {OUTPUTS['UPLOADS_BUCKET']} are "
        '[{"AllowedMethods": ["POST"], "AllowedOrigins": ["*"]',
    ),
    (
        lambda it: it.api["methodSettings"]["*/*"].update(throttlingRateLimit=10_000.0),
        "API: throttlingRateLimit of */* is 10000.0",
    ),
    (
        lambda it: it.api["methodSettings"].pop("~1health/HEAD"),
        "API: throttlingBurstLimit of ~1health/HEAD is not set",
    ),
    (lambda it: it.api.update(accessLogSettings={}), "API: access log is {}"),
]


@pytest.mark.parametrize(("damage", "line"), DAMAGES, ids=[line for _, line in DAMAGES])
def test_the_check_names_each_damage(
    damage: Callable[[Account], Any], line: str, account: Account, check: Callable[[], list[str]]
) -> None:
    damage(account)
    problems = check()
    assert [each for each in problems if each.startswith(line)], problems


@pytest.mark.parametrize(
    ("found", "wanted", "missing"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, []),
        ({"b": 1}, {"a": 2, "b": 2}, ["a", "b"]),
        ({"a": None}, {"a": {"b": 1}}, ["a"]),
        ({"a": {"b": 1, "added by AWS": {}}}, {"a": {"b": 1}}, []),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, ["a"]),
        ({"a": ["x", "y"]}, {"a": ["x"]}, ["a"]),
    ],
)
def test_settings_are_compared_at_each_level_without_additions_by_aws(
    found: dict[str, Any], wanted: dict[str, Any], missing: list[str]
) -> None:
    assert wiring._different(found, wanted) == missing


def test_a_disabled_mapping_is_enabled_again(account: Account, target: Target, check: Callable[[], list[str]]) -> None:
    account.lambda_.mappings["cafe-test-retry_failures"][0]["State"] = "Disabled"
    complete(target, account)
    assert account.lambda_.mappings["cafe-test-retry_failures"][0]["Enabled"] is True
    assert check() == []


def test_a_problem_counts_only_if_it_persists(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([["not subscribed"], ["not subscribed"], []])
    assert wiring.problems_after_settling(lambda: next(looks)) == []
    monkeypatch.setattr(wiring, "SETTLE_SECONDS", 0)
    assert wiring.problems_after_settling(lambda: ["not subscribed"]) == ["not subscribed"]


# --- whether functions must be deployed -------------------------------------------------------------------------------


OLDER = {"Environment": {"Variables": {"CAFE_STAGE": "test", "CAFE_BUILD": "older"}}}


@pytest.mark.parametrize(
    ("change", "api", "current"),
    [
        (lambda _: None, "abc", True),
        (lambda functions: functions["cafe-test-store_orders"].update(OLDER), "abc", False),
        (lambda functions: functions.pop("cafe-test-measure_buckets"), "abc", False),
        # The functions must also be deployed if the API was deleted or does not exist yet.
        (lambda _: None, "another", False),
        (lambda _: None, None, False),
    ],
)
def test_nothing_is_deployed_where_every_function_has_this_build_and_the_api_exists(
    change: Callable[[Any], Any],
    api: str | None,
    current: bool,
    account: Account,
    target: Target,
    config: dict[str, Any],
) -> None:
    change(account.lambda_.functions)
    assert wiring.is_current(target, config, api, account.client) is current
