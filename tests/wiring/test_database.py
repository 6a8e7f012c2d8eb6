"""Tests the template for the MySQL database of a stage, and what the functions can do in its network."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest

from chalicelib.settings import Database
from infra.deploy.mysql_location import MysqlLocation
from infra.functions import MYSQL_USERS
from tests.wiring.permissions import allowed, as_list, role_of
from tests.wiring.stage import as_variables, place, rendered, resolve
from tests.wiring.template import Template

SERVICES = {"S3Endpoint": "s3", "SnsEndpoint": "sns", "SecretsEndpoint": "secretsmanager"}
# Lambda itself calls these services on a function's behalf.
BY_LAMBDA = {"ec2", "logs", "xray", "sqs"}


def own(stage: str = "<stage>", **parameters: str) -> Template:
    """Resolves the database template with these parameters and the placeholders in the documentation."""
    given = {"Stage": stage, "S3PrefixList": "pl-1", "Zones": "<region>a,<region>b", **parameters}
    return Template(rendered("database.yaml"), given, region="<region>", account="<account>")


@pytest.fixture(scope="module")
def template() -> Template:
    return own()


def test_its_outputs_are_the_location_of_the_functions_database(template: Template) -> None:
    outputs = as_variables(template.outputs)
    names = place("<stage>", "<region>", "<account>")
    assert MysqlLocation.from_variables(outputs) == MysqlLocation(
        names.secret, names.admin_secret, ("SubnetA", "SubnetB"), ("FunctionsSecurityGroup",)
    )


def test_its_secret_is_the_one_that_the_functions_connect_with(template: Template) -> None:
    generated = template.properties("Secret")["GenerateSecretString"]
    secret = json.loads(generated["SecretStringTemplate"]) | {generated["GenerateStringKey"]: "p"}
    cluster = template.properties("Cluster")
    host = "cafe-<stage>.cluster-<id>.<region>.rds.amazonaws.com"
    assert Database.of_secret(json.dumps(secret)) == Database(host, 3306, "cafe", "cafe_functions", "p")
    assert (cluster["Port"], cluster["DatabaseName"]) == (3306, "cafe")
    assert generated["PasswordLength"] >= 30


# --- MySQL ------------------------------------------------------------------------------------------------------------


def test_it_is_encrypted_backed_up_protected_and_open_only_to_tls_from_its_network(template: Template) -> None:
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
def test_it_pauses_on_the_stage_dev_and_if_a_parameter_says_so(
    stage: str, parameters: dict[str, str], capacity: dict[str, Any]
) -> None:
    """RDS accepts an auto-pause delay only if the minimum capacity is zero."""
    scaling = own(stage, **parameters).properties("Cluster")["ServerlessV2ScalingConfiguration"]
    assert scaling == {"MaxCapacity": 4, **capacity}


def test_its_log_expires(template: Template) -> None:
    [log] = template.of_type("AWS::Logs::LogGroup").values()
    cluster = template.properties("Cluster")
    [exported] = cluster["EnableCloudwatchLogsExports"]
    assert log["LogGroupName"] == f"/aws/rds/cluster/{cluster['DBClusterIdentifier']}/{exported}"
    assert log["RetentionInDays"] == 30
    assert template.resources["Cluster"]["DependsOn"] == "ErrorLog"


# --- the network ------------------------------------------------------------------------------------------------------


def test_the_network_has_no_connection_to_the_internet(template: Template) -> None:
    kinds = {each["Type"] for each in template.resources.values()}
    assert not kinds & {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route", "AWS::EC2::EIP"}
    assert not any(subnet.get("MapPublicIpOnLaunch") for subnet in template.of_type("AWS::EC2::Subnet").values())


@pytest.mark.parametrize(
    ("stage", "parameters", "subnets"),
    [
        ("dev", {}, ["SubnetA"]),
        ("prod", {}, ["SubnetA", "SubnetB"]),
        ("prod", {"DatabaseZones": "1"}, ["SubnetA"]),
        ("dev", {"DatabaseZones": "2"}, ["SubnetA", "SubnetB"]),
    ],
)
def test_the_endpoints_are_in_one_zone_on_the_stage_dev_and_otherwise_in_two(
    stage: str, parameters: dict[str, str], subnets: list[str]
) -> None:
    endpoints = own(stage, **parameters).of_type("AWS::EC2::VPCEndpoint")
    assert [each["SubnetIds"] for each in endpoints.values() if "SubnetIds" in each] == [subnets, subnets]


def rules(template: Template, group: str, direction: str) -> list[tuple[Any, ...]]:
    """Returns the port and the peer of every rule in a security group."""
    far_end = "Destination" if direction == "Egress" else "Source"
    inline = template.properties(group).get(f"SecurityGroup{direction}", [])
    apart = template.of_type(f"AWS::EC2::SecurityGroup{direction}").values()
    every = [*inline, *(each for each in apart if each["GroupId"] == group)]
    for each in every:
        assert each.get("FromPort") == each.get("ToPort")
        assert each["IpProtocol"] == ("tcp" if "FromPort" in each else "-1")
    ends = (f"{far_end}SecurityGroupId", f"{far_end}PrefixListId", "CidrIp")
    return sorted((each.get("FromPort"), *(each[end] for end in ends if end in each)) for each in every)


def test_every_security_group_admits_only_the_needed_connections(template: Template) -> None:
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


# --- the endpoints ----------------------------------------------------------------------------------------------------


def called() -> set[tuple[str, str]]:
    """Returns the AWS actions and resources that the functions in the MySQL network use in their code."""
    roles = {role_of(function) for function in MYSQL_USERS}
    rights = [each for each in allowed(resolve()) if each.role in roles]
    return {(each.action, each.resource) for each in rights if each.action.split(":")[0] not in BY_LAMBDA}


def test_every_service_that_the_networks_functions_call_has_an_endpoint(template: Template) -> None:
    endpoints = template.of_type("AWS::EC2::VPCEndpoint")
    assert {name: each["ServiceName"].rpartition(".")[2] for name, each in endpoints.items()} == SERVICES
    assert {action.split(":")[0] for action, _ in called()} == set(SERVICES.values())


@pytest.mark.parametrize("endpoint", SERVICES)
def test_an_endpoint_admits_everything_that_the_roles_allow_and_no_other_action(
    endpoint: str, template: Template
) -> None:
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
def test_an_endpoint_is_for_identities_of_this_account_and_resources_of_this_stage(
    endpoint: str, template: Template
) -> None:
    for statement in template.properties(endpoint)["PolicyDocument"]["Statement"]:
        assert statement["Condition"] == {"StringEquals": {"aws:PrincipalAccount": "<account>"}}
        for resource in as_list(statement["Resource"]):
            assert "cafe-<stage>" in resource or resource == template.outputs["DbAdminSecretArn"]


def test_every_name_has_its_stage_so_that_two_stages_can_share_an_account(template: Template) -> None:
    for name, resource in template.resources.items():
        for key, value in resource["Properties"].items():
            if key in ("Name", "LogGroupName") or (key.endswith(("GroupName", "Identifier")) and key != "GroupId"):
                assert "cafe-<stage>" in value, f"{name}.{key}"
