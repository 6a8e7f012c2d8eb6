"""Checks the caller and the account before a deploy changes anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from infra.deploy import chalice_record, resources_of_stage, stacks
from infra.deploy.resources_of_stage import Resource
from infra.deploy.stacks import DATA
from infra.deploy.target import REPOSITORY, Clients, DeployError, Say, Target
from infra.functions import LIMITED, NAMES

DEPLOYER = REPOSITORY / "infra" / "deployer"
POLICIES = sorted(DEPLOYER.glob("cafe-deployer-*.json"))
# This policy limits every role of a stage. The path is part of its ARN.
BOUNDARY = "deployers/cafe-boundary"
# IAM's simulation needs the type of a condition's value. The type of all other operators is a string.
VALUE_TYPES = {"Bool": "boolean", "ForAnyValue:StringEquals": "stringList"}

# With a lower concurrency limit, functions wait for each other. A new account's limit may be only ten.
CONCURRENT_FUNCTIONS = 100
# Lambda keeps this much concurrency for functions without reserved concurrency.
UNRESERVED_FUNCTIONS = 100
# IAM limits the number of simulations per second.
SIMULTANEOUS = 4
# A function's package has about this size. Lambda stores two packages of a function during an update.
PACKAGE_BYTES = 20_000_000


@dataclass(frozen=True)
class CallerIdentity:
    account: str
    region: str
    arn: str

    def __str__(self) -> str:
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        at = f" at {endpoint}" if endpoint else ""
        return f"account {self.account} in {self.region}{at}, as {self.arn.rpartition(':')[2]}"


def caller_identity(clients: Clients) -> CallerIdentity:
    """Returns the caller's identity. Raises ``DeployError`` if the region or valid credentials are missing."""
    try:
        # The Lambda client is created first, because it requires a region and STS does not.
        region = clients("lambda").meta.region_name
        identity = clients("sts").get_caller_identity()
        return CallerIdentity(identity["Account"], region, identity["Arn"])
    except NoCredentialsError:
        raise DeployError("there are no AWS credentials: run `aws configure`, or set AWS_PROFILE") from None
    except ClientError as error:
        raise DeployError(f"AWS rejects these credentials: {error.response['Error']['Message']}") from error


def run(target: Target, clients: Clients, caller: CallerIdentity, check_permissions: bool, say: Say) -> None:
    """Raises ``DeployError`` if permissions are missing or resource names are already in use.

    Warns about low account limits.
    """
    try:
        if check_permissions and (missing := missing_permissions(target, clients, caller)):
            raise DeployError(
                "the caller lacks these permissions from infra/deployer/:\n"
                + "\n".join(sorted(set(missing)))
                + "\nIf IAM's simulation is wrong, use UNCHECKED=1 (--unchecked) to deploy without this check"
            )
    except PermissionsUnknown as error:
        say(f"permissions: could not be checked ({error})")
    check_boundary(target, clients, caller, say)
    cfn, name = clients("cloudformation"), target.stack("resources")
    is_new = not stacks.find(cfn, name)
    if is_new and not target.local:
        stacks.wait_for_queue_names(cfn, name, True, say)
    if is_new and (clashes := name_clashes(target, clients, caller.account)):
        raise DeployError(
            "other resources already use this stage's names: delete them, or choose another stage name\n"
            + "\n".join(clashes)
        )
    for line in account_warnings(clients):
        say(f"warning: {line}")


def check_boundary(target: Target, clients: Clients, caller: CallerIdentity, say: Say) -> None:
    """Raises ``DeployError`` if the policy that limits every role is missing. Warns if it is not the project's."""
    current = stacks.current_parameters(clients("cloudformation"), target.stack("resources"))
    name = {"PermissionsBoundary": BOUNDARY, **current, **target.parameters}["PermissionsBoundary"]
    arn, iam = f"arn:{caller.arn.split(':')[1]}:iam::{caller.account}:policy/{name}", clients("iam")
    if not name:
        return
    try:
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchEntity":
            raise DeployError(f"there is no policy {arn}: see docs/deploying.md, before the first deploy") from error
        say(f"warning: the policy {arn} could not be read ({error})")
        return
    if name == BOUNDARY and document != json.loads((DEPLOYER / "cafe-boundary.json").read_text()):
        say(f"warning: {arn} differs from infra/deployer/cafe-boundary.json, so functions may lack permissions")


