"""Which MySQL a stage has, and how the deploy brings its tables up to date."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from chalicelib.database import MIGRATIONS, split
from infra.deploy import database
from infra.deploy.place import Place
from infra.deploy.target import DeployError, Say, Target
from tests.wiring.fakes import CloudFormation, _accepts

SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:other-AbCdEf"


class Lambda:
    """A function that answers so, one call after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.called: list[str] = []

    def invoke(self, FunctionName: str) -> dict[str, Any]:  # noqa: N803
        self.called.append(FunctionName)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        failed = {"FunctionError": "Unhandled"} if "errorMessage" in answer else {}
        return {"Payload": io.BytesIO(json.dumps(answer).encode()), **failed}


# --- a database that is there already ---------------------------------------------------------------------------------


def test_a_database_that_is_there_is_named_by_its_secret_and_its_network() -> None:
    given = {"DB_SECRET_ARN": SECRET, "SUBNET_IDS": "subnet-1,subnet-2", "SECURITY_GROUP_IDS": " sg-1 "}
    assert Place.given(given) == Place(SECRET, "", ("subnet-1", "subnet-2"), ("sg-1",))
    assert Place.given({"DB_SECRET_ARN": SECRET, "DB_ADMIN_SECRET_ARN": "a"}) == Place(SECRET, "a")
    assert Place.given({}) is None


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"DB_SECRET_ARN": SECRET, "SUBNET_IDS": "subnet-1"}, "SUBNET_IDS and SECURITY_GROUP_IDS: both of them"),
        ({"DB_SECRET_ARN": SECRET, "SECURITY_GROUP_IDS": "sg-1"}, "SUBNET_IDS and SECURITY_GROUP_IDS: both of them"),
        ({"SUBNET_IDS": "a", "SECURITY_GROUP_IDS": "b"}, "SUBNET_IDS, SECURITY_GROUP_IDS: of no use without DB_SECRET"),
        ({"DB_ADMIN_SECRET_ARN": "a"}, "DB_ADMIN_SECRET_ARN: of no use without DB_SECRET_ARN"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Place.given(given)


def test_a_database_without_a_network_or_an_administrator_leaves_none_of_the_one_before() -> None:
    assert Place(SECRET).parameters == {"DbSecretArn": SECRET, "DbAdminSecretArn": "", "DbInVpc": "false"}
    assert Place(SECRET).configuration("migrate") == {"environment_variables": {"DB_SECRET_ARN": SECRET}}
    assert Place(SECRET, "admin").configuration("store_orders") == {}


class Deployed(Lambda):
    """A function that is configured so."""

    class exceptions:  # noqa: N801
        class ResourceNotFoundException(Exception):
            pass

        class ResourceConflictException(Exception):
            pass

    def __init__(self, configuration: dict[str, Any] | None) -> None:
        super().__init__()
        self.configuration = configuration
        self.permissions: list[dict[str, Any]] = []

    def get_function_configuration(self, FunctionName: str) -> dict[str, Any]:  # noqa: N803
        if self.configuration is None:
            raise self.exceptions.ResourceNotFoundException
        return {
            "FunctionArn": f"arn:aws:lambda:eu-central-1:123456789012:function:{FunctionName}",
            **self.configuration,
        }

    def add_permission(self, **given: Any) -> None:
        if self.permissions:
            raise self.exceptions.ResourceConflictException
        _accepts("lambda", "AddPermission", given)
        self.permissions.append(given)


def test_a_stage_keeps_the_database_that_it_was_deployed_with(target: Target) -> None:
    before = Place(SECRET, f"{SECRET}-admin", ("subnet-1", "subnet-2"), ("sg-1",))
    configuration = before.configuration("migrate")
    deployed = {
        "Environment": {"Variables": configuration["environment_variables"]},
        "VpcConfig": {"SubnetIds": configuration["subnet_ids"], "SecurityGroupIds": ["sg-1"]},
    }
    clients = {"lambda": Deployed(deployed), "cloudformation": CloudFormation(None)}
    assert database.found(replace(target, database=None), clients.__getitem__) == before
    given = Place(f"{SECRET}-2")
    assert database.found(replace(target, database=given), clients.__getitem__) == given


def test_a_stage_that_has_none_gets_one_of_its_own_and_keeps_that(target: Target) -> None:
    new = replace(target, database=None)
    clients = {"lambda": Deployed(None), "cloudformation": CloudFormation(None)}
    assert database.found(new, clients.__getitem__) is None
    clients = {"lambda": Deployed({}), "cloudformation": CloudFormation("CREATE_COMPLETE")}
    assert database.found(new, clients.__getitem__) is None


def test_a_stage_is_not_led_away_from_a_database_of_its_own(target: Target) -> None:
    clients = {"lambda": Deployed({}), "cloudformation": CloudFormation("CREATE_COMPLETE")}
    with pytest.raises(DeployError, match="test has a database of its own, cafe-test-database"):
        database.found(replace(target, database=Place(SECRET)), clients.__getitem__)


# --- a database of its own --------------------------------------------------------------------------------------------


def test_the_stack_gets_its_own_parameters_and_knows_where_s3_is(aws: None, target: Target) -> None:
    ec2 = boto3.client("ec2")
    asked = replace(target, parameters={"DatabaseMaxCapacity": "8", "EmailAddress": "ana@example.com"})
    stack = database.stack(asked, {"ec2": ec2, "cloudformation": CloudFormation(None)}.__getitem__)
    [s3] = [
        each["PrefixListId"]
        for each in ec2.describe_managed_prefix_lists()["PrefixLists"]
        if each["PrefixListName"] == "com.amazonaws.eu-central-1.s3"
    ]
    assert stack.name == "cafe-test-database"
    assert stack.parameters == {
        "Stage": "test",
        "S3PrefixList": s3,
        "Zones": "eu-central-1a,eu-central-1b",
        "DatabaseMaxCapacity": "8",
    }


class Ec2:
    """A region whose services are in these zones."""

    meta = SimpleNamespace(region_name="us-east-1")

    def __init__(self, *zones: list[str]) -> None:
        self.zones = zones

    def describe_managed_prefix_lists(self, **_: Any) -> dict[str, Any]:
        return {"PrefixLists": [{"PrefixListId": "pl-1"}]}

    def describe_vpc_endpoint_services(self, **given: Any) -> dict[str, Any]:
        _accepts("ec2", "DescribeVpcEndpointServices", given)
        return {"ServiceDetails": [{"AvailabilityZones": each} for each in self.zones]}


def zones(target: Target, ec2: Ec2, cfn: CloudFormation) -> str:
    return database.stack(target, {"ec2": ec2, "cloudformation": cfn}.__getitem__).parameters["Zones"]


def test_its_network_is_in_zones_that_have_the_services_it_is_for(target: Target) -> None:
    ec2 = Ec2(["us-east-1c", "us-east-1b", "us-east-1d"], ["us-east-1a", "us-east-1d", "us-east-1c"])
    assert zones(target, ec2, CloudFormation(None)) == "us-east-1c,us-east-1d"
    with pytest.raises(DeployError, match=r"us-east-1 has no two zones with com\.amazonaws\.us-east-1\.sns and"):
        zones(target, Ec2(["us-east-1a", "us-east-1b"], ["us-east-1b"]), CloudFormation(None))


def test_a_network_stays_in_its_zones_where_aws_adds_others(target: Target) -> None:
    there = CloudFormation("UPDATE_COMPLETE", parameters={"Zones": "us-east-1c,us-east-1d"})
    assert zones(target, Ec2(["us-east-1a", "us-east-1b"]), there) == "us-east-1c,us-east-1d"


class Rds:
    class exceptions:  # noqa: N801
        class DBClusterNotFoundFault(Exception):
            pass

    def __init__(self) -> None:
        self.changed: list[dict[str, Any]] = []

    def modify_db_cluster(self, **given: Any) -> None:
        _accepts("rds", "ModifyDBCluster", given)
        self.changed.append(given)


@pytest.mark.parametrize(
    ("status", "goes"), [("ROLLBACK_FAILED", True), ("UPDATE_COMPLETE", False), ("DELETE_FAILED", False), (None, False)]
)
def test_only_of_a_stack_that_was_never_whole_the_cluster_loses_its_protection(
    target: Target, status: str | None, goes: bool
) -> None:
    """Somebody who deleted the stack by hand is kept from it."""
    rds = Rds()
    database.clear(target, {"cloudformation": CloudFormation(status), "rds": rds}.__getitem__)
    assert rds.changed == [{"DBClusterIdentifier": "cafe-test", "DeletionProtection": False}][: int(goes)]


class Secrets:
    def __init__(self) -> None:
        self.secret: dict[str, Any] = {}
        self.rotations = 0
        self.refusals: list[str] = []

    def describe_secret(self, SecretId: str) -> dict[str, Any]:  # noqa: N803
        return self.secret

    def rotate_secret(self, **given: Any) -> None:
        _accepts("secretsmanager", "RotateSecret", given)
        assert given["RotateImmediately"] is False
        if self.refusals:
            error = {"Code": "AccessDeniedException", "Message": self.refusals.pop()}
            raise ClientError({"Error": error}, "RotateSecret")
        self.secret = {name: given[name] for name in ("RotationLambdaARN", "RotationRules")}
        self.rotations += 1


def test_the_password_is_rotated_every_month_by_the_function_that_secrets_manager_may_call(
    target: Target, said: list[str]
) -> None:
    lambda_, secrets = Deployed({}), Secrets()
    clients = {"lambda": lambda_, "secretsmanager": secrets}
    place = Place(SECRET, "admin")
    for _ in range(2):
        database.rotate(target, place, clients.__getitem__, said.append)
    function = "arn:aws:lambda:eu-central-1:123456789012:function:cafe-test-rotate_password"
    assert secrets.secret == {"RotationLambdaARN": function, "RotationRules": {"AutomaticallyAfterDays": 30}}
    assert (secrets.rotations, len(said)) == (1, 1)
    [permission] = lambda_.permissions
    assert permission["Principal"] == "secretsmanager.amazonaws.com"
    assert permission["SourceAccount"] == "123456789012"


def test_a_rotation_waits_until_secrets_manager_knows_that_it_may_call_the_function(
    target: Target, said: list[str]
) -> None:
    secrets = Secrets()
    secrets.refusals = ["Secrets Manager cannot invoke the specified Lambda function."]
    clients = {"lambda": Deployed({}), "secretsmanager": secrets}
    database.rotate(target, Place(SECRET, "admin"), clients.__getitem__, said.append)
    assert secrets.rotations == 1
    secrets.secret, secrets.refusals = {}, ["User is not authorized to perform: secretsmanager:RotateSecret"]
    with pytest.raises(ClientError, match="not authorized"):
        database.rotate(target, Place(SECRET, "admin"), clients.__getitem__, said.append)


# --- its tables -------------------------------------------------------------------------------------------------------


UP_TO_DATE = {"ran": [], "missing": []}
PAUSED = {"errorType": "DatabaseUnavailable", "errorMessage": "MySQL at db:3306 does not answer for now"}


def migrate(target: Target, say: Say, *answers: Any) -> Lambda:
    lambda_ = Lambda(*answers)

    def clients(service: str, seconds: int) -> Lambda:
        # A migration may take as long as its function.
        assert (service, seconds > 900) == ("lambda", True)
        return lambda_

    database.migrate(target, clients, say)
    return lambda_


def test_the_deploy_lets_the_function_of_the_stage_migrate_and_tells_what_ran(target: Target, said: list[str]) -> None:
    lambda_ = migrate(target, said.append, {"ran": ["0001_inventory", "0002_more"], "missing": []})
    assert lambda_.called == ["cafe-test-migrate"]
    assert said == ["database: 0001_inventory, 0002_more"]


def test_a_database_that_is_up_to_date_is_told_as_such(target: Target, said: list[str]) -> None:
    migrate(target, said.append, UP_TO_DATE)
    assert said == ["database: nothing to change"]


def test_what_the_tables_lack_is_told(target: Target, said: list[str]) -> None:
    migrate(target, said.append, {"ran": [], "missing": ["suppliers cannot have a unique key"]})
    assert said[1:] == ["database: suppliers cannot have a unique key"]


def test_a_database_that_has_paused_is_waited_for(target: Target, said: list[str]) -> None:
    lambda_ = migrate(target, said.append, PAUSED, PAUSED, UP_TO_DATE)
    assert len(lambda_.called) == 3
    assert said[0] == "database: MySQL at db:3306 does not answer for now"


def test_a_function_that_lost_its_network_while_it_was_idle_is_waited_for(target: Target, said: list[str]) -> None:
    error = {"Code": "ResourceNotReadyException", "Message": "The function is inactive"}
    lambda_ = migrate(target, said.append, ClientError({"Error": error}, "Invoke"), UP_TO_DATE)
    assert len(lambda_.called) == 2
    assert said[0] == "database: The function is inactive"


def test_a_database_that_stays_away_stops_the_deploy(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAIT_SECONDS", -1)
    with pytest.raises(DeployError, match="the database is not up to date: MySQL at db:3306 does not answer for now"):
        migrate(target, print, PAUSED)


@pytest.mark.parametrize("kind", ["MigrationFailed", "PasswordRefused", "Sandbox.Timedout"])
def test_a_migration_that_fails_stops_the_deploy_with_its_words(target: Target, kind: str) -> None:
    with pytest.raises(DeployError, match=r"^the database is not up to date: 0002\.sql, statement 2 of 3: syntax$"):
        migrate(target, print, {"errorType": kind, "errorMessage": "0002.sql, statement 2 of 3: syntax"})


FILES = pytest.mark.parametrize("file", sorted(MIGRATIONS.iterdir()), ids=lambda file: file.name)


@FILES
def test_a_migration_only_adds(file: Any) -> None:
    """The functions of before go on while it runs, and come back if the deploy fails."""
    for statement in split(file.read_text()):
        assert re.match(r"CREATE TABLE IF NOT EXISTS |ALTER TABLE \w+ ADD |CREATE INDEX |INSERT ", statement), statement
        assert not re.search(r"\b(DROP|RENAME|MODIFY|CHANGE|TRUNCATE|DELETE|REPLACE)\b", statement), statement


@FILES
def test_migrations_have_numbers_that_say_their_order(file: Any) -> None:
    assert re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", file.name)
    numbers = [each.name[:4] for each in MIGRATIONS.iterdir()]
    assert len(numbers) == len(set(numbers))
