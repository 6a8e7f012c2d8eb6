"""CloudFormation's change sets: what is shown, what is kept, and what is said where one fails."""

from __future__ import annotations

import json

import pytest

from infra.deploy import stacks
from infra.deploy.inventory import TEMPLATES
from infra.deploy.stacks import Change, Stack
from infra.deploy.target import DeployError
from tests.template import load
from tests.wiring.fakes import CloudFormation
from tests.wiring.stage import MACHINES, ROOT


def test_each_machines_definition_is_in_the_place_of_its_files_name() -> None:
    rendered = load(stacks.template())["Resources"]
    raw = load((ROOT / "infra" / "resources.yaml").read_text())["Resources"]
    for name, file in MACHINES.items():
        assert raw[name]["Properties"]["DefinitionS3Location"] == file
        definition = json.loads((ROOT / "infra" / file).read_text())
        assert json.loads(rendered[name]["Properties"]["DefinitionString"]) == definition
        assert "DefinitionS3Location" not in rendered[name]["Properties"]


def test_nothing_else_of_the_template_is_changed() -> None:
    rendered, raw = load(stacks.template()), load((ROOT / "infra" / "resources.yaml").read_text())
    for name in MACHINES:
        del rendered["Resources"][name]["Properties"]["DefinitionString"]
        del raw["Resources"][name]["Properties"]["DefinitionS3Location"]
    assert rendered == raw


@pytest.mark.parametrize("file", TEMPLATES.values())
def test_a_template_is_sent_without_letters_that_cloudformation_does_not_give_back(file: str) -> None:
    """It would tell each of them as a question mark, and the stack would never be as it shall be. Nor does every
    service take such letters in a description."""
    assert stacks.template(file).isascii()
    assert json.dumps(load(stacks.template(file))["Resources"], ensure_ascii=False).isascii()


def test_tables_and_buckets_have_their_names_spelled_out_so_that_kept_ones_can_be_taken_over() -> None:
    names = {"Stage": "prod", "AWS::AccountId": "123456789012"}
    resources = load(stacks.template(names=names))["Resources"]
    assert resources["OrdersTable"]["Properties"]["TableName"] == "cafe-prod-orders"
    assert resources["UploadsBucket"]["Properties"]["BucketName"] == "cafe-prod-uploads-123456789012"
    kept = [each for each in resources.values() if each.get("DeletionPolicy") == "RetainExceptOnCreate"]
    assert {each["Type"] for each in kept} == set(stacks.DATA)
    for each in kept:
        assert isinstance(each["Properties"][stacks.DATA[each["Type"]]], str)


def a_stack(**parameters: str) -> Stack:
    given = {"Stage": "test", "Local": "false", **parameters}
    return Stack("cafe-test-resources", stacks.template(), given, {"app": "cafe", "stage": "test"})


def change(cfn: CloudFormation, said: list[str], **parameters: str) -> Change | None:
    """Prepares and applies it."""
    change = stacks.prepare(a_stack(**parameters), cfn, lambda body: f"https://bucket/{len(body)}", said.append)
    if change:
        stacks.apply(change, cfn, said.append)
    return change


def test_a_new_stage_gets_its_stack_and_the_outputs_become_variables(said: list[str]) -> None:
    cfn = CloudFormation(None, "CREATE_COMPLETE")
    assert change(cfn, said)
    assert cfn.calls == ["CREATE", "execute"]
    assert cfn.given["StackName"] == "cafe-test-resources"
    assert cfn.given["Parameters"] == [
        {"ParameterKey": "Stage", "ParameterValue": "test"},
        {"ParameterKey": "Local", "ParameterValue": "false"},
    ]
    assert said == ["cafe-test-resources: create complete"]
    assert stacks.outputs(cfn, "cafe-test-resources") == {"ORDERS_QUEUE_URL": "https://queue"}


def test_a_template_goes_by_way_of_a_bucket_where_it_may_be_larger(said: list[str]) -> None:
    cfn = CloudFormation(None, "CREATE_COMPLETE")
    change(cfn, said)
    assert cfn.given["TemplateURL"] == f"https://bucket/{len(stacks.template())}"
    assert "TemplateBody" not in cfn.given


def test_what_an_earlier_stage_of_the_name_left_is_taken_over(said: list[str]) -> None:
    cfn = CloudFormation(None, "CREATE_COMPLETE")
    change(cfn, said)
    assert cfn.given["ImportExistingResources"] is True


def test_a_stack_that_has_this_very_template_is_left_alone(said: list[str]) -> None:
    cfn = CloudFormation("UPDATE_COMPLETE", parameters={"Stage": "test", "Local": "false", "EmailAddress": "a@b.c"})
    cfn.body, cfn.tags = stacks.template(), {"app": "cafe", "stage": "test"}
    assert change(cfn, said) is None
    assert cfn.calls == []


