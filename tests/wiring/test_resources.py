"""The resources template: its promises, with each parameter, on AWS and on the local stage."""

from __future__ import annotations

import json
import re
from typing import Any

import boto3
import pytest
from cfnlint.api import lint  # type: ignore[import-untyped]

from chalicelib.dead_letters import EXECUTION_ID
from chalicelib.orders import store
from chalicelib.reports import KINDS, MODES, REPORT_ID
from chalicelib.sign_in import MANAGERS, OPEN, ROUTES, STAFF
from infra import trace
from infra.deploy import stacks
from tests.wiring.conftest import ROOT, SCHEDULES, as_variables, place, resolve
from tests.wiring.template import Template, load

PLAIN_HTTP = {"Bool": {"aws:SecureTransport": "false"}}
BEYOND_MOTO = {
    "AWS::CloudWatch::Alarm",
    "AWS::Cognito::UserPool",
    "AWS::Cognito::UserPoolClient",
    "AWS::Cognito::UserPoolGroup",
    "AWS::Logs::QueryDefinition",
    "AWS::XRay::ResourcePolicy",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
}


# --- linters and CloudFormation ---------------------------------------------------------------------------------------


def test_cfn_lint_finds_nothing_in_the_file() -> None:
    assert lint((ROOT / "infra" / "resources.yaml").read_text(), regions=["us-east-1", "eu-central-1"]) == []


def test_cfn_lint_finds_nothing_in_what_is_deployed() -> None:
    assert lint(stacks.template(), regions=["us-east-1", "eu-central-1"]) == []


@pytest.mark.filterwarnings("ignore:Tried to parse")
@pytest.mark.parametrize("local", ["false", "true"])
def test_moto_makes_of_the_template_what_the_tests_here_read_in_it(aws: None, local: str) -> None:
    """Their own small reading of CloudFormation's functions is compared with moto's."""
    cfn = boto3.client("cloudformation")
    given = {"Stage": "test", "Local": local, **place().parameters}
    parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
    cfn.create_stack(StackName="test", TemplateBody=stacks.template(), Parameters=parameters)  # type: ignore[arg-type]
    [stack] = cfn.describe_stacks(StackName="test")["Stacks"]
    made = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
    read = resolve("test", "eu-central-1", "123456789012", Local=local)
    # CloudFormation makes up the roles' names and the stream's label, and moto's makes no user pool.
    same = [name for name in read.outputs if not re.search("RoleArn|StreamArn|UserPool", name)]
    assert made.keys() == {name for name in read.outputs if "UserPool" not in name}
    assert {name: made[name] for name in same} == {name: read.outputs[name] for name in same}
    resources = {
        each["LogicalResourceId"]: each["PhysicalResourceId"]
        for each in cfn.describe_stack_resources(StackName="test")["StackResources"]
        if "LogicalResourceId" in each
    }
    assert resources.keys() == {name for name, each in read.resources.items() if each["Type"] not in BEYOND_MOTO}
    iam = boto3.client("iam")
    for name, role in read.of_type("AWS::IAM::Role").items():
        [policy] = role["Policies"]
        document = iam.get_role_policy(RoleName=resources[name], PolicyName=policy["PolicyName"])["PolicyDocument"]
        # moto keeps a policy as Python prints it, and a log group's ARN without its last part.
        text = str(document).replace(made["OrdersStreamArn"], read.outputs["OrdersStreamArn"])
        assert text == re.sub(r"(log-group:[^']+):\*", r"\1", str(policy["PolicyDocument"]))


# --- queues -----------------------------------------------------------------------------------------------------------


def test_a_message_stays_hidden_for_six_times_the_functions_timeout_and_the_batching_window(
    template: Template, config: dict[str, Any], app: Any
) -> None:
    [source] = [each for each in app.event_sources if each.name == "store_orders"]
    timeout = config["lambda_functions"]["store_orders"]["lambda_timeout"]
    window = source.maximum_batching_window_in_seconds
    assert template.properties("OrdersQueue")["VisibilityTimeout"] >= 6 * timeout + window


