"""Tests infra/resources.yaml with every parameter, as deployed to AWS and to the local stage."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from chalicelib import console, retries
from chalicelib.reports import MODES
from chalicelib.settings import DOLLAR, LOW_STOCK
from chalicelib.sign_in import MANAGERS, OPEN, ROUTES, STAFF
from infra import trace
from tests.template import load
from tests.wiring.stage import ROOT, SCHEDULES, rendered, resolve
from tests.wiring.template import Template

PLAIN_HTTP = {"Bool": {"aws:SecureTransport": "false"}}


def test_the_settings_of_reports_have_the_same_defaults_in_the_code() -> None:
    parameters = load(rendered())["Parameters"]
    assert (parameters["Currency"]["Default"], int(parameters["LowStock"]["Default"])) == (DOLLAR, LOW_STOCK)


# --- queues -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("function", "queue"), [("store_orders", "OrdersQueue"), ("retry_failures", "RetriesQueue")])
def test_a_message_stays_hidden_for_six_times_the_functions_timeout_and_the_batching_window(
    function: str, queue: str, template: Template, config: dict[str, Any], app: Any
) -> None:
    [source] = [each for each in app.event_sources if each.name == function]
    timeout = config["lambda_functions"][function]["lambda_timeout"]
    window = source.maximum_batching_window_in_seconds
    assert template.properties(queue)["VisibilityTimeout"] >= 6 * timeout + window


def test_sqs_moves_no_order_before_store_orders_has_tried_it_for_24_hours(
    template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    redrive = template.properties("OrdersQueue")["RedrivePolicy"]
    assert redrive["deadLetterTargetArn"].endswith(":cafe-<stage>-orders-dead")
    monkeypatch.setattr("random.uniform", min)
    received, seconds = 0, 0
    while seconds < retries.GIVE_UP_SECONDS:
        received += 1
        seconds += retries.pause(received)
    assert received < redrive["maxReceiveCount"] == 1000


def test_only_sns_may_send_to_a_queue_and_only_undelivered_messages_of_the_two_topics(template: Template) -> None:
    allowed = {
        queue: statement
        for policy in template.of_type("AWS::SQS::QueuePolicy").values()
        for queue in policy["Queues"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
    }
    topics = [template.outputs["TopicArn"], template.outputs["AlarmsTopicArn"]]
    assert allowed == {
        template.outputs[f"{queue}QueueUrl"]: {
            "Effect": "Allow",
            "Principal": {"Service": "sns.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": template.outputs[f"{queue}QueueArn"],
            "Condition": {"ArnEquals": {"aws:SourceArn": topics}},
        }
        for queue in ("Retries", "Failures")
    }


def test_queues_are_encrypted_and_a_dead_letter_which_keeps_its_age_has_ten_days_left(template: Template) -> None:
    queues = template.of_type("AWS::SQS::Queue")
    kept = {name: queue["MessageRetentionPeriod"] / 86400 for name, queue in queues.items()}
    assert kept == {"OrdersQueue": 4, "OrdersDeadLetterQueue": 14, "RetriesQueue": 14, "FailuresQueue": 14}
    assert all(queue["SqsManagedSseEnabled"] is True for queue in queues.values())


# --- tables -----------------------------------------------------------------------------------------------------------


def test_every_table_is_on_demand_encrypted_and_recoverable(template: Template) -> None:
    tables = template.of_type("AWS::DynamoDB::Table")
    assert tables.keys() == {"OrdersTable", "NotificationsTable", "RequestsTable", "UploadsTable"}
    for table in tables.values():
        assert table["BillingMode"] == "PAY_PER_REQUEST"
        assert table["SSESpecification"] == {"SSEEnabled": True}
        assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_orders_stay_with_new_items_on_their_stream_and_everything_else_expires(template: Template) -> None:
    tables = template.of_type("AWS::DynamoDB::Table")
    orders = tables.pop("OrdersTable")
    assert orders["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}
    assert "TimeToLiveSpecification" not in orders
    for table in tables.values():
        assert table["TimeToLiveSpecification"] == {"AttributeName": "expiresAt", "Enabled": True}


# --- buckets ----------------------------------------------------------------------------------------------------------


def test_objects_expire_when_step_functions_forgets_a_report(template: Template) -> None:
    buckets = template.of_type("AWS::S3::Bucket").values()
    assert {each["BucketName"] for each in buckets} == {
        f"cafe-<stage>-{name}-<account>" for name in ("reports", "uploads")
    }
    for bucket in buckets:
        [rule] = bucket["LifecycleConfiguration"]["Rules"]
        assert (rule["Status"], rule["ExpirationInDays"]) == ("Enabled", 90)
        assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}


# A stage on AWS may also be named "local".
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


def test_nobody_can_sign_themselves_up_and_every_password_is_long(template: Template) -> None:
    pool = template.properties("UserPool")
    assert pool["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": True}
    policy = pool["Policies"]["PasswordPolicy"]
    assert policy["MinimumLength"] >= 12
    assert all(policy[f"Require{kind}"] for kind in ("Lowercase", "Uppercase", "Numbers"))
    # The console checks the same rules while people type.
    page = (console.FOLDER / "index.html").read_text("utf-8")
    kinds = {
        "RequireUppercase": "[A-Z]",
        "RequireLowercase": "[a-z]",
        "RequireNumbers": "[0-9]",
        "RequireSymbols": None,
    }
    rules = [f".{{{policy['MinimumLength']}}}", *(rule for kind, rule in kinds.items() if policy.get(kind))]
    assert re.findall('data-rule="(.+?)">', page) == rules
    assert f"at least {policy['MinimumLength']} characters" in page


def test_the_groups_are_those_of_the_routes(template: Template) -> None:
    made = {each["GroupName"] for each in template.of_type("AWS::Cognito::UserPoolGroup").values()}
    assert made == set(ROUTES.values()) - {OPEN} == {STAFF, MANAGERS}


def test_the_consoles_client_has_no_secret_and_its_tokens_last_15_minutes(template: Template) -> None:
    client = template.properties("UserPoolClient")
    assert client["GenerateSecret"] is False
    assert set(client["ExplicitAuthFlows"]) == {"ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"}
    assert client["TokenValidityUnits"] == {"IdToken": "minutes", "AccessToken": "minutes", "RefreshToken": "hours"}
    assert (client["IdTokenValidity"], client["AccessTokenValidity"]) == (15, 15)
    longer = resolve(IdTokenMinutes="60").properties("UserPoolClient")
    assert (longer["IdTokenValidity"], longer["AccessTokenValidity"]) == ("60", "60")
    # Signing out revokes the user's refresh token. With an unknown user name, the user gets the same error as with a
    # wrong password.
    assert client["EnableTokenRevocation"] is True
    # The console's tabs share a refresh token, and two tabs may use it at the same moment.
    assert "RefreshTokenRotation" not in client
    assert client["PreventUserExistenceErrors"] == "ENABLED"


# --- the local stage --------------------------------------------------------------------------------------------------


def differences(one: Template, other: Template) -> set[str]:
    """Returns the resources that only one template has, and the properties and outputs that differ."""
    names = set(one.resources.keys() ^ other.resources.keys())
    for name in one.resources.keys() & other.resources.keys():
        left, right = one.properties(name), other.properties(name)
        names |= {f"{name}.{key}" for key in left.keys() | right.keys() if left.get(key) != right.get(key)}
    return names | {f"Outputs.{name}" for name, _ in one.outputs.items() ^ other.outputs.items()}


def test_every_difference_of_the_local_stage_is_in_the_decisions() -> None:
    page = (ROOT / "docs" / "decisions" / "local-cloud.md").read_text()
    section = page.split("## Differences between a local stage and AWS\n")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE))
    assert differences(resolve(Local="true", Waf="on"), resolve(Local="false", Waf="on")) == listed


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


@pytest.mark.parametrize("parameter", ["StorageReportSchedule", "InventoryReportSchedule"])
def test_a_schedule_is_empty_a_rate_or_a_cron_expression(parameter: str) -> None:
    """CloudFormation requires an AllowedPattern to match the whole value."""
    pattern = load(rendered())["Parameters"][parameter]["AllowedPattern"]
    for accepted in ("", "rate(1 hour)", "cron(0 6 * * ? *)", SCHEDULES[parameter]):
        assert re.fullmatch(pattern, accepted), accepted
    for refused in ("0 6 * * *", "rate()", "cron(", "every day", "at(2026-11-21T06:00:00)", "a cron(0 6 * * ? *)", " "):
        assert not re.fullmatch(pattern, refused), refused


@pytest.mark.parametrize("mode", MODES)
def test_a_scheduled_storage_report_measures_as_its_parameter_says(mode: str) -> None:
    schedule = resolve(**SCHEDULES, StorageReportMode=mode).properties("ScheduledStorageReport")
    assert json.loads(json.loads(schedule["Target"]["Input"])["Input"]) == {"mode": mode, "scheduled": True}


def test_a_report_that_a_schedule_cannot_start_for_an_hour_goes_to_the_retries_queue(whole: Template) -> None:
    for schedule in whole.of_type("AWS::Scheduler::Schedule").values():
        assert json.loads(json.loads(schedule["Target"]["Input"])["Input"])["scheduled"] is True
        assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
        assert schedule["Target"]["DeadLetterConfig"] == {"Arn": whole.outputs["RetriesQueueArn"]}
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
        # SNS sends undelivered messages to the failures queue.
        "RedrivePolicy": {"deadLetterTargetArn": template.outputs["FailuresQueueArn"]},
    }
    [everything] = resolve(**{address: endpoint}).of_type("AWS::SNS::Subscription").values()
    assert everything == subscription
    # Without a FilterPolicyScope, SNS filters by the message's attributes.
    [some] = resolve(**{address: endpoint, kinds: "report,storage"}).of_type("AWS::SNS::Subscription").values()
    assert some == {**subscription, "FilterPolicy": {"kind": ["report", "storage"]}}


def test_alarms_are_mailed_to_a_person_only_if_a_parameter_names_one() -> None:
    [mail] = resolve(AlarmEmail="ana@example.com").of_type("AWS::SNS::Subscription").values()
    outputs = resolve().outputs
    assert mail == {
        "TopicArn": outputs["AlarmsTopicArn"],
        "Protocol": "email",
        "Endpoint": "ana@example.com",
        "RedrivePolicy": {"deadLetterTargetArn": outputs["FailuresQueueArn"]},
    }


def test_notifications_are_encrypted_and_alarms_can_arrive(template: Template) -> None:
    topics = template.of_type("AWS::SNS::Topic")
    assert {each["TopicName"] for each in topics.values()} == {"cafe-<stage>-notifications", "cafe-<stage>-alarms"}
    assert topics["NotificationsTopic"]["KmsMasterKeyId"] == "alias/aws/sns"
    # The topic for alarms has no key, because CloudWatch and EventBridge cannot use the AWS-managed key.
    assert "KmsMasterKeyId" not in topics["AlarmsTopic"]


def test_topics_are_traced_and_sns_may_send_the_traces_of_these_two_only(template: Template) -> None:
    assert {each["TracingConfig"] for each in template.of_type("AWS::SNS::Topic").values()} == {"Active"}
    policy = template.properties("TopicTracingPolicy")
    # The X-Ray operation PutResourcePolicy accepts at most 5,120 bytes.
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
    # The web ACL rules do not block large bodies, because a list of orders can be a megabyte in size.
    assert [each["OverrideAction"] for each in (common, inputs)] == [{"None": {}}] * 2
    assert groups[0]["RuleActionOverrides"] == [{"Name": "SizeRestrictions_BODY", "ActionToUse": {"Count": {}}}]
    assert "RuleActionOverrides" not in groups[1]
    # People sign in at the user pool, so the same rules apply there.
    [protected] = guarded.of_type("AWS::WAFv2::WebACLAssociation").values()
    assert protected["WebACLArn"] == guarded.outputs["ApiWebAclArn"]
    assert protected["ResourceArn"].endswith(f":userpool/{guarded.outputs['UserPoolId']}")
    assert template.of_type("AWS::WAFv2::WebACLAssociation") == {}


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
