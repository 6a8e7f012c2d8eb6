"""What there is of a stage in an account: all that has a name of its own, whoever made it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from infra.deploy import record, stacks
from infra.deploy.target import Clients, Target
from infra.template import expanded

# Of each stage, in the order in which they are made.
PARTS = ("deploys", "database", "resources")
TEMPLATES = {part: f"{part}.yaml" for part in PARTS}


@dataclass(frozen=True, order=True)
class Thing:
    """``kind`` is CloudFormation's name of its type."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def _pages(client: Any, operation: str, key: str, **given: Any) -> Iterator[Any]:
    for page in client.get_paginator(operation).paginate(**given):
        yield from page[key]


def _buckets(s3: Any, prefix: str) -> Iterator[str]:
    """Of this region only: S3 lists those of all, and a stage of another one has the same names."""
    for each in _pages(s3, "list_buckets", "Buckets", Prefix=prefix, BucketRegion=s3.meta.region_name):
        yield each["Name"]


Lister = Callable[[Clients, str], Iterator[str]]
# The property that has the name, and how the names that begin with a text are listed.
NAMED: dict[str, tuple[str, Lister]] = {
    "AWS::CloudWatch::Alarm": (
        "AlarmName",
        lambda clients, prefix: (
            each["AlarmName"]
            for each in _pages(clients("cloudwatch"), "describe_alarms", "MetricAlarms", AlarmNamePrefix=prefix)
        ),
    ),
    "AWS::CloudWatch::Dashboard": (
        "DashboardName",
        lambda clients, prefix: (
            each["DashboardName"]
            for each in _pages(clients("cloudwatch"), "list_dashboards", "DashboardEntries", DashboardNamePrefix=prefix)
        ),
    ),
    "AWS::Cognito::UserPool": (
        "UserPoolName",
        lambda clients, _: (
            each["Name"]
            for each in _pages(
                clients("cognito-idp"), "list_user_pools", "UserPools", PaginationConfig={"PageSize": 60}
            )
        ),
    ),
    "AWS::DynamoDB::Table": (
        "TableName",
        lambda clients, _: _pages(clients("dynamodb"), "list_tables", "TableNames"),
    ),
    "AWS::EC2::SecurityGroup": (
        "GroupName",
        lambda clients, _: (
            each["GroupName"] for each in _pages(clients("ec2"), "describe_security_groups", "SecurityGroups")
        ),
    ),
    "AWS::Events::Rule": (
        "Name",
        lambda clients, prefix: (
            each["Name"] for each in clients("events").list_rules(NamePrefix=prefix, Limit=100)["Rules"]
        ),
    ),
    "AWS::Logs::LogGroup": (
        "LogGroupName",
        lambda clients, prefix: (
            each["logGroupName"]
            for each in _pages(clients("logs"), "describe_log_groups", "logGroups", logGroupNamePrefix=prefix)
        ),
    ),
    "AWS::RDS::DBCluster": (
        "DBClusterIdentifier",
        lambda clients, _: (
            each["DBClusterIdentifier"] for each in _pages(clients("rds"), "describe_db_clusters", "DBClusters")
        ),
    ),
    "AWS::RDS::DBClusterParameterGroup": (
        "DBClusterParameterGroupName",
        lambda clients, _: (
            each["DBClusterParameterGroupName"]
            for each in _pages(clients("rds"), "describe_db_cluster_parameter_groups", "DBClusterParameterGroups")
        ),
    ),
    "AWS::RDS::DBInstance": (
        "DBInstanceIdentifier",
        lambda clients, _: (
            each["DBInstanceIdentifier"] for each in _pages(clients("rds"), "describe_db_instances", "DBInstances")
        ),
    ),
    "AWS::RDS::DBSubnetGroup": (
        "DBSubnetGroupName",
        lambda clients, _: (
            each["DBSubnetGroupName"] for each in _pages(clients("rds"), "describe_db_subnet_groups", "DBSubnetGroups")
        ),
    ),
    "AWS::S3::Bucket": (
        "BucketName",
        lambda clients, prefix: _buckets(clients("s3"), prefix),
    ),
    "AWS::Scheduler::Schedule": (
        "Name",
        lambda clients, prefix: (
            each["Name"] for each in _pages(clients("scheduler"), "list_schedules", "Schedules", NamePrefix=prefix)
        ),
    ),
    "AWS::SecretsManager::Secret": (
        "Name",
        lambda clients, _: (
            # A name is taken until the secret is gone for good.
            each["Name"]
            for each in _pages(clients("secretsmanager"), "list_secrets", "SecretList", IncludePlannedDeletion=True)
        ),
    ),
    "AWS::SNS::Topic": (
        "TopicName",
        lambda clients, _: (
            each["TopicArn"].rpartition(":")[2] for each in _pages(clients("sns"), "list_topics", "Topics")
        ),
    ),
    "AWS::SQS::Queue": (
        "QueueName",
        lambda clients, prefix: (
            each.rpartition("/")[2]
            for page in clients("sqs").get_paginator("list_queues").paginate(QueueNamePrefix=prefix)
            for each in page.get("QueueUrls", [])
        ),
    ),
    "AWS::WAFv2::WebACL": (
        "Name",
        # It has no paginator, and an account no more than these.
        lambda clients, _: (
            each["Name"] for each in clients("wafv2").list_web_acls(Scope="REGIONAL", Limit=100)["WebACLs"]
        ),
    ),
    "AWS::StepFunctions::StateMachine": (
        "StateMachineName",
        lambda clients, _: (
            each["name"] for each in _pages(clients("stepfunctions"), "list_state_machines", "stateMachines")
        ),
    ),
}