def test_after_five_tries_a_message_is_in_the_dead_letter_queue(template: Template) -> None:
    redrive = template.properties("OrdersQueue")["RedrivePolicy"]
    assert redrive["maxReceiveCount"] == store.TRIES == 5
    assert redrive["deadLetterTargetArn"].endswith(":cafe-<stage>-orders-dead")


def test_sns_puts_what_it_could_not_deliver_into_the_failures_queue_for_these_topics_only(template: Template) -> None:
    allowing = {
        queue: statement
        for policy in template.of_type("AWS::SQS::QueuePolicy").values()
        for queue in policy["Queues"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
    }
    [(queue, statement)] = allowing.items()
    assert queue == template.outputs["FailuresQueueUrl"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": template.outputs["FailuresQueueArn"],
        "Condition": {
            "ArnEquals": {"aws:SourceArn": [template.outputs["TopicArn"], template.outputs["AlarmsTopicArn"]]}
        },
    }


def test_every_queue_is_encrypted(template: Template) -> None:
    queues = template.of_type("AWS::SQS::Queue")
    assert queues.keys() == {"OrdersQueue", "OrdersDeadLetterQueue", "FailuresQueue"}
    assert all(queue["SqsManagedSseEnabled"] is True for queue in queues.values())


def test_a_dead_letter_which_keeps_its_age_has_ten_days_left(template: Template) -> None:
    day = 24 * 3600
    kept = {name: queue["MessageRetentionPeriod"] for name, queue in template.of_type("AWS::SQS::Queue").items()}
    assert kept == {"OrdersQueue": 4 * day, "OrdersDeadLetterQueue": 14 * day, "FailuresQueue": 14 * day}


@pytest.mark.parametrize(("alarm", "queue"), [("OrdersDeadAlarm", "orders-dead"), ("FailuresAlarm", "failures")])
def test_one_message_in_a_queue_of_failures_raises_an_alarm(alarm: str, queue: str, template: Template) -> None:
    properties = template.properties(alarm)
    assert properties["Namespace"] == "AWS/SQS"
    assert properties["MetricName"] == "ApproximateNumberOfMessagesVisible"
    assert properties["Dimensions"] == [{"Name": "QueueName", "Value": f"cafe-<stage>-{queue}"}]
    assert (properties["ComparisonOperator"], properties["Threshold"]) == ("GreaterThanThreshold", 0)
    # An empty queue stops reporting after a while, and that is no alarm.
    assert properties["TreatMissingData"] == "notBreaching"
    assert properties["AlarmActions"] == [template.outputs["AlarmsTopicArn"]]


# --- tables -----------------------------------------------------------------------------------------------------------


def test_every_table_is_on_demand_encrypted_and_recoverable(template: Template) -> None:
    tables = template.of_type("AWS::DynamoDB::Table")
    assert tables.keys() == {"OrdersTable", "NotificationsTable", "RequestsTable"}
    for table in tables.values():
        assert table["BillingMode"] == "PAY_PER_REQUEST"
        assert table["SSESpecification"] == {"SSEEnabled": True}
        assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_orders_are_known_by_their_id_and_stream_what_is_new(template: Template) -> None:
    table = template.properties("OrdersTable")
    assert table["TableName"] == "cafe-<stage>-orders"
    assert table["KeySchema"] == [{"AttributeName": "orderID", "KeyType": "HASH"}]
    assert table["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}
    assert "TimeToLiveSpecification" not in table


def test_notifications_expire(template: Template) -> None:
    table = template.properties("NotificationsTable")
    assert table["TableName"] == "cafe-<stage>-notifications"
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expiresAt", "Enabled": True}


# --- buckets ----------------------------------------------------------------------------------------------------------


def test_every_bucket_is_private_encrypted_and_forgets(template: Template) -> None:
    buckets = template.of_type("AWS::S3::Bucket")
    assert {each["BucketName"] for each in buckets.values()} == {
        "cafe-<stage>-reports-<account>",
        "cafe-<stage>-uploads-<account>",
    }
    for bucket in buckets.values():
        assert bucket["PublicAccessBlockConfiguration"] == {
            "BlockPublicAcls": True,
            "BlockPublicPolicy": True,
            "IgnorePublicAcls": True,
            "RestrictPublicBuckets": True,
        }
        [encryption] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        [rule] = bucket["LifecycleConfiguration"]["Rules"]
        assert rule["Status"] == "Enabled"
        # As long as Step Functions remembers a report.
        assert rule["ExpirationInDays"] == 90
        assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}


@pytest.mark.parametrize("stage", ["dev", "prod", "local"])
def test_every_bucket_refuses_plain_http_on_every_stage_that_is_not_the_local_cloud(stage: str) -> None:
    template = resolve(stage)
    policies = {each["Bucket"]: each["PolicyDocument"] for each in template.of_type("AWS::S3::BucketPolicy").values()}
    for bucket in template.of_type("AWS::S3::Bucket").values():
        name = bucket["BucketName"]
        [statement] = policies[name]["Statement"]
        assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
        assert statement["Resource"] == [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
        assert statement["Condition"] == PLAIN_HTTP


@pytest.mark.parametrize("stage", ["dev", "prod", "local"])
def test_every_queue_and_topic_refuses_plain_http_on_every_stage_that_is_not_the_local_cloud(stage: str) -> None:
    template = resolve(stage)
    refused = {}
    for policy in (
        *template.of_type("AWS::SQS::QueuePolicy").values(),
        *template.of_type("AWS::SNS::TopicPolicy").values(),
    ):
        [of] = policy.get("Queues") or policy["Topics"]
        [statement] = [each for each in policy["PolicyDocument"]["Statement"] if each.get("Sid") == "TlsOnly"]
        assert (statement["Effect"], statement["Principal"], statement["Condition"]) == ("Deny", "*", PLAIN_HTTP)
        refused[of] = (statement["Action"], statement["Resource"])
    queues = {each["QueueName"] for each in template.of_type("AWS::SQS::Queue").values()}
    here = "<region>:<account>"
    assert refused == {
        **{
            f"https://sqs.<region>.amazonaws.com/<account>/{name}": ("sqs:*", f"arn:aws:sqs:{here}:{name}")
            for name in queues
        },
        **{
            arn: ("sns:Publish", arn)
            for each in template.of_type("AWS::SNS::Topic").values()
            for arn in [f"arn:aws:sns:{here}:{each['TopicName']}"]
        },
    }


def test_a_bucket_is_closed_to_the_public_whatever_a_policy_or_a_list_of_access_says(template: Template) -> None:
    deploys = load((ROOT / "infra" / "deploys.yaml").read_text())["Resources"]["DeploysBucket"]["Properties"]
    for bucket in (*template.of_type("AWS::S3::Bucket").values(), deploys):
        closed = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
        assert bucket["PublicAccessBlockConfiguration"] == dict.fromkeys(closed, True)
        assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def test_no_resource_grants_the_public_anything(template: Template) -> None:
    for resource in template.resources.values():
        document = resource["Properties"].get("PolicyDocument", {})
        for statement in (json.loads(document) if isinstance(document, str) else document).get("Statement", []):
            assert statement["Effect"] == "Deny" or statement.get("Principal") != "*"


# --- the user pool ----------------------------------------------------------------------------------------------------


def test_nobody_signs_up_alone_and_every_password_is_a_long_one(template: Template) -> None:
    pool = template.properties("UserPool")
    assert pool["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": True}
    policy = pool["Policies"]["PasswordPolicy"]
    assert policy["MinimumLength"] >= 12
    assert all(policy[f"Require{kind}"] for kind in ("Lowercase", "Uppercase", "Numbers"))


def test_the_groups_are_those_of_the_table_of_who_may_do_what(template: Template) -> None:
    made = {each["GroupName"] for each in template.of_type("AWS::Cognito::UserPoolGroup").values()}
    assert made == set(ROUTES.values()) - {OPEN} == {STAFF, MANAGERS}


def test_the_consoles_client_has_no_secret_and_its_tokens_last_an_hour(template: Template) -> None:
    client = template.properties("UserPoolClient")
    assert client["GenerateSecret"] is False
    assert set(client["ExplicitAuthFlows"]) == {"ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"}
    assert client["TokenValidityUnits"] == dict.fromkeys(("IdToken", "AccessToken", "RefreshToken"), "hours")
    assert (client["IdTokenValidity"], client["AccessTokenValidity"]) == (1, 1)
    # Who signs out is out, and an unknown name is told like a wrong password.
    assert client["EnableTokenRevocation"] is True
    assert client["PreventUserExistenceErrors"] == "ENABLED"


# --- the local stage --------------------------------------------------------------------------------------------------


def differences(one: Template, other: Template) -> set[str]:
    """What is not the same: ``Resource`` where one has it alone, and else ``Resource.Property`` or ``Outputs.Name``."""
    found = set(one.resources.keys() ^ other.resources.keys())
    for name in one.resources.keys() & other.resources.keys():
        left, right = one.properties(name), other.properties(name)
        found |= {f"{name}.{key}" for key in left.keys() | right.keys() if left.get(key) != right.get(key)}
    return found | {f"Outputs.{name}" for name, value in one.outputs.items() if other.outputs[name] != value}


def test_every_difference_of_the_local_stage_is_in_the_decisions() -> None:
    page = (ROOT / "docs" / "decisions" / "local-cloud.md").read_text()
    section = page.split("## What the local stage does differently\n")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE))
    assert differences(resolve(Local="true"), resolve(Local="false")) == listed