@pytest.mark.parametrize("difference", ["body", "parameter", "tag"])
def test_a_stack_that_differs_in_anything_gets_a_change_set(said: list[str], difference: str) -> None:
    cfn = CloudFormation(
        "UPDATE_COMPLETE", "UPDATE_COMPLETE", parameters={"Stage": "test", "Local": "false", "EmailAddress": "a@b.c"}
    )
    cfn.body = "" if difference == "body" else stacks.template()
    cfn.tags = {"app": "cafe"} if difference == "tag" else {"app": "cafe", "stage": "test"}
    assert change(cfn, said, **({"EmailAddress": "d@e.f"} if difference == "parameter" else {}))
    assert cfn.calls == ["UPDATE", "execute"]


@pytest.mark.parametrize(
    "reason", ["The submitted information didn't contain changes.", "No updates are to be performed."]
)
def test_a_change_set_without_changes_is_none(said: list[str], reason: str) -> None:
    cfn = CloudFormation("UPDATE_COMPLETE", parameters={"Stage": "test", "Local": "false"})
    cfn.reason = reason
    assert change(cfn, said) is None
    assert cfn.calls == ["UPDATE", "discard"]


def test_a_parameter_that_was_set_before_stays_as_it_is(said: list[str]) -> None:
    before = {"Stage": "test", "Local": "false", "EmailAddress": "a@b.c", "SmsKinds": ""}
    cfn = CloudFormation("CREATE_COMPLETE", "UPDATE_COMPLETE", parameters=before)
    change(cfn, said, SmsKinds="report")
    assert cfn.given["Parameters"][2:] == [
        {"ParameterKey": "SmsKinds", "ParameterValue": "report"},
        {"ParameterKey": "EmailAddress", "UsePreviousValue": True},
    ]


def test_a_parameter_that_the_template_has_no_longer_is_dropped(said: list[str]) -> None:
    cfn = CloudFormation("CREATE_COMPLETE", "UPDATE_COMPLETE", parameters={"Stage": "test", "Removed": "1"})
    change(cfn, said)
    assert "Removed" not in str(cfn.given["Parameters"])


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"])
def test_a_stack_that_was_never_whole_is_removed_and_made_anew(said: list[str], status: str) -> None:
    cfn = CloudFormation(status, "CREATE_COMPLETE")
    change(cfn, said)
    assert cfn.calls == ["delete", "CREATE", "execute"]


def test_a_stack_that_was_only_planned_is_made(said: list[str]) -> None:
    """A deploy was cut off while it waited for an answer."""
    cfn = CloudFormation("REVIEW_IN_PROGRESS", "CREATE_COMPLETE")
    change(cfn, said)
    assert cfn.calls == ["CREATE", "execute"]


def test_a_deploy_waits_for_the_one_before_it(said: list[str]) -> None:
    cfn = CloudFormation("UPDATE_IN_PROGRESS", "UPDATE_COMPLETE", "UPDATE_COMPLETE")
    change(cfn, said)
    assert said[0] == "cafe-test-resources: waiting for an earlier change to end"
    assert cfn.calls == ["UPDATE", "execute"]


