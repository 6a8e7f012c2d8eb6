"""A stage's MySQL: one of its own in a network of its own, or another one that is there already; and its tables."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from infra.deploy import stacks
from infra.deploy.place import Place
from infra.deploy.project import RUNTIME
from infra.deploy.stacks import Stack
from infra.deploy.target import Clients, DeployError, Say, Target

# A database that has paused takes half a minute to answer again.
WAIT_SECONDS = 180
PAUSE_SECONDS = 5
# What Lambda says of a function whose network it took away, after weeks without a call: the next call brings it back.
NOT_READY = ("ResourceNotReadyException", "ENINotReadyException", "ResourceConflictException")
# As long as Lambda lets it run.
MIGRATION_SECONDS = 910
# Until a new permission on a function is known everywhere.
PERMISSION_SECONDS = 60
ROTATION = {"AutomaticallyAfterDays": 30}
# Lambda takes the network interfaces of deleted functions away in its own time, up to twenty minutes as a rule.
INTERFACES_SECONDS = 3600
INTERFACES_PAUSE_SECONDS = 15


def found(target: Target, clients: Clients) -> Place | None:
    """The database that the stage shall have, if it is there already: the given one, or that of the deploy before.

    None means a database of the stage's own: the stack that it has, or will have. Raises ``DeployError`` where it has
    one and another one is given.
    """
    own = stacks.find(clients("cloudformation"), target.stack("database"))
    if own and target.database:
        raise DeployError(
            f"{target.stage} has a database of its own, {target.stack('database')}, whose data would stay behind: "
            "deploy without DB_SECRET_ARN, or take that stack away first"
        )
    if own or target.database:
        return target.database
    lambda_ = clients("lambda")
    try:
        deployed = lambda_.get_function_configuration(FunctionName=target.function("migrate"))
    except lambda_.exceptions.ResourceNotFoundException:
        return None
    return _place_of(deployed)


def _place_of(function: Mapping[str, Any]) -> Place | None:
    """The database of a deployed function."""
    network = function.get("VpcConfig", {})
    given = {
        **function["Environment"]["Variables"],
        "SUBNET_IDS": ",".join(network.get("SubnetIds", [])),
        "SECURITY_GROUP_IDS": ",".join(network.get("SecurityGroupIds", [])),
    }
    return Place.given(given)


def template() -> str:
    return stacks.template("database.yaml")


def stack(target: Target, clients: Clients) -> Stack:
    """The stack of the stage's own database, as it shall be."""
    body = template()
    given = stacks.known(body, target.parameters)
    name, ec2 = target.stack("database"), clients("ec2")
    # A subnet stays where it is, for in another zone it would be another one.
    zones = stacks.values(clients("cloudformation"), name).get("Zones") or ",".join(_zones(ec2))
    parameters = {"Stage": target.stage, "S3PrefixList": _s3(ec2), "Zones": zones, **given}
    return Stack(name, body, parameters, {"app": "cafe", "stage": target.stage})


def _zones(ec2: Any) -> list[str]:
    """Two zones for the subnets. Not every one has each service, and their names stand for others in each account."""
    services = [f"com.amazonaws.{ec2.meta.region_name}.{service}" for service in ("sns", "secretsmanager")]
    details = ec2.describe_vpc_endpoint_services(ServiceNames=services)["ServiceDetails"]
    zones = sorted(set.intersection(*(set(each["AvailabilityZones"]) for each in details)))
    if len(zones) < 2:
        raise DeployError(f"{ec2.meta.region_name} has no two zones with {' and '.join(services)}: take another region")
    return zones[:2]


def _s3(ec2: Any) -> str:
    """The list of S3's addresses in this region, for the rules of a security group."""
    name = f"com.amazonaws.{ec2.meta.region_name}.s3"
    [prefixes] = ec2.describe_managed_prefix_lists(Filters=[{"Name": "prefix-list-name", "Values": [name]}])[
        "PrefixLists"
    ]
    return str(prefixes["PrefixListId"])


def of_stack(target: Target, clients: Clients) -> Place:
    """The database of the stage's own stack."""
    name = target.stack("database")
    if place := Place.given(stacks.outputs(clients("cloudformation"), name)):
        return place
    raise DeployError(f"{name} has no secret among its outputs: it is not made by infra/database.yaml")


