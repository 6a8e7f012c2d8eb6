"""What is looked at before anything is changed: who deploys, where to, and what would stop it half-way."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

from infra.deploy import inventory, record, stacks
from infra.deploy.inventory import Thing
from infra.deploy.stacks import DATA
from infra.deploy.target import REPOSITORY, Clients, DeployError, Target
from infra.functions import LIMITED, NAMES

POLICY = REPOSITORY / "infra" / "deployer-policy.json"

# Fewer functions at once than this, and the flows hold each other up: a new account may have as few as ten.
CONCURRENT_FUNCTIONS = 100
# What Lambda wants to be left for all functions of an account that reserve nothing.
UNRESERVED_FUNCTIONS = 100
# A package of each function, and as much again while they are updated.
PACKAGE_BYTES = 20_000_000


@dataclass(frozen=True)
class Who:
    account: str
    region: str
    arn: str

    def __str__(self) -> str:
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        at = f" at {endpoint}" if endpoint else ""
        return f"account {self.account} in {self.region}{at}, as {self.arn.rpartition(':')[2]}"


def who(clients: Clients) -> Who:
    """Raises ``DeployError`` where AWS does not know who this is."""
    try:
        # The service of identities answers without a region, and all others need one.
        region = clients("lambda").meta.region_name
        found = clients("sts").get_caller_identity()
        return Who(found["Account"], region, found["Arn"])
    except NoRegionError:
        raise DeployError("there is no region: set AWS_DEFAULT_REGION, or `region` in the profile") from None
    except NoCredentialsError:
        raise DeployError("there are no AWS credentials: `aws configure` or AWS_PROFILE, and try again") from None
    except ClientError as error:
        raise DeployError(f"AWS does not take these credentials: {error.response['Error']['Message']}") from error


def clashes(target: Target, clients: Clients, account: str) -> list[str]:
    """What has the names of a new stage, and is not its own."""
    own = _of_stacks(target, clients, account)
    found = [each for each in inventory.there(target, clients, account) if each not in own]
    things = [each for each in found if not _may_be_there(each, target, clients)]
    lambda_ = clients("lambda")
    for name in NAMES:
        try:
            found = lambda_.get_function_configuration(FunctionName=target.function(name))
        except lambda_.exceptions.ResourceNotFoundException:
            continue
        # Chalice would take it for its own, and update it.
        if record.stage_of(found) != target.stage:
            things.append(Thing("AWS::Lambda::Function", found["FunctionName"]))
    return inventory.shown(sorted(things))


def _of_stacks(target: Target, clients: Clients, account: str) -> set[Thing]:
    """What the stage's stacks have, such as the MySQL that was kept; one that is only planned has nothing."""
    there = {part: stacks.find(clients("cloudformation"), target.stack(part)) for part in inventory.PARTS}
    made = [part for part, stack in there.items() if stack and stack["StackStatus"] != "REVIEW_IN_PROGRESS"]
    return {thing for part in made for thing in inventory.named_in(inventory.TEMPLATES[part], target.stage, account)}


def _may_be_there(thing: Thing, target: Target, clients: Clients) -> bool:
    """The deploys bucket and what a deploy that was cut off has made; and data that an earlier stage has left."""
    if thing.kind in ("AWS::CloudFormation::Stack", "AWS::Lambda::Function", "AWS::ApiGateway::RestApi"):
        return True
    return thing.kind in DATA and _tags(thing, clients).items() >= {"app": "cafe", "stage": target.stage}.items()


def _tags(thing: Thing, clients: Clients) -> dict[str, str]:
    if thing.kind == "AWS::S3::Bucket":
        try:
            tags: list[dict[str, Any]] = clients("s3").get_bucket_tagging(Bucket=thing.name)["TagSet"]
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchTagSet", "AccessDenied"):
                raise
            tags = []
    else:
        dynamodb = clients("dynamodb")
        arn = dynamodb.describe_table(TableName=thing.name)["Table"]["TableArn"]
        tags = dynamodb.list_tags_of_resource(ResourceArn=arn)["Tags"]
    return {each["Key"]: each["Value"] for each in tags}


