"""Creates, updates and deletes a stage's CloudFormation stacks with change sets."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from botocore.exceptions import ClientError

from infra.deploy.target import DeployError, Say
from infra.template import expanded, parse, text

WAIT_SECONDS = 3600
# This is the number of seconds between two progress messages.
PROGRESS_SECONDS = 10
# Resources of these types can outlive their stage. Each type has a property that contains the resource's name.
DATA = {"AWS::DynamoDB::Table": "TableName", "AWS::S3::Bucket": "BucketName"}
SHOWN_KINDS = 6
# SQS blocks the name of a deleted queue for this long. The local cloud does not.
QUEUE_NAMES_BLOCKED = timedelta(seconds=60)
# A stack with such a status cannot be updated. The deploy deletes the stack and creates it again.
UNUSABLE = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")
NO_CHANGES = ("didn't contain changes", "No updates are to be performed")


@dataclass(frozen=True)
class Stack:
    """The desired state of a stack. Parameters that are not in ``parameters`` keep their current values."""

    name: str
    body: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """A change set that is not applied yet. ``lines`` contains a description of the changes."""

    stack: str
    arn: str
    new: bool
    lines: list[str]


def template(file: str = "resources.yaml", names: Mapping[str, str] | None = None) -> str:
    """Returns the text of a template for CloudFormation.

    ``names`` maps parameters to values, such as ``{"Stage": "prod"}``. The values are filled into the names of tables
    and buckets. CloudFormation imports existing resources only if the template contains their full names.
    """
    document = expanded(file)
    for resource in document["Resources"].values():
        if names and resource["Type"] in DATA:
            name = DATA[resource["Type"]]
            resource["Properties"][name] = spelled_out(resource["Properties"][name], names)
    return text(document)


def spelled_out(value: str | Mapping[str, str], names: Mapping[str, str]) -> str:
    """Returns a resource name from a template, with parameters replaced by their values in ``names``."""
    spelled = value if isinstance(value, str) else value["Fn::Sub"]
    for key, given in names.items():
        spelled = spelled.replace(f"${{{key}}}", given)
    return spelled


@cache
def parameters_of(body: str) -> frozenset[str]:
    """Returns the names of a template's parameters."""
    return frozenset(parse(body).get("Parameters", {}))


