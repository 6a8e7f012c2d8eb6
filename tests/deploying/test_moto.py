"""A second opinion: the same deploy on moto's server, and what it has made there compared with what was asked.

moto runs no function, makes no user pool from a template and knows no account settings: what a deploy asks about those
is left out here, and is shown on the local cloud.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.deploy import database, preflight, project, removal, smoke, stacks, wiring
from infra.deploy.mysql_location import MysqlLocation
from infra.deploy.preflight import CallerIdentity
from infra.deploy.stage import Stage
from infra.deploy.target import Target, client
from infra.functions import LIMITED, MYSQL_USERS, NAMES, Trigger, sources
from local.processes import Process, answers, basic_environment, free_ports
from tests.deploying.conftest import ROOT

pytestmark = pytest.mark.long

SUBSCRIBED = sources(Trigger.TOPIC)

ACCOUNT, REGION = "123456789012", "eu-central-1"
POOL = {"USER_POOL_ID": f"{REGION}_pool", "USER_POOL_CLIENT_ID": "console"}


def made_by_hand() -> MysqlLocation:
    """A network with a database in it, which was there before the stage."""
    ec2 = boto3.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/24")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/25")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(VpcId=vpc, GroupName="mysql", Description="MySQL")["GroupId"]
    secret = boto3.client("secretsmanager").create_secret(Name="mysql", SecretString="{}")["ARN"]
    return MysqlLocation(secret, "", (subnet,), (group,))


@dataclass(frozen=True)
class Deployed:
    target: Target
    outputs: dict[str, str]
    said: list[str]

    def arn(self, function: str) -> str:
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.target.function(function)}"

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.target.project / ".chalice" / "config.json").read_text())
        return config

    @property
    def functions(self) -> dict[str, dict[str, Any]]:
        functions: dict[str, dict[str, Any]] = self.config["stages"]["prod"]["lambda_functions"]
        return functions

    def deploy(self) -> dict[str, str]:
        who = CallerIdentity(ACCOUNT, REGION, f"arn:aws:iam::{ACCOUNT}:root")
        return Stage(self.target, client, who, self.said.extend, self.said.append).deploy()

    def policy(self, function: str) -> list[dict[str, Any]]:
        """Who may invoke the function."""
        found = client("lambda").get_policy(FunctionName=self.target.function(function))["Policy"]
        statements: list[dict[str, Any]] = json.loads(found)["Statement"]
        return [each for each in statements if each["Effect"] == "Allow" and each["Action"] == "lambda:InvokeFunction"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    [port] = free_ports(1)
    process = Process("moto", tmp_path_factory.mktemp("moto"))
    command = [sys.executable, str(Path(__file__).parent / "moto_launcher.py"), str(port)]
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "moto")
    process.start(command, {**basic_environment(), **keys}, "moto", port)
    try:
        process.wait(lambda: answers(f"http://127.0.0.1:{port}/moto-api/"))
        # By this name of the host moto takes a template's URL for one of its own.
        yield f"http://localhost:{port}"
    finally:
        process.stop(seconds=0)


@pytest.fixture(scope="module")
def deployed(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The stage prod, as on AWS: nothing about it is local."""
    outputs = stacks.outputs
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in {
            "AWS_ENDPOINT_URL": server,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "moto",
            "AWS_SECRET_ACCESS_KEY": "moto",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }.items():
            patch.setenv(name, value)
        patch.setattr(smoke, "test", lambda *_: [])
        patch.setattr(preflight, "missing_permissions", lambda *_: [])
        patch.setattr(preflight, "account_warnings", lambda _: [])
        patch.setattr(preflight, "can_reserve", lambda *_: True)
        patch.setattr(
            stacks,
            "outputs",
            lambda cfn, name: {**outputs(cfn, name), **(POOL if name == "cafe-prod-resources" else {})},
        )
        patch.setattr(database, "migrate", lambda *_: None)
        # By an administrator, for all APIs of the account.
        role = {"op": "replace", "path": "/cloudwatchRoleArn", "value": f"arn:aws:iam::{ACCOUNT}:role/api-logs"}
        client("apigateway").update_account(patchOperations=[role])
        target = Target("prod", tmp_path_factory.mktemp("prod"), False, {}, made_by_hand())
        deployed = Deployed(target, {}, [])
        deployed.outputs.update(deployed.deploy())
        yield deployed


