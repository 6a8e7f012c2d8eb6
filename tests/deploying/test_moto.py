"""Tests a deploy to a second emulator, the moto server, and the resources that the deploy creates.

The emulator moto runs no functions, creates no user pools from templates and has no account settings. The tests on the
local cloud cover these features.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.deploy import database, preflight, removal, smoke, stacks
from infra.deploy.mysql_location import MysqlLocation
from infra.deploy.preflight import CallerIdentity
from infra.deploy.stage import Stage
from infra.deploy.target import Target, client
from infra.functions import NAMES, Trigger, sources
from local.processes import Process, answers, basic_environment, free_ports
from tests.deploying.checkout import WITHOUT_FILES_AND_PROXY

pytestmark = pytest.mark.long

ACCOUNT, REGION = "123456789012", "eu-central-1"
POOL = {"USER_POOL_ID": f"{REGION}_pool", "USER_POOL_CLIENT_ID": "console"}


def made_by_hand() -> MysqlLocation:
    """Creates the network and the database secret that must exist before the stage."""
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

    def deploy(self) -> dict[str, str]:
        who = CallerIdentity(ACCOUNT, REGION, f"arn:aws:iam::{ACCOUNT}:root")
        return Stage(self.target, client, who, self.said.extend, self.said.append).deploy()

    def policy(self, function: str) -> list[dict[str, Any]]:
        """Returns the policy statements that allow a caller to invoke the function."""
        policy = client("lambda").get_policy(FunctionName=self.target.function(function))["Policy"]
        statements: list[dict[str, Any]] = json.loads(policy)["Statement"]
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
        # With the host name ``localhost``, moto recognises the URL of a template as its own.
        yield f"http://localhost:{port}"
    finally:
        process.stop(seconds=0)


@pytest.fixture(scope="module")
def deployed(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Deploys the stage ``prod`` to moto as if to AWS."""
    outputs = stacks.outputs
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in {
            "AWS_ENDPOINT_URL": server,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "moto",
            "AWS_SECRET_ACCESS_KEY": "moto",
            **WITHOUT_FILES_AND_PROXY,
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
        # An administrator sets the API Gateway logging role once per account.
        role = {"op": "replace", "path": "/cloudwatchRoleArn", "value": f"arn:aws:iam::{ACCOUNT}:role/api-logs"}
        client("apigateway").update_account(patchOperations=[role])
        boundary = (preflight.DEPLOYER / "cafe-boundary.json").read_text()
        client("iam").create_policy(Path="/deployers/", PolicyName="cafe-boundary", PolicyDocument=boundary)
        target = Target("prod", tmp_path_factory.mktemp("prod"), False, {}, made_by_hand())
        deployed = Deployed(target, {}, [])
        deployed.outputs.update(deployed.deploy())
        yield deployed


def test_a_second_deploy_changes_nothing(deployed: Deployed) -> None:
    assert "check: every setting is correct" in deployed.said
    before = len(deployed.said)
    deployed.deploy()
    assert deployed.said[before:] == [
        "cafe-prod-resources: nothing to change",
        "functions and API: nothing to change",
        "check: every setting is correct",
    ]


def test_only_its_trigger_can_invoke_a_function(deployed: Deployed) -> None:
    [api] = client("apigateway").get_rest_apis()["items"]
    routes = {"AWS:SourceArn": f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{api['id']}/*"}
    bucket = {"AWS:SourceArn": f"arn:aws:s3:::{deployed.outputs['UPLOADS_BUCKET']}"}
    allowed = {
        **dict.fromkeys(("api_handler", "authorize"), ("apigateway", {"ArnLike": routes})),
        "receive_upload": ("s3", {"ArnLike": bucket, "StringEquals": {"AWS:SourceAccount": ACCOUNT}}),
        **{
            function: ("sns", {"ArnLike": {"AWS:SourceArn": deployed.outputs[output]}})
            for function, output in sources(Trigger.TOPIC).items()
        },
    }
    for function in NAMES:
        if function in allowed:
            service, condition = allowed[function]
            [statement] = deployed.policy(function)
            assert statement["Principal"] == {"Service": f"{service}.amazonaws.com"}
            assert statement["Condition"] == condition
        else:
            with pytest.raises(client("lambda").exceptions.ResourceNotFoundException):
                deployed.policy(function)


def test_a_destroyed_stage_leaves_nothing(deployed: Deployed) -> None:
    client("s3").put_object(Bucket=deployed.outputs["UPLOADS_BUCKET"], Key="inventory/a.csv", Body=b"x")
    removal.destroy(deployed.target, client, ACCOUNT, False, deployed.said.append)
    assert deployed.said[-1] == "left of the stage: nothing"
    # The list of remaining resources from the deploy does not cover IAM roles, event source mappings and stacks.
    assert client("iam").list_roles()["Roles"] == []
    assert client("lambda").list_event_source_mappings()["EventSourceMappings"] == []
    assert client("cloudformation").describe_stacks()["Stacks"] == []
