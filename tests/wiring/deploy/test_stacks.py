"""Tests what a person sees of a change set, what the change set leaves behind, and how a failure is explained."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from infra.deploy import stacks
from infra.deploy.resources_of_stage import TEMPLATES
from infra.deploy.stacks import Change, Stack
from infra.deploy.target import DeployError
from tests.template import load
from tests.wiring.fakes import CloudFormation
from tests.wiring.stage import rendered

NAME = "cafe-test-resources"
BODY = "{Parameters: {Stage: {}, Local: {}, EmailAddress: {}, SmsKinds: {}}, Resources: {Q: {Type: AWS::SQS::Queue}}}"
TAGS = {"app": "cafe", "stage": "test"}


@pytest.mark.parametrize("file", TEMPLATES.values())
def test_a_template_is_sent_in_ascii(file: str) -> None:
    """CloudFormation returns non-ASCII characters as question marks, and some services refuse them in descriptions."""
    assert rendered(file).isascii()
    assert json.dumps(load(rendered(file))["Resources"], ensure_ascii=False).isascii()


def test_tables_and_buckets_have_literal_names_so_that_a_new_stack_can_import_them() -> None:
    resources = load(stacks.template(names={"Stage": "prod", "AWS::AccountId": "123456789012"}))["Resources"]
    assert resources["OrdersTable"]["Properties"]["TableName"] == "cafe-prod-orders"
    assert resources["UploadsBucket"]["Properties"]["BucketName"] == "cafe-prod-uploads-123456789012"
    kept = [each for each in resources.values() if each.get("DeletionPolicy", "Delete") != "Delete"]
    assert {each["Type"] for each in kept} == set(stacks.DATA)
    for each in kept:
        assert isinstance(each["Properties"][stacks.DATA[each["Type"]]], str)


# --- a change set -----------------------------------------------------------------------------------------------------


def a_stack(**parameters: str) -> Stack:
    return Stack(NAME, BODY, {"Stage": "test", "Local": "false", **parameters}, TAGS)


def change(cfn: CloudFormation, said: list[str], **parameters: str) -> Change | None:
    change = stacks.prepare(a_stack(**parameters), cfn, lambda body: f"https://bucket/{len(body)}", said.append)
    if change:
        stacks.apply(change, cfn, said.append)
    return change


def test_a_new_stage_gets_its_stack_and_the_outputs_become_variables(said: list[str]) -> None:
    cfn = CloudFormation(None, "CREATE_COMPLETE")
    assert change(cfn, said)
    assert cfn.calls == ["CREATE", "execute"]
    assert cfn.given["StackName"] == NAME
    assert cfn.given["Parameters"] == [
        {"ParameterKey": "Stage", "ParameterValue": "test"},
        {"ParameterKey": "Local", "ParameterValue": "false"},
    ]
    # CloudFormation accepts larger templates from S3 than in the request.
    assert cfn.given["TemplateURL"] == f"https://bucket/{len(BODY)}"
    assert "TemplateBody" not in cfn.given
    # The new stack imports tables and buckets that an earlier stack left behind.
    assert cfn.given["ImportExistingResources"] is True
    assert said == [f"{NAME}: create complete"]
    assert stacks.outputs(cfn, NAME) == {"ORDERS_QUEUE_URL": "https://queue"}


@pytest.mark.parametrize(
    ("body", "email", "tags", "calls"),
    [
        (BODY, "a@b.c", TAGS, []),
        ("", "a@b.c", TAGS, ["UPDATE", "execute"]),
        (BODY, "d@e.f", TAGS, ["UPDATE", "execute"]),
        (BODY, "a@b.c", {"app": "cafe"}, ["UPDATE", "execute"]),
    ],
)
def test_a_stack_is_changed_only_where_its_template_a_parameter_or_a_tag_differs(
    body: str, email: str, tags: dict[str, str], calls: list[str], said: list[str]
) -> None:
    before = {"Stage": "test", "Local": "false", "EmailAddress": "a@b.c", "SmsKinds": ""}
    cfn = CloudFormation("UPDATE_COMPLETE", "UPDATE_COMPLETE", parameters=before)
    cfn.body, cfn.tags = body, tags
    assert bool(change(cfn, said, EmailAddress=email)) is bool(calls)
    assert cfn.calls == calls


@pytest.mark.parametrize(
    "reason", ["The submitted information didn't contain changes.", "No updates are to be performed."]
)
def test_a_change_set_without_changes_is_discarded(said: list[str], reason: str) -> None:
    cfn = CloudFormation("UPDATE_COMPLETE", parameters={"Stage": "test", "Local": "false"})
    cfn.reason = reason
    assert change(cfn, said) is None
    assert cfn.calls == ["UPDATE", "discard"]


@pytest.mark.parametrize(
    ("states", "calls"),
    [
        # A stack that was never complete is deleted before it is created again.
        (("ROLLBACK_COMPLETE", "CREATE_COMPLETE"), ["delete", "CREATE", "execute"]),
        (("ROLLBACK_FAILED", "CREATE_COMPLETE"), ["delete", "CREATE", "execute"]),
        (("DELETE_FAILED", "CREATE_COMPLETE"), ["delete", "CREATE", "execute"]),
        # A deploy that was interrupted at its confirmation prompt leaves a change set.
        (("REVIEW_IN_PROGRESS", "CREATE_COMPLETE"), ["CREATE", "execute"]),
        # The deploy waits if another deploy is in progress.
        (("UPDATE_IN_PROGRESS", "UPDATE_COMPLETE", "UPDATE_COMPLETE"), ["UPDATE", "execute"]),
        # A failed rollback must be completed before an update.
        (("UPDATE_ROLLBACK_FAILED", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_COMPLETE"), ["continue", "UPDATE", "execute"]),
    ],
)
def test_a_stack_in_any_state_can_be_changed(states: tuple[str, ...], calls: list[str], said: list[str]) -> None:
    cfn = CloudFormation(*states)
    change(cfn, said)
    assert cfn.calls == calls
    assert ("waiting for an earlier change to end" in said[0]) is (states[0] == "UPDATE_IN_PROGRESS")


QUEUE, ROLE = "AWS::SQS::Queue DELETE_COMPLETE", "AWS::IAM::Role DELETE_COMPLETE"


@pytest.mark.parametrize(
    ("local", "events", "waits"),
    [
        ("false", [(5, ROLE), (20, QUEUE), (40, QUEUE)], 40),
        ("false", [(20, QUEUE.replace("DELETE", "CREATE")), (61, QUEUE)], 0),
        ("false", [], 0),
        ("true", [(20, QUEUE)], 0),
    ],
)
@pytest.mark.parametrize("status", [None, "UPDATE_COMPLETE"])
def test_a_change_waits_a_minute_after_queues_were_deleted_because_sqs_blocks_their_names(
    status: str | None, local: str, events: list[tuple[int, str]], waits: int, said: list[str], pauses: list[float]
) -> None:
    cfn = CloudFormation(status, "UPDATE_COMPLETE")
    for ago, event in events:
        moment = datetime.now(UTC) - timedelta(seconds=ago)
        kind, happened = event.split()
        # A new stack has the name of a deleted stack. An existing stack may have rolled back new queues.
        of_stack = cfn.events if status else cfn.deleted
        of_stack.append(
            {"LogicalResourceId": "X", "Timestamp": moment, "ResourceType": kind, "ResourceStatus": happened}
        )
    assert change(cfn, said, Local=local)
    assert max(pauses) == pytest.approx(waits, abs=10)
    sentence = "s, because SQS blocks the names of queues that were just deleted"
    assert [line for line in said if sentence in line] == [line for line in said[:1] if waits]


# --- failures ---------------------------------------------------------------------------------------------------------


def test_the_error_of_a_failed_stack_names_the_resource_and_the_reason_and_no_earlier_failure(said: list[str]) -> None:
    cfn = CloudFormation(None, "ROLLBACK_COMPLETE")
    cfn.events = [
        {"LogicalResourceId": "OrdersTable", "ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": "Cancelled"},
        {"LogicalResourceId": "UploadsBucket", "ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": "It exists"},
        {"LogicalResourceId": "OrdersQueue", "ResourceStatus": "CREATE_COMPLETE"},
        {"LogicalResourceId": NAME, "ResourceStatus": "CREATE_IN_PROGRESS"},
        {"LogicalResourceId": "AlarmsTopic", "ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": "Long ago"},
    ]
    with pytest.raises(DeployError) as error:
        change(cfn, said)
    assert str(error.value).splitlines() == [
        f"{NAME} failed, and CloudFormation rolled everything back:",
        "  UploadsBucket: It exists",
        "  OrdersTable: Cancelled",
    ]


def test_the_error_of_a_failed_rollback_names_the_state(said: list[str]) -> None:
    cfn = CloudFormation("UPDATE_COMPLETE", "UPDATE_ROLLBACK_FAILED", parameters={"Stage": "test"})
    with pytest.raises(DeployError, match=rf"^{NAME} failed, and is now UPDATE_ROLLBACK_FAILED:"):
        change(cfn, said)


def test_an_error_from_cloudformation_is_passed_on(said: list[str]) -> None:
    cfn = CloudFormation(None)
    cfn.refusal = "Parameter 'EmailAddress' must match pattern"
    with pytest.raises(DeployError, match=f"{NAME}: Parameter 'EmailAddress' must match pattern"):
        change(cfn, said)


def test_a_change_set_that_fails_leaves_no_empty_stack_and_its_error_names_the_invalid_resource(
    said: list[str],
) -> None:
    """The failure reason from AWS contains only the name of the failed check."""
    cfn = CloudFormation(None)
    cfn.reason = "[AWS::EarlyValidation::ResourceExistenceCheck]. To troubleshoot, use the DescribeEvents API."
    cfn.events = [
        {"EventType": "STACK_EVENT", "LogicalResourceId": NAME},
        {"LogicalResourceId": "OrdersQueue", "ValidationStatusReason": "Resource cafe-test-orders already exists"},
    ]
    with pytest.raises(DeployError, match=r"API\.\n  OrdersQueue: Resource cafe-test-orders already exists$"):
        change(cfn, said)
    assert cfn.calls == ["CREATE", "discard", "delete"]


@pytest.mark.parametrize(
    ("status", "calls"), [(None, ["CREATE", "discard", "delete"]), ("UPDATE_COMPLETE", ["UPDATE", "discard"])]
)
def test_a_declined_plan_leaves_no_empty_stack_and_an_existing_one_untouched(
    status: str | None, calls: list[str], said: list[str]
) -> None:
    cfn = CloudFormation(status, parameters={"Stage": "test"})
    plan = stacks.prepare(a_stack(), cfn, None, said.append)
    assert plan
    stacks.discard(plan, cfn)
    assert cfn.calls == calls


# --- what a person sees -----------------------------------------------------------------------------------------------


def resource(action: str, name: str, kind: str, replacement: str = "", *properties: str) -> dict[str, object]:
    details = [{"Target": {"Attribute": "Properties", "Name": each}} for each in properties]
    change = {"Action": action, "LogicalResourceId": name, "ResourceType": f"AWS::{kind}", "Details": details}
    return {**change, "Replacement": replacement} if replacement else change


def test_each_change_is_a_line_and_a_replacement_stands_out() -> None:
    changes = [
        resource("Add", "NewQueue", "SQS::Queue"),
        resource("Modify", "OrdersQueue", "SQS::Queue", "False", "VisibilityTimeout", "DelaySeconds"),
        resource("Modify", "OrdersTable", "DynamoDB::Table", "True", "KeySchema"),
        resource("Modify", "ApiRole", "IAM::Role", "Conditional", "RoleName"),
        resource("Remove", "OldTopic", "SNS::Topic"),
        resource("Import", "UploadsBucket", "S3::Bucket"),
    ]
    assert stacks.change_lines(NAME, False, changes) == [
        f"{NAME}: 6 changes",
        "  add NewQueue (AWS::SQS::Queue)",
        "  change OrdersQueue (AWS::SQS::Queue): DelaySeconds, VisibilityTimeout",
        "  REPLACE OrdersTable (AWS::DynamoDB::Table): KeySchema",
        "  may REPLACE ApiRole (AWS::IAM::Role): RoleName",
        "  remove OldTopic (AWS::SNS::Topic)",
        "  import UploadsBucket (AWS::S3::Bucket)",
    ]


def test_the_resources_of_a_new_stack_are_counted_by_kind() -> None:
    changes = [resource("Add", name, "SQS::Queue") for name in ("A", "B")] + [resource("Add", "C", "SNS::Topic")]
    assert stacks.change_lines(NAME, True, changes) == [f"{NAME}: new, 3 resources (2 SQS::Queue, 1 SNS::Topic)"]
    changes.append(resource("Import", "OrdersTable", "DynamoDB::Table"))
    assert stacks.change_lines(NAME, True, changes)[1:] == ["  imports existing data: OrdersTable"]


def test_a_long_change_reports_its_progress(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    cfn = CloudFormation(None, *["CREATE_IN_PROGRESS"] * 3, "CREATE_COMPLETE")
    cfn.statuses = ["CREATE_COMPLETE"] * 20 + ["CREATE_IN_PROGRESS"] * 4
    monkeypatch.setattr(stacks, "PROGRESS_SECONDS", -1)
    change(cfn, said)
    assert said[0].startswith(f"{NAME}: 20 resources done, 4 resources in progress after ")
