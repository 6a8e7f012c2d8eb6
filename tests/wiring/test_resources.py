"""The promises of the resources template, with each parameter, on AWS and on the local stage."""

from __future__ import annotations

import json
import re
from typing import Any

import boto3
import pytest

from chalicelib.dead_letters.letters import EXECUTION_ID
from chalicelib.orders import store
from chalicelib.reports import KINDS, MODES, REPORT_ID
from chalicelib.sign_in import MANAGERS, OPEN, ROUTES, STAFF
from infra import trace
from tests.template import load
from tests.wiring.stage import ROOT, SCHEDULES, as_variables, place, rendered, resolve
from tests.wiring.template import Template

PLAIN_HTTP = {"Bool": {"aws:SecureTransport": "false"}}
BEYOND_MOTO = {
    *("AWS::CloudWatch::Alarm", "AWS::Logs::QueryDefinition", "AWS::XRay::ResourcePolicy"),
    *("AWS::Cognito::UserPool", "AWS::Cognito::UserPoolClient", "AWS::Cognito::UserPoolGroup"),
    *("AWS::S3::BucketPolicy", "AWS::SNS::TopicPolicy", "AWS::SQS::QueuePolicy"),
}


@pytest.mark.filterwarnings("ignore:Tried to parse")
@pytest.mark.parametrize("local", ["false", "true"])
def test_moto_resolves_the_template_as_the_tests_do(aws: None, local: str) -> None:
    cfn = boto3.client("cloudformation")
    given = {"Stage": "test", "Local": local, **place().parameters}
    parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
    cfn.create_stack(StackName="test", TemplateBody=rendered(), Parameters=parameters)  # type: ignore[arg-type]
    [stack] = cfn.describe_stacks(StackName="test")["Stacks"]
    made = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
    read = resolve("test", "eu-central-1", "123456789012", Local=local)
    # CloudFormation invents the roles' names and the stream's label, and moto makes no user pool.
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


def test_only_sns_may_send_to_a_queue_and_only_undelivered_messages_of_the_two_topics(template: Template) -> None:
    [(queue, statement)] = [
        (queue, statement)
        for policy in template.of_type("AWS::SQS::QueuePolicy").values()
        for queue in policy["Queues"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
    ]
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


def test_queues_are_encrypted_and_a_dead_letter_which_keeps_its_age_has_ten_days_left(template: Template) -> None:
    queues = template.of_type("AWS::SQS::Queue")
    kept = {name: queue["MessageRetentionPeriod"] / 86400 for name, queue in queues.items()}
    assert kept == {"OrdersQueue": 4, "OrdersDeadLetterQueue": 14, "FailuresQueue": 14}
    assert all(queue["SqsManagedSseEnabled"] is True for queue in queues.values())


# --- tables -----------------------------------------------------------------------------------------------------------


def test_every_table_is_on_demand_encrypted_and_recoverable(template: Template) -> None:
    tables = template.of_type("AWS::DynamoDB::Table")
    assert tables.keys() == {"OrdersTable", "NotificationsTable", "RequestsTable"}
    for table in tables.values():
        assert table["BillingMode"] == "PAY_PER_REQUEST"
        assert table["SSESpecification"] == {"SSEEnabled": True}
        assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_orders_stay_and_their_stream_has_new_items(template: Template) -> None:
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


def test_every_bucket_is_closed_to_the_public_and_encrypted(template: Template) -> None:
    deploys = load((ROOT / "infra" / "deploys.yaml").read_text())["Resources"]["DeploysBucket"]["Properties"]
    closed = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    for bucket in (*template.of_type("AWS::S3::Bucket").values(), deploys):
        assert bucket["PublicAccessBlockConfiguration"] == dict.fromkeys(closed, True)
        assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        [encryption] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"


def test_objects_expire_when_step_functions_forgets_a_report(template: Template) -> None:
    buckets = template.of_type("AWS::S3::Bucket").values()
    assert {each["BucketName"] for each in buckets} == {
        f"cafe-<stage>-{name}-<account>" for name in ("reports", "uploads")
    }
    for bucket in buckets:
        [rule] = bucket["LifecycleConfiguration"]["Rules"]
        assert (rule["Status"], rule["ExpirationInDays"]) == ("Enabled", 90)
        assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}