def lacking(target: Target, clients: Clients, who: Who) -> list[str]:
    """The rights of ``deployer-policy.json`` that this identity does not have, by IAM's own simulation.

    Raises ``NotKnown`` where IAM does not tell: root has all rights, and not everybody may ask.
    """
    source = _identity(who)
    policy = json.loads(POLICY.read_text())
    missing = []
    for statement in policy["Statement"]:
        # The simulation takes no wildcards, and the actions beside them stand for those.
        actions = [each for each in _list(statement["Action"]) if "*" not in each]
        resources = [_concrete(each, target, who) for each in _list(statement["Resource"])]
        context = [
            {"ContextKeyName": key, "ContextKeyValues": [_concrete(each, target, who)], "ContextKeyType": "string"}
            for conditions in statement.get("Condition", {}).values()
            for key, values in conditions.items()
            for each in _list(values)[:1]
        ]
        for resource in resources:
            own = [each for each in actions if resource == "*" or resource.split(":")[2] == each.partition(":")[0]]
            try:
                answer = clients("iam").simulate_principal_policy(
                    PolicySourceArn=source, ActionNames=own, ResourceArns=[resource], ContextEntries=context
                )
            except (ClientError, BotoCoreError) as error:
                raise NotKnown(f"{error}".splitlines()[0]) from error
            denied = [
                each
                for each in answer["EvaluationResults"]
                if each["EvalDecision"] != "allowed" and not _rests_on_more(each)
            ]
            missing += [f"  {each['EvalActionName']} on {each['EvalResourceName']}" for each in denied]
    return missing


def _rests_on_more(result: dict[str, Any]) -> bool:
    """Whether a policy looks at what only a real call has, such as an address or a region: then it says nothing."""
    return any(each.get("MissingContextValues") for each in (result, *result.get("ResourceSpecificResults", [])))


class NotKnown(Exception):
    """Why IAM does not tell what this identity may do."""


def _identity(who: Who) -> str:
    """The user or role whose policies IAM knows."""
    kind, _, name = who.arn.rpartition(":")[2].partition("/")
    partition = who.arn.split(":")[1]
    if kind == "user":
        return who.arn
    if kind == "assumed-role":
        return f"arn:{partition}:iam::{who.account}:role/{name.partition('/')[0]}"
    raise NotKnown(f"{kind} has no policies")


def _concrete(pattern: str, target: Target, who: Who) -> str:
    """One resource that a resource of the policy stands for."""
    if pattern == "*" or not pattern.startswith("arn:"):
        return pattern
    start, partition, service, region, account, rest = pattern.split(":", 5)
    region, account = region.replace("*", who.region), account.replace("*", who.account)
    name = rest.replace("cafe-*", f"cafe-{target.stage}-x", 1).replace("*", "x")
    return ":".join((start, partition, service, region, account, name))


def _list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def can_reserve(target: Target, at_once: int, clients: Clients) -> bool:
    """Whether the account lets each function of ``LIMITED`` have ``at_once`` for itself; a new account may not."""
    lambda_ = clients("lambda")
    left = lambda_.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    own = sum(record.reserved(lambda_, target.function(name)) for name in LIMITED)
    return bool(left + own - at_once * len(LIMITED) >= UNRESERVED_FUNCTIONS)


def limits(clients: Clients) -> list[str]:
    """Those of the account's limits and settings that a stage would feel, a line each."""
    found = clients("lambda").get_account_settings()
    limit, used = found["AccountLimit"], found["AccountUsage"]
    lines = []
    if (at_once := limit["ConcurrentExecutions"]) < CONCURRENT_FUNCTIONS:
        lines.append(f"Lambda runs only {at_once} functions at once here: ask for {CONCURRENT_FUNCTIONS} or more")
    needed = 2 * len(NAMES) * PACKAGE_BYTES
    if (left := limit["TotalCodeSize"] - used["TotalCodeSize"]) < needed:
        lines.append(f"Lambda has room for {left / 1e9:.1f} GB of code only: remove old functions, or ask for more")
    if not record.may_write_access_logs(clients("apigateway")):
        lines.append("API Gateway may write no logs here, so there is no access log: docs/deploying.md says what to do")
    return lines
