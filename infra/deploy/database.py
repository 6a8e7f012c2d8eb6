"""Manages a stage's MySQL database and its tables. A stage has its own database or uses an existing database."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from infra.deploy import code, protection, stacks
from infra.deploy.mysql_location import MysqlLocation
from infra.deploy.stacks import Stack
from infra.deploy.target import Clients, DeployError, Say, Target

# A paused database responds after about 30 seconds.
WAIT_SECONDS = 180
PAUSE_SECONDS = 5
# Lambda rejects calls while it restores the network interface of a function that was idle for weeks.
NOT_READY = ("ResourceNotReadyException", "ENINotReadyException", "ResourceConflictException")
# This time limit is slightly longer than the timeout of `migrate`.
MIGRATION_SECONDS = 910
# A new permission takes effect after a few seconds.
PERMISSION_SECONDS = 60
ROTATION = {"AutomaticallyAfterDays": 30}
# Lambda usually deletes the network interfaces of a deleted function within twenty minutes.
INTERFACES_SECONDS = 3600
INTERFACES_PAUSE_SECONDS = 15
SNAPSHOT_WAIT = {"Delay": 15, "MaxAttempts": 240}


def existing_location(target: Target, clients: Clients) -> MysqlLocation | None:
    """Returns the location of an existing database, from ``target`` or from the previous deploy.

    Returns None if the stage has its own database or no database yet. Raises ``DeployError`` if the stage has its own
    database but ``target`` specifies another database, or if version 0.1.0 deployed the stage.
    """
    own = stacks.find(clients("cloudformation"), target.stack("database"))
    if own and target.database:
        raise DeployError(
            f"{target.stage} already has its own database: "
            f"deploy without DB_SECRET_ARN, or first delete the stack {target.stack('database')}"
        )
    if own or target.database:
        return target.database
    if deployed := _function(target, clients, "migrate"):
        return _location_of(deployed)
    reader = _function(target, clients, "read_inventory")
    # Without this check, the stage would get a new and empty database.
    if host := reader.get("Environment", {}).get("Variables", {}).get("DB_HOST"):
        raise DeployError(
            f"version 0.1.0 deployed {target.stage} with the MySQL at {host}: "
            "store the login in a secret as docs/configuration.md describes, and set DB_SECRET_ARN"
        )
    return None


def _function(target: Target, clients: Clients, name: str) -> dict[str, Any]:
    """Returns the configuration of a deployed function, or nothing if the function does not exist."""
    lambda_ = clients("lambda")
    try:
        configuration: dict[str, Any] = lambda_.get_function_configuration(FunctionName=target.function(name))
    except lambda_.exceptions.ResourceNotFoundException:
        return {}
    return configuration


def _location_of(function: Mapping[str, Any]) -> MysqlLocation | None:
    """Returns the location of the database that a deployed function uses."""
    network = function.get("VpcConfig", {})
    given = {
        **function["Environment"]["Variables"],
        "SUBNET_IDS": ",".join(network.get("SubnetIds", [])),
        "SECURITY_GROUP_IDS": ",".join(network.get("SecurityGroupIds", [])),
    }
    return MysqlLocation.from_variables(given)


def template() -> str:
    return stacks.template("database.yaml")


def stack(target: Target, clients: Clients) -> Stack:
    """Returns the desired state of the stack that contains the stage's own database."""
    body = template()
    given = stacks.supported_parameters(body, target.parameters)
    name, ec2 = target.stack("database"), clients("ec2")
    # An existing stack keeps its availability zones, because a subnet must be replaced to change its zone.
    zones = stacks.current_parameters(clients("cloudformation"), name).get("Zones") or ",".join(_zones(ec2))
    lists = {"S3PrefixList": _prefix_list(ec2, "s3"), "DynamoDbPrefixList": _prefix_list(ec2, "dynamodb")}
    parameters = {"Stage": target.stage, **lists, "Zones": zones, **given}
    return Stack(name, body, parameters, {"app": "cafe", "stage": target.stage})