# A stage on AWS can have the name "local", too.
@pytest.mark.parametrize("stage", ["<stage>", "local"])
def test_every_bucket_queue_and_topic_refuses_plain_http(stage: str) -> None:
    template = resolve(stage)
    refused = {}
    for kind, of in (("S3::Bucket", "Bucket"), ("SQS::Queue", "Queues"), ("SNS::Topic", "Topics")):
        for policy in template.of_type(f"AWS::{kind}Policy").values():
            [resource] = [policy[of]] if of == "Bucket" else policy[of]
            [statement] = [each for each in policy["PolicyDocument"]["Statement"] if each.get("Sid") == "TlsOnly"]
            assert (statement["Effect"], statement["Principal"], statement["Condition"]) == ("Deny", "*", PLAIN_HTTP)
            refused[resource] = (statement["Action"], statement["Resource"])
    here = "<region>:<account>"
    assert refused == {
        **{
            each["BucketName"]: ("s3:*", [f"arn:aws:s3:::{each['BucketName']}", f"arn:aws:s3:::{each['BucketName']}/*"])
            for each in template.of_type("AWS::S3::Bucket").values()
        },
        **{
            f"https://sqs.<region>.amazonaws.com/<account>/{name}": ("sqs:*", f"arn:aws:sqs:{here}:{name}")
            for each in template.of_type("AWS::SQS::Queue").values()
            for name in [each["QueueName"]]
        },
        **{
            arn: ("sns:Publish", arn)
            for each in template.of_type("AWS::SNS::Topic").values()
            for arn in [f"arn:aws:sns:{here}:{each['TopicName']}"]
        },
    }


def test_no_resource_grants_the_public_anything(template: Template) -> None:
    for resource in template.resources.values():
        document = resource["Properties"].get("PolicyDocument", {})
        for statement in (json.loads(document) if isinstance(document, str) else document).get("Statement", []):
            assert statement["Effect"] == "Deny" or statement.get("Principal") != "*"


# --- the user pool ----------------------------------------------------------------------------------------------------


def test_nobody_signs_up_alone_and_every_password_is_long(template: Template) -> None:
    pool = template.properties("UserPool")
    assert pool["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": True}
    policy = pool["Policies"]["PasswordPolicy"]
    assert policy["MinimumLength"] >= 12
    assert all(policy[f"Require{kind}"] for kind in ("Lowercase", "Uppercase", "Numbers"))


def test_the_groups_are_those_of_the_routes(template: Template) -> None:
    made = {each["GroupName"] for each in template.of_type("AWS::Cognito::UserPoolGroup").values()}
    assert made == set(ROUTES.values()) - {OPEN} == {STAFF, MANAGERS}


def test_the_consoles_client_has_no_secret_and_its_tokens_last_an_hour(template: Template) -> None:
    client = template.properties("UserPoolClient")
    assert client["GenerateSecret"] is False
    assert set(client["ExplicitAuthFlows"]) == {"ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"}
    assert client["TokenValidityUnits"] == dict.fromkeys(("IdToken", "AccessToken", "RefreshToken"), "hours")
    assert (client["IdTokenValidity"], client["AccessTokenValidity"]) == (1, 1)
    # Signing out ends the refresh token, and an unknown name gives the error of a wrong password.
    assert client["EnableTokenRevocation"] is True
    assert client["PreventUserExistenceErrors"] == "ENABLED"


# --- the local stage --------------------------------------------------------------------------------------------------


def differences(one: Template, other: Template) -> set[str]:
    """Returns ``Resource`` for each that one side lacks, ``Resource.Property`` and ``Outputs.Name`` for each change."""
    names = set(one.resources.keys() ^ other.resources.keys())
    for name in one.resources.keys() & other.resources.keys():
        left, right = one.properties(name), other.properties(name)
        names |= {f"{name}.{key}" for key in left.keys() | right.keys() if left.get(key) != right.get(key)}
    return names | {f"Outputs.{name}" for name, value in one.outputs.items() if other.outputs[name] != value}


def test_every_difference_of_the_local_stage_is_in_the_decisions() -> None:
    page = (ROOT / "docs" / "decisions" / "local-cloud.md").read_text()
    section = page.split("## What the local stage does differently\n")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE))
    assert differences(resolve(Local="true"), resolve(Local="false")) == listed


def test_a_stage_is_not_local_by_default(template: Template) -> None:
    assert differences(resolve(Local="false"), template) == set()


