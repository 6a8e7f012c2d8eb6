"""Each role allows what ``docs/permissions.md`` says, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from infra.deploy import stacks
from infra.functions import MYSQL_USERS
from tests.deploying.exercises import EXERCISES
from tests.wiring import permissions
from tests.wiring.permissions import Permission, Row, allowed, as_list, documented, found, role_of
from tests.wiring.stage import SCHEDULES, as_variables, place, resolve
from tests.wiring.template import Template

# Actions of which IAM knows no resource, by AWS's Service Authorization Reference.
WITHOUT_RESOURCE = {
    "cloudwatch:GetMetricData",
    "cloudwatch:ListMetrics",
    "dynamodb:ListStreams",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
    "s3:ListAllMyBuckets",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}

PLACE = place("<stage>", "<region>", "<account>")


@pytest.fixture(scope="module")
def template(whole: Template) -> Template:
    """Every role that there may be."""
    return whole


@pytest.fixture(scope="module")
def functions() -> dict[str, str]:
    return permissions.functions()


@pytest.fixture(scope="module")
def page(functions: dict[str, str]) -> list[Row]:
    return documented(functions)


def test_the_roles_allow_what_the_page_says_and_nothing_else(template: Template, page: list[Row]) -> None:
    assert sorted(allowed(template)) == sorted(row.permission for row in page)


def test_the_roles_allow_the_same_on_the_local_stage(template: Template) -> None:
    assert allowed(resolve(Local="true", **SCHEDULES)) == allowed(template)


def test_the_page_gives_a_reason_for_each_permission(page: list[Row]) -> None:
    assert [row for row in page if not row.reason] == []


def test_no_action_is_a_wildcard(template: Template) -> None:
    assert [each for each in allowed(template) if "*" in each.action] == []


def test_only_actions_that_have_no_resource_are_allowed_on_all_resources(template: Template, page: list[Row]) -> None:
    wide = [each for each in allowed(template) if each.resource == "*"]
    assert [each for each in wide if each.action not in WITHOUT_RESOURCE] == []
    assert [row for row in page if row.permission in wide and "no resource" not in row.reason] == []


def test_every_other_resource_is_of_this_stage_but_for_buckets_network_interfaces_and_the_secret_of_rds(
    template: Template,
) -> None:
    elsewhere = {each for each in allowed(template) if each.resource != "*" and "cafe-<stage>" not in each.resource}
    network = [each for each in elsewhere if each.action.startswith("ec2:")]
    assert {each.resource for each in network} == {"arn:aws:ec2:<region>:<account>:*/*"}
    assert elsewhere - set(network) == {
        Permission("MeasureBucketsRole", "s3:ListBucket", "arn:aws:s3:::*"),
        Permission("MigrateRole", "secretsmanager:GetSecretValue", PLACE.admin_secret),
        Permission("RotatePasswordRole", "secretsmanager:GetSecretValue", PLACE.admin_secret),
    }


def test_only_the_api_reads_executions_whose_output_may_hold_a_link(template: Template) -> None:
    """A report's link is in the history of its execution until it expires, and is not to be had from any other role.
    The API asks for the history without what is in it: tests/unit/test_history.py sees to that."""
    reading = ("states:Describe", "states:Get", "states:List")
    readers = [each for each in allowed(template) if each.action.startswith(reading)]
    assert {each.role for each in readers} == {"ApiRole"}


def test_policies_only_allow_and_hide_nothing_behind_a_condition(template: Template) -> None:
    for properties in template.of_type("AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in properties
        for policy in properties["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                assert statement.keys() == {"Effect", "Action", "Resource"}
                assert statement["Effect"] == "Allow"


def test_only_who_is_in_the_databases_network_may_have_interfaces_there_and_no_code_may(template: Template) -> None:
    """Lambda makes them in the role's name; a call of the function itself is refused."""
    [policy] = template.of_type("AWS::IAM::Policy").values()
    roles = [role_of(function) for function in MYSQL_USERS]
    assert policy["Roles"] == roles
    *allowing, denying = policy["PolicyDocument"]["Statement"]
    granted = {action for statement in allowing for action in statement["Action"]}
    assert {each["Effect"] for each in allowing} == {"Allow"}
    assert (denying["Effect"], set(denying["Action"]), denying["Resource"]) == ("Deny", granted, "*")
    code = [f"arn:aws:lambda:<region>:<account>:function:cafe-<stage>-{function}" for function in MYSQL_USERS]
    assert denying["Condition"] == {"ArnEquals": {"lambda:SourceFunctionArn": code}}


def test_where_mysql_is_in_no_network_of_ours_no_role_has_a_right_on_networks() -> None:
    assert [each for each in allowed(resolve(DbInVpc="false")) if each.action.startswith("ec2:")] == []


def test_without_an_administrator_nobody_rotates_and_migrations_run_as_the_functions_user() -> None:
    secrets = [each for each in allowed(resolve(DbAdminSecretArn="")) if each.action.startswith("secretsmanager:")]
    assert {each.role for each in secrets} == {"ReadInventoryRole", "ReceiveUploadRole", "MigrateRole"}
    assert {each.resource for each in secrets} == {PLACE.secret}


