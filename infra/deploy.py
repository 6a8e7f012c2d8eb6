"""Deploys the whole system, the same way onto AWS and onto the local cloud: only endpoint and credentials differ.

    python -m infra.deploy STAGE

1. The resources stack, from ``resources.yaml`` and the state machines' ASL files.
2. Its outputs, as environment variables and roles, into the stage's Chalice configuration. That is generated in a
   project folder of its own, which links the code, so that the tracked ``.chalice/config.json`` stays as it is.
3. ``chalice deploy``.
4. What Chalice cannot set: on event source mappings, on asynchronous invocation and on subscriptions.
5. A check that everything is as asked. A second run finds that nothing has to change, and changes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import yaml
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from chalice.deploy.packager import LambdaDeploymentPackager
from chalice.utils import UI, OSUtils

from infra.files import write_private

REPOSITORY = Path(__file__).resolve().parent.parent
TEMPLATE = REPOSITORY / "infra" / "resources.yaml"
LINKED = ("app.py", "chalicelib", "requirements.txt")
STAGE = re.compile(r"[a-z][a-z0-9-]{0,19}")
# The functions that talk to MySQL, and so the only ones that are told its password.
WITH_DATABASE = ("read_inventory", "receive_upload")
DATABASE = ("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD")
TEMPLATE_BYTES = 51_200
WAIT_SECONDS = 900
SETTLE_SECONDS = 15
HOURS = 3600

Say = Callable[[str], None]


class DeployError(Exception):
    """The deploy stopped; the message says at what, and what to do."""


@dataclass(frozen=True)
class Target:
    """Where to deploy to, and with what. ``parameters`` are those of the resources template that a user may set, and
    ``origins`` has the console's page beside the API's own."""

    stage: str
    project: Path
    local: bool
    parameters: Mapping[str, str]
    database: Mapping[str, str]
    origins: tuple[str, ...] = ()

    @property
    def stack(self) -> str:
        return _stack_name(self.stage)

    def function(self, name: str) -> str:
        """The deployed name of the Chalice function ``name``; all REST routes share ``api_handler``."""
        return f"cafe-{self.stage}" if name == "api_handler" else f"cafe-{self.stage}-{name}"


def client(service: str) -> Any:
    return boto3.client(service, config=Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard"}))  # type: ignore[call-overload]


# --- 1. the resources stack -------------------------------------------------------------------------------------------


def template() -> str:
    """``resources.yaml`` with each state machine's ASL file in the place of its name, and without comments.

    Written as it is, half of what CloudFormation takes would be spaces at the beginning of lines.
    """

    def definition(match: re.Match[str]) -> str:
        text = json.dumps(json.loads((TEMPLATE.parent / match[2]).read_text()), separators=(",", ":"))
        # In single quotes YAML has only the apostrophe written twice, and none of the many quotes of JSON.
        return match[1] + "DefinitionString: '" + text.replace("'", "''") + "'"

    text = re.sub(r"^( +)DefinitionS3Location: (\S+)$", definition, TEMPLATE.read_text(), flags=re.MULTILINE)
    document = yaml.compose(text, yaml.SafeLoader)
    _in_flow_style(document)
    body: str = yaml.serialize(document, width=math.inf, allow_unicode=True)
    if len(body.encode()) > TEMPLATE_BYTES:
        raise DeployError(f"the template has {len(body.encode()):,} bytes, and CloudFormation takes {TEMPLATE_BYTES:,}")
    return body


def _in_flow_style(node: Any, depth: int = 0) -> None:
    """Each resource, parameter and output is one line; a template that begins with a brace would be read as JSON."""
    if isinstance(node, yaml.CollectionNode):
        node.flow_style = depth > 1
        for each in node.value:
            for inner in each if isinstance(each, tuple) else (each,):
                _in_flow_style(inner, depth + 1)


def deploy_resources(target: Target, cfn: Any, say: Say) -> dict[str, str]:
    """Creates or updates the stack; returns its outputs, named as environment variables."""
    stack = _stack(cfn, target.stack)
    if stack and stack["StackStatus"].endswith("_IN_PROGRESS"):
        say(f"{target.stack}: waiting for an earlier change to end")
        stack = _wait_for_stack(cfn, target.stack)
    if stack and stack["StackStatus"] == "ROLLBACK_COMPLETE":
        say(f"{target.stack}: its first creation had failed, so it is removed and made anew")
        cfn.delete_stack(StackName=target.stack)
        stack = _wait_for_stack(cfn, target.stack)
    body = template()
    given = {"Stage": target.stage, "Local": str(target.local).lower(), **target.parameters}
    # What was set before stays, unless this template has no such parameter any more.
    text = TEMPLATE.read_text()
    named = set(re.findall(r"^  (\w+):$", text[: text.index("\nConditions:")], flags=re.MULTILINE))
    known = {each["ParameterKey"] for each in stack["Parameters"]} & named if stack else set()
    parameters: list[dict[str, Any]] = [{"ParameterKey": key, "ParameterValue": given[key]} for key in given]
    parameters += [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted(known - set(given))]
    call = cfn.update_stack if stack else cfn.create_stack
    try:
        call(
            StackName=target.stack,
            TemplateBody=body,
            Parameters=parameters,
            Capabilities=["CAPABILITY_IAM"],
            Tags=[{"Key": "app", "Value": "cafe"}, {"Key": "stage", "Value": target.stage}],
        )
    except ClientError as error:
        if "No updates are to be performed" not in str(error):
            raise DeployError(f"{target.stack}: {error.response['Error']['Message']}") from error
        say(f"{target.stack}: nothing to change")
    else:
        stack = _wait_for_stack(cfn, target.stack)
        if stack is None or stack["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise DeployError(_why_it_failed(cfn, target.stack))
        say(f"{target.stack}: {stack['StackStatus'].lower().replace('_', ' ')}")
    return outputs_of(target.stage, cfn)


def outputs_of(stage: str, cfn: Any) -> dict[str, str]:
    """The outputs of a stage's resources, named as environment variables. Raises ``DeployError`` where it is not."""
    stack = _stack(cfn, _stack_name(stage))
    if stack is None:
        raise DeployError(f"there is no stage {stage} at {cfn.meta.endpoint_url}: `make deploy STAGE={stage}` makes it")
    return {_variable(each["OutputKey"]): each["OutputValue"] for each in stack.get("Outputs", [])}


