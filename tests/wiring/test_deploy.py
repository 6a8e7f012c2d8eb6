"""The deploy: its parts that need no cloud, against an AWS that remembers what it was told."""

from __future__ import annotations

import copy
import json
import shutil
import stat
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from chalice.cli.factory import CLIFactory
from chalice.config import Config
from chalice.deploy.packager import LambdaDeploymentPackager
from chalice.utils import UI, OSUtils

from infra import deploy
from infra.deploy import DeployError, Target
from tests.wiring.conftest import DATABASE, MACHINES, ROOT, as_variables, resolve
from tests.wiring.fakes import DEPLOYED, OUTPUTS, Account, CloudFormation
from tests.wiring.template import load

SINCE = "2026-11-21"


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target("test", tmp_path / "project", False, {}, DATABASE)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fakes go on by being looked at."""
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture
def said() -> list[str]:
    return []


# --- 1. the resources stack -------------------------------------------------------------------------------------------


def test_each_machines_definition_is_in_the_place_of_its_files_name() -> None:
    rendered = load(deploy.template())["Resources"]
    raw = load(deploy.TEMPLATE.read_text())["Resources"]
    for name, file in MACHINES.items():
        assert raw[name]["Properties"]["DefinitionS3Location"] == file
        definition = json.loads((ROOT / "infra" / file).read_text())
        assert json.loads(rendered[name]["Properties"]["DefinitionString"]) == definition
        assert "DefinitionS3Location" not in rendered[name]["Properties"]


def test_nothing_else_of_the_template_is_changed() -> None:
    rendered, raw = load(deploy.template()), load(deploy.TEMPLATE.read_text())
    for name in MACHINES:
        del rendered["Resources"][name]["Properties"]["DefinitionString"]
        del raw["Resources"][name]["Properties"]["DefinitionS3Location"]
    assert rendered == raw


def test_a_template_that_cloudformation_would_refuse_is_refused_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "TEMPLATE_BYTES", 1000)
    with pytest.raises(DeployError, match=r"the template has [\d,]+ bytes, and CloudFormation takes 1,000"):
        deploy.template()


def test_a_new_stage_gets_its_stack_and_the_outputs_become_variables(target: Target, said: list[str]) -> None:
    cfn = CloudFormation(None, "CREATE_COMPLETE")
    assert deploy.deploy_resources(target, cfn, said.append) == {"ORDERS_QUEUE_URL": "https://queue"}
    assert cfn.calls == ["create"]
    assert cfn.given["StackName"] == "cafe-test-resources"
    assert cfn.given["Parameters"] == [
        {"ParameterKey": "Stage", "ParameterValue": "test"},
        {"ParameterKey": "Local", "ParameterValue": "false"},
    ]
    assert said == ["cafe-test-resources: create complete"]


def test_only_the_local_cloud_is_told_that_it_is_local(tmp_path: Path) -> None:
    cfn = CloudFormation(None, "CREATE_COMPLETE")
    deploy.deploy_resources(Target("test", tmp_path, True, {}, {}), cfn, print)
    assert {"ParameterKey": "Local", "ParameterValue": "true"} in cfn.given["Parameters"]


def test_a_second_deploy_says_that_nothing_changed(target: Target, said: list[str]) -> None:
    cfn = CloudFormation("UPDATE_COMPLETE", parameters=("Stage", "Local"))
    cfn.refusal = "No updates are to be performed."
    assert deploy.deploy_resources(target, cfn, said.append) == {"ORDERS_QUEUE_URL": "https://queue"}
    assert said == ["cafe-test-resources: nothing to change"]


def test_a_parameter_that_was_set_before_stays_as_it_is(tmp_path: Path) -> None:
    cfn = CloudFormation(
        "CREATE_COMPLETE", "UPDATE_COMPLETE", parameters=("Stage", "Local", "EmailAddress", "SmsKinds")
    )
    target = Target("test", tmp_path, False, {"SmsKinds": "report"}, {})
    deploy.deploy_resources(target, cfn, print)
    assert cfn.calls == ["update"]
    assert cfn.given["Parameters"][2:] == [
        {"ParameterKey": "SmsKinds", "ParameterValue": "report"},
        {"ParameterKey": "EmailAddress", "UsePreviousValue": True},
    ]


def test_a_parameter_that_the_template_has_no_longer_is_dropped(target: Target) -> None:
    cfn = CloudFormation("CREATE_COMPLETE", "UPDATE_COMPLETE", parameters=("Stage", "Local", "Removed"))
    deploy.deploy_resources(target, cfn, print)
    assert "Removed" not in str(cfn.given["Parameters"])


def test_a_first_creation_that_had_failed_is_removed_and_made_anew(target: Target, said: list[str]) -> None:
    cfn = CloudFormation("ROLLBACK_COMPLETE", "CREATE_COMPLETE")
    deploy.deploy_resources(target, cfn, said.append)
    assert cfn.calls == ["delete", "create"]


def test_a_deploy_waits_for_the_one_before_it(target: Target, said: list[str]) -> None:
    cfn = CloudFormation("UPDATE_IN_PROGRESS", "UPDATE_COMPLETE", "UPDATE_COMPLETE")
    deploy.deploy_resources(target, cfn, said.append)
    assert said[0] == "cafe-test-resources: waiting for an earlier change to end"
    assert cfn.calls == ["update"]


def test_a_stack_that_fails_says_which_resource_and_why(target: Target, said: list[str]) -> None:
    cfn = CloudFormation(None, "ROLLBACK_COMPLETE")
    cfn.events = [
        {"LogicalResourceId": "OrdersTable", "ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": "Cancelled"},
        {"LogicalResourceId": "UploadsBucket", "ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": "It exists"},
        {"LogicalResourceId": "OrdersQueue", "ResourceStatus": "CREATE_COMPLETE"},
    ]
    with pytest.raises(DeployError) as error:
        deploy.deploy_resources(target, cfn, said.append)
    assert str(error.value).splitlines()[1:] == ["  UploadsBucket: It exists", "  OrdersTable: Cancelled"]


def test_what_cloudformation_refuses_is_passed_on(target: Target, said: list[str]) -> None:
    cfn = CloudFormation(None)
    cfn.refusal = "Parameter 'EmailAddress' must match pattern"
    with pytest.raises(DeployError, match="cafe-test-resources: Parameter 'EmailAddress' must match pattern"):
        deploy.deploy_resources(target, cfn, said.append)


# --- 2. the stage's Chalice configuration -----------------------------------------------------------------------------


def as_chalice_reads(target: Target, function: str) -> Config:
    """The configuration of one function, by Chalice's own reading of the project folder."""
    config: Config = CLIFactory(str(target.project), environ={}).create_config_obj(target.stage)
    return config.scope(target.stage, function)