def test_the_deploy_ends_as_it_does_on_the_local_cloud(deployed: Deployed) -> None:
    assert "check: every setting is right" in deployed.said


def test_a_second_deploy_changes_nothing(deployed: Deployed) -> None:
    before = len(deployed.said)
    deployed.deploy()
    assert deployed.said[before:] == [
        "cafe-prod-resources: nothing to change",
        "functions and API: nothing to change",
        "check: every setting is right",
    ]


def test_the_functions_that_talk_to_mysql_are_in_its_network_and_no_other_is(deployed: Deployed) -> None:
    place = deployed.target.database
    assert place
    for name in deployed.functions:
        function = client("lambda").get_function_configuration(FunctionName=deployed.target.function(name))
        network = function.get("VpcConfig") or {}
        there = name in MYSQL_USERS
        assert network.get("SubnetIds", []) == list(place.subnets if there else ())
        assert network.get("SecurityGroupIds", []) == list(place.security_groups if there else ())


def routes() -> dict[tuple[str, str], bool]:
    """Path and method of each route of app.py, and whether it asks for a token, by Chalice's own reading."""
    code = (
        "import json; from app import app; print(json.dumps([[path, method, route.authorizer is not None]"
        " for path, methods in app.routes.items() for method, route in methods.items()]))"
    )
    environment = {**os.environ, **dict.fromkeys(_variables(), "x"), "ORDERS_SINCE": "2026-11-21", "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    return {(path, method): protected for path, method, protected in json.loads(done.stdout)}


def _variables() -> list[str]:
    from dataclasses import fields

    from chalicelib.settings import Settings

    return [field.name.upper() for field in fields(Settings)]


def test_every_route_is_a_method_that_hands_the_request_to_the_apis_function(deployed: Deployed) -> None:
    gateway = client("apigateway")
    [api] = gateway.get_rest_apis()["items"]
    found = {}
    for resource in gateway.get_resources(restApiId=api["id"], embed=["methods"])["items"]:
        for method in resource.get("resourceMethods", {}):
            integration = gateway.get_integration(restApiId=api["id"], resourceId=resource["id"], httpMethod=method)
            found[resource["path"], method] = (
                integration["type"].upper(),
                integration["httpMethod"],
                integration["uri"],
            )
    uri = f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{deployed.arn('api_handler')}/invocations"
    assert found == dict.fromkeys(routes(), ("AWS_PROXY", "POST", uri))


def test_the_api_is_deployed_as_the_stage_that_the_address_names(deployed: Deployed) -> None:
    gateway = client("apigateway")
    [api] = gateway.get_rest_apis()["items"]
    [stage] = gateway.get_stages(restApiId=api["id"])["item"]
    assert stage["stageName"] == "api"
    assert stage["deploymentId"] in [each["id"] for each in gateway.get_deployments(restApiId=api["id"])["items"]]
    assert deployed.outputs["REST_API_URL"].endswith(f"/{api['id']}/api")


def test_the_apis_stage_has_its_limits_and_its_access_log(deployed: Deployed) -> None:
    [api] = client("apigateway").get_rest_apis()["items"]
    stage = client("apigateway").get_stage(restApiId=api["id"], stageName="api")
    settings = stage["methodSettings"]["*/*"]
    assert (settings["throttlingRateLimit"], settings["throttlingBurstLimit"]) == (100, 200)
    group = stage["accessLogSettings"]["destinationArn"].rpartition(":")[2]
    assert json.loads(stage["accessLogSettings"]["format"]) == wiring.ACCESS_LOG
    [found] = client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert (found["logGroupName"], found["retentionInDays"]) == (group, 30)


@pytest.mark.parametrize("function", NAMES)
def test_what_may_be_asked_for_any_number_of_times_and_needs_mysql_has_a_limit(
    deployed: Deployed, function: str
) -> None:
    found = client("lambda").get_function_concurrency(FunctionName=deployed.target.function(function))
    assert found.get("ReservedConcurrentExecutions") == (10 if function in LIMITED else None)


@pytest.mark.parametrize("function", ["api_handler", "authorize"])
def test_the_api_and_nobody_else_may_invoke_its_function_and_its_authorizer(deployed: Deployed, function: str) -> None:
    [api] = client("apigateway").get_rest_apis()["items"]
    [statement] = deployed.policy(function)
    assert statement["Principal"] == {"Service": "apigateway.amazonaws.com"}
    assert statement["Condition"] == {
        "ArnLike": {"AWS:SourceArn": f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{api['id']}/*"}
    }


@pytest.mark.parametrize(("function", "output"), SUBSCRIBED.items())
def test_its_topic_and_nobody_else_may_invoke_a_subscriber(deployed: Deployed, function: str, output: str) -> None:
    [statement] = deployed.policy(function)
    assert statement["Principal"] == {"Service": "sns.amazonaws.com"}
    assert statement["Condition"] == {"ArnLike": {"AWS:SourceArn": deployed.outputs[output]}}


def test_the_uploads_bucket_of_this_account_and_nobody_else_may_invoke_the_receiver(deployed: Deployed) -> None:
    [statement] = deployed.policy("receive_upload")
    assert statement["Principal"] == {"Service": "s3.amazonaws.com"}
    assert statement["Condition"] == {
        "ArnLike": {"AWS:SourceArn": f"arn:aws:s3:::{deployed.outputs['UPLOADS_BUCKET']}"},
        "StringEquals": {"AWS:SourceAccount": ACCOUNT},
    }


@pytest.mark.parametrize(
    "function",
    sorted(set(NAMES) - {"api_handler", "authorize", "receive_upload", *SUBSCRIBED}),
)
def test_nobody_is_let_in_by_the_other_functions_themselves(deployed: Deployed, function: str) -> None:
    """Their callers have rights of their own."""
    lambda_ = client("lambda")
    with pytest.raises(lambda_.exceptions.ResourceNotFoundException):
        deployed.policy(function)


@pytest.mark.parametrize("function", NAMES)
def test_each_function_has_the_role_the_settings_and_the_variables_that_were_asked_for(
    deployed: Deployed, function: str
) -> None:
    found = client("lambda").get_function_configuration(FunctionName=deployed.target.function(function))
    asked, config = deployed.functions[function], deployed.config
    assert found["Role"] == asked["iam_role_arn"]
    assert found["Timeout"] == asked.get("lambda_timeout", config["lambda_timeout"])
    assert found["MemorySize"] == asked.get("lambda_memory_size", config["lambda_memory_size"])
    assert found["Runtime"] == project.RUNTIME
    assert found["Handler"] == ("app.app" if function == "api_handler" else f"app.{function}")
    assert found["TracingConfig"]["Mode"] == "Active"
    common = config["stages"]["prod"]["environment_variables"]
    assert found["Environment"]["Variables"] == {**common, **asked.get("environment_variables", {})}
    assert found["CodeSize"] == project.package_file(deployed.target.project, config).stat().st_size


def mapping(deployed: Deployed, function: str) -> dict[str, Any]:
    [found] = client("lambda").list_event_source_mappings(FunctionName=deployed.target.function(function))[
        "EventSourceMappings"
    ]
    return dict(found)


def test_the_queues_mapping_is_as_asked(deployed: Deployed) -> None:
    found = mapping(deployed, "store_orders")
    wanted = {
        "EventSourceArn": deployed.outputs["ORDERS_QUEUE_ARN"],
        "BatchSize": 100,
        "MaximumBatchingWindowInSeconds": 1,
        "ScalingConfig": {"MaximumConcurrency": 10},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "State": "Enabled",
    }
    assert {name: found[name] for name in wanted} == wanted


def test_the_streams_mapping_is_as_asked(deployed: Deployed) -> None:
    found = mapping(deployed, "announce_orders")
    wanted = {
        "EventSourceArn": deployed.outputs["ORDERS_STREAM_ARN"],
        "BatchSize": 100,
        "StartingPosition": "TRIM_HORIZON",
        "State": "Enabled",
        **wiring.mappings(deployed.outputs)["announce_orders"],
    }
    assert {name: found[name] for name in wanted} == wanted


def test_no_other_function_reads_from_anywhere(deployed: Deployed) -> None:
    assert len(client("lambda").list_event_source_mappings()["EventSourceMappings"]) == 2


@pytest.mark.parametrize("function", wiring.invocations({"FAILURES_QUEUE_ARN": ""}))
def test_what_fails_for_good_without_anyone_waiting_is_put_by(deployed: Deployed, function: str) -> None:
    found = client("lambda").get_function_event_invoke_config(FunctionName=deployed.target.function(function))
    wanted = wiring.invocations(deployed.outputs)[function]
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(("function", "output"), SUBSCRIBED.items())
def test_each_subscriber_is_subscribed_once_with_a_queue_for_what_it_does_not_take(
    deployed: Deployed, function: str, output: str
) -> None:
    sns = client("sns")
    subscriptions = sns.list_subscriptions_by_topic(TopicArn=deployed.outputs[output])["Subscriptions"]
    [found] = [each for each in subscriptions if each["Protocol"] == "lambda"]
    assert found["Endpoint"] == deployed.arn(function)
    attributes = sns.get_subscription_attributes(SubscriptionArn=found["SubscriptionArn"])["Attributes"]
    assert json.loads(attributes["RedrivePolicy"]) == wiring.redrive_policy(deployed.outputs)


def test_the_uploads_bucket_tells_the_receiver_of_every_object_and_takes_them_from_the_consoles_page_only(
    deployed: Deployed,
) -> None:
    s3, bucket = client("s3"), deployed.outputs["UPLOADS_BUCKET"]
    [found] = s3.get_bucket_notification_configuration(Bucket=bucket)["LambdaFunctionConfigurations"]
    assert (found["LambdaFunctionArn"], found["Events"]) == (deployed.arn("receive_upload"), ["s3:ObjectCreated:*"])
    assert "Filter" not in found
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == wiring.cors(deployed.target, deployed.outputs)


def test_a_destroyed_stage_leaves_nothing(deployed: Deployed) -> None:
    client("s3").put_object(Bucket=deployed.outputs["UPLOADS_BUCKET"], Key="inventory/a.csv", Body=b"x")
    removal.destroy(deployed.target, client, ACCOUNT, False, deployed.said.append)
    assert deployed.said[-1] == "left of the stage: nothing"
    session = boto3.Session()
    for service, operation, key in (
        ("apigateway", "get_rest_apis", "items"),
        ("cloudformation", "describe_stacks", "Stacks"),
        ("dynamodb", "list_tables", "TableNames"),
        ("iam", "list_roles", "Roles"),
        ("lambda", "list_functions", "Functions"),
        ("lambda", "list_event_source_mappings", "EventSourceMappings"),
        ("logs", "describe_log_groups", "logGroups"),
        ("s3", "list_buckets", "Buckets"),
        ("sns", "list_topics", "Topics"),
        ("sqs", "list_queues", "QueueUrls"),
        ("stepfunctions", "list_state_machines", "stateMachines"),
    ):
        found = getattr(session.client(service), operation)()  # type: ignore[call-overload]
        assert found.get(key, []) == [], service