def supported_parameters(body: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """Returns only the parameters that the template declares."""
    names = parameters_of(body)
    return {name: value for name, value in parameters.items() if name in names}


def prepare(stack: Stack, cfn: Any, upload: Callable[[str], str] | None, say: Say) -> Change | None:
    """Creates the change set that updates a stack to its desired state. Returns None if nothing needs to change.

    ``upload`` uploads a template and returns its URL. If ``upload`` is None, the template is sent directly.
    """
    current = ready_for_a_change(cfn, stack.name, say)
    new = current is None or current["StackStatus"] == "REVIEW_IN_PROGRESS"
    if current and not new and _is_as_desired(current, stack, cfn):
        return None
    if "AWS::SQS::Queue" in stack.body and stack.parameters.get("Local") != "true":
        wait_for_queue_names(cfn, stack.name, new, say)
    # Parameters of the existing stack keep their values, unless the template no longer declares the parameters.
    earlier = {each["ParameterKey"] for each in current.get("Parameters", [])} if current and not new else set()
    kept = (earlier & parameters_of(stack.body)) - set(stack.parameters)
    parameters: list[dict[str, Any]] = [
        {"ParameterKey": key, "ParameterValue": value} for key, value in stack.parameters.items()
    ]
    parameters += [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted(kept)]
    try:
        arn = cfn.create_change_set(
            StackName=stack.name,
            ChangeSetName=f"deploy-{time.time_ns() // 1_000_000}",
            ChangeSetType="CREATE" if new else "UPDATE",
            Parameters=parameters,
            Capabilities=["CAPABILITY_IAM"],
            Tags=[{"Key": key, "Value": value} for key, value in stack.tags.items()],
            # The stack imports tables and buckets that an earlier stage of the same name left behind.
            ImportExistingResources=True,
            **({"TemplateURL": upload(stack.body)} if upload else {"TemplateBody": stack.body}),
        )["Id"]
    except ClientError as error:
        raise DeployError(f"{stack.name}: {error.response['Error']['Message']}") from error
    described = _wait_for_change_set(cfn, stack.name, arn)
    if described["Status"] == "FAILED":
        reason = described.get("StatusReason", "no reason given")
        if "DescribeEvents" in reason:
            reason = "\n".join([reason, *_validation_errors(cfn, arn)])
        cfn.delete_change_set(StackName=stack.name, ChangeSetName=arn)
        if any(each in reason for each in NO_CHANGES):
            return None
        if new:
            cfn.delete_stack(StackName=stack.name)
        raise DeployError(f"{stack.name}: {reason}")
    changes = [each["ResourceChange"] for each in described["Changes"]]
    while "NextToken" in described:
        described = cfn.describe_change_set(StackName=stack.name, ChangeSetName=arn, NextToken=described["NextToken"])
        changes += [each["ResourceChange"] for each in described["Changes"]]
    return Change(stack.name, arn, new, change_lines(stack.name, new, changes))


def _validation_errors(cfn: Any, arn: str) -> list[str]:
    """Returns validation errors from CloudFormation, such as a name that is already in use.

    The status reason of the change set does not contain these errors.
    """
    try:
        events = cfn.describe_events(ChangeSetName=arn, Filters={"FailedEvents": True})["OperationEvents"]
    except ClientError as error:
        return [f"  {error}"]
    failed = [each for each in events if "ValidationStatusReason" in each]
    return [f"  {each.get('LogicalResourceId', 'template')}: {each['ValidationStatusReason']}" for each in failed]


def _is_as_desired(current: dict[str, Any], stack: Stack, cfn: Any) -> bool:
    """Returns whether a stack already has its desired template, parameters and tags."""
    values = {each["ParameterKey"]: each["ParameterValue"] for each in current.get("Parameters", [])}
    tags = {each["Key"]: each["Value"] for each in current.get("Tags", [])}
    return (
        values.items() >= stack.parameters.items()
        and tags == dict(stack.tags)
        and cfn.get_template(StackName=stack.name, TemplateStage="Original")["TemplateBody"] == stack.body
    )


def change_lines(stack: str, new: bool, changes: list[dict[str, Any]]) -> list[str]:
    """Describes a change set.

    For a new stack, counts the resources by type. For an existing stack, lists the changes.
    """
    kinds = Counter(each["ResourceType"].removeprefix("AWS::") for each in changes)
    if new:
        counted = [f"{count} {kind}" for kind, count in kinds.most_common()]
        counted[SHOWN_KINDS:] = [f"{len(counted) - SHOWN_KINDS} other kinds"] if len(counted) > SHOWN_KINDS else []
        taken = [each["LogicalResourceId"] for each in changes if each["Action"] == "Import"]
        lines = [f"{stack}: new, {len(changes)} resources ({', '.join(counted)})"]
        return lines + ([f"  imports existing data: {', '.join(taken)}"] if taken else [])
    lines = [f"{stack}: {len(changes)} {'change' if len(changes) == 1 else 'changes'}"]
    for each in changes:
        what = f"{each['LogicalResourceId']} ({each['ResourceType']})"
        names = {detail["Target"].get("Name") or detail["Target"]["Attribute"] for detail in each.get("Details", [])}
        if each["Action"] == "Modify" and each.get("Replacement") in ("True", "Conditional"):
            uncertain = "" if each["Replacement"] == "True" else "may "
            lines.append(f"  {uncertain}REPLACE {what}: {', '.join(sorted(names))}")
        elif each["Action"] == "Modify":
            lines.append(f"  change {what}: {', '.join(sorted(names))}")
        else:
            lines.append(f"  {each['Action'].lower()} {what}")
    return lines


def apply(change: Change, cfn: Any, say: Say) -> None:
    """Applies a change set.

    If the change fails, raises ``DeployError`` with the failed resources and the stack's state.
    """
    cfn.execute_change_set(StackName=change.stack, ChangeSetName=change.arn)
    stack = wait(cfn, change.stack, say)
    if stack is None or stack["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise DeployError(why_it_failed(cfn, change.stack))
    say(f"{change.stack}: {stack['StackStatus'].lower().replace('_', ' ')}")


def wait_for_queue_names(cfn: Any, name: str, new: bool, say: Say) -> None:
    """Waits until SQS has forgotten the queues that the stack, or for a new stack its predecessor, has deleted.

    Until then, SQS may still list these queues, and their names cannot be used again.
    """
    stack = _last_deleted(cfn, name) if new else name
    pages = cfn.get_paginator("describe_stack_events").paginate(StackName=stack) if stack else ()
    # Events are listed newest first.
    for each in (event for page in pages for event in page["StackEvents"]):
        left = (each["Timestamp"] + QUEUE_NAMES_BLOCKED - datetime.now(UTC)).total_seconds()
        if left <= 0:
            return
        if (each["ResourceType"], each["ResourceStatus"]) == ("AWS::SQS::Queue", "DELETE_COMPLETE"):
            say(f"{name}: waiting {left:.0f} s, because SQS blocks the names of queues that were just deleted")
            time.sleep(left)
            return


def _last_deleted(cfn: Any, name: str) -> str | None:
    """Returns the id of the stack of this name that was deleted last, or None."""
    pages = cfn.get_paginator("list_stacks").paginate(StackStatusFilter=["DELETE_COMPLETE"])
    deleted = [each for page in pages for each in page["StackSummaries"] if each["StackName"] == name]
    return str(max(deleted, key=lambda each: each["DeletionTime"])["StackId"]) if deleted else None


def discard(change: Change, cfn: Any) -> None:
    """Deletes a change set. If the change set would have created the stack, also deletes the stack."""
    cfn.delete_change_set(StackName=change.stack, ChangeSetName=change.arn)
    if change.new:
        cfn.delete_stack(StackName=change.stack)


def delete(cfn: Any, name: str, say: Say) -> None:
    cfn.delete_stack(StackName=name)
    if wait(cfn, name, say):
        raise DeployError(why_it_failed(cfn, name))
    say(f"{name}: deleted")


def find(cfn: Any, name: str) -> dict[str, Any] | None:
    try:
        stack: dict[str, Any] = cfn.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return None if stack["StackStatus"] == "DELETE_COMPLETE" else stack


def outputs(cfn: Any, name: str) -> dict[str, str]:
    """Returns a stack's outputs, keyed by the names of environment variables."""
    stack = find(cfn, name)
    return {variable(each["OutputKey"]): each["OutputValue"] for each in (stack or {}).get("Outputs", [])}


def outputs_of(stage: str, cfn: Any) -> dict[str, str]:
    """Returns the outputs of a stage's resources stack. Raises ``DeployError`` if the stage does not exist."""
    if not (stage_outputs := outputs(cfn, f"cafe-{stage}-resources")):
        raise DeployError(f"there is no stage {stage} at {cfn.meta.endpoint_url}: run `make deploy STAGE={stage}`")
    return stage_outputs


def current_parameters(cfn: Any, name: str) -> dict[str, str]:
    """Returns a stack's parameters with their current values."""
    stack = find(cfn, name)
    return {each["ParameterKey"]: each["ParameterValue"] for each in (stack or {}).get("Parameters", [])}


def variable(output: str) -> str:
    """Returns the environment variable for a stack output, such as ``TOPIC_ARN`` for the output ``TopicArn``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", output).upper()


def ready_for_a_change(cfn: Any, name: str, say: Say) -> dict[str, Any] | None:
    """Waits for a stack's earlier changes, and returns the stack or None. Deletes a stack that cannot be updated."""
    stack = find(cfn, name)
    if stack and stack["StackStatus"].endswith("_IN_PROGRESS") and stack["StackStatus"] != "REVIEW_IN_PROGRESS":
        say(f"{name}: waiting for an earlier change to end")
        stack = wait(cfn, name, say)
    if stack and stack["StackStatus"] == "UPDATE_ROLLBACK_FAILED":
        say(f"{name}: the rollback of an earlier change failed and is being retried")
        cfn.continue_update_rollback(StackName=name)
        stack = wait(cfn, name, say)
        if stack and stack["StackStatus"] == "UPDATE_ROLLBACK_FAILED":
            raise DeployError(why_it_failed(cfn, name))
    if stack and stack["StackStatus"] in UNUSABLE:
        say(f"{name}: {stack['StackStatus'].lower().replace('_', ' ')}, so the stack is deleted and created again")
        delete(cfn, name, say)
        stack = None
    return stack


def _wait_for_change_set(cfn: Any, name: str, arn: str) -> dict[str, Any]:
    pause = 0.1
    while True:
        described: dict[str, Any] = cfn.describe_change_set(StackName=name, ChangeSetName=arn)
        if not described["Status"].endswith(("_PENDING", "_IN_PROGRESS")):
            return described
        time.sleep(pause)
        pause = min(pause * 1.5, 5)


def wait(cfn: Any, name: str, say: Say) -> dict[str, Any] | None:
    """Waits for a stack change to end. Returns the stack, or None if the stack was deleted."""
    began = reported = time.monotonic()
    pause = 0.1
    while (stack := find(cfn, name)) and stack["StackStatus"].endswith("_IN_PROGRESS"):
        now = time.monotonic()
        if now > began + WAIT_SECONDS:
            raise DeployError(f"{name}: still {stack['StackStatus']} after {WAIT_SECONDS} s")
        if now > reported + PROGRESS_SECONDS:
            reported = now
            say(f"{name}: {_progress(cfn, name)} after {now - began:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 5)
    return stack


def _progress(cfn: Any, name: str) -> str:
    pages = cfn.get_paginator("list_stack_resources").paginate(StackName=name)
    statuses = Counter(
        "in progress" if each["ResourceStatus"].endswith("_IN_PROGRESS") else "done"
        for page in pages
        for each in page["StackResourceSummaries"]
    )
    return ", ".join(f"{count} resources {status}" for status, count in sorted(statuses.items())) or "no resource yet"


def why_it_failed(cfn: Any, name: str) -> str:
    """Describes a failed change with the stack's state and the failed resources."""
    status = (find(cfn, name) or {}).get("StackStatus", "deleted")
    rolled_back = status in ("ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
    state = "CloudFormation rolled everything back" if rolled_back else f"is now {status}"
    return "\n".join([f"{name} failed, and {state}:", *_reasons(cfn, name)[:10]])


def _reasons(cfn: Any, name: str) -> list[str]:
    reasons: list[str] = []
    for page in cfn.get_paginator("describe_stack_events").paginate(StackName=name):
        for each in page["StackEvents"]:
            if each["ResourceStatus"].endswith("_FAILED") and each.get("ResourceStatusReason"):
                reasons.insert(0, f"  {each['LogicalResourceId']}: {each['ResourceStatusReason']}")
            if each["LogicalResourceId"] == name and each["ResourceStatus"] in (
                "CREATE_IN_PROGRESS",
                "UPDATE_IN_PROGRESS",
                "DELETE_IN_PROGRESS",
            ):
                # Events are listed newest first, so the search ends with the event that began the failed change.
                return reasons
    return reasons