def migrate_first(target: Target, config: Mapping[str, Any], package: Path, clients: Clients, say: Say) -> bool:
    """Gives the new code to ``migrate`` alone and lets it run, so that no other function's code is ahead of the tables.

    Whether it did: a new stage has no such function yet, and one that gets another database has it for the former one.
    """
    lambda_, name = clients("lambda"), target.function("migrate")
    try:
        deployed = lambda_.get_function_configuration(FunctionName=name)
    except lambda_.exceptions.ResourceNotFoundException:
        return False
    if _place_of(deployed) != target.database:
        return False
    stage = config["stages"][target.stage]
    variables = stage["environment_variables"] | stage["lambda_functions"]["migrate"]["environment_variables"]
    lambda_.update_function_configuration(FunctionName=name, Runtime=RUNTIME, Environment={"Variables": variables})
    lambda_.get_waiter("function_updated_v2").wait(FunctionName=name)
    lambda_.update_function_code(FunctionName=name, ZipFile=package.read_bytes())
    lambda_.get_waiter("function_updated_v2").wait(FunctionName=name)
    migrate(target, clients, say)
    return True


def migrate(target: Target, clients: Clients, say: Say) -> None:
    """Brings the tables up to the deployed code. Raises ``DeployError`` with what went wrong; the next deploy goes on.

    It is a function of the app that does it: MySQL can be reached from its own network only.
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
    """Whether it failed, and its answer."""
    try:
        answer = lambda_.invoke(FunctionName=function)
    except ClientError as error:
        if error.response["Error"]["Code"] not in NOT_READY:
            raise
        return True, {"errorType": "Unavailable", "errorMessage": error.response["Error"]["Message"]}
    return "FunctionError" in answer, json.load(answer["Payload"])


def rotate(target: Target, place: Place, clients: Clients, say: Say) -> None:
    """Has Secrets Manager rotate the functions' password every month, by ``rotate_password``."""
    lambda_, secrets = clients("lambda"), clients("secretsmanager")
    function = lambda_.get_function_configuration(FunctionName=target.function("rotate_password"))["FunctionArn"]
    account = function.split(":")[4]
    # It may already.
    with suppress(lambda_.exceptions.ResourceConflictException):
        lambda_.add_permission(
            FunctionName=function,
            StatementId="secretsmanager",
            Action="lambda:InvokeFunction",
            Principal="secretsmanager.amazonaws.com",
            SourceAccount=account,
        )
    secret = secrets.describe_secret(SecretId=place.secret)
    if (secret.get("RotationLambdaARN"), secret.get("RotationRules")) == (function, ROTATION):
        return
    end = time.monotonic() + PERMISSION_SECONDS
    while True:
        try:
            # Not at once: the functions have been given this password a moment ago.
            secrets.rotate_secret(
                SecretId=place.secret, RotationLambdaARN=function, RotationRules=ROTATION, RotateImmediately=False
            )
            break
        except ClientError as error:
            # It does not know of a new permission at once.
            if "cannot invoke the specified Lambda function" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(PAUSE_SECONDS)
    say(f"database: the functions' password is rotated every {ROTATION['AutomaticallyAfterDays']} days")


def remove(target: Target, clients: Clients, say: Say) -> None:
    """Removes the stage's own database with all its data. Its functions have to be gone, and their roles still there:
    by those Lambda takes away its network interfaces, and before that no network can be deleted."""
    cfn, name = clients("cloudformation"), target.stack("database")
    there = stacks.find(cfn, name)
    if not there:
        return
    outputs = stacks.outputs(cfn, name)
    if group := outputs.get("SECURITY_GROUP_IDS"):
        _wait_for_interfaces(clients("ec2"), group, say)
    _unprotect(target, clients("rds"))
    if secret := outputs.get("DB_SECRET_ARN"):
        # At once: otherwise its name would be taken for a month.
        clients("secretsmanager").delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)
    stacks.delete(cfn, name, say)


def clear(target: Target, clients: Clients) -> None:
    """Lets go of a MySQL whose stack could not be made as a whole, and was never used.

    Its protection would keep it, and so the stack, from being removed and made anew.
    """
    there = stacks.find(clients("cloudformation"), target.stack("database"))
    if there and there["StackStatus"] in ("ROLLBACK_FAILED", "CREATE_FAILED"):
        _unprotect(target, clients("rds"))


def _unprotect(target: Target, rds: Any) -> None:
    # It may be gone already.
    with suppress(rds.exceptions.DBClusterNotFoundFault):
        rds.modify_db_cluster(DBClusterIdentifier=f"cafe-{target.stage}", DeletionProtection=False)


def _wait_for_interfaces(ec2: Any, group: str, say: Say) -> None:
    end = time.monotonic() + INTERFACES_SECONDS
    told = False
    while interfaces := ec2.describe_network_interfaces(Filters=[{"Name": "group-id", "Values": [group]}])[
        "NetworkInterfaces"
    ]:
        if time.monotonic() > end:
            names = ", ".join(each["NetworkInterfaceId"] for each in interfaces)
            raise DeployError(f"the network is still in use by {names}: try again later")
        if not told:
            say("database: waiting for Lambda to leave its network, which may take twenty minutes")
            told = True
        time.sleep(INTERFACES_PAUSE_SECONDS)