def test_a_stage_is_not_local_unless_it_is_asked_for(template: Template) -> None:
    assert differences(resolve(Local="false"), template) == set()


# --- schedules --------------------------------------------------------------------------------------------------------


def test_nothing_is_scheduled_by_default(template: Template) -> None:
    assert template.of_type("AWS::Scheduler::Schedule") == {}


@pytest.mark.parametrize(("kind", "other"), [("Storage", "Inventory"), ("Inventory", "Storage")])
def test_a_report_is_made_by_the_clock_where_a_parameter_says_when(kind: str, other: str) -> None:
    template = resolve(**{f"{kind}ReportSchedule": "cron(0 6 ? * MON *)"}, ScheduleTimezone="Europe/Zurich")
    [schedule] = template.of_type("AWS::Scheduler::Schedule").values()
    assert schedule["Name"] == f"cafe-<stage>-{kind.lower()}-report"
    assert schedule["ScheduleExpression"] == "cron(0 6 ? * MON *)"
    assert schedule["ScheduleExpressionTimezone"] == "Europe/Zurich"
    assert f"Scheduled{other}ReportRole" not in template.resources


@pytest.mark.parametrize("schedule", ["cron(0 6 * * ? *)", "rate(1 day)", ""])
def test_a_schedule_is_an_expression_of_eventbridge_scheduler(schedule: str) -> None:
    assert re.search(pattern("StorageReportSchedule"), schedule)