def test_every_function_has_its_own_role_and_what_the_tracked_configuration_says(target: Target) -> None:
    deploy.write_project(target, OUTPUTS, SINCE)
    tracked = deploy.tracked_config()
    roles = set()
    for name in deploy.function_names():
        config = as_chalice_reads(target, name)
        asked = tracked["lambda_functions"].get(name, {})
        assert config.lambda_timeout == asked.get("lambda_timeout", tracked["lambda_timeout"])
        assert config.lambda_memory_size == asked.get("lambda_memory_size", tracked["lambda_memory_size"])
        assert config.manage_iam_role is False
        assert config.xray_enabled is True
        roles.add(config.iam_role_arn)
    assert roles == {value for name, value in OUTPUTS.items() if name.endswith("_ROLE_ARN")}
    assert len(roles) == len(deploy.function_names())


def test_every_function_gets_the_outputs_and_no_roles(target: Target) -> None:
    deploy.write_project(target, OUTPUTS, SINCE)
    for name in deploy.function_names():
        variables = as_chalice_reads(target, name).environment_variables
        assert variables["CAFE_STAGE"] == "test"
        assert variables["ORDERS_SINCE"] == SINCE
        assert variables["ORDERS_QUEUE_URL"] == OUTPUTS["ORDERS_QUEUE_URL"]
        assert not any(variable.endswith("_ROLE_ARN") for variable in variables)