# --- schedules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "other"), [("Storage", "Inventory"), ("Inventory", "Storage")])
def test_a_report_is_scheduled_only_where_its_parameter_says_when(kind: str, other: str, template: Template) -> None:
    assert template.of_type("AWS::Scheduler::Schedule") == {}
    scheduled = resolve(**{f"{kind}ReportSchedule": "cron(0 6 ? * MON *)"}, ScheduleTimezone="Europe/Zurich")
    [schedule] = scheduled.of_type("AWS::Scheduler::Schedule").values()
    assert schedule["Name"] == f"cafe-<stage>-{kind.lower()}-report"
    assert schedule["ScheduleExpression"] == "cron(0 6 ? * MON *)"
    assert schedule["ScheduleExpressionTimezone"] == "Europe/Zurich"
    assert f"Scheduled{other}ReportRole" not in scheduled.resources


def test_a_schedule_must_be_an_expression_of_eventbridge_scheduler() -> None:
    parameters = load((ROOT / "infra" / "resources.yaml").read_text())["Parameters"]
    [pattern] = {parameters[name]["AllowedPattern"] for name in SCHEDULES}
    for good in ("cron(0 6 * * ? *)", "rate(1 day)", ""):
        assert re.search(pattern, good), good
    for bad in ("daily", "0 6 * * *", "at(2026-11-21T06:00:00)", "cron()", " rate(1 day)"):
        assert not re.search(pattern, bad), bad


def test_a_schedule_that_fires_twice_starts_one_report_which_the_api_shows(whole: Template) -> None:
    """The execution takes the schedule's execution id, because a name must not hold the colons of a time."""
    for kind in KINDS:
        schedule = whole.properties(f"Scheduled{kind.title()}Report")
        request = json.loads(schedule["Target"]["Input"])
        assert schedule["Target"]["Arn"] == "arn:aws:scheduler:::aws-sdk:sfn:startExecution"
        assert request == {
            "StateMachineArn": whole.outputs[f"{kind.title()}ReportArn"],
            "Name": f"{kind}-{EXECUTION_ID}",
            "Input": {"storage": '{"mode": "listing"}', "inventory": "{}"}[kind],
        }
        assert REPORT_ID.fullmatch(request["Name"].replace(EXECUTION_ID, "d32c5kddcf5bb8c3"))


@pytest.mark.parametrize("mode", MODES)
def test_a_scheduled_storage_report_measures_as_its_parameter_says(mode: str) -> None:
    schedule = resolve(**SCHEDULES, StorageReportMode=mode).properties("ScheduledStorageReport")
    assert json.loads(json.loads(schedule["Target"]["Input"])["Input"]) == {"mode": mode}


def test_a_report_that_a_schedule_cannot_start_for_an_hour_becomes_a_dead_letter(whole: Template) -> None:
    for schedule in whole.of_type("AWS::Scheduler::Schedule").values():
        assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
        assert schedule["Target"]["DeadLetterConfig"] == {"Arn": whole.outputs["FailuresQueueArn"]}
        assert schedule["Target"]["RetryPolicy"]["MaximumEventAgeInSeconds"] == 3600
        assert 0 < schedule["Target"]["RetryPolicy"]["MaximumRetryAttempts"] <= 185


# --- topics and subscriptions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "address", "endpoint", "kinds"),
    [
        ("email", "EmailAddress", "barista@example.com", "EmailKinds"),
        ("sms", "PhoneNumber", "+41791234567", "SmsKinds"),
        ("https", "HttpsEndpoint", "https://example.com/hook", "HttpsKinds"),
    ],
)
def test_an_address_is_subscribed_to_all_notifications_or_to_some_kinds(
    protocol: str, address: str, endpoint: str, kinds: str, template: Template
) -> None:
    assert template.of_type("AWS::SNS::Subscription") == {}
    subscription = {
        "TopicArn": template.outputs["TopicArn"],
        "Protocol": protocol,
        "Endpoint": endpoint,
        # The destination of messages that SNS could not deliver.
        "RedrivePolicy": {"deadLetterTargetArn": template.outputs["FailuresQueueArn"]},
    }
    [everything] = resolve(**{address: endpoint}).of_type("AWS::SNS::Subscription").values()
    assert everything == subscription
    # Without a FilterPolicyScope, SNS filters by the message's attributes.
    [some] = resolve(**{address: endpoint, kinds: "report,storage"}).of_type("AWS::SNS::Subscription").values()
    assert some == {**subscription, "FilterPolicy": {"kind": ["report", "storage"]}}