@pytest.mark.parametrize("schedule", ["daily", "0 6 * * *", "at(2026-11-21T06:00:00)", "cron()", " rate(1 day)"])
def test_what_is_no_such_expression_is_refused_before_anything_is_changed(schedule: str) -> None:
    assert not re.search(pattern("StorageReportSchedule"), schedule)
    assert pattern("InventoryReportSchedule") == pattern("StorageReportSchedule")


def pattern(parameter: str) -> str:
    return str(load((ROOT / "infra" / "resources.yaml").read_text())["Parameters"][parameter]["AllowedPattern"])


def test_a_schedule_that_asks_twice_starts_one_report_which_the_api_shows(whole: Template) -> None:
    """The execution is named after the schedule's own; in such a name Step Functions takes no time with its colons."""
    for kind in KINDS:
        schedule = whole.properties(f"Scheduled{kind.title()}Report")
        asked = json.loads(schedule["Target"]["Input"])
        assert schedule["Target"]["Arn"] == "arn:aws:scheduler:::aws-sdk:sfn:startExecution"
        assert asked == {
            "StateMachineArn": whole.outputs[f"{kind.title()}ReportArn"],
            "Name": f"{kind}-{EXECUTION_ID}",
            "Input": {"storage": '{"mode": "listing"}', "inventory": "{}"}[kind],
        }
        assert REPORT_ID.fullmatch(asked["Name"].replace(EXECUTION_ID, "d32c5kddcf5bb8c3"))


