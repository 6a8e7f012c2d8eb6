"""Finds a stage's existing resources in an account by their names, regardless of who created the resources."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from infra.deploy import chalice_record, stacks
from infra.deploy.target import Clients, Target
from infra.template import expanded

# The stacks of a stage are deployed in this order.
PARTS = ("deploys", "database", "resources")
TEMPLATES = {part: f"{part}.yaml" for part in PARTS}


@dataclass(frozen=True, order=True)
class Resource:
    """A resource on AWS. ``kind`` is the CloudFormation type of the resource."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def _pages(client: Any, operation: str, key: str, **given: Any) -> Iterator[Any]:
    for page in client.get_paginator(operation).paginate(**given):
        yield from page[key]


def _buckets(s3: Any, prefix: str) -> Iterator[str]:
    """Yields the names of buckets in this region. A stage in another region can have the same bucket names."""
    for each in _pages(s3, "list_buckets", "Buckets", Prefix=prefix, BucketRegion=s3.meta.region_name):
        yield each["Name"]


Lister = Callable[[Clients, str], Iterator[str]]
# Each resource type has a property that contains the resource's name, and a function that lists existing names.
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
            # A deleted secret's name stays in use until the secret is permanently removed.
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
        # WAF has no paginator, but an account has at most 100 web ACLs.
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


def declared_resources(target: Target, account: str) -> set[Resource]:
    """Returns every resource that is named in the stage's templates."""
    return {resource for file in TEMPLATES.values() for resource in declared_in(file, target.stage, account)}


def database_resources(target: Target, account: str) -> set[Resource]:
    """Returns the stack of the stage's own database, and the resources that are named in the stack's template."""
    stack = Resource("AWS::CloudFormation::Stack", target.stack("database"))
    return {stack, *declared_in(TEMPLATES["database"], target.stage, account)}


def declared_in(file: str, stage: str, account: str) -> Iterator[Resource]:
    """Yields the resources that have a name in a template."""
    names = {"Stage": stage, "AWS::AccountId": account}
    for resource in expanded(file)["Resources"].values():
        if (kind := resource["Type"]) in NAMED:
            yield Resource(kind, stacks.spelled_out(resource["Properties"][NAMED[kind][0]], names))


def existing_resources(target: Target, clients: Clients, account: str) -> list[Resource]:
    """Returns the stage's existing resources, including its functions, APIs and stacks."""
    declared = declared_resources(target, account)
    existing: set[Resource] = set()
    for kind in sorted({each.kind for each in declared}):
        names = {each.name for each in declared if each.kind == kind}
        start = f"cafe-{target.stage}"
        # Some names begin with a path, such as `/aws/lambda/cafe-prod` and `/aws/vendedlogs/states/cafe-prod`.
        prefixes = {name[: name.index(start) + len(start)] for name in names}
        list_names = NAMED[kind][1]
        existing |= {
            Resource(kind, name) for prefix in prefixes for name in list_names(clients, prefix) if name in names
        }
    functions = chalice_record.functions(target, clients)
    existing |= {Resource("AWS::Lambda::Function", each["FunctionName"]) for each in functions.values()}
    existing |= {Resource("AWS::ApiGateway::RestApi", api) for api in chalice_record.rest_apis(target, clients)}
    cfn = clients("cloudformation")
    stack_names = {target.stack(part) for part in PARTS}
    existing |= {Resource("AWS::CloudFormation::Stack", name) for name in stack_names if stacks.find(cfn, name)}
    return sorted(existing)


def lines_by_kind(resources: list[Resource]) -> list[str]:
    """Returns one line per resource type, with the names of the resources."""
    kinds = sorted({each.kind for each in resources})
    return [f"  {kind}: {', '.join(each.name for each in resources if each.kind == kind)}" for kind in kinds]