def name_clashes(target: Target, clients: Clients, account: str) -> list[str]:
    """Returns the resources that use a new stage's names but do not belong to the stage, one line per type."""
    own = _in_stacks(target, clients, account)
    existing = [each for each in resources_of_stage.existing_resources(target, clients, account) if each not in own]
    clashes = [each for each in existing if not _can_be_taken_over(each, target, clients)]
    lambda_ = clients("lambda")
    for name in NAMES:
        try:
            function = lambda_.get_function_configuration(FunctionName=target.function(name))
        except lambda_.exceptions.ResourceNotFoundException:
            continue
        # Chalice would overwrite a function of this name that belongs to another stage.
        if chalice_record.stage_of(function) != target.stage:
            clashes.append(Resource("AWS::Lambda::Function", function["FunctionName"]))
    return resources_of_stage.lines_by_kind(sorted(clashes))


def _in_stacks(target: Target, clients: Clients, account: str) -> set[Resource]:
    """Returns the resources in the stage's existing stacks, such as a database that was kept."""
    cfn = clients("cloudformation")
    existing = {part: stacks.find(cfn, target.stack(part)) for part in resources_of_stage.PARTS}
    # A stack in the state REVIEW_IN_PROGRESS has no resources yet.
    parts = [part for part, stack in existing.items() if stack and stack["StackStatus"] != "REVIEW_IN_PROGRESS"]
    return {
        resource
        for part in parts
        for resource in resources_of_stage.declared_in(resources_of_stage.TEMPLATES[part], target.stage, account)
    }


def _can_be_taken_over(resource: Resource, target: Target, clients: Clients) -> bool:
    """Returns whether an interrupted deploy or an earlier stage of the same name left the resource behind."""
    if resource.kind in ("AWS::CloudFormation::Stack", "AWS::Lambda::Function", "AWS::ApiGateway::RestApi"):
        return True
    return resource.kind in DATA and _tags(resource, clients).items() >= {"app": "cafe", "stage": target.stage}.items()


def _tags(resource: Resource, clients: Clients) -> dict[str, str]:
    if resource.kind == "AWS::S3::Bucket":
        try:
            tags: list[dict[str, Any]] = clients("s3").get_bucket_tagging(Bucket=resource.name)["TagSet"]
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchTagSet", "AccessDenied"):
                raise
            tags = []
    else:
        dynamodb = clients("dynamodb")
        arn = dynamodb.describe_table(TableName=resource.name)["Table"]["TableArn"]
        tags = dynamodb.list_tags_of_resource(ResourceArn=arn)["Tags"]
    return {each["Key"]: each["Value"] for each in tags}


class PermissionsUnknown(Exception):
    """Raised if IAM cannot simulate the caller's permissions. The error message gives the reason."""


def missing_permissions(target: Target, clients: Clients, caller: CallerIdentity) -> list[str]:
    """Returns the permissions in ``infra/deployer/`` that the caller lacks, according to IAM's simulation.

    Raises ``PermissionsUnknown`` if IAM cannot simulate the caller. For example, the root user has no policies.
    """
    iam = clients("iam")
    source = _identity_with_policies(caller, iam)

    def denied(question: dict[str, Any]) -> list[str]:
        try:
            answer = iam.simulate_principal_policy(PolicySourceArn=source, **question)
        except (ClientError, BotoCoreError) as error:
            raise PermissionsUnknown(f"{error}".splitlines()[0]) from error
        return [
            f"  {each['EvalActionName']} on {each['EvalResourceName']}"
            for each in answer["EvaluationResults"]
            if each["EvalDecision"] != "allowed" and not _needs_more_context(each)
        ]

    with ThreadPoolExecutor(SIMULTANEOUS) as pool:
        return [line for lines in pool.map(denied, _questions(target, caller)) for line in lines]