def _zones(ec2: Any) -> list[str]:
    """Returns two availability zones that offer endpoints for SNS and Secrets Manager."""
    services = [f"com.amazonaws.{ec2.meta.region_name}.{service}" for service in ("sns", "secretsmanager")]
    details = ec2.describe_vpc_endpoint_services(ServiceNames=services)["ServiceDetails"]
    zones = sorted(set.intersection(*(set(each["AvailabilityZones"]) for each in details)))
    if len(zones) < 2:
        raise DeployError(
            f"{ec2.meta.region_name} has fewer than two availability zones "
            f"with {' and '.join(services)}: use another region"
        )
    return zones[:2]


def _prefix_list(ec2: Any, service: str) -> str:
    """Returns the id of a service's prefix list in this region, for security group rules."""
    name = f"com.amazonaws.{ec2.meta.region_name}.{service}"
    [prefixes] = ec2.describe_managed_prefix_lists(Filters=[{"Name": "prefix-list-name", "Values": [name]}])[
        "PrefixLists"
    ]
    return str(prefixes["PrefixListId"])


def own_location(target: Target, clients: Clients) -> MysqlLocation:
    """Returns the location of the database in the stage's own stack."""
    name = target.stack("database")
    if location := MysqlLocation.from_variables(stacks.outputs(clients("cloudformation"), name)):
        return location
    raise DeployError(f"{name} has no output with a secret, so it was not created from infra/database.yaml")


def migrate_first(
    target: Target, config: Mapping[str, Any], package: Mapping[str, str], clients: Clients, say: Say
) -> bool:
    """Updates and invokes ``migrate`` so that the tables are ready before the other functions get new code.

    Returns whether ``migrate`` ran. ``migrate`` does not run if it is not deployed yet or still uses another database.
    """
    deployed = _function(target, clients, "migrate")
    if not deployed or _location_of(deployed) != target.database:
        return False
    code.update_function(clients("lambda"), target, config, "migrate", package)
    migrate(target, clients, say)
    return True


def migrate(target: Target, clients: Clients, say: Say) -> None:
    """Migrates the database with the function ``migrate``, because MySQL is reachable only from its own network.

    Raises ``DeployError`` with the reason if the migration fails. The next deploy continues the migration.
    """
    lambda_ = clients("lambda", MIGRATION_SECONDS)
    end = time.monotonic() + WAIT_SECONDS
    while True:
        failed, result = _invoke(lambda_, target.function("migrate"))
        if not failed:
            break
        if result.get("errorType") not in ("Unavailable", "DatabaseUnavailable") or time.monotonic() > end:
            raise DeployError(f"the database is not up to date: {result.get('errorMessage', result)}")
        say(f"database: {result['errorMessage']}")
        time.sleep(PAUSE_SECONDS)
    say(f"database: {', '.join(result['ran'])}" if result["ran"] else "database: nothing to change")
    for line in result["missing"]:
        say(f"database: {line}")


def _invoke(lambda_: Any, function: str) -> tuple[bool, dict[str, Any]]:
    """Invokes a function. Returns whether the function failed, and what it returned."""
    try:
        answer = lambda_.invoke(FunctionName=function)
    except ClientError as error:
        if error.response["Error"]["Code"] not in NOT_READY:
            raise
        return True, {"errorType": "Unavailable", "errorMessage": error.response["Error"]["Message"]}
    return "FunctionError" in answer, json.load(answer["Payload"])


def rotate(target: Target, location: MysqlLocation, clients: Clients, say: Say) -> None:
    """Configures Secrets Manager to rotate the database password of the functions every 30 days."""
    lambda_, secrets = clients("lambda"), clients("secretsmanager")
    function = lambda_.get_function_configuration(FunctionName=target.function("rotate_password"))["FunctionArn"]
    account = function.split(":")[4]
    # An earlier deploy may already have added this Lambda permission.
    with suppress(lambda_.exceptions.ResourceConflictException):
        lambda_.add_permission(
            FunctionName=function,
            StatementId="secretsmanager",
            Action="lambda:InvokeFunction",
            Principal="secretsmanager.amazonaws.com",
            SourceAccount=account,
        )
    secret = secrets.describe_secret(SecretId=location.secret)
    if (secret.get("RotationLambdaARN"), secret.get("RotationRules")) == (function, ROTATION):
        return
    end = time.monotonic() + PERMISSION_SECONDS
    while True:
        try:
            # The password is new, so the first rotation can wait.
            secrets.rotate_secret(
                SecretId=location.secret, RotationLambdaARN=function, RotationRules=ROTATION, RotateImmediately=False
            )
            break
        except ClientError as error:
            # A new permission may not have taken effect yet.
            if "cannot invoke the specified Lambda function" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(PAUSE_SECONDS)
    say(f"database: the password of the functions is rotated every {ROTATION['AutomaticallyAfterDays']} days")