def test_notifications_are_encrypted_and_alarms_can_arrive(template: Template) -> None:
    topics = template.of_type("AWS::SNS::Topic")
    assert {each["TopicName"] for each in topics.values()} == {"cafe-<stage>-notifications", "cafe-<stage>-alarms"}
    assert topics["NotificationsTopic"]["KmsMasterKeyId"] == "alias/aws/sns"
    # CloudWatch and EventBridge cannot use that key.
    assert "KmsMasterKeyId" not in topics["AlarmsTopic"]


def test_topics_are_traced_and_sns_may_send_the_traces_of_these_two_only(template: Template) -> None:
    assert {each["TracingConfig"] for each in template.of_type("AWS::SNS::Topic").values()} == {"Active"}
    policy = template.properties("TopicTracingPolicy")
    # The maximum of PutResourcePolicy.
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


def test_a_waf_has_the_rules_of_aws_and_a_limit_for_each_address_and_admits_long_lists_of_orders(
    template: Template,
) -> None:
    assert template.of_type("AWS::WAFv2::WebACL") == {}
    assert template.outputs["ApiWebAclArn"] == ""
    guarded = resolve(Waf="on", WafRateLimit="500")
    [acl] = guarded.of_type("AWS::WAFv2::WebACL").values()
    assert guarded.outputs["ApiWebAclArn"].endswith(":regional/webacl/cafe-<stage>-api/<id>")
    assert (acl["Scope"], acl["DefaultAction"]) == ("REGIONAL", {"Allow": {}})
    address, common, inputs = sorted(acl["Rules"], key=lambda rule: rule["Priority"])
    assert address["Statement"]["RateBasedStatement"]["Limit"] == "500"
    assert address["Action"] == {"Block": {}}
    groups = [each["Statement"]["ManagedRuleGroupStatement"] for each in (common, inputs)]
    assert [each["Name"] for each in groups] == ["AWSManagedRulesCommonRuleSet", "AWSManagedRulesKnownBadInputsRuleSet"]
    # The rules block, except for the size of a body: a list of orders can have a megabyte.
    assert [each["OverrideAction"] for each in (common, inputs)] == [{"None": {}}] * 2
    assert groups[0]["RuleActionOverrides"] == [{"Name": "SizeRestrictions_BODY", "ActionToUse": {"Count": {}}}]
    assert "RuleActionOverrides" not in groups[1]


def test_the_limits_of_the_api_are_outputs_for_the_deploy() -> None:
    limits = {"ApiRateLimit": "5", "ApiBurstLimit": "7", "MysqlConcurrency": "3"}
    assert limits.items() <= resolve(**limits).outputs.items()


# --- logs, names and outputs ------------------------------------------------------------------------------------------


def test_every_log_group_is_kept_as_long_as_its_parameter_says() -> None:
    groups = resolve(LogRetentionDays="7").of_type("AWS::Logs::LogGroup")
    assert {str(each["RetentionInDays"]) for each in groups.values()} == {"7"}


def test_the_saved_query_is_that_of_make_trace_and_reads_every_log(template: Template) -> None:
    query = template.properties("TraceQuery")
    assert query["Name"] == "cafe-<stage>/trace"
    assert query["QueryString"] == trace.QUERY
    groups = {each["LogGroupName"] for each in template.of_type("AWS::Logs::LogGroup").values()}
    assert set(query["LogGroupNames"]) == groups


def test_every_name_has_its_stage_so_that_two_stages_can_share_an_account(template: Template) -> None:
    named = ("Alarm", "Bucket", "Client", "Dashboard", "LogGroup", "Policy", "Queue", "StateMachine", "Table", "Topic")
    naming = {"Name", "UserPoolName", *(f"{kind}Name" for kind in named)}
    for name, resource in template.resources.items():
        for key in naming & resource["Properties"].keys():
            assert "cafe-<stage>" in resource["Properties"][key], name


def test_the_outputs_have_what_the_interface_promises(template: Template) -> None:
    promised = {
        *("UPLOADS_BUCKET", "REPORTS_BUCKET", "ORDERS_TABLE", "NOTIFICATIONS_TABLE", "TOPIC_ARN", "ALARMS_TOPIC_ARN"),
        *("ORDERS_QUEUE_URL", "ORDERS_DEAD_LETTER_URL", "FAILURES_QUEUE_URL", "USER_POOL_ID", "USER_POOL_CLIENT_ID"),
        *("INVENTORY_REPORT_ARN", "STORAGE_REPORT_ARN"),
    }
    assert promised <= {name for name, value in as_variables(template.outputs).items() if value}
