"""Tests that each role allows the permissions in ``docs/permissions.md``, and no others."""

from __future__ import annotations

from typing import Any

from infra.deploy import preflight
from infra.functions import MYSQL_USERS
from tests.deploying.exercises import EXERCISES
from tests.wiring import permissions
from tests.wiring.deployer import BOUNDARY, HERE, allows
from tests.wiring.permissions import Permission, allowed, as_list, documented, permission_of, role_of
from tests.wiring.stage import SCHEDULES, place, resolve
from tests.wiring.template import Template

# These actions accept no resource, according to AWS's Service Authorization Reference.
WITHOUT_RESOURCE = {
    *("cloudwatch:GetMetricData", "cloudwatch:ListMetrics", "dynamodb:ListStreams", "s3:ListAllMyBuckets"),
    "s3express:ListAllMyDirectoryBuckets",
    *("ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"),
    *("logs:CreateLogDelivery", "logs:DeleteLogDelivery", "logs:GetLogDelivery", "logs:ListLogDeliveries"),
    *("logs:DescribeLogGroups", "logs:DescribeResourcePolicies", "logs:PutResourcePolicy", "logs:UpdateLogDelivery"),
    *("xray:GetSamplingRules", "xray:GetSamplingTargets", "xray:PutTelemetryRecords", "xray:PutTraceSegments"),
}
# Only a storage report lists all buckets of the account.
LISTED = ("Bucket", "BucketVersions", "BucketMultipartUploads", "MultipartUploadParts")

PLACE = place("<stage>", "<region>", "<account>")
FUNCTIONS = permissions.functions()
ROWS = documented(FUNCTIONS)


def test_the_roles_allow_what_the_page_says_and_nothing_else(whole: Template) -> None:
    assert sorted(allowed(whole)) == sorted(row.permission for row in ROWS)
    assert allowed(resolve(Local="true", **SCHEDULES)) == allowed(whole)


def test_the_page_gives_a_reason_for_each_permission_and_none_is_a_wildcard() -> None:
    assert [row for row in ROWS if not row.reason or "*" in row.permission.action] == []


def test_the_boundary_allows_what_the_roles_need_and_no_other_action(whole: Template) -> None:
    statements = BOUNDARY
    needed = allowed(whole)
    assert [each for each in needed if not allows(statements, each.action, each.resource)] == []
    actions = {action for each in statements if each["Sid"] != "KeysOfAws" for action in as_list(each["Action"])}
    assert actions == {each.action for each in needed}
    # A boundary can also limit what the policies of AWS's own keys allow every role, so it allows these uses of keys.
    [keys] = [each for each in statements if each["Sid"] == "KeysOfAws"]
    assert keys["Condition"]["StringLike"].keys() == {"kms:ViaService"}
    for each in statements:
        if each["Resource"] == "*" and "Condition" not in each:
            assert set(each["Action"]) <= WITHOUT_RESOURCE


def test_the_boundary_allows_only_the_projects_secrets() -> None:
    """Functions read the secrets of an existing MySQL only if the administrator gave them the tag ``app: cafe``."""
    secret, tag = f"arn:aws:secretsmanager:{HERE}:secret", "aws:ResourceTag/aws:rds:primaryDBClusterArn"
    for may, name, context in (
        (True, "cafe-prod-database-AbCdEf", {}),
        (True, "mysql-AbCdEf", {"aws:ResourceTag/app": "cafe"}),
        (True, "rds!cluster-1-AbCdEf", {tag: f"arn:aws:rds:{HERE}:cluster:cafe-prod"}),
        (False, "mysql-AbCdEf", {}),
        (False, "rds!cluster-1-AbCdEf", {tag: f"arn:aws:rds:{HERE}:cluster:payroll"}),
    ):
        assert allows(BOUNDARY, "secretsmanager:GetSecretValue", f"{secret}:{name}", context) is may