def test_each_function_has_a_role_and_a_log_group_of_its_own(template: Template, functions: dict[str, str]) -> None:
    machines = {f"{name}Role" for name in template.of_type("AWS::StepFunctions::StateMachine")}
    schedules = {f"{name}Role" for name in template.of_type("AWS::Scheduler::Schedule")}
    assert template.of_type("AWS::IAM::Role").keys() == functions.keys() | machines | schedules
    groups = {each["LogGroupName"]: each for each in template.of_type("AWS::Logs::LogGroup").values()}
    for role, function in functions.items():
        assert groups[f"/aws/lambda/{function}"]["RetentionInDays"] == 30
        assert as_variables(template.outputs)[_variable(role)].endswith(f"role/{role}")


def _variable(role: str) -> str:
    return stacks.variable(f"{role}Arn")


def trusted(template: Template, role: str) -> list[Any]:
    statements = template.properties(role)["AssumeRolePolicyDocument"]["Statement"]
    assert all(each["Effect"] == "Allow" and each["Action"] == "sts:AssumeRole" for each in statements)
    return [(each["Principal"], each.get("Condition")) for each in statements]


def test_only_lambda_assumes_a_functions_role(template: Template, functions: dict[str, str]) -> None:
    for role in functions:
        assert trusted(template, role) == [({"Service": "lambda.amazonaws.com"}, None)]


def test_only_step_functions_of_this_account_assumes_a_machines_role(template: Template) -> None:
    own_account = {"StringEquals": {"aws:SourceAccount": "<account>"}}
    for name, machine in template.of_type("AWS::StepFunctions::StateMachine").items():
        assert trusted(template, f"{name}Role") == [({"Service": "states.amazonaws.com"}, own_account)]
        assert machine["RoleArn"].endswith(f"role/{name}Role")


def test_only_the_scheduler_of_this_account_assumes_a_schedules_role(template: Template) -> None:
    own_account = {"StringEquals": {"aws:SourceAccount": "<account>"}}
    for name, schedule in template.of_type("AWS::Scheduler::Schedule").items():
        assert trusted(template, f"{name}Role") == [({"Service": "scheduler.amazonaws.com"}, own_account)]
        assert schedule["Target"]["RoleArn"].endswith(f"role/{name}Role")


def test_each_permission_is_proved_by_its_removal_or_has_a_source(page: list[Row]) -> None:
    """What is taken away in tests/deploying is what the page says is proved so, each permission once or more."""
    taken_away = {found(page, exercise.role, *right) for exercise in EXERCISES for right in exercise.rights}
    assert taken_away == {row.permission for row in page if not row.source}


def test_what_the_local_cloud_does_not_enforce_is_what_a_service_does_for_a_role(page: list[Row]) -> None:
    """Polling, logs, traces, hand-overs of failures; what a machine or a schedule does; and 404 or 403 for a missing
    object."""
    unenforced = {row.permission for row in page if row.source}
    of_machines = {
        row.permission for row in page if row.permission.role.endswith(("InventoryReportRole", "StorageReportRole"))
    }
    assert {each.action for each in unenforced - of_machines} == {
        "dynamodb:DescribeStream",
        "dynamodb:GetRecords",
        "dynamodb:GetShardIterator",
        "dynamodb:ListStreams",
        "ec2:AssignPrivateIpAddresses",
        "ec2:CreateNetworkInterface",
        "ec2:DeleteNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
        "ec2:UnassignPrivateIpAddresses",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "s3:ListBucket",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:ReceiveMessage",
        "sqs:SendMessage",
        "xray:PutTelemetryRecords",
        "xray:PutTraceSegments",
    }
    assert of_machines <= unenforced


def test_the_alarms_topic_takes_messages_of_alarms_and_rules_only(template: Template) -> None:
    policy = template.properties("AlarmsTopicPolicy")
    assert policy["Topics"] == [template.outputs["AlarmsTopicArn"]]
    alarms, rules = (each for each in policy["PolicyDocument"]["Statement"] if each["Effect"] == "Allow")
    for statement in (alarms, rules):
        assert as_list(statement["Action"]) == ["sns:Publish"]
        assert statement["Resource"] == template.outputs["AlarmsTopicArn"]
    assert alarms["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert alarms["Condition"] == {"StringEquals": {"aws:SourceAccount": "<account>"}}
    assert rules["Principal"] == {"Service": "events.amazonaws.com"}


def test_nobody_outside_the_account_publishes_notifications(template: Template) -> None:
    policy = template.properties("NotificationsTopicPolicy")
    assert policy["Topics"] == [template.outputs["TopicArn"]]
    statement, tls_only = policy["PolicyDocument"]["Statement"]
    assert tls_only["Effect"] == "Deny"
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "sns:Publish")
    assert statement["Condition"] == {"StringNotEquals": {"aws:PrincipalAccount": "<account>"}}
