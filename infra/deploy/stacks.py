"""CloudFormation: a stage's stacks, each changed by a change set that is shown before it is applied."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from infra.deploy.target import DeployError, Say
from infra.template import expanded, parse, text

WAIT_SECONDS = 3600
# A wait says how far it is, and not more often than this.
PROGRESS_SECONDS = 10
# What a stage may leave behind on purpose, and the property that has its name.
DATA = {"AWS::DynamoDB::Table": "TableName", "AWS::S3::Bucket": "BucketName"}
SHOWN_KINDS = 6
NO_CHANGES = ("didn't contain changes", "No updates are to be performed")


@dataclass(frozen=True)
class Stack:
    """A stack as it shall be. A parameter that is not given stays as it is."""

    name: str
    body: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """A change set that waits to be applied; ``lines`` tell what it does."""

    stack: str
    arn: str
    new: bool
    lines: list[str]


def template(file: str = "resources.yaml", names: Mapping[str, str] | None = None) -> str:
    """Returns a template as CloudFormation gets it.

    ``names``, such as ``{"Stage": "prod", "AWS::AccountId": …}``, are spelled out in the names of tables and buckets,
    because CloudFormation takes over existing resources only where the template has their whole names.
    """
    document = expanded(file)
    for resource in document["Resources"].values():
        if names and resource["Type"] in DATA:
            name = DATA[resource["Type"]]
            resource["Properties"][name] = spelled_out(resource["Properties"][name], names)
    return text(document)


def spelled_out(value: str | Mapping[str, str], names: Mapping[str, str]) -> str:
    """Returns a name of a template with these parameters in it."""
    spelled = value if isinstance(value, str) else value["Fn::Sub"]
    for key, given in names.items():
        spelled = spelled.replace(f"${{{key}}}", given)
    return spelled


def parameters_of(body: str) -> set[str]:
    """Returns the names of a template's parameters."""
    return set(parse(body).get("Parameters", {}))


def known(body: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """Those of ``parameters`` that the template has."""
    names = parameters_of(body)
    return {name: value for name, value in parameters.items() if name in names}


def prepare(stack: Stack, cfn: Any, upload: Callable[[str], str] | None, say: Say) -> Change | None:
    """The change set that makes the stack as it shall be; None if it is so already.

    ``upload`` puts a template where CloudFormation reads it, and returns its URL; a small template may go without.
    """
    found = _ready_for_a_change(cfn, stack.name, say)
    new = found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS"
    if found and not new and _is_so(found, stack, cfn):
        return None
    # What was set before stays, unless this template has no such parameter any more.
    known = {each["ParameterKey"] for each in found.get("Parameters", [])} if found and not new else set()
    kept = (known & parameters_of(stack.body)) - set(stack.parameters)
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
            # Tables and buckets that an earlier stage of this name has left are taken over.
            ImportExistingResources=True,
            **({"TemplateURL": upload(stack.body)} if upload else {"TemplateBody": stack.body}),
        )["Id"]
    except ClientError as error:
        raise DeployError(f"{stack.name}: {error.response['Error']['Message']}") from error
    described = _wait_for_change_set(cfn, stack.name, arn)
    if described["Status"] == "FAILED":
        reason = described.get("StatusReason", "no reason given")
        if "DescribeEvents" in reason:
            reason = "\n".join([reason, *_what_is_not_valid(cfn, arn)])
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
    return Change(stack.name, arn, new, shown(stack.name, new, changes))


def _what_is_not_valid(cfn: Any, arn: str) -> list[str]:
    """What CloudFormation sees before it begins, such as a name that is taken: its reason only tells where to ask."""
    try:
        events = cfn.describe_events(ChangeSetName=arn, Filters={"FailedEvents": True})["OperationEvents"]
    except ClientError as error:
        return [f"  {error}"]
    failed = [each for each in events if "ValidationStatusReason" in each]
    return [f"  {each.get('LogicalResourceId', 'template')}: {each['ValidationStatusReason']}" for each in failed]


def _is_so(found: dict[str, Any], stack: Stack, cfn: Any) -> bool:
    """Whether the stack has this very template, these parameters and these tags: then no change set has to be made."""
    values = {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])}
    tags = {each["Key"]: each["Value"] for each in found.get("Tags", [])}
    return (
        values.items() >= stack.parameters.items()
        and tags == dict(stack.tags)
        and cfn.get_template(StackName=stack.name)["TemplateBody"] == stack.body
    )