@pytest.mark.parametrize("mode", MODES)
def test_a_scheduled_storage_report_measures_as_its_parameter_says(mode: str) -> None:
    schedule = resolve(**SCHEDULES, StorageReportMode=mode).properties("ScheduledStorageReport")
    assert json.loads(json.loads(schedule["Target"]["Input"])["Input"]) == {"mode": mode}


def test_what_a_schedule_cannot_start_for_an_hour_waits_for_a_person(whole: Template) -> None:
    for schedule in whole.of_type("AWS::Scheduler::Schedule").values():
        assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
        assert schedule["Target"]["DeadLetterConfig"] == {"Arn": whole.outputs["FailuresQueueArn"]}
        assert schedule["Target"]["RetryPolicy"]["MaximumEventAgeInSeconds"] == 3600
        assert 0 < schedule["Target"]["RetryPolicy"]["MaximumRetryAttempts"] <= 185


# --- topics and subscriptions -----------------------------------------------------------------------------------------

SUBSCRIBERS = pytest.mark.parametrize(
    ("protocol", "address", "endpoint", "kinds"),
    [
        ("email", "EmailAddress", "barista@example.com", "EmailKinds"),
        ("sms", "PhoneNumber", "+41791234567", "SmsKinds"),
        ("https", "HttpsEndpoint", "https://example.com/hook", "HttpsKinds"),
    ],
)


def test_nobody_is_subscribed_by_default(template: Template) -> None:
    assert template.of_type("AWS::SNS::Subscription") == {}


@SUBSCRIBERS
def test_an_address_is_subscribed_to_the_notifications(protocol: str, address: str, endpoint: str, kinds: str) -> None:
    template = resolve(**{address: endpoint})
    assert list(template.of_type("AWS::SNS::Subscription").values()) == [
        {
            "TopicArn": template.outputs["TopicArn"],
            "Protocol": protocol,
            "Endpoint": endpoint,
            # Where a message goes that SNS could not deliver there.
            "RedrivePolicy": {"deadLetterTargetArn": template.outputs["FailuresQueueArn"]},
        }
    ]


@SUBSCRIBERS
def test_a_subscriber_may_want_some_kinds_only(protocol: str, address: str, endpoint: str, kinds: str) -> None:
    template = resolve(**{address: endpoint, kinds: "report,storage"})
    [subscription] = template.of_type("AWS::SNS::Subscription").values()
    assert subscription["FilterPolicy"] == {"kind": ["report", "storage"]}
    # By the message's attributes, which is what SNS takes where nothing is said.
    assert subscription.get("FilterPolicyScope", "MessageAttributes") == "MessageAttributes"


def test_all_three_may_be_subscribed_at_once() -> None:
    template = resolve(
        EmailAddress="barista@example.com", PhoneNumber="+41791234567", HttpsEndpoint="https://example.com/hook"
    )
    assert {each["Protocol"] for each in template.of_type("AWS::SNS::Subscription").values()} == {
        "email",
        "sms",
        "https",
    }


def test_notifications_are_encrypted_and_alarms_can_arrive(template: Template) -> None:
    topics = template.of_type("AWS::SNS::Topic")
    assert {each["TopicName"] for each in topics.values()} == {"cafe-<stage>-notifications", "cafe-<stage>-alarms"}
    assert topics["NotificationsTopic"]["KmsMasterKeyId"] == "alias/aws/sns"
    # CloudWatch and EventBridge may not use that key.
    assert "KmsMasterKeyId" not in topics["AlarmsTopic"]


def test_topics_are_traced_and_sns_may_send_the_traces_of_these_two_only(template: Template) -> None:
    assert {each["TracingConfig"] for each in template.of_type("AWS::SNS::Topic").values()} == {"Active"}
    policy = template.properties("TopicTracingPolicy")
    # PutResourcePolicy takes as much.
    assert len(policy["PolicyDocument"]) <= 5120
    [statement] = json.loads(policy["PolicyDocument"])["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": ["xray:PutTraceSegments", "xray:GetSamplingRules", "xray:GetSamplingTargets"],
        "Resource": "*",
        "Condition": {
            "StringEquals": {"aws:SourceAccount": "<account>"},
            "StringLike": {"aws:SourceArn": [template.outputs["TopicArn"], template.outputs["AlarmsTopicArn"]]},
        },
    }