def test_only_the_functions_that_talk_to_mysql_get_its_password(target: Target) -> None:
    deploy.write_project(target, OUTPUTS, SINCE)
    for name in deploy.function_names():
        variables = as_chalice_reads(target, name).environment_variables
        assert DATABASE.keys() & variables.keys() == (DATABASE.keys() if name in deploy.WITH_DATABASE else set())


def test_the_tracked_configuration_stays_as_it_is(target: Target) -> None:
    before = (ROOT / ".chalice" / "config.json").read_bytes()
    deploy.write_project(target, OUTPUTS, SINCE)
    assert (ROOT / ".chalice" / "config.json").read_bytes() == before
    assert "stages" not in deploy.tracked_config()


def test_other_stages_of_the_project_are_kept(target: Target) -> None:
    deploy.write_project(target, OUTPUTS, SINCE)
    prod = Target("prod", target.project, False, {}, DATABASE)
    deploy.write_project(prod, as_variables(resolve("prod").outputs), SINCE)
    assert as_chalice_reads(target, "store_orders").environment_variables["ORDERS_TABLE"] == "cafe-test-orders"
    assert as_chalice_reads(prod, "store_orders").environment_variables["ORDERS_TABLE"] == "cafe-prod-orders"


def test_the_generated_configuration_is_for_its_owner_only(target: Target) -> None:
    """It holds the password of the database."""
    deploy.write_project(target, OUTPUTS, SINCE)
    assert stat.S_IMODE((target.project / ".chalice" / "config.json").stat().st_mode) == 0o600


def test_the_project_links_the_code_and_mends_a_link_to_where_it_was(target: Target) -> None:
    target.project.mkdir()
    (target.project / "app.py").symlink_to(target.project / "moved")
    deploy.write_project(target, OUTPUTS, SINCE)
    for name in deploy.LINKED:
        assert (target.project / name).resolve() == ROOT / name


def test_the_build_is_another_only_if_something_is(target: Target) -> None:
    def build(target: Target, since: str = SINCE) -> str:
        stage = deploy.write_project(target, OUTPUTS, since)
        return str(stage["environment_variables"]["CAFE_BUILD"])

    assert build(target) == build(target)
    password = Target("test", target.project, False, {}, {**DATABASE, "DB_PASSWORD": "other"})
    assert len({build(target), build(password), build(target, "2026-11-22")}) == 3


def test_the_build_is_another_if_a_file_of_the_code_is(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(ROOT / "chalicelib", repository / "chalicelib")
    (repository / ".chalice").mkdir()
    for name in ("app.py", "requirements.txt", ".chalice/config.json"):
        shutil.copy(ROOT / name, repository / name)
    monkeypatch.setattr(deploy, "REPOSITORY", repository)
    builds = set()
    for change in ("", "app.py", "chalicelib/reports/templates/inventory.css", "requirements.txt"):
        if change:
            (repository / change).write_text("changed")
        stage = deploy.write_project(target, OUTPUTS, SINCE)
        builds.add(stage["environment_variables"]["CAFE_BUILD"])
    assert len(builds) == 4


def test_the_parts_of_the_package_of_this_very_code_are_told_with_their_sizes_the_largest_first(
    target: Target, stage: dict[str, Any]
) -> None:
    folder = target.project / ".chalice" / "deployments"
    folder.mkdir(parents=True)
    packager = LambdaDeploymentPackager(OSUtils(), None, UI())  # type: ignore[arg-type]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = {
        Path(packager.deployment_package_filename(str(target.project), version)): [
            "app.py",
            "jinja2/a.py",
            "jinja2/b.py",
        ],
        # Of other code, and deployed later.
        folder / "other.zip": ["gone.py"],
    }
    for path, parts in packages.items():
        with zipfile.ZipFile(path, "w") as file:
            for part in parts:
                file.writestr(part, "x" * 100)
    assert deploy.package_sizes(target.project) == [("jinja2", 200), ("app.py", 100)]


# --- 4. and 5. what Chalice cannot set, and the check -----------------------------------------------------------------


@pytest.fixture
def stage(target: Target) -> dict[str, Any]:
    return deploy.write_project(target, OUTPUTS, SINCE)