def shown(stack: str, new: bool, changes: list[dict[str, Any]]) -> list[str]:
    """What a change set does, for a person: the kinds of what is new, or each change of what is there."""
    kinds = Counter(each["ResourceType"].removeprefix("AWS::") for each in changes)
    if new:
        counted = [f"{count} {kind}" for kind, count in kinds.most_common()]
        counted[SHOWN_KINDS:] = [f"{len(counted) - SHOWN_KINDS} other kinds"] if len(counted) > SHOWN_KINDS else []
        taken = [each["LogicalResourceId"] for each in changes if each["Action"] == "Import"]
        lines = [f"{stack}: new, {len(changes)} resources ({', '.join(counted)})"]
        return lines + ([f"  taken over with what is in them: {', '.join(taken)}"] if taken else [])
    lines = [f"{stack}: {len(changes)} {'change' if len(changes) == 1 else 'changes'}"]
    for each in changes:
        what = f"{each['LogicalResourceId']} ({each['ResourceType']})"
        names = {detail["Target"].get("Name") or detail["Target"]["Attribute"] for detail in each.get("Details", [])}
        if each["Action"] == "Modify" and each.get("Replacement") in ("True", "Conditional"):
            may = "" if each["Replacement"] == "True" else "may "
            lines.append(f"  {may}REPLACE {what}: {', '.join(sorted(names))}")
        elif each["Action"] == "Modify":
            lines.append(f"  change {what}: {', '.join(sorted(names))}")
        else:
            lines.append(f"  {each['Action'].lower()} {what}")
    return lines


def apply(change: Change, cfn: Any, say: Say) -> None:
    """Raises ``DeployError`` with the resources that failed, and whether CloudFormation has taken everything back."""
    cfn.execute_change_set(StackName=change.stack, ChangeSetName=change.arn)
    stack = wait(cfn, change.stack, say)
    if stack is None or stack["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise DeployError(why_it_failed(cfn, change.stack))
    say(f"{change.stack}: {stack['StackStatus'].lower().replace('_', ' ')}")


def discard(change: Change, cfn: Any) -> None:
    """A stack that has only this change set is nothing yet, and goes with it."""
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
    """A stack's outputs, named as environment variables."""
    stack = find(cfn, name)
    return {variable(each["OutputKey"]): each["OutputValue"] for each in (stack or {}).get("Outputs", [])}


def outputs_of(stage: str, cfn: Any) -> dict[str, str]:
    """The outputs of a stage's resources. Raises ``DeployError`` where there are none."""
    found = outputs(cfn, f"cafe-{stage}-resources")
    if not found:
        raise DeployError(f"there is no stage {stage} at {cfn.meta.endpoint_url}: `make deploy STAGE={stage}` makes it")
    return found


def values(cfn: Any, name: str) -> dict[str, str]:
    """A stack's parameters with the values that they have now."""
    stack = find(cfn, name)
    return {each["ParameterKey"]: each["ParameterValue"] for each in (stack or {}).get("Parameters", [])}


def variable(output: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", output).upper()


def _ready_for_a_change(cfn: Any, name: str, say: Say) -> dict[str, Any] | None:
    """The stack, if there is one, after an earlier change has ended, or its end was brought about."""
    stack = find(cfn, name)
    if stack and stack["StackStatus"].endswith("_IN_PROGRESS") and stack["StackStatus"] != "REVIEW_IN_PROGRESS":
        say(f"{name}: waiting for an earlier change to end")
        stack = wait(cfn, name, say)
    if stack and stack["StackStatus"] == "UPDATE_ROLLBACK_FAILED":
        say(f"{name}: an earlier change could not be taken back, which is tried again")
        cfn.continue_update_rollback(StackName=name)
        stack = wait(cfn, name, say)
        if stack and stack["StackStatus"] == "UPDATE_ROLLBACK_FAILED":
            raise DeployError(why_it_failed(cfn, name))
    if stack and stack["StackStatus"] in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"):
        say(f"{name}: {stack['StackStatus'].lower().replace('_', ' ')}, so it is removed and made anew")
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
    """The stack once nothing goes on in it; None once it is deleted. Says how far it is."""
    began = told = time.monotonic()
    pause = 0.1
    while (stack := find(cfn, name)) and stack["StackStatus"].endswith("_IN_PROGRESS"):
        now = time.monotonic()
        if now > began + WAIT_SECONDS:
            raise DeployError(f"{name}: still {stack['StackStatus']} after {WAIT_SECONDS} s")
        if now > told + PROGRESS_SECONDS:
            told = now
            say(f"{name}: {_how_far(cfn, name)} after {now - began:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 5)
    return stack


def _how_far(cfn: Any, name: str) -> str:
    pages = cfn.get_paginator("list_stack_resources").paginate(StackName=name)
    statuses = Counter(
        "under way" if each["ResourceStatus"].endswith("_IN_PROGRESS") else "done"
        for page in pages
        for each in page["StackResourceSummaries"]
    )
    return ", ".join(f"{count} resources {status}" for status, count in sorted(statuses.items())) or "no resource yet"


def why_it_failed(cfn: Any, name: str) -> str:
    """What became of the stack's last change, and which resources failed in it."""
    status = (find(cfn, name) or {}).get("StackStatus", "gone")
    taken_back = status in ("ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
    what = "CloudFormation took everything back" if taken_back else f"is now {status}"
    return "\n".join([f"{name} failed, and {what}:", *_reasons(cfn, name)[:10]])


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
                # Events come newest first, and this is the first one of the change that failed.
                return reasons
    return reasons