def test_a_change_that_could_not_be_taken_back_is_taken_back_first(said: list[str]) -> None:
    cfn = CloudFormation("UPDATE_ROLLBACK_FAILED", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_COMPLETE")
    change(cfn, said)
    assert cfn.calls == ["continue", "UPDATE", "execute"]


def test_a_stack_that_fails_says_which_resource_and_why_and_nothing_of_earlier_failures(said: list[str]) -> None:
    cfn = CloudFormation(None, "ROLLBACK_COMPLETE")
    cfn.events = [
        {"LogicalResourceId": "OrdersTable", "ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": "Cancelled"},
        {"LogicalResourceId": "UploadsBucket", "ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": "It exists"},
        {"LogicalResourceId": "OrdersQueue", "ResourceStatus": "CREATE_COMPLETE"},
        {"LogicalResourceId": "cafe-test-resources", "ResourceStatus": "CREATE_IN_PROGRESS"},
        {"LogicalResourceId": "AlarmsTopic", "ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": "Long ago"},
    ]
    with pytest.raises(DeployError) as error:
        change(cfn, said)
    assert str(error.value).splitlines() == [
        "cafe-test-resources failed, and CloudFormation took everything back:",
        "  UploadsBucket: It exists",
        "  OrdersTable: Cancelled",
    ]


def test_a_change_that_cannot_be_taken_back_says_so(said: list[str]) -> None:
    cfn = CloudFormation("UPDATE_COMPLETE", "UPDATE_ROLLBACK_FAILED", parameters={"Stage": "test"})
    with pytest.raises(DeployError, match=r"^cafe-test-resources failed, and is now UPDATE_ROLLBACK_FAILED:"):
        change(cfn, said)


def test_what_cloudformation_refuses_is_passed_on(said: list[str]) -> None:
    cfn = CloudFormation(None)
    cfn.refusal = "Parameter 'EmailAddress' must match pattern"
    with pytest.raises(DeployError, match="cafe-test-resources: Parameter 'EmailAddress' must match pattern"):
        change(cfn, said)


def test_a_change_set_that_fails_leaves_no_empty_stack(said: list[str]) -> None:
    cfn = CloudFormation(None)
    cfn.reason = "Template error: instance of Fn::GetAtt references undefined resource X"
    with pytest.raises(DeployError, match="undefined resource X"):
        change(cfn, said)
    assert cfn.calls == ["CREATE", "discard", "delete"]


def test_what_is_seen_to_be_invalid_beforehand_is_named(said: list[str]) -> None:
    """AWS's reason has but the name of its check."""
    cfn = CloudFormation(None)
    cfn.reason = "[AWS::EarlyValidation::ResourceExistenceCheck]. To troubleshoot, use the DescribeEvents API."
    cfn.events = [
        {"EventType": "STACK_EVENT", "LogicalResourceId": "cafe-test-resources"},
        {"LogicalResourceId": "OrdersQueue", "ValidationStatusReason": "Resource cafe-test-orders already exists"},
    ]
    with pytest.raises(DeployError, match=r"API\.\n  OrdersQueue: Resource cafe-test-orders already exists$"):
        change(cfn, said)


def test_a_plan_that_is_declined_leaves_no_empty_stack(said: list[str]) -> None:
    cfn = CloudFormation(None)
    plan = stacks.prepare(a_stack(), cfn, None, said.append)
    assert plan
    stacks.discard(plan, cfn)
    assert cfn.calls == ["CREATE", "discard", "delete"]


def test_a_plan_for_a_stack_that_is_there_is_declined_without_touching_it(said: list[str]) -> None:
    cfn = CloudFormation("UPDATE_COMPLETE", parameters={"Stage": "test"})
    plan = stacks.prepare(a_stack(), cfn, None, said.append)
    assert plan
    stacks.discard(plan, cfn)
    assert cfn.calls == ["UPDATE", "discard"]


def resource(action: str, name: str, kind: str, replacement: str = "", *properties: str) -> dict[str, object]:
    details = [{"Target": {"Attribute": "Properties", "Name": each}} for each in properties]
    change = {"Action": action, "LogicalResourceId": name, "ResourceType": f"AWS::{kind}", "Details": details}
    return {**change, "Replacement": replacement} if replacement else change


def test_each_change_is_shown_and_what_would_be_replaced_stands_out() -> None:
    changes = [
        resource("Add", "NewQueue", "SQS::Queue"),
        resource("Modify", "OrdersQueue", "SQS::Queue", "False", "VisibilityTimeout", "DelaySeconds"),
        resource("Modify", "OrdersTable", "DynamoDB::Table", "True", "KeySchema"),
        resource("Modify", "ApiRole", "IAM::Role", "Conditional", "RoleName"),
        resource("Remove", "OldTopic", "SNS::Topic"),
        resource("Import", "UploadsBucket", "S3::Bucket"),
    ]
    assert stacks.shown("cafe-test-resources", False, changes) == [
        "cafe-test-resources: 6 changes",
        "  add NewQueue (AWS::SQS::Queue)",
        "  change OrdersQueue (AWS::SQS::Queue): DelaySeconds, VisibilityTimeout",
        "  REPLACE OrdersTable (AWS::DynamoDB::Table): KeySchema",
        "  may REPLACE ApiRole (AWS::IAM::Role): RoleName",
        "  remove OldTopic (AWS::SNS::Topic)",
        "  import UploadsBucket (AWS::S3::Bucket)",
    ]


def test_of_a_new_stack_the_kinds_are_counted() -> None:
    changes = [resource("Add", name, "SQS::Queue") for name in ("A", "B")] + [resource("Add", "C", "SNS::Topic")]
    assert stacks.shown("cafe-test-resources", True, changes) == [
        "cafe-test-resources: new, 3 resources (2 SQS::Queue, 1 SNS::Topic)"
    ]
    changes.append(resource("Import", "OrdersTable", "DynamoDB::Table"))
    assert stacks.shown("cafe-test-resources", True, changes)[1:] == ["  taken over with what is in them: OrdersTable"]


def test_a_long_change_says_how_far_it_is(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    cfn = CloudFormation(None, *["CREATE_IN_PROGRESS"] * 3, "CREATE_COMPLETE")
    cfn.statuses = ["CREATE_COMPLETE"] * 20 + ["CREATE_IN_PROGRESS"] * 4
    monkeypatch.setattr(stacks, "PROGRESS_SECONDS", -1)
    change(cfn, said)
    assert said[0].startswith("cafe-test-resources: 20 resources done, 4 resources under way after ")