def _stack_name(stage: str) -> str:
    return f"cafe-{stage}-resources"


def _variable(output: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", output).upper()


def _stack(cfn: Any, name: str) -> dict[str, Any] | None:
    try:
        stack: dict[str, Any] = cfn.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return None if stack["StackStatus"] == "DELETE_COMPLETE" else stack


def _wait_for_stack(cfn: Any, name: str) -> dict[str, Any] | None:
    end = time.monotonic() + WAIT_SECONDS
    pause = 0.2
    while (stack := _stack(cfn, name)) and stack["StackStatus"].endswith("_IN_PROGRESS"):
        if time.monotonic() > end:
            raise DeployError(f"{name}: still {stack['StackStatus']} after {WAIT_SECONDS} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 5)
    return stack


def _why_it_failed(cfn: Any, name: str) -> str:
    events = cfn.describe_stack_events(StackName=name)["StackEvents"]
    reasons = [
        f"  {each['LogicalResourceId']}: {each['ResourceStatusReason']}"
        for each in reversed(events)
        if each["ResourceStatus"].endswith("_FAILED") and each.get("ResourceStatusReason")
    ]
    return f"{name} failed, and CloudFormation took everything back:\n" + "\n".join(reasons[:10])


# --- 2. the stage's Chalice configuration -----------------------------------------------------------------------------


def tracked_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((REPOSITORY / ".chalice" / "config.json").read_text())
    return config


def function_names() -> list[str]:
    return ["api_handler", *tracked_config()["lambda_functions"]]


def write_project(target: Target, outputs: Mapping[str, str], orders_since: str) -> dict[str, Any]:
    """Writes the project folder, with this stage added to the stages that it has. Returns the stage's configuration."""
    environment = {
        "CAFE_STAGE": target.stage,
        "ORDERS_SINCE": orders_since,
        **{name: value for name, value in outputs.items() if not name.endswith("_ROLE_ARN")},
    }
    tracked = tracked_config()
    functions: dict[str, Any] = {}
    for name in function_names():
        role = "API_ROLE_ARN" if name == "api_handler" else f"{name.upper()}_ROLE_ARN"
        functions[name] = {**tracked["lambda_functions"].get(name, {}), "iam_role_arn": outputs[role]}
        if name in WITH_DATABASE:
            functions[name]["environment_variables"] = dict(target.database)
    stage = {"environment_variables": environment, "lambda_functions": functions}
    # Each function tells by this which code and which configuration it was deployed from.
    environment["CAFE_BUILD"] = _build(stage)

    folder = target.project / ".chalice"
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        link = target.project / name
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(REPOSITORY / name)
    path = folder / "config.json"
    stages = json.loads(path.read_text())["stages"] if path.exists() else {}
    config = {key: value for key, value in tracked.items() if key != "lambda_functions"}
    config["stages"] = {**stages, target.stage: stage}
    write_private(path, json.dumps(config, indent=2) + "\n")
    return stage


def _build(stage: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([tracked_config(), stage], sort_keys=True).encode())
    digest.update(f"python{sys.version_info.major}.{sys.version_info.minor}".encode())
    for path in sorted(each for name in LINKED for each in [REPOSITORY / name, *(REPOSITORY / name).rglob("*")]):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(REPOSITORY)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


# --- 3. chalice deploy ------------------------------------------------------------------------------------------------


def run_chalice(target: Target, *arguments: str) -> None:
    # Compiled files would travel in the package, and change its hash at every run.
    for folder in (REPOSITORY / "chalicelib").rglob("__pycache__"):
        shutil.rmtree(folder, ignore_errors=True)
    chalice = Path(sys.executable).with_name("chalice")
    command = [str(chalice), "--project-dir", str(target.project), *arguments, "--stage", target.stage]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise DeployError(f"chalice {arguments[0]} failed:\n{tail}")


def deployed(target: Target) -> dict[str, dict[str, Any]]:
    """What Chalice recorded of its last complete deploy, by resource name."""
    path = _record(target)
    if not path.exists():
        return {}
    return {each["name"]: each for each in json.loads(path.read_text())["resources"]}


def _record(target: Target) -> Path:
    return target.project / ".chalice" / "deployed" / f"{target.stage}.json"


def _require_record(target: Target, lambda_: Any) -> None:
    """Raises ``DeployError`` where there are functions that Chalice, without its record, would not know as its own."""
    if not deployed(target) and _exists(lambda_, target):
        raise DeployError(
            f"the functions of {target.stage} are deployed, and Chalice's record of them is not here: bring "
            f"{_record(target)} from where they were deployed, or remove them with their API and begin anew"
        )


def _exists(lambda_: Any, target: Target) -> bool:
    try:
        _configuration(lambda_, target, "store_orders")
    except lambda_.exceptions.ResourceNotFoundException:
        return False
    return True


def is_current(target: Target, stage: dict[str, Any], lambda_: Any) -> bool:
    """Whether every function runs this very code with this very configuration already."""
    if "rest_api" not in deployed(target):
        return False
    try:
        return all(
            _configuration(lambda_, target, name).get("Environment", {}).get("Variables", {}).get("CAFE_BUILD")
            == stage["environment_variables"]["CAFE_BUILD"]
            for name in function_names()
        )
    except lambda_.exceptions.ResourceNotFoundException:
        return False


def _configuration(lambda_: Any, target: Target, name: str) -> dict[str, Any]:
    configuration: dict[str, Any] = lambda_.get_function_configuration(FunctionName=target.function(name))
    return configuration


def package_sizes(project: Path) -> list[tuple[str, int]]:
    """The parts of the deployment package of the project's present code and their compressed bytes, largest first."""
    # It is only asked for a name, and builds nothing.
    packager = LambdaDeploymentPackager(OSUtils(), None, UI())  # type: ignore[arg-type]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    parts: dict[str, int] = {}
    with zipfile.ZipFile(packager.deployment_package_filename(str(project), version)) as package:
        for each in package.infolist():
            part = each.filename.split("/")[0]
            parts[part] = parts.get(part, 0) + each.compress_size
    return sorted(parts.items(), key=lambda part: -part[1])


# --- 4. what Chalice cannot set ---------------------------------------------------------------------------------------


def mappings(outputs: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The settings of each function's event source mapping that Chalice has no word for."""
    return {
        # Without it a reply that names the failed messages would delete all of them.
        "store_orders": {"FunctionResponseTypes": ["ReportBatchItemFailures"]},
        # For a function that cannot put by what it fails on, which it does after two minutes: such a batch would hold
        # the stream for ever.
        "announce_orders": {
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "BisectBatchOnFunctionError": True,
            "MaximumRetryAttempts": 1000,
            "MaximumRecordAgeInSeconds": 6 * HOURS,
            "DestinationConfig": {"OnFailure": {"Destination": outputs["FAILURES_QUEUE_ARN"]}},
        },
    }


def invocations(outputs: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The settings of the functions that are invoked without anyone waiting for the answer."""
    config = {
        "MaximumRetryAttempts": 2,
        "MaximumEventAgeInSeconds": 6 * HOURS,
        "DestinationConfig": {"OnFailure": {"Destination": outputs["FAILURES_QUEUE_ARN"]}},
    }
    # announce_orders is invoked by its stream, and so only where a person puts a dead letter back.
    return dict.fromkeys(("receive_upload", "record_notification", "record_alarm", "announce_orders"), config)


# The functions that Chalice subscribes, and the output that has the topic's ARN.
SUBSCRIBED = {"record_notification": "TOPIC_ARN", "record_alarm": "ALARMS_TOPIC_ARN"}


def redrive_policy(outputs: Mapping[str, str]) -> dict[str, str]:
    """Of a subscription: where a message goes that SNS could not hand over to the function."""
    return {"deadLetterTargetArn": outputs["FAILURES_QUEUE_ARN"]}


def cors(target: Target, outputs: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rules of the uploads bucket: the console's page may send files there, and no other page."""
    url = urlsplit(outputs["REST_API_URL"])
    origins = sorted({f"{url.scheme}://{url.netloc}", *target.origins})
    return [{"AllowedMethods": ["POST"], "AllowedOrigins": origins, "MaxAgeSeconds": HOURS}]


def _cors_rules(s3: Any, bucket: str) -> list[dict[str, Any]]:
    try:
        rules: list[dict[str, Any]] = s3.get_bucket_cors(Bucket=bucket)["CORSRules"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchCORSConfiguration":
            return []
        raise
    return rules


def complete(target: Target, outputs: Mapping[str, str], clients: Callable[[str], Any], say: Say) -> None:
    """Sets, where it is not set yet, what ``mappings``, ``invocations``, ``redrive_policy`` and ``cors`` ask for."""
    lambda_, sns = clients("lambda"), clients("sns")
    for name, wanted in mappings(outputs).items():
        # A mapping that is still being made takes no changes.
        _wait_for_mappings(lambda_, target, name)
        for mapping in _mappings_of(lambda_, target, name):
            if _missing(mapping, wanted):
                lambda_.update_event_source_mapping(UUID=mapping["UUID"], **wanted)
                say(f"{name}: event source mapping completed")
        _wait_for_mappings(lambda_, target, name)
    for name, wanted in invocations(outputs).items():
        if _missing(_invocation(lambda_, target, name), wanted):
            lambda_.put_function_event_invoke_config(FunctionName=target.function(name), **wanted)
            say(f"{name}: failure destination set")
    for name, topic in SUBSCRIBED.items():
        arn = _configuration(lambda_, target, name)["FunctionArn"]
        # The list may lack for some seconds what Chalice has made just now.
        _settled(lambda topic=topic, arn=arn: [] if _subscriptions(sns, outputs[topic], arn) else [arn])  # type: ignore[misc]
        for subscription in _subscriptions(sns, outputs[topic], arn):
            if _redrive_policy(sns, subscription) != redrive_policy(outputs):
                sns.set_subscription_attributes(
                    SubscriptionArn=subscription,
                    AttributeName="RedrivePolicy",
                    AttributeValue=json.dumps(redrive_policy(outputs)),
                )
                say(f"{name}: failure queue of its subscription set")
    s3, bucket = clients("s3"), outputs["UPLOADS_BUCKET"]
    if _cors_rules(s3, bucket) != cors(target, outputs):
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": cors(target, outputs)})
        say(f"{bucket}: opened to uploads from the console")


def _subscriptions(sns: Any, topic: str, endpoint: str) -> list[str]:
    pages = sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
    return [each["SubscriptionArn"] for page in pages for each in page["Subscriptions"] if each["Endpoint"] == endpoint]


def _redrive_policy(sns: Any, subscription: str) -> dict[str, str]:
    attributes = sns.get_subscription_attributes(SubscriptionArn=subscription)["Attributes"]
    policy: dict[str, str] = json.loads(attributes.get("RedrivePolicy") or "{}")
    return policy


def _mappings_of(lambda_: Any, target: Target, name: str) -> list[dict[str, Any]]:
    pages = lambda_.get_paginator("list_event_source_mappings").paginate(FunctionName=target.function(name))
    return [mapping for page in pages for mapping in page["EventSourceMappings"]]


def _wait_for_mappings(lambda_: Any, target: Target, name: str) -> None:
    end = time.monotonic() + 120
    while any(each["State"] in ("Creating", "Updating", "Enabling") for each in _mappings_of(lambda_, target, name)):
        if time.monotonic() > end:
            raise DeployError(f"{name}: its event source mapping is not enabled after two minutes")
        time.sleep(0.5)


def _invocation(lambda_: Any, target: Target, name: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] = lambda_.get_function_event_invoke_config(FunctionName=target.function(name))
    except lambda_.exceptions.ResourceNotFoundException:
        return {}
    return config


def _missing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The names of the settings that are not as wanted. What AWS adds by itself, deep inside, does not count."""

    def holds(found: Any, wanted: Any) -> bool:
        if isinstance(wanted, dict):
            return isinstance(found, dict) and all(holds(found.get(key), value) for key, value in wanted.items())
        return bool(found == wanted)

    return [name for name, value in wanted.items() if not holds(found.get(name), value)]


# --- 5. the check -----------------------------------------------------------------------------------------------------


def check(
    target: Target, stage: dict[str, Any], outputs: Mapping[str, str], clients: Callable[[str], Any]
) -> list[str]:
    """All that is not as asked, a line each; nothing if the deploy is whole."""
    lambda_, problems = clients("lambda"), []
    arns = {}
    for name in function_names():
        try:
            found = _configuration(lambda_, target, name)
        except lambda_.exceptions.ResourceNotFoundException:
            problems.append(f"{name}: is not deployed")
            continue
        arns[name] = found["FunctionArn"]
        asked = stage["lambda_functions"][name]
        wanted = {
            "Role": asked["iam_role_arn"],
            "Timeout": asked.get("lambda_timeout", tracked_config()["lambda_timeout"]),
            "MemorySize": asked.get("lambda_memory_size", tracked_config()["lambda_memory_size"]),
        }
        problems += [f"{name}: {each} is {found.get(each)}, not {wanted[each]}" for each in _missing(found, wanted)]
    sources = {"store_orders": outputs["ORDERS_QUEUE_ARN"], "announce_orders": outputs["ORDERS_STREAM_ARN"]}
    for name, wanted in mappings(outputs).items():
        found_mappings = _mappings_of(lambda_, target, name)
        if len(found_mappings) != 1:
            problems.append(f"{name}: has {len(found_mappings)} event source mappings, not one")
        for mapping in found_mappings:
            asked = {**wanted, "EventSourceArn": sources[name], "State": "Enabled"}
            problems += [f"{name}: its mapping's {each} is {mapping.get(each)}" for each in _missing(mapping, asked)]
    for name, wanted in invocations(outputs).items():
        config = _invocation(lambda_, target, name)
        problems += [f"{name}: its {each} is {config.get(each)}" for each in _missing(config, wanted)]
    for name, topic in SUBSCRIBED.items():
        subscriptions = _subscriptions(clients("sns"), outputs[topic], arns.get(name, ""))
        if len(subscriptions) != 1:
            problems.append(f"{name}: is subscribed {len(subscriptions)} times to {outputs[topic]}, not once")
        policies = [_redrive_policy(clients("sns"), each) for each in subscriptions]
        problems += [
            f"{name}: its subscription's RedrivePolicy is {each}"
            for each in policies
            if each != redrive_policy(outputs)
        ]
    bucket = clients("s3").get_bucket_notification_configuration(Bucket=outputs["UPLOADS_BUCKET"])
    notified = [each["LambdaFunctionArn"] for each in bucket.get("LambdaFunctionConfigurations", [])]
    if notified != [arns.get("receive_upload")]:
        problems.append(f"receive_upload: the bucket {outputs['UPLOADS_BUCKET']} notifies {notified}")
    rules = _cors_rules(clients("s3"), outputs["UPLOADS_BUCKET"])
    if rules != cors(target, outputs):
        problems.append(f"POST /uploads: the rules for other origins of {outputs['UPLOADS_BUCKET']} are {rules}")
    return problems


def _settled(look: Callable[[], list[str]]) -> list[str]:
    """The problems that remain: a list of AWS may lack for some seconds what was made just now."""
    end = time.monotonic() + SETTLE_SECONDS
    while (problems := look()) and time.monotonic() < end:
        time.sleep(1)
    return problems


# --- the whole --------------------------------------------------------------------------------------------------------


def deploy(target: Target, say: Say) -> dict[str, str]:
    """Deploys the stage and returns all that ``<project>/<stage>.outputs.json`` holds."""
    lambda_ = client("lambda")
    outputs = deploy_resources(target, client("cloudformation"), say)
    table = client("dynamodb").describe_table(TableName=outputs["ORDERS_TABLE"])["Table"]
    # botocore gives the time of this machine's zone.
    orders_since = f"{table['CreationDateTime'].astimezone(UTC):%Y-%m-%d}"
    stage = write_project(target, outputs, orders_since)
    _require_record(target, lambda_)
    if is_current(target, stage, lambda_):
        say("functions and API: nothing to change")
    else:
        say(f"functions and API: deploying {len(function_names())} functions with chalice")
        run_chalice(target, "deploy")
        try:
            parts = package_sizes(target.project)
        except FileNotFoundError:
            # Its name has a digest of the code, compiled files included, which another process may write meanwhile.
            say("package: the code has changed since, so its size is not known")
        else:
            shown = ", ".join(f"{name} {size / 1000:,.0f}" for name, size in parts[:6])
            say(f"package: {sum(size for _, size in parts) / 1000:,.0f} kB ({shown} …)")
    outputs["REST_API_URL"] = _rest_api_url(target)
    complete(target, outputs, client, say)
    problems = _settled(lambda: check(target, stage, outputs, client))
    if problems:
        raise DeployError("deployed, but not as asked:\n" + "\n".join(f"  {each}" for each in problems))
    say("check: everything is as asked")
    result = {
        **outputs,
        "CAFE_STAGE": target.stage,
        "ORDERS_SINCE": orders_since,
    }
    write_private(target.project / f"{target.stage}.outputs.json", json.dumps(result, indent=2) + "\n")
    return result


def _rest_api_url(target: Target) -> str:
    api = deployed(target)["rest_api"]
    stage = tracked_config()["api_gateway_stage"]
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        return f"{endpoint}/_aws/execute-api/{api['rest_api_id']}/{stage}"
    return str(api["rest_api_url"]).rstrip("/")


def destroy(target: Target, say: Say) -> None:
    """Removes the stage: functions and API, what is in the buckets, the resources stack."""
    cfn = client("cloudformation")
    stack = _stack(cfn, target.stack)
    _require_record(target, client("lambda"))
    if deployed(target):
        run_chalice(target, "delete")
        say("functions and API: deleted")
    if stack is None:
        say(f"{target.stack}: does not exist")
        return
    for output in stack.get("Outputs", []):
        if output["OutputKey"] in ("ReportsBucket", "UploadsBucket"):
            boto3.resource("s3").Bucket(output["OutputValue"]).objects.all().delete()
            say(f"{output['OutputValue']}: emptied")
    cfn.delete_stack(StackName=target.stack)
    if left := _wait_for_stack(cfn, target.stack):
        raise DeployError(f"{target.stack}: {left['StackStatus']}\n{_why_it_failed(cfn, target.stack)}")
    say(f"{target.stack}: deleted")
    _forget(target)


def _forget(target: Target) -> None:
    """Takes the stage out of the project folder, the database's password with it."""
    (target.project / f"{target.stage}.outputs.json").unlink(missing_ok=True)
    path = target.project / ".chalice" / "config.json"
    if path.exists():
        config = json.loads(path.read_text())
        config["stages"].pop(target.stage, None)
        write_private(path, json.dumps(config, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m infra.deploy", description="Deploys a stage of the café, or destroys it."
    )
    parser.add_argument("stage", help="the stage's name: lower-case letters, digits and hyphens, at most 20")
    parser.add_argument(
        "--project-dir", type=Path, default=REPOSITORY / ".stages", help="the generated Chalice project"
    )
    parser.add_argument("--local", action="store_true", help="the local cloud: plain HTTP, and an API role to assume")
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="of infra/resources.yaml"
    )
    parser.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="where the console's page is, beside the API's own"
    )
    parser.add_argument("--destroy", action="store_true", help="remove the stage and all its data")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    given = parser.parse_args(arguments)
    if not STAGE.fullmatch(given.stage):
        parser.error(f"STAGE: {given.stage!r} must be lower-case letters, digits and hyphens, at most 20")
    if any("=" not in each for each in given.parameter):
        parser.error("--parameter: must be NAME=VALUE")
    missing = [name for name in DATABASE if not os.environ.get(name)]
    if missing and not given.destroy:
        parser.error(f"not set: {', '.join(missing)}: the MySQL database that the functions use")
    target = Target(
        stage=given.stage,
        project=given.project_dir.resolve(),
        local=given.local,
        parameters=dict(each.split("=", 1) for each in given.parameter),
        database={name: os.environ.get(name, "") for name in DATABASE},
        origins=tuple(given.origin),
    )

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        if given.destroy:
            if not given.yes and input(f"Type {given.stage} to remove it with all its data: ") != given.stage:
                print("nothing was removed")
                return 1
            destroy(target, say)
        else:
            deploy(target, say)
    except (DeployError, BotoCoreError, ClientError, EOFError) as error:
        print(f"deploy: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
