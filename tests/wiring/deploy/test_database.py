"""Tests how a deploy sets up the MySQL database of a stage and migrates its tables."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from chalicelib.database import MIGRATIONS, split
from infra.deploy import database
from infra.deploy.mysql_location import MysqlLocation
from infra.deploy.target import DeployError, Say, Target
from tests.wiring.fakes import CloudFormation, Conflict, Missing, accepts, client_error
from tests.wiring.stage import client

SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:other-AbCdEf"


class Lambda:
    """Fakes Lambda with one function that has this configuration and returns these results in turn."""

    exceptions = SimpleNamespace(ResourceNotFoundException=Missing, ResourceConflictException=Conflict)

    def __init__(self, *answers: Any, configuration: dict[str, Any] | None = None) -> None:
        self.answers = list(answers)
        self.configuration = configuration
        self.called: list[str] = []
        self.permissions: list[dict[str, Any]] = []

    def invoke(self, FunctionName: str) -> dict[str, Any]:  # noqa: N803
        self.called.append(FunctionName)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        failed = {"FunctionError": "Unhandled"} if "errorMessage" in answer else {}
        return {"Payload": io.BytesIO(json.dumps(answer).encode()), **failed}

    def get_function_configuration(self, FunctionName: str) -> dict[str, Any]:  # noqa: N803
        if self.configuration is None:
            raise Missing
        arn = f"arn:aws:lambda:eu-central-1:123456789012:function:{FunctionName}"
        return {"FunctionArn": arn, **self.configuration}

    def add_permission(self, **given: Any) -> None:
        if self.permissions:
            raise Conflict
        accepts("lambda", "AddPermission", given)
        self.permissions.append(given)


# --- an existing database ---------------------------------------------------------------------------------------------


def test_an_existing_database_is_specified_by_its_secret_and_network() -> None:
    given = {"DB_SECRET_ARN": SECRET, "SUBNET_IDS": "subnet-1,subnet-2", "SECURITY_GROUP_IDS": " sg-1 "}
    assert MysqlLocation.from_variables(given) == MysqlLocation(SECRET, "", ("subnet-1", "subnet-2"), ("sg-1",))
    assert MysqlLocation.from_variables({"DB_SECRET_ARN": SECRET, "DB_ADMIN_SECRET_ARN": "a"}) == MysqlLocation(
        SECRET, "a"
    )
    assert MysqlLocation.from_variables({}) is None


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"DB_SECRET_ARN": SECRET, "SUBNET_IDS": "subnet-1"}, "set both SUBNET_IDS and SECURITY_GROUP_IDS"),
        ({"DB_SECRET_ARN": SECRET, "SECURITY_GROUP_IDS": "sg-1"}, "set both SUBNET_IDS and SECURITY_GROUP_IDS"),
        ({"SUBNET_IDS": "a", "SECURITY_GROUP_IDS": "b"}, "SUBNET_IDS, SECURITY_GROUP_IDS: DB_SECRET_ARN"),
        ({"DB_ADMIN_SECRET_ARN": "a"}, "DB_ADMIN_SECRET_ARN: DB_SECRET_ARN must also"),
    ],
)
def test_an_incomplete_database_is_refused(given: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        MysqlLocation.from_variables(given)


def test_a_database_without_a_network_or_an_administrator_removes_the_earlier_ones() -> None:
    assert MysqlLocation(SECRET).parameters == {"DbSecretArn": SECRET, "DbAdminSecretArn": "", "DbInVpc": "false"}
    assert MysqlLocation(SECRET).configuration("migrate") == {"environment_variables": {"DB_SECRET_ARN": SECRET}}
    assert MysqlLocation(SECRET, "admin").configuration("store_orders") == {}


def test_a_stage_keeps_its_existing_database_until_another_one_is_given(target: Target) -> None:
    before = MysqlLocation(SECRET, f"{SECRET}-admin", ("subnet-1", "subnet-2"), ("sg-1",))
    configuration = before.configuration("migrate")
    deployed = {
        "Environment": {"Variables": configuration["environment_variables"]},
        "VpcConfig": {"SubnetIds": configuration["subnet_ids"], "SecurityGroupIds": ["sg-1"]},
    }
    clients = {"lambda": Lambda(configuration=deployed), "cloudformation": CloudFormation(None)}
    assert database.existing_location(replace(target, database=None), clients.__getitem__) == before
    given = MysqlLocation(f"{SECRET}-2")
    assert database.existing_location(replace(target, database=given), clients.__getitem__) == given


def test_a_stage_without_a_database_gets_one_of_its_own_and_keeps_that(target: Target) -> None:
    new = replace(target, database=None)
    clients = {"lambda": Lambda(), "cloudformation": CloudFormation(None)}
    assert database.existing_location(new, clients.__getitem__) is None
    clients = {"lambda": Lambda(configuration={}), "cloudformation": CloudFormation("CREATE_COMPLETE")}
    assert database.existing_location(new, clients.__getitem__) is None
    with pytest.raises(DeployError, match=r"test already has its own database: .+ delete the stack cafe-test-database"):
        database.existing_location(replace(target, database=MysqlLocation(SECRET)), clients.__getitem__)


def test_a_stage_of_0_1_0_gets_no_empty_database(target: Target) -> None:
    def configuration(FunctionName: str) -> dict[str, Any]:  # noqa: N803
        if FunctionName != "cafe-test-read_inventory":
            raise Missing
        return {"Environment": {"Variables": {"DB_HOST": "mysql.example"}}}

    lambda_ = SimpleNamespace(get_function_configuration=configuration, exceptions=Lambda.exceptions)
    clients = {"lambda": lambda_, "cloudformation": CloudFormation(None)}
    with pytest.raises(DeployError, match=r"the MySQL at mysql\.example: .+ set DB_SECRET_ARN"):
        database.existing_location(replace(target, database=None), clients.__getitem__)


# --- a database of its own --------------------------------------------------------------------------------------------


def test_the_stack_gets_its_own_parameters_and_the_prefix_lists_of_the_gateways(aws: None, target: Target) -> None:
    ec2 = client("ec2")
    asked = replace(target, parameters={"DatabaseMaxCapacity": "8", "EmailAddress": "ana@example.com"})
    stack = database.stack(asked, {"ec2": ec2, "cloudformation": CloudFormation(None)}.__getitem__)
    lists = {
        each["PrefixListName"]: each["PrefixListId"] for each in ec2.describe_managed_prefix_lists()["PrefixLists"]
    }
    assert stack.name == "cafe-test-database"
    assert stack.parameters == {
        "Stage": "test",
        "S3PrefixList": lists["com.amazonaws.eu-central-1.s3"],
        "DynamoDbPrefixList": lists["com.amazonaws.eu-central-1.dynamodb"],
        "Zones": "eu-central-1a,eu-central-1b",
        "DatabaseMaxCapacity": "8",
    }


class Ec2:
    """Fakes a region with two AWS services, each of which is available in some zones."""

    meta = SimpleNamespace(region_name="us-east-1")

    def __init__(self, *zones: list[str]) -> None:
        self.zones = zones

    def describe_managed_prefix_lists(self, **_: Any) -> dict[str, Any]:
        return {"PrefixLists": [{"PrefixListId": "pl-1"}]}

    def describe_vpc_endpoint_services(self, **given: Any) -> dict[str, Any]:
        accepts("ec2", "DescribeVpcEndpointServices", given)
        return {"ServiceDetails": [{"AvailabilityZones": each} for each in self.zones]}


def zones(target: Target, ec2: Ec2, cfn: CloudFormation) -> str:
    return database.stack(target, {"ec2": ec2, "cloudformation": cfn}.__getitem__).parameters["Zones"]


def test_the_network_is_in_two_zones_that_have_its_services(target: Target) -> None:
    ec2 = Ec2(["us-east-1c", "us-east-1b", "us-east-1d"], ["us-east-1a", "us-east-1d", "us-east-1c"])
    assert zones(target, ec2, CloudFormation(None)) == "us-east-1c,us-east-1d"
    with pytest.raises(
        DeployError, match=r"us-east-1 has fewer than two availability zones with com\.amazonaws\.us-east-1\.sns"
    ):
        zones(target, Ec2(["us-east-1a", "us-east-1b"], ["us-east-1b"]), CloudFormation(None))


def test_a_network_stays_in_its_zones_when_aws_adds_others(target: Target) -> None:
    existing = CloudFormation("UPDATE_COMPLETE", parameters={"Zones": "us-east-1c,us-east-1d"})
    assert zones(target, Ec2(["us-east-1a", "us-east-1b"]), existing) == "us-east-1c,us-east-1d"


@pytest.mark.parametrize(("status", "takes"), [("available", True), ("deleting", False), (None, False)])
def test_the_cluster_loses_its_protection_only_after_its_final_snapshot(
    target: Target, status: str | None, takes: bool, said: list[str]
) -> None:
    """An interrupted removal is repeated, and must not fail on a cluster that it has begun to delete."""
    rds, cfn = Mock(exceptions=SimpleNamespace(DBClusterNotFoundFault=Missing)), CloudFormation("CREATE_COMPLETE")
    clusters = [{"DBClusterIdentifier": "cafe-test", "Status": status}] if status else []
    rds.get_paginator.return_value.paginate.return_value = [{"DBClusters": clusters, "DBClusterSnapshots": []}]
    database.remove(target, {"cloudformation": cfn, "rds": rds}.__getitem__, said.append)
    calls = {name: given for name, _, given in rds.mock_calls if "paginat" not in name}
    taking = ["create_db_cluster_snapshot", "get_waiter", "get_waiter().wait"] if takes else []
    assert list(calls) == [*taking, "modify_db_cluster"]
    assert calls["modify_db_cluster"] == {"DBClusterIdentifier": "cafe-test", "DeletionProtection": False}
    if takes:
        accepts("rds", "CreateDBClusterSnapshot", calls["create_db_cluster_snapshot"])
        name = calls["create_db_cluster_snapshot"]["DBClusterSnapshotIdentifier"]
        assert re.fullmatch(r"cafe-test-final-\d{8}-\d{6}-\d{6}", name)
        assert said[0] == f"database: taking the final snapshot {name}"


@pytest.mark.parametrize(("may_have_changed", "takes"), [(False, False), (True, True)])
def test_a_repeated_removal_uses_its_final_snapshot_unless_functions_may_have_changed_the_data(
    target: Target, may_have_changed: bool, takes: bool, said: list[str]
) -> None:
    rds, cfn = Mock(exceptions=SimpleNamespace(DBClusterNotFoundFault=Missing)), CloudFormation("CREATE_COMPLETE")
    cluster = {"DBClusterIdentifier": "cafe-test", "Status": "available", "DbClusterResourceId": "cluster-2"}
    snapshots = [
        {
            "DBClusterIdentifier": "cafe-test",
            "DBClusterSnapshotIdentifier": f"cafe-test-{name}",
            "DbClusterResourceId": of,
        }
        # The first is of an earlier stage with this name, and a person took the second.
        for name, of in (("final-1", "cluster-1"), ("by-hand", "cluster-2"), ("final-2", "cluster-2"))
    ]
    pages = [{"DBClusters": [cluster], "DBClusterSnapshots": snapshots}]
    rds.get_paginator.return_value.paginate.return_value = pages
    database.remove(target, {"cloudformation": cfn, "rds": rds}.__getitem__, said.append, may_have_changed)
    assert rds.create_db_cluster_snapshot.called == takes
    assert (said[0] == "database: the final snapshot cafe-test-final-2 exists already") != takes


class Secrets:
    def __init__(self) -> None:
        self.secret: dict[str, Any] = {}
        self.rotations = 0
        self.refusals: list[str] = []

    def describe_secret(self, SecretId: str) -> dict[str, Any]:  # noqa: N803
        return self.secret

    def rotate_secret(self, **given: Any) -> None:
        accepts("secretsmanager", "RotateSecret", given)
        assert given["RotateImmediately"] is False
        if self.refusals:
            raise client_error(self.refusals.pop(), "AccessDeniedException")
        self.secret = {name: given[name] for name in ("RotationLambdaARN", "RotationRules")}
        self.rotations += 1


def test_secrets_manager_rotates_the_password_every_month_and_may_call_the_function(
    target: Target, said: list[str]
) -> None:
    lambda_, secrets = Lambda(configuration={}), Secrets()
    clients = {"lambda": lambda_, "secretsmanager": secrets}
    for _ in range(2):
        database.rotate(target, MysqlLocation(SECRET, "admin"), clients.__getitem__, said.append)
    function = "arn:aws:lambda:eu-central-1:123456789012:function:cafe-test-rotate_password"
    assert secrets.secret == {"RotationLambdaARN": function, "RotationRules": {"AutomaticallyAfterDays": 30}}
    assert (secrets.rotations, len(said)) == (1, 1)
    [permission] = lambda_.permissions
    assert permission["Principal"] == "secretsmanager.amazonaws.com"
    assert permission["SourceAccount"] == "123456789012"


def test_a_rotation_waits_until_secrets_manager_can_call_the_function(target: Target) -> None:
    secrets = Secrets()
    secrets.refusals = ["Secrets Manager cannot invoke the specified Lambda function."]
    clients = {"lambda": Lambda(configuration={}), "secretsmanager": secrets}
    database.rotate(target, MysqlLocation(SECRET, "admin"), clients.__getitem__, print)
    assert secrets.rotations == 1
    secrets.secret, secrets.refusals = {}, ["User is not authorized to perform: secretsmanager:RotateSecret"]
    with pytest.raises(ClientError, match="not authorized"):
        database.rotate(target, MysqlLocation(SECRET, "admin"), clients.__getitem__, print)


# --- its tables -------------------------------------------------------------------------------------------------------


UP_TO_DATE = {"ran": [], "missing": []}
PAUSED = {"errorType": "DatabaseUnavailable", "errorMessage": "MySQL at db:3306 is temporarily unavailable"}


def migrate(target: Target, say: Say, *answers: Any) -> Lambda:
    lambda_ = Lambda(*answers)

    def clients(service: str, seconds: int) -> Lambda:
        # The client timeout is longer than the function timeout, because a migration may take that long.
        assert (service, seconds > 900) == ("lambda", True)
        return lambda_

    database.migrate(target, clients, say)
    return lambda_


@pytest.mark.parametrize(
    ("answers", "lines"),
    [
        ([{"ran": ["0001_inventory", "0002_more"], "missing": []}], ["database: 0001_inventory, 0002_more"]),
        ([UP_TO_DATE], ["database: nothing to change"]),
        (
            [{"ran": [], "missing": ["suppliers cannot have a unique key"]}],
            ["database: nothing to change", "database: suppliers cannot have a unique key"],
        ),
        # The first two attempts fail because the database is paused.
        ([PAUSED, PAUSED, UP_TO_DATE], [*[f"database: {PAUSED['errorMessage']}"] * 2, "database: nothing to change"]),
        # The first attempt fails because the function lost its network while it was idle.
        (
            [client_error("The function is inactive", "ResourceNotReadyException"), UP_TO_DATE],
            ["database: The function is inactive", "database: nothing to change"],
        ),
    ],
)
def test_the_function_of_the_stage_migrates_and_is_retried_while_mysql_wakes_up(
    answers: list[Any], lines: list[str], target: Target, said: list[str]
) -> None:
    lambda_ = migrate(target, said.append, *answers)
    assert lambda_.called == ["cafe-test-migrate"] * len(answers)
    assert said == lines


def test_a_database_that_stays_unavailable_stops_the_deploy(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAIT_SECONDS", -1)
    with pytest.raises(
        DeployError, match="the database is not up to date: MySQL at db:3306 is temporarily unavailable"
    ):
        migrate(target, print, PAUSED)


@pytest.mark.parametrize("kind", ["MigrationFailed", "PasswordRefused", "Sandbox.Timedout"])
def test_a_migration_that_fails_stops_the_deploy_with_its_error(target: Target, kind: str) -> None:
    with pytest.raises(DeployError, match=r"^the database is not up to date: 0002\.sql, statement 2 of 3: syntax$"):
        migrate(target, print, {"errorType": kind, "errorMessage": "0002.sql, statement 2 of 3: syntax"})


@pytest.mark.parametrize("file", sorted(MIGRATIONS.iterdir()), ids=lambda file: file.name)
def test_a_migration_only_adds_and_its_number_gives_its_order(file: Any) -> None:
    """A migration must not break the functions of the previous release, because they run until the deploy succeeds."""
    assert re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", file.name)
    assert [each.name for each in MIGRATIONS.iterdir() if each.name[:4] == file.name[:4]] == [file.name]
    for statement in split(file.read_text()):
        assert re.match(r"CREATE TABLE IF NOT EXISTS |ALTER TABLE \w+ ADD |CREATE INDEX |INSERT ", statement), statement
        assert not re.search(r"\b(DROP|RENAME|MODIFY|CHANGE|TRUNCATE|DELETE|REPLACE)\b", statement), statement