def _questions(target: Target, caller: CallerIdentity) -> Iterator[dict[str, Any]]:
    """Yields the arguments of a permission simulation for each statement and resource in the deployer's policies."""
    for statement in allowing_statements():
        # IAM's simulation rejects wildcards, so actions that contain wildcards are not checked.
        actions = [each for each in _as_list(statement["Action"]) if "*" not in each]
        context = [
            {
                "ContextKeyName": key,
                "ContextKeyValues": [_example(each, target, caller)],
                "ContextKeyType": VALUE_TYPES.get(operator, "string"),
            }
            for operator, conditions in statement.get("Condition", {}).items()
            for key, values in conditions.items()
            for each in _as_list(values)[:1]
        ]
        for pattern in _as_list(statement["Resource"]):
            resource = _example(pattern, target, caller)
            own = [each for each in actions if resource == "*" or resource.split(":")[2] == each.partition(":")[0]]
            if own:
                yield {"ActionNames": own, "ResourceArns": [resource], "ContextEntries": context}


def allowing_statements() -> list[dict[str, Any]]:
    """Returns the statements of the deployer's policies that allow something."""
    statements = [each for file in POLICIES for each in json.loads(file.read_text())["Statement"]]
    return [each for each in statements if each["Effect"] == "Allow"]


def _needs_more_context(result: dict[str, Any]) -> bool:
    """Returns whether the result depends on a value that only a real request contains, such as an IP address."""
    return any(each.get("MissingContextValues") for each in (result, *result.get("ResourceSpecificResults", [])))


def _identity_with_policies(caller: CallerIdentity, iam: Any) -> str:
    """Returns the ARN of the user or role whose policies apply to the caller."""
    kind, _, name = caller.arn.rpartition(":")[2].partition("/")
    partition = caller.arn.split(":")[1]
    if kind == "user":
        return caller.arn
    if kind == "assumed-role":
        role = name.partition("/")[0]
        try:
            # The ARN of an assumed role lacks the role's path.
            return str(iam.get_role(RoleName=role)["Role"]["Arn"])
        except ClientError:
            return f"arn:{partition}:iam::{caller.account}:role/{role}"
    raise PermissionsUnknown(f"{kind} has no policies")


def _example(pattern: str, target: Target, caller: CallerIdentity) -> str:
    """Returns a sample ARN that matches a resource pattern in a policy."""
    if pattern == "*" or not pattern.startswith("arn:"):
        return pattern
    start, partition, service, region, account, rest = pattern.split(":", 5)
    region, account = region.replace("*", caller.region), account.replace("*", caller.account)
    name = rest.replace("cafe-*", f"cafe-{target.stage}-x", 1).replace("*", "x")
    return ":".join((start, partition, service, region, account, name))


def _as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def can_reserve(target: Target, concurrency: int, clients: Clients) -> bool:
    """Returns whether the account's limit allows every function in ``LIMITED`` to reserve ``concurrency``."""
    lambda_ = clients("lambda")
    left = lambda_.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    own = sum(chalice_record.reserved(lambda_, target.function(name)) for name in LIMITED)
    return bool(left + own - concurrency * len(LIMITED) >= UNRESERVED_FUNCTIONS)


def account_warnings(clients: Clients) -> list[str]:
    """Returns a warning for each account limit or setting that can cause problems for the stage."""
    settings = clients("lambda").get_account_settings()
    limit, used = settings["AccountLimit"], settings["AccountUsage"]
    lines = []
    if (concurrent := limit["ConcurrentExecutions"]) < CONCURRENT_FUNCTIONS:
        lines.append(f"Lambda's concurrency limit is only {concurrent}: ask AWS for {CONCURRENT_FUNCTIONS} or more")
    needed = 2 * len(NAMES) * PACKAGE_BYTES
    if (left := limit["TotalCodeSize"] - used["TotalCodeSize"]) < needed:
        lines.append(
            f"Lambda can store only {left / 1e9:.1f} GB of code: delete old functions, or ask AWS for a higher limit"
        )
    if not chalice_record.may_write_access_logs(clients("apigateway")):
        lines.append("API Gateway has no role for writing logs, so the API has no access log: see docs/deploying.md")
    return lines
