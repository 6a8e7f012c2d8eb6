"""Reads this folder's CloudFormation templates and adds generated resources.

Run ``python -m infra.template FOLDER`` to write the expanded templates into a folder, for example to check them.

A resource of type ``Cafe::Function`` becomes a role, a log group, alarms, and an output with the role's ARN. Every role
can write logs and traces. The property ``Statement`` adds permissions to the role, and ``AssumedBy`` adds statements to
its trust policy.

A resource's ``Alarms`` become CloudWatch alarms on its metrics. Each queue gets a policy that requires TLS. A queue
accepts undelivered messages of the topics in ``UndeliveredFrom``. A resource of type ``Cafe::Dashboard`` becomes a
CloudWatch dashboard with the metrics of the functions. A state machine's ``DefinitionS3Location`` names the file in
this folder that contains the definition. A saved CloudWatch Logs query covers every log group. The functions that use
MySQL get the policy ``VpcAccess``. The parameter ``PermissionsBoundary`` limits every role. The types in ``TAGGED`` get
the stage's tags.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from infra import monitoring
from infra.functions import BY_NAME, FUNCTIONS, MYSQL_USERS, Function

FOLDER = Path(__file__).parent
FILES = ("deploys.yaml", "database.yaml", "resources.yaml")
Resources = dict[str, Any]

# CloudFormation may not pass a stack's own tags to these resources before a policy or the deploy looks for the tags.
TAGS = {"app": "cafe", "stage": {"Ref": "Stage"}}
TAGGED = {
    "AWS::Cognito::UserPool": "UserPoolTags",
    "AWS::EC2::RouteTable": "Tags",
    "AWS::EC2::SecurityGroup": "Tags",
    "AWS::EC2::Subnet": "Tags",
    "AWS::EC2::VPC": "Tags",
    "AWS::EC2::VPCEndpoint": "Tags",
    "AWS::S3::Bucket": "Tags",
}
# Other resources are generated from these keys of a resource, which CloudFormation does not know.
GENERATING = ("Alarms", "UndeliveredFrom")
BOUNDARY = "arn:${AWS::Partition}:iam::${AWS::AccountId}:policy/${PermissionsBoundary}"

NETWORK_READS = ["ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"]
NETWORK_WRITES = [
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Loads YAML with CloudFormation's short forms, such as ``!Ref``.

    Uses libyaml if available, because it is faster.
    """


def _long_form(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        raise TypeError(f"!{name}{node.start_mark}: a short form must be followed by a string or a list")
    if name in ("Ref", "Condition"):
        return {name: value}
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _long_form)


def parse(text: str) -> dict[str, Any]:
    """Parses a template, and replaces short forms such as ``!Sub x`` with long forms such as ``{"Fn::Sub": "x"}``."""
    document: dict[str, Any] = yaml.load(text, _Loader)  # noqa: S506 - a safe loader  # nosec B506
    return document


def expanded(file: str = "resources.yaml") -> dict[str, Any]:
    """Returns a template in this folder, with its generated resources."""
    document = parse((FOLDER / file).read_text())
    resources: Resources = {}
    for logical_id, resource in document["Resources"].items():
        for added, generated in _expanded(logical_id, resource, document).items():
            if added in resources:
                raise ValueError(f"{file}: {added} is declared twice")
            resources[added] = generated
    if file == "resources.yaml":
        if missing := [function.name for function in FUNCTIONS if f"{function.logical_id}Role" not in resources]:
            raise ValueError(f"{file}: a Cafe::Function is missing for {', '.join(missing)}")
        resources["VpcAccess"] = _vpc_access()
    document["Resources"] = resources
    log_groups = [{"Ref": name} for name, each in resources.items() if each["Type"] == "AWS::Logs::LogGroup"]
    for each in resources.values():
        properties = each.setdefault("Properties", {})
        if each["Type"] == "AWS::Logs::QueryDefinition":
            properties["LogGroupNames"] = log_groups
        if each["Type"] == "AWS::IAM::Role":
            properties["PermissionsBoundary"] = {
                "Fn::If": ["HasBoundary", {"Fn::Sub": BOUNDARY}, {"Ref": "AWS::NoValue"}]
            }
        if name := TAGGED.get(each["Type"]):
            pairs = [{"Key": key, "Value": value} for key, value in TAGS.items()]
            properties[name] = TAGS if name == "UserPoolTags" else [*pairs, *properties.get(name, [])]
    return document


def _expanded(logical_id: str, resource: dict[str, Any], document: dict[str, Any]) -> Resources:
    """Expands one resource in the template, and returns the resulting resources."""
    properties = resource.get("Properties", {})
    if resource["Type"] == "Cafe::Function":
        function = _function_with(logical_id)
        document["Outputs"][f"{logical_id}RoleArn"] = {"Value": {"Fn::GetAtt": [f"{logical_id}Role", "Arn"]}}
        return {
            f"{logical_id}Role": _role(function, properties),
            f"{logical_id}Logs": _logs(function),
            **monitoring.function_alarms(function, resource.get("Alarms", [])),
        }
    if resource["Type"] == "Cafe::Dashboard":
        body = {"Fn::Sub": monitoring.dashboard(properties.pop("Rows"))}
        return {logical_id: {"Type": "AWS::CloudWatch::Dashboard", "Properties": {**properties, "DashboardBody": body}}}
    if resource["Type"].startswith("Cafe::"):
        raise ValueError(f"resources.yaml: {logical_id}: unknown type {resource['Type']}")
    if file := properties.pop("DefinitionS3Location", None):
        definition = json.loads((FOLDER / file).read_text())
        properties["DefinitionString"] = json.dumps(definition, separators=(",", ":"))
    made = monitoring.resource_alarms(logical_id, resource) if "Alarms" in resource else {}
    if resource["Type"] == "AWS::SQS::Queue":
        made[f"{logical_id}Policy"] = _queue_policy(logical_id, resource.get("UndeliveredFrom", []))
    return {logical_id: {key: value for key, value in resource.items() if key not in GENERATING}, **made}