@pytest.fixture
def account(target: Target, stage: dict[str, Any], said: list[str]) -> Account:
    """Everything deployed and completed."""
    account = Account(target, stage)
    deploy.complete(target, DEPLOYED, account.client, said.append)
    return account


@pytest.fixture
def check(account: Account, target: Target, stage: dict[str, Any]) -> Callable[[], list[str]]:
    return lambda: deploy.check(target, stage, DEPLOYED, account.client)


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
    deploy.complete(elsewhere, DEPLOYED, account.client, print)
    [rule] = account.cors
    assert rule["AllowedOrigins"] == ["http://127.0.0.1:8000", "https://abc.execute-api.eu-central-1.amazonaws.com"]


def test_completing_a_second_time_changes_nothing(account: Account, target: Target, said: list[str]) -> None:
    before, lines = account.lambda_.changes, list(said)
    deploy.complete(target, DEPLOYED, account.client, said.append)
    assert account.lambda_.changes == before
    assert said == lines


def test_completing_sets_again_what_somebody_changed(
    account: Account, target: Target, check: Callable[[], list[str]]
) -> None:
    account.lambda_.mappings["cafe-test-store_orders"][0]["FunctionResponseTypes"] = []
    deploy.complete(target, DEPLOYED, account.client, print)
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
        (_without_partial_failures, "store_orders: its mapping's FunctionResponseTypes is None"),
        (_second_mapping, "store_orders: has 2 event source mappings, not one"),
        (_no_mapping, "announce_orders: has 0 event source mappings, not one"),
        (_disabled_mapping, "announce_orders: its mapping's State is Disabled"),
        (_mapping_of_an_older_stream, "announce_orders: its mapping's EventSourceArn is arn:old"),
        (_unbounded_retries, "announce_orders: its mapping's MaximumRetryAttempts is -1"),
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
    assert deploy._missing(found, wanted) == missing


def test_what_aws_shows_a_moment_later_is_no_problem() -> None:
    looks = iter([["not subscribed"], ["not subscribed"], []])
    assert deploy._settled(lambda: next(looks)) == []


def test_what_stays_wrong_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "SETTLE_SECONDS", 0)
    assert deploy._settled(lambda: ["not subscribed"]) == ["not subscribed"]


# --- whether anything has to be deployed ------------------------------------------------------------------------------


def record_deploy(target: Target) -> None:
    path = target.project / ".chalice" / "deployed" / "test.json"
    path.parent.mkdir()
    path.write_text(
        json.dumps(
            {"resources": [{"name": "rest_api", "rest_api_id": "abc", "rest_api_url": DEPLOYED["REST_API_URL"] + "/"}]}
        )
    )


def test_functions_that_run_this_very_build_are_current(
    account: Account, target: Target, stage: dict[str, Any]
) -> None:
    record_deploy(target)
    assert deploy.is_current(target, stage, account.lambda_)


def test_one_function_of_another_build_asks_for_a_deploy(
    account: Account, target: Target, stage: dict[str, Any]
) -> None:
    record_deploy(target)
    account.lambda_.functions["cafe-test-store_orders"]["Environment"]["Variables"]["CAFE_BUILD"] = "older"
    assert not deploy.is_current(target, stage, account.lambda_)


def test_a_function_that_is_gone_asks_for_a_deploy(account: Account, target: Target, stage: dict[str, Any]) -> None:
    record_deploy(target)
    _no_function(account)
    assert not deploy.is_current(target, stage, account.lambda_)


def test_a_deploy_that_was_cut_off_asks_for_another(account: Account, target: Target, stage: dict[str, Any]) -> None:
    """Chalice writes its record only at the end."""
    assert not deploy.is_current(target, stage, account.lambda_)


