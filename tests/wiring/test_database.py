"""The template of a stage's own MySQL: its promises, and that the functions can do in its network what they must."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest
from cfnlint.api import lint  # type: ignore[import-untyped]

from chalicelib.settings import Database
from infra.deploy import database, stacks
from infra.deploy.mysql_location import MysqlLocation
from infra.functions import MYSQL_USERS
from tests.wiring.permissions import allowed, as_list
from tests.wiring.stage import ROOT, place, resolve
from tests.wiring.template import Template
from tests.wiring.test_permissions import role_of

SERVICES = {"S3Endpoint": "s3", "SnsEndpoint": "sns", "SecretsEndpoint": "secretsmanager"}
# Logs and traces go another way: Lambda's own.
BY_LAMBDA = {"ec2", "logs", "xray", "sqs"}


def own(stage: str = "<stage>", **parameters: str) -> Template:
    """The template with these parameters; its names read as in the documentation."""
    given = {"Stage": stage, "S3PrefixList": "pl-1", "Zones": "<region>a,<region>b", **parameters}
    return Template(database.template(), given, region="<region>", account="<account>")


@pytest.fixture(scope="module")
def template() -> Template:
    return own()


def test_cfn_lint_finds_nothing() -> None:
    assert lint((ROOT / "infra" / "database.yaml").read_text(), regions=["us-east-1", "eu-central-1"]) == []
    assert lint(database.template(), regions=["us-east-1", "eu-central-1"]) == []


def test_its_outputs_are_the_place_that_the_functions_and_the_resources_are_told(template: Template) -> None:
    outputs = {stacks.variable(name): value for name, value in template.outputs.items()}
    names = place("<stage>", "<region>", "<account>")
    assert MysqlLocation.from_variables(outputs) == MysqlLocation(
        names.secret, names.admin_secret, ("SubnetA", "SubnetB"), ("FunctionsSecurityGroup",)
    )


def test_its_secret_tells_the_functions_how_to_reach_it(template: Template) -> None:
    generated = template.properties("Secret")["GenerateSecretString"]
    secret = json.loads(generated["SecretStringTemplate"]) | {generated["GenerateStringKey"]: "p"}
    cluster = template.properties("Cluster")
    host = "cafe-<stage>.cluster-<id>.<region>.rds.amazonaws.com"
    assert Database.of_secret(json.dumps(secret)) == Database(host, 3306, "cafe", "cafe_functions", "p")
    assert (cluster["Port"], cluster["DatabaseName"]) == (3306, "cafe")
    assert generated["PasswordLength"] >= 30


# --- MySQL ------------------------------------------------------------------------------------------------------------


def test_it_is_encrypted_backed_up_protected_and_reached_by_tls_from_its_network_alone(template: Template) -> None:
    cluster = template.properties("Cluster")
    assert cluster["Engine"] == "aurora-mysql"
    assert cluster["StorageEncrypted"] is True
    assert cluster["BackupRetentionPeriod"] >= 7
    assert cluster["DeletionProtection"] == "true"
    assert cluster["EnableHttpEndpoint"] is False
    assert cluster["ManageMasterUserPassword"] is True
    assert "MasterUserPassword" not in cluster
    assert template.properties("ClusterParameters")["Parameters"]["require_secure_transport"] == "ON"
    [instance] = template.of_type("AWS::RDS::DBInstance").values()
    assert instance["PubliclyAccessible"] is False
    assert instance["DBInstanceClass"] == "db.serverless"


@pytest.mark.parametrize(
    ("stage", "parameters", "capacity"),
    [
        ("dev", {}, {"MinCapacity": 0, "SecondsUntilAutoPause": 300}),
        ("prod", {}, {"MinCapacity": 0.5}),
        ("prod", {"DatabaseMinCapacity": "0"}, {"MinCapacity": "0", "SecondsUntilAutoPause": 300}),
        ("dev", {"DatabaseMinCapacity": "1.5"}, {"MinCapacity": "1.5"}),
    ],
)
def test_it_pauses_on_the_stage_dev_and_where_that_is_asked_for(
    stage: str, parameters: dict[str, str], capacity: dict[str, Any]
) -> None:
    """Only what may go down to nothing has a time after which it does."""
    scaling = own(stage, **parameters).properties("Cluster")["ServerlessV2ScalingConfiguration"]
    assert scaling == {"MaxCapacity": 4, **capacity}


def test_its_log_has_an_end(template: Template) -> None:
    [log] = template.of_type("AWS::Logs::LogGroup").values()
    cluster = template.properties("Cluster")
    [exported] = cluster["EnableCloudwatchLogsExports"]
    assert log["LogGroupName"] == f"/aws/rds/cluster/{cluster['DBClusterIdentifier']}/{exported}"
    assert log["RetentionInDays"] == 30
    assert template.resources["Cluster"]["DependsOn"] == "ErrorLog"


# --- the network ------------------------------------------------------------------------------------------------------


def test_no_way_leads_to_the_internet_or_from_it(template: Template) -> None:
    kinds = {each["Type"] for each in template.resources.values()}
    assert not kinds & {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route", "AWS::EC2::EIP"}
    assert not any(subnet.get("MapPublicIpOnLaunch") for subnet in template.of_type("AWS::EC2::Subnet").values())


def test_the_subnets_are_in_two_zones_whatever_is_paid_for(template: Template) -> None:
    for each in (template, own("dev")):
        assert {subnet["AvailabilityZone"] for subnet in each.of_type("AWS::EC2::Subnet").values()} == {
            "<region>a",
            "<region>b",
        }
        assert each.properties("Subnets")["SubnetIds"] == ["SubnetA", "SubnetB"]


@pytest.mark.parametrize(
    ("stage", "parameters", "subnets"),
    [
        ("dev", {}, ["SubnetA"]),
        ("prod", {}, ["SubnetA", "SubnetB"]),
        ("prod", {"DatabaseZones": "1"}, ["SubnetA"]),
        ("dev", {"DatabaseZones": "2"}, ["SubnetA", "SubnetB"]),
    ],
)
def test_the_way_to_aws_is_in_one_zone_on_the_stage_dev_and_else_in_two(
    stage: str, parameters: dict[str, str], subnets: list[str]
) -> None:
    endpoints = own(stage, **parameters).of_type("AWS::EC2::VPCEndpoint")
    assert [each["SubnetIds"] for each in endpoints.values() if "SubnetIds" in each] == [subnets, subnets]


def rules(template: Template, group: str, direction: str) -> list[tuple[Any, ...]]:
    """The port of each rule of a security group, and to or from where it leads."""
    far_end = "Destination" if direction == "Egress" else "Source"
    inline = template.properties(group).get(f"SecurityGroup{direction}", [])
    apart = template.of_type(f"AWS::EC2::SecurityGroup{direction}").values()
    every = [*inline, *(each for each in apart if each["GroupId"] == group)]
    for each in every:
        assert each.get("FromPort") == each.get("ToPort")
        assert each["IpProtocol"] == ("tcp" if "FromPort" in each else "-1")
    ends = (f"{far_end}SecurityGroupId", f"{far_end}PrefixListId", "CidrIp")
    return sorted((each.get("FromPort"), *(each[end] for end in ends if end in each)) for each in every)


def test_every_security_group_lets_through_what_is_needed_and_nothing_else(template: Template) -> None:
    assert {
        group: {direction: rules(template, group, direction) for direction in ("Ingress", "Egress")}
        for group in template.of_type("AWS::EC2::SecurityGroup")
    } == {
        "FunctionsSecurityGroup": {
            "Ingress": [],
            "Egress": [(443, "EndpointsSecurityGroup"), (443, "pl-1"), (3306, "DatabaseSecurityGroup")],
        },
        "DatabaseSecurityGroup": {"Ingress": [(3306, "FunctionsSecurityGroup")], "Egress": [(None, "127.0.0.1/32")]},
        "EndpointsSecurityGroup": {"Ingress": [(443, "FunctionsSecurityGroup")], "Egress": [(None, "127.0.0.1/32")]},
    }
    assert template.properties("Cluster")["VpcSecurityGroupIds"] == ["DatabaseSecurityGroup"]
    for name in ("SnsEndpoint", "SecretsEndpoint"):
        assert template.properties(name)["SecurityGroupIds"] == ["EndpointsSecurityGroup"]
        assert template.properties(name)["PrivateDnsEnabled"] is True


# --- what the functions call from there -------------------------------------------------------------------------------


def called() -> set[tuple[str, str]]:
    """Each action and resource that a function in the network may call, and not Lambda in its name."""
    roles = {role_of(function) for function in MYSQL_USERS}
    rights = [each for each in allowed(resolve()) if each.role in roles]
    return {(each.action, each.resource) for each in rights if each.action.split(":")[0] not in BY_LAMBDA}


def test_every_service_that_a_function_there_calls_has_a_way_and_no_other_has(template: Template) -> None:
    endpoints = template.of_type("AWS::EC2::VPCEndpoint")
    ways = {name: each["ServiceName"].rpartition(".")[2] for name, each in endpoints.items()}
    assert ways == SERVICES
    assert {action.split(":")[0] for action, _ in called()} == set(SERVICES.values())


@pytest.mark.parametrize("endpoint", SERVICES)
def test_a_way_lets_through_all_that_the_roles_allow_and_no_other_action(endpoint: str, template: Template) -> None:
    statements = template.properties(endpoint)["PolicyDocument"]["Statement"]
    passing = [(a, r) for each in statements for a in as_list(each["Action"]) for r in as_list(each["Resource"])]
    wanted = {(action, resource) for action, resource in called() if action.split(":")[0] == SERVICES[endpoint]}
    refused = {
        (action, resource)
        for action, resource in wanted
        if not any(action == a and fnmatch.fnmatchcase(resource, r) for a, r in passing)
    }
    assert refused == set()
    assert {action for action, _ in passing} == {action for action, _ in wanted}


@pytest.mark.parametrize("endpoint", SERVICES)
def test_a_way_is_for_this_accounts_identities_and_this_stages_resources(endpoint: str, template: Template) -> None:
    for statement in template.properties(endpoint)["PolicyDocument"]["Statement"]:
        assert statement["Condition"] == {"StringEquals": {"aws:PrincipalAccount": "<account>"}}
        for resource in as_list(statement["Resource"]):
            assert "cafe-<stage>" in resource or resource == template.outputs["DbAdminSecretArn"]


def test_every_name_is_of_its_stage(template: Template) -> None:
    """So that two stages share an account."""
    for name, resource in template.resources.items():
        for key, value in resource["Properties"].items():
            if key in ("Name", "LogGroupName") or (key.endswith(("GroupName", "Identifier")) and key != "GroupId"):
                assert "cafe-<stage>" in value, f"{name}.{key}"