def named(target: Target, account: str) -> set[Thing]:
    """All that the stage's templates give a name."""
    return {thing for file in TEMPLATES.values() for thing in named_in(file, target.stage, account)}


def database(target: Target, account: str) -> set[Thing]:
    """All that belongs to the stage's own MySQL."""
    stack = Thing("AWS::CloudFormation::Stack", target.stack("database"))
    return {stack, *named_in(TEMPLATES["database"], target.stage, account)}


def named_in(file: str, stage: str, account: str) -> Iterator[Thing]:
    names = {"Stage": stage, "AWS::AccountId": account}
    for resource in expanded(file)["Resources"].values():
        if (kind := resource["Type"]) in NAMED:
            yield Thing(kind, stacks.spelled_out(resource["Properties"][NAMED[kind][0]], names))


def there(target: Target, clients: Clients, account: str) -> list[Thing]:
    """All that there is of the stage."""
    wanted = named(target, account)
    found: set[Thing] = set()
    for kind in sorted({each.kind for each in wanted}):
        names = {each.name for each in wanted if each.kind == kind}
        start = f"cafe-{target.stage}"
        # As far as to the stage: `/aws/lambda/cafe-prod` and `/aws/vendedlogs/states/cafe-prod` are two.
        prefixes = {name[: name.index(start) + len(start)] for name in names}
        found |= {Thing(kind, name) for prefix in prefixes for name in NAMED[kind][1](clients, prefix) if name in names}
    functions = record.functions(target, clients)
    found |= {Thing("AWS::Lambda::Function", each["FunctionName"]) for each in functions.values()}
    found |= {Thing("AWS::ApiGateway::RestApi", api) for api in record.rest_apis(target, clients)}
    cfn = clients("cloudformation")
    names = {target.stack(part) for part in PARTS}
    found |= {Thing("AWS::CloudFormation::Stack", name) for name in names if stacks.find(cfn, name)}
    return sorted(found)


def shown(things: list[Thing]) -> list[str]:
    """A line for each kind, with the names."""
    kinds = sorted({each.kind for each in things})
    return [f"  {kind}: {', '.join(each.name for each in things if each.kind == kind)}" for kind in kinds]