def test_the_boundary_limits_every_role_unless_the_parameter_is_empty(whole: Template) -> None:
    limits = {each["PermissionsBoundary"] for each in whole.of_type("AWS::IAM::Role").values()}
    assert limits == {f"arn:aws:iam::<account>:policy/{preflight.BOUNDARY}"}
    unlimited = resolve(PermissionsBoundary="", **SCHEDULES).of_type("AWS::IAM::Role")
    assert not any("PermissionsBoundary" in each for each in unlimited.values())


def test_only_actions_without_a_resource_are_allowed_on_all_resources(whole: Template) -> None:
    wide = [each for each in allowed(whole) if each.resource == "*"]
    assert [each for each in wide if each.action not in WITHOUT_RESOURCE] == []
    assert [row for row in ROWS if row.permission in wide and "no resource" not in row.reason] == []


def test_other_resources_are_of_this_stage_except_buckets_network_interfaces_and_the_secret_of_rds(
    whole: Template,
) -> None:
    elsewhere = {each for each in allowed(whole) if each.resource != "*" and "cafe-<stage>" not in each.resource}
    network = [each for each in elsewhere if each.action.startswith("ec2:")]
    assert {each.resource for each in network} == {"arn:aws:ec2:<region>:<account>:*/*"}
    assert elsewhere - set(network) == {
        *(Permission("MeasureBucketsRole", f"s3:List{what}", "arn:aws:s3:::*") for what in LISTED),
        Permission("MigrateRole", "secretsmanager:GetSecretValue", PLACE.admin_secret),
        Permission("RotatePasswordRole", "secretsmanager:GetSecretValue", PLACE.admin_secret),
    }


def test_only_the_api_reads_executions_whose_output_may_hold_a_link(whole: Template) -> None:
    """The execution history contains the report link, and anyone can open the link until it expires.

    The API reads the history without its data, as tests/unit/test_history.py checks.
    """
    reading = ("states:Describe", "states:Get", "states:List")
    readers = [each for each in allowed(whole) if each.action.startswith(reading)]
    assert {each.role for each in readers} == {"ApiRole"}