# --- in front of the API ----------------------------------------------------------------------------------------------


def test_there_is_no_waf_unless_it_is_asked_for(template: Template) -> None:
    assert template.of_type("AWS::WAFv2::WebACL") == {}
    assert template.outputs["ApiWebAclArn"] == ""


def test_a_waf_has_the_rules_of_aws_and_a_limit_for_each_address_and_lets_large_lists_of_orders_through() -> None:
    template = resolve(Waf="on", WafRateLimit="500")
    [acl] = template.of_type("AWS::WAFv2::WebACL").values()
    assert template.outputs["ApiWebAclArn"].endswith(":regional/webacl/cafe-<stage>-api/<id>")
    assert (acl["Scope"], acl["DefaultAction"]) == ("REGIONAL", {"Allow": {}})
    address, common, inputs = sorted(acl["Rules"], key=lambda rule: rule["Priority"])
    assert address["Statement"]["RateBasedStatement"]["Limit"] == "500"
    assert address["Action"] == {"Block": {}}
    groups = [each["Statement"]["ManagedRuleGroupStatement"] for each in (common, inputs)]
    assert [each["Name"] for each in groups] == ["AWSManagedRulesCommonRuleSet", "AWSManagedRulesKnownBadInputsRuleSet"]
    # What they say counts, but for the size of a body, which may be a megabyte here.
    assert [each["OverrideAction"] for each in (common, inputs)] == [{"None": {}}] * 2
    assert groups[0]["RuleActionOverrides"] == [{"Name": "SizeRestrictions_BODY", "ActionToUse": {"Count": {}}}]
    assert "RuleActionOverrides" not in groups[1]


def test_the_limits_of_the_api_are_numbers_that_api_gateway_takes() -> None:
    template = resolve(ApiRateLimit="5", ApiBurstLimit="7", MysqlConcurrency="3")
    shown = {name: template.outputs[name] for name in ("ApiRateLimit", "ApiBurstLimit", "MysqlConcurrency")}
    assert shown == {"ApiRateLimit": "5", "ApiBurstLimit": "7", "MysqlConcurrency": "3"}


# --- logs -------------------------------------------------------------------------------------------------------------


def test_every_log_group_forgets_when_it_is_told_to() -> None:
    groups = resolve(LogRetentionDays="7").of_type("AWS::Logs::LogGroup")
    assert {str(each["RetentionInDays"]) for each in groups.values()} == {"7"}


def test_the_saved_query_is_that_of_make_trace_and_asks_every_log(template: Template) -> None:
    query = template.properties("TraceQuery")
    assert query["Name"] == "cafe-<stage>/trace"
    assert query["QueryString"] == trace.QUERY
    groups = {each["LogGroupName"] for each in template.of_type("AWS::Logs::LogGroup").values()}
    assert set(query["LogGroupNames"]) == groups


# --- names and outputs ------------------------------------------------------------------------------------------------


def test_every_name_is_of_its_stage(template: Template) -> None:
    """So that two stages share an account."""
    naming = {
        "QueueName",
        "TableName",
        "TopicName",
        "BucketName",
        "StateMachineName",
        "AlarmName",
        "DashboardName",
        "PolicyName",
        "LogGroupName",
        "Name",
        "UserPoolName",
        "ClientName",
    }
    for name, resource in template.resources.items():
        for key in naming & resource["Properties"].keys():
            assert "cafe-<stage>" in resource["Properties"][key], name


@pytest.mark.parametrize(
    "output",
    [
        "UPLOADS_BUCKET",
        "REPORTS_BUCKET",
        "ORDERS_QUEUE_URL",
        "ORDERS_TABLE",
        "NOTIFICATIONS_TABLE",
        "TOPIC_ARN",
        "INVENTORY_REPORT_ARN",
        "STORAGE_REPORT_ARN",
        "ORDERS_DEAD_LETTER_URL",
        "USER_POOL_ID",
        "USER_POOL_CLIENT_ID",
    ],
)
def test_the_outputs_have_what_the_interface_promises(output: str, template: Template) -> None:
    assert as_variables(template.outputs)[output]