def remove(target: Target, clients: Clients, say: Say, may_have_changed: bool = True) -> None:
    """Takes a final snapshot of the stage's own database, and deletes the database.

    If the data has not changed since the final snapshot of an interrupted removal, that snapshot is used.
    The functions must already be deleted, but their roles must still exist. Lambda needs the roles to delete its
    network interfaces, and CloudFormation cannot delete a network that is in use.
    """
    cfn, name = clients("cloudformation"), target.stack("database")
    if not stacks.find(cfn, name):
        return
    outputs = stacks.outputs(cfn, name)
    if group := outputs.get("SECURITY_GROUP_IDS"):
        _wait_for_interfaces(clients("ec2"), group, say)
    _take_final_snapshot(target, clients("rds"), say, may_have_changed)
    protection.remove_from_cluster(target, clients)
    if secret := outputs.get("DB_SECRET_ARN"):
        # With a recovery window, the secret's name could not be reused for up to 30 days.
        clients("secretsmanager").delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)
    stacks.delete(cfn, name, say)


def _take_final_snapshot(target: Target, rds: Any, say: Say, may_have_changed: bool) -> None:
    """Takes a snapshot of the database, unless an interrupted removal has taken it or has begun to delete the data."""
    pages = rds.get_paginator("describe_db_clusters").paginate()
    clusters = {each["DBClusterIdentifier"]: each for page in pages for each in page["DBClusters"]}
    cluster = clusters.get(f"cafe-{target.stage}")
    if cluster is None or cluster["Status"] == "deleting":
        return
    prefix, own = f"cafe-{target.stage}-final-", cluster.get("DbClusterResourceId")
    taken = [
        each["DBClusterSnapshotIdentifier"]
        for each in _manual_snapshots(target, rds)
        if each["DBClusterSnapshotIdentifier"].startswith(prefix) and each.get("DbClusterResourceId") == own
    ]
    if taken and not may_have_changed:
        name = max(taken)
        say(f"database: the final snapshot {name} exists already")
    else:
        name = f"{prefix}{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
        say(f"database: taking the final snapshot {name}")
        rds.create_db_cluster_snapshot(
            DBClusterSnapshotIdentifier=name, DBClusterIdentifier=cluster["DBClusterIdentifier"]
        )
    rds.get_waiter("db_cluster_snapshot_available").wait(DBClusterSnapshotIdentifier=name, WaiterConfig=SNAPSHOT_WAIT)


def snapshots(target: Target, clients: Clients) -> list[str]:
    """Returns the names of all snapshots of the stage's database that are kept until a person deletes them."""
    return [each["DBClusterSnapshotIdentifier"] for each in _manual_snapshots(target, clients("rds"))]


def _manual_snapshots(target: Target, rds: Any) -> list[dict[str, Any]]:
    pages = rds.get_paginator("describe_db_cluster_snapshots").paginate(SnapshotType="manual")
    found = [each for page in pages for each in page["DBClusterSnapshots"]]
    return [each for each in found if each["DBClusterIdentifier"] == f"cafe-{target.stage}"]


def _wait_for_interfaces(ec2: Any, group: str, say: Say) -> None:
    end = time.monotonic() + INTERFACES_SECONDS
    announced = False
    while interfaces := ec2.describe_network_interfaces(Filters=[{"Name": "group-id", "Values": [group]}])[
        "NetworkInterfaces"
    ]:
        if time.monotonic() > end:
            names = ", ".join(each["NetworkInterfaceId"] for each in interfaces)
            raise DeployError(f"the network is still in use by {names}: try again later")
        if not announced:
            say("database: waiting for Lambda to release the network, which can take twenty minutes")
            announced = True
        time.sleep(INTERFACES_PAUSE_SECONDS)
