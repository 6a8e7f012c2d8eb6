"""Inspects the AWS account of the local cloud with full permissions, without using the deploy code."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

from local.cloud import Cloud
from tests.system import people

# Each row contains a service, its list operation, the response key of the list, and the key of an item's name.
LISTS: tuple[tuple[str, str, str, str | None], ...] = (
    ("apigateway", "get_rest_apis", "items", "id"),
    ("cloudformation", "list_stacks", "StackSummaries", "StackName"),
    ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
    ("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
    ("cognito-idp", "list_user_pools", "UserPools", "Name"),
    ("dynamodb", "list_tables", "TableNames", None),
    ("ec2", "describe_vpcs", "Vpcs", "VpcId"),
    ("ec2", "describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"),
    ("ec2", "describe_security_groups", "SecurityGroups", "GroupId"),
    ("events", "list_rules", "Rules", "Name"),
    ("iam", "list_roles", "Roles", "RoleName"),
    ("iam", "list_policies", "Policies", "Arn"),
    ("kms", "list_keys", "Keys", "KeyId"),
    ("lambda", "list_functions", "Functions", "FunctionName"),
    ("lambda", "list_event_source_mappings", "EventSourceMappings", "UUID"),
    ("logs", "describe_log_groups", "logGroups", "logGroupName"),
    ("rds", "describe_db_clusters", "DBClusters", "DBClusterIdentifier"),
    ("rds", "describe_db_cluster_snapshots", "DBClusterSnapshots", "DBClusterSnapshotIdentifier"),
    ("rds", "describe_db_instances", "DBInstances", "DBInstanceIdentifier"),
    ("s3", "list_buckets", "Buckets", "Name"),
    ("scheduler", "list_schedules", "Schedules", "Name"),
    ("secretsmanager", "list_secrets", "SecretList", "Name"),
    ("sns", "list_topics", "Topics", "TopicArn"),
    ("sns", "list_subscriptions", "Subscriptions", "SubscriptionArn"),
    ("sqs", "list_queues", "QueueUrls", None),
    ("ssm", "describe_parameters", "Parameters", "Name"),
    ("stepfunctions", "list_state_machines", "stateMachines", "name"),
    ("wafv2", "list_web_acls", "WebACLs", "Name"),
)


GIVEN: dict[str, dict[str, Any]] = {
    "cognito-idp": {"PaginationConfig": {"PageSize": 60}},
    "wafv2": {"Scope": "REGIONAL"},
}


class Account:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._clients: dict[str, Any] = {}

    def aws(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._cloud.client(service)
        return self._clients[service]

    def everything(self) -> set[str]:
        """Returns all resources in the account from every service that a stage can use."""
        return {
            f"{service}: {each[name] if name else each}"
            for service, operation, key, name in LISTS
            for each in self.all(service, operation, key)
            if each is not None and not (service == "cloudformation" and each["StackStatus"] == "DELETE_COMPLETE")
        }

    def all(self, service: str, operation: str, key: str) -> Iterator[Any]:
        """Yields the items from all pages of a list operation."""
        client, given = self.aws(service), GIVEN.get(service, {})
        paginates = client.can_paginate(operation)
        ask = client.get_paginator(operation).paginate if paginates else getattr(client, operation)
        for page in ask(**given) if paginates else [ask(**given)]:
            yield from page.get(key, [])

    def snapshot(self, stage: str) -> dict[str, Any]:
        """Returns the current state of everything in a stage that a deploy can change."""
        s3, functions = self.aws("s3"), self.functions(stage)
        buckets = [f"cafe-{stage}-{each}-000000000000" for each in ("uploads", "reports", "deploys")]
        mappings = [
            (each["UUID"], str(each["LastModified"]), each["State"])
            for each in self.all("lambda", "list_event_source_mappings", "EventSourceMappings")
            if each["FunctionArn"].rpartition(":")[2] in functions
        ]
        return {
            "functions": {name: (each["CodeSha256"], str(each["LastModified"])) for name, each in functions.items()},
            "environments": {name: each["Environment"]["Variables"] for name, each in functions.items()},
            "mappings": sorted(mappings),
            "apis": self.apis(stage),
            "stacks": {
                each["StackName"]: str(each.get("LastUpdatedTime", each["CreationTime"]))
                for each in self.all("cloudformation", "describe_stacks", "Stacks")
                if each["StackName"] in (f"cafe-{stage}-deploys", f"cafe-{stage}-resources")
            },
            "notifications": {
                bucket: s3.get_bucket_notification_configuration(Bucket=bucket).get("LambdaFunctionConfigurations")
                for bucket in buckets
            },
            "subscriptions": sorted(
                each["SubscriptionArn"]
                for each in self.all("sns", "list_subscriptions", "Subscriptions")
                if re.search(f":cafe-{stage}-(notifications|alarms):", each["SubscriptionArn"])
            ),
            "objects": sorted(
                (bucket, each["Key"], each["VersionId"])
                for bucket in buckets
                for each in s3.list_object_versions(Bucket=bucket).get("Versions", [])
            ),
        }

    def functions(self, stage: str) -> dict[str, dict[str, Any]]:
        return {
            each["FunctionName"]: each
            for each in self.all("lambda", "list_functions", "Functions")
            if each["Environment"]["Variables"]["CAFE_STAGE"] == stage
        }

    def apis(self, stage: str) -> dict[str, list[str]]:
        """Returns the deployment ids of the stage's REST APIs, keyed by API id."""
        gateway, found = self.aws("apigateway"), {}
        for api in gateway.get_rest_apis()["items"]:
            resources = gateway.get_resources(restApiId=api["id"], embed=["methods"])
            if f"function:cafe-{stage}/invocations" in json.dumps(resources, default=str):
                found[api["id"]] = [each["id"] for each in gateway.get_deployments(restApiId=api["id"])["items"]]
        return found

    def code(self, stage: str) -> dict[str, str]:
        return {name: each["CodeSha256"] for name, each in self.functions(stage).items()}

    def get(self, stage: str, path: str, token: str | None = None) -> Any:
        [api] = self.apis(stage)
        url = f"{self._cloud.endpoint}/_aws/execute-api/{api}/api{path}"
        request = urllib.request.Request(url, headers={"Authorization": token} if token else {})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def version(self, stage: str) -> str:
        """Returns the version from the health check of the stage, after checking that the stage is healthy."""
        health = self.get(stage, "/health")
        assert (health["status"], health["stage"]) == ("ok", stage)
        return str(health["version"])

    def outputs(self, stage: str) -> dict[str, str]:
        [stack] = self.aws("cloudformation").describe_stacks(StackName=f"cafe-{stage}-resources")["Stacks"]
        return {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}

    def managers_token(self, stage: str) -> str:
        outputs, cognito = self.outputs(stage), self.aws("cognito-idp")
        # A new client may be of the same pool.
        client = outputs["UserPoolClientId"]
        name = f"mia-{client.lower()}"
        password = people.add(cognito, outputs["UserPoolId"], name, "managers")
        answer = people.sign_in(cognito, client, name, password)
        return str(answer["AuthenticationResult"]["IdToken"])

    def state(self, stage: str) -> dict[str, Any]:
        bucket = f"cafe-{stage}-deploys-000000000000"
        found: dict[str, Any] = json.load(self.aws("s3").get_object(Bucket=bucket, Key="stage.json")["Body"])
        return found