def _queue_policy(queue: str, topics: list[str]) -> dict[str, Any]:
    arn, plain_http = {"Fn::GetAtt": [queue, "Arn"]}, {"Bool": {"aws:SecureTransport": "false"}}
    refusal = {"Sid": "TlsOnly", "Effect": "Deny", "Principal": "*", "Action": "sqs:*", "Resource": arn}
    statements: list[Any] = [{**refusal, "Condition": plain_http}]
    # The local endpoint does not support TLS.
    only = {"Condition": "IsNotLocal"}
    if topics:
        sns, sent = {"Service": "sns.amazonaws.com"}, {"aws:SourceArn": [{"Ref": topic} for topic in topics]}
        admission = {**_allow("sqs:SendMessage", arn, Principal=sns), "Condition": {"ArnEquals": sent}}
        statements, only = [admission, {"Fn::If": ["IsLocal", {"Ref": "AWS::NoValue"}, *statements]}], {}
    properties = {"Queues": [{"Ref": queue}], "PolicyDocument": _policy(statements)}
    return {"Type": "AWS::SQS::QueuePolicy", **only, "Properties": properties}


def _function_with(logical_id: str) -> Function:
    for function in FUNCTIONS:
        if function.logical_id == logical_id:
            return function
    raise ValueError(f"resources.yaml: {logical_id}: infra/functions.py has no function with this logical id")


def _role(function: Function, given: dict[str, Any]) -> dict[str, Any]:
    """Returns a role that allows a function to write logs and traces, and everything in the given policy statements."""
    statements, assumed_by = given.pop("Statement", []), given.pop("AssumedBy", [])
    trust = _allow("sts:AssumeRole", Principal={"Service": "lambda.amazonaws.com"})
    common = [
        _allow(["logs:CreateLogStream", "logs:PutLogEvents"], {"Fn::GetAtt": [f"{function.logical_id}Logs", "Arn"]}),
        _allow(["xray:PutTelemetryRecords", "xray:PutTraceSegments"], "*"),
    ]
    properties = {
        **given,
        "AssumeRolePolicyDocument": _policy([trust, *assumed_by]),
        "Policies": [
            {"PolicyName": function.suffix[1:] or "api", "PolicyDocument": _policy([*common, *statements])},
        ],
    }
    return {"Type": "AWS::IAM::Role", "Properties": properties}


def _logs(function: Function) -> dict[str, Any]:
    properties = {
        "LogGroupName": {"Fn::Sub": f"/aws/lambda/cafe-${{Stage}}{function.suffix}"},
        "RetentionInDays": {"Ref": "LogRetentionDays"},
    }
    return {"Type": "AWS::Logs::LogGroup", "Properties": properties}


def _vpc_access() -> dict[str, Any]:
    """Returns a policy that allows Lambda, but not the code of a function, to create network interfaces."""
    here = "${AWS::Region}:${AWS::AccountId}"
    code = [
        {"Fn::Sub": f"arn:${{AWS::Partition}}:lambda:{here}:function:cafe-${{Stage}}-{name}"} for name in MYSQL_USERS
    ]
    denied = {
        "Effect": "Deny",
        "Action": [*NETWORK_READS, *NETWORK_WRITES],
        "Resource": "*",
        "Condition": {"ArnEquals": {"lambda:SourceFunctionArn": code}},
    }
    statements = [
        _allow(NETWORK_READS, "*"),
        _allow(NETWORK_WRITES, {"Fn::Sub": f"arn:${{AWS::Partition}}:ec2:{here}:*/*"}),
        denied,
    ]
    properties = {
        "PolicyName": {"Fn::Sub": "cafe-${Stage}-vpc"},
        "Roles": [{"Ref": f"{BY_NAME[name].logical_id}Role"} for name in MYSQL_USERS],
        "PolicyDocument": _policy(statements),
    }
    return {"Type": "AWS::IAM::Policy", "Condition": "IsDbInVpc", "Properties": properties}


def _allow(action: str | list[str], resource: Any = None, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", **more, "Action": action, **({"Resource": resource} if resource else {})}


def _policy(statements: list[Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": statements}


def text(document: dict[str, Any]) -> str:
    """Returns the YAML that CloudFormation receives, with each resource, parameter and output on one line.

    The YAML is ASCII, because CloudFormation returns other characters as question marks. JSON is unsuitable because the
    deploy compares templates as text, and botocore parses JSON templates into dictionaries.
    """
    lines = []
    for section, content in document.items():
        if isinstance(content, dict):
            lines += [f"{section}:", *(f"  {name}: {json.dumps(each)}" for name, each in content.items())]
        else:
            lines.append(f"{section}: {json.dumps(content)}")
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    """Writes the expanded templates into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        (folder / file).write_text(text(expanded(file)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