def test_policies_of_roles_have_neither_denials_nor_conditions(whole: Template) -> None:
    for properties in whole.of_type("AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in properties
        for policy in properties["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                assert statement.keys() == {"Effect", "Action", "Resource"}
                assert statement["Effect"] == "Allow"


def test_only_lambda_creates_interfaces_in_the_databases_network_for_its_functions(whole: Template) -> None:
    """Lambda creates network interfaces with a function's role.

    The role denies the same calls to the code of the function.
    """
    [policy] = whole.of_type("AWS::IAM::Policy").values()
    roles = [role_of(function) for function in MYSQL_USERS]
    assert policy["Roles"] == roles
    *allowing, denying = policy["PolicyDocument"]["Statement"]
    granted = {action for statement in allowing for action in statement["Action"]}
    assert {each["Effect"] for each in allowing} == {"Allow"}
    assert (denying["Effect"], set(denying["Action"]), denying["Resource"]) == ("Deny", granted, "*")
    code = [f"arn:aws:lambda:<region>:<account>:function:cafe-<stage>-{function}" for function in MYSQL_USERS]
    assert denying["Condition"] == {"ArnEquals": {"lambda:SourceFunctionArn": code}}


def test_no_role_has_a_network_permission_if_mysql_is_outside() -> None:
    assert [each for each in allowed(resolve(DbInVpc="false")) if each.action.startswith("ec2:")] == []


def test_without_an_administrator_migrations_run_as_the_functions_user_and_passwords_stay() -> None:
    secrets = [each for each in allowed(resolve(DbAdminSecretArn="")) if each.action.startswith("secretsmanager:")]
    assert {each.role for each in secrets} == {"ReadInventoryRole", "ReceiveUploadRole", "MigrateRole"}
    assert {each.resource for each in secrets} == {PLACE.secret}


def test_each_function_has_a_role_and_a_log_group_of_its_own(whole: Template) -> None:
    machines = {f"{name}Role" for name in whole.of_type("AWS::StepFunctions::StateMachine")}
    schedules = {f"{name}Role" for name in whole.of_type("AWS::Scheduler::Schedule")}
    assert whole.of_type("AWS::IAM::Role").keys() == FUNCTIONS.keys() | machines | schedules
    groups = {each["LogGroupName"]: each for each in whole.of_type("AWS::Logs::LogGroup").values()}
    for role, function in FUNCTIONS.items():
        assert groups[f"/aws/lambda/{function}"]["RetentionInDays"] == 30
        assert whole.outputs[f"{role}Arn"].endswith(f"role/{role}")


def test_only_its_service_assumes_a_role(whole: Template) -> None:
    """Roles of state machines and schedules also require that the service acts for the same account."""
    own_account = {"StringEquals": {"aws:SourceAccount": "<account>"}}
    trusted: dict[str, Any] = dict.fromkeys(FUNCTIONS, ("lambda", None))
    for kind, service in (("StepFunctions::StateMachine", "states"), ("Scheduler::Schedule", "scheduler")):
        for name, properties in whole.of_type(f"AWS::{kind}").items():
            trusted[f"{name}Role"] = (service, own_account)
            assert properties.get("RoleArn", properties.get("Target", {}).get("RoleArn")).endswith(f"role/{name}Role")
    for role, properties in whole.of_type("AWS::IAM::Role").items():
        [statement] = properties["AssumeRolePolicyDocument"]["Statement"]
        assert (statement["Effect"], statement["Action"]) == ("Allow", "sts:AssumeRole")
        service, condition = trusted.pop(role)
        assert statement["Principal"] == {"Service": f"{service}.amazonaws.com"}
        assert statement.get("Condition") == condition
    assert trusted == {}


def test_each_permission_is_proved_by_its_removal_or_has_a_source() -> None:
    """The exercises in tests/deploying remove exactly the permissions that docs/permissions.md marks ``removal``."""
    removed = {permission_of(ROWS, exercise.role, *right) for exercise in EXERCISES for right in exercise.rights}
    assert removed == {row.permission for row in ROWS if not row.source}


def test_the_local_cloud_enforces_every_permission_except_those_that_a_service_uses_for_a_role() -> None:
    """AWS services use these permissions on behalf of a role, for example to poll queues and write logs."""
    unenforced = {row.permission for row in ROWS if row.source}
    of_machines = {
        row.permission for row in ROWS if row.permission.role.endswith(("InventoryReportRole", "StorageReportRole"))
    }
    assert {each.action for each in unenforced - of_machines} == {
        *("dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"),
        *("ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface"),
        *("ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses"),
        *("logs:CreateLogStream", "logs:PutLogEvents", "s3:ListBucket"),
        *("sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage"),
        *("xray:PutTelemetryRecords", "xray:PutTraceSegments"),
    }
    assert of_machines <= unenforced


def test_only_alarms_and_rules_publish_to_the_alarms_topic(whole: Template) -> None:
    policy = whole.properties("AlarmsTopicPolicy")
    assert policy["Topics"] == [whole.outputs["AlarmsTopicArn"]]
    alarms, rules = (each for each in policy["PolicyDocument"]["Statement"] if each["Effect"] == "Allow")
    for statement in (alarms, rules):
        assert as_list(statement["Action"]) == ["sns:Publish"]
        assert statement["Resource"] == whole.outputs["AlarmsTopicArn"]
    assert alarms["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert alarms["Condition"] == {"StringEquals": {"aws:SourceAccount": "<account>"}}
    assert rules["Principal"] == {"Service": "events.amazonaws.com"}
    # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html#eb-sns-permissions:
    # "You can't use of Condition blocks in Amazon SNS topic policies for EventBridge."
    assert "Condition" not in rules


def test_nobody_outside_the_account_publishes_notifications(whole: Template) -> None:
    policy = whole.properties("NotificationsTopicPolicy")
    assert policy["Topics"] == [whole.outputs["TopicArn"]]
    statement, tls_only = policy["PolicyDocument"]["Statement"]
    assert tls_only["Effect"] == "Deny"
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "sns:Publish")
    assert statement["Condition"] == {"StringNotEquals": {"aws:PrincipalAccount": "<account>"}}