def deploy_again(account: Account, target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A deploy of a stage whose resources and functions are there."""
    table = {"Table": {"CreationDateTime": datetime(2026, 11, 21, 1, 30, tzinfo=timezone(timedelta(hours=2)))}}
    dynamodb = SimpleNamespace(describe_table=lambda TableName: table)  # noqa: N803
    clients = {"cloudformation": None, "dynamodb": dynamodb}
    monkeypatch.setattr(deploy, "client", lambda name: clients[name] if name in clients else account.client(name))
    monkeypatch.setattr(deploy, "deploy_resources", lambda *_: dict(OUTPUTS))
    return deploy.deploy(target, said.append)


def test_a_deploy_of_what_is_there_changes_nothing_and_says_so(
    account: Account, target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    record_deploy(target)
    account.lambda_.runs(deploy.write_project(target, OUTPUTS, "2026-11-20"))
    said.clear()
    outputs = deploy_again(account, target, said, monkeypatch)
    assert said == ["functions and API: nothing to change", "check: everything is as asked"]
    # The day in UTC, by which the orders are filed, and not in the zone of this machine.
    assert outputs["ORDERS_SINCE"] == "2026-11-20"
    assert outputs["REST_API_URL"] == DEPLOYED["REST_API_URL"]
    assert json.loads((target.project / "test.outputs.json").read_text()) == outputs


def test_functions_that_another_machine_deployed_are_not_deployed_a_second_time(
    account: Account, target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeployError, match=r"Chalice's record of them is not here: bring \S+/deployed/test.json"):
        deploy_again(account, target, said, monkeypatch)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["", "Dev", "1st", "a_b", "-x", "a" * 21, "a.b", "é"])
def test_a_bad_name_of_a_stage_is_refused(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        deploy.main(["--", stage])
    assert error.value.code == 2
    assert "must be lower-case letters, digits and hyphens, at most 20" in capsys.readouterr().err


def test_the_missing_variables_of_the_database_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in DATABASE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DB_HOST")
    monkeypatch.setenv("DB_PASSWORD", "")
    with pytest.raises(SystemExit):
        deploy.main(["dev"])
    assert "not set: DB_HOST, DB_PASSWORD: the MySQL database" in capsys.readouterr().err


def test_a_parameter_without_a_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        deploy.main(["dev", "--parameter", "EmailAddress"])
    assert "--parameter: must be NAME=VALUE" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Tried to parse")
def test_a_stage_is_destroyed_with_all_that_is_in_its_buckets(aws: None, target: Target, said: list[str]) -> None:
    cfn, s3 = boto3.client("cloudformation"), boto3.client("s3")
    outputs = deploy.deploy_resources(target, cfn, said.append)
    s3.put_object(Bucket=outputs["UPLOADS_BUCKET"], Key="inventory/a.csv", Body=b"x")
    assert deploy.main(["test", "--destroy", "--yes", "--project-dir", str(target.project)]) == 0
    assert s3.list_buckets()["Buckets"] == []
    with pytest.raises(ClientError, match="does not exist"):
        cfn.describe_stacks(StackName=target.stack)


def test_functions_without_chalices_record_of_them_are_not_left_behind_in_silence(
    account: Account, target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfn = CloudFormation("CREATE_COMPLETE")
    monkeypatch.setattr(deploy, "client", lambda name: cfn if name == "cloudformation" else account.client(name))
    with pytest.raises(DeployError, match="Chalice's record of them is not here"):
        deploy.destroy(target, said.append)
    assert cfn.calls == []


def test_a_destroyed_stage_leaves_no_password_and_other_stages_as_they_are(target: Target) -> None:
    deploy.write_project(target, OUTPUTS, SINCE)
    deploy.write_project(replace(target, stage="other"), OUTPUTS, SINCE)
    (target.project / "test.outputs.json").write_text("{}")
    deploy._forget(target)
    config = json.loads((target.project / ".chalice" / "config.json").read_text())
    assert list(config["stages"]) == ["other"]
    assert not (target.project / "test.outputs.json").exists()


def test_a_stage_that_does_not_exist_is_destroyed_already(
    aws: None, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy.main(["test", "--destroy", "--yes", "--project-dir", str(target.project)]) == 0
    assert "cafe-test-resources: does not exist" in capsys.readouterr().out


def test_nothing_is_destroyed_unless_the_stages_name_is_typed(
    aws: None, target: Target, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "no")
    assert deploy.main(["test", "--destroy", "--project-dir", str(target.project)]) == 1
    assert "nothing was removed" in capsys.readouterr().out
