"""Runs checkov, cloudsplaining and openapi-python-client in their own virtual environment, without the internet."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.deploying.account import Account
from tests.deploying.checkout import ROOT
from tests.wiring.permissions import as_list

PROGRAMS = ROOT / ".local" / "graders" / "bin"
# The file lists the checks that do not apply to the project, with reasons.
CONFIG = Path(__file__).parent / "checkov.yaml"
RISKS = (
    "PrivilegeEscalation",
    "DataExfiltration",
    "ResourceExposure",
    "CredentialsExposure",
    "InfrastructureModification",
    "ServiceWildcard",
)


class Finding(NamedTuple):
    """A failed checkov check and the resource that failed, such as ``AWS::S3::Bucket.Uploads``."""

    check: str
    resource: str


def run(program: str, *arguments: str | Path, folder: Path) -> str:
    """Runs a program of the graders' virtual environment in ``folder``, and returns its output."""
    assert (PROGRAMS / program).exists(), "`make verify-deploy` installs the graders"
    environment = {"PATH": f"{PROGRAMS}:{os.defpath}", "HOME": str(folder), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [PROGRAMS / program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def checkov(templates: Mapping[str, str], folder: Path) -> set[Finding]:
    """Runs all checkov checks on ``templates``, which maps file names to contents, and returns the findings."""
    files = [folder / name for name in templates]
    for file in files:
        file.write_text(templates[file.name])
    options = ["--framework", "cloudformation", "--output", "json", "--compact", "--skip-download", "--soft-fail"]
    results = json.loads(run("checkov", *options, "--file", *files, folder=folder))["results"]
    assert not results["parsing_errors"]
    return {Finding(each["check_id"], each["resource"]) for each in results["failed_checks"]}


def cloudsplaining(roles: list[Any], users: Mapping[str, Mapping[str, Any]], folder: Path) -> set[tuple[str, str, str]]:
    """Returns the policy name, risk and action of each finding in the policies of roles and users."""
    account: dict[str, Any] = {"RoleDetailList": roles, "GroupDetailList": [], "Policies": []}
    account["UserDetailList"] = [
        {
            **{"UserName": name, "UserId": name, "Path": "/", "Arn": f"arn:aws:iam::000000000000:user/{name}"},
            **{"CreateDate": "2026-11-21", "GroupList": [], "AttachedManagedPolicies": [], "Tags": []},
            "UserPolicyList": [{"PolicyName": name, "PolicyDocument": document}],
        }
        for name, document in users.items()
    ]
    (folder / "account.json").write_text(json.dumps(account, default=str))
    nothing = folder / "exclusions.yml"
    nothing.write_text("policies: []\nroles: []\nusers: []\ngroups: []\ninclude-actions: []\nexclude-actions: []\n")
    options = ("--exclusions-file", nothing, "--output", folder, "--skip-open-report")
    run("cloudsplaining", "scan", "--input-file", folder / "account.json", *options, folder=folder)
    results = json.loads((folder / "iam-results-account.json").read_text())
    policies = [
        policy for kind in ("inline_policies", "customer_managed_policies") for policy in results[kind].values()
    ]
    assert {*users} < {each["PolicyName"] for each in policies}
    return {
        (policy["PolicyName"], risk, each if isinstance(each, str) else each["type"])
        for policy in policies
        for risk in RISKS
        for each in policy[risk]["findings"]
    }


def policy_template(name: str, document: Mapping[str, Any]) -> str:
    """Wraps a policy in a template."""
    properties = {"PolicyDocument": document, "Description": name}
    resource = {"Type": "AWS::IAM::ManagedPolicy", "Properties": properties}
    return json.dumps({"Resources": {"".join(filter(str.isalpha, name)): resource}})


def functions_template(account: Account, stage: str) -> str:
    """Returns a template for the resources that Chalice creates directly, without CloudFormation."""
    resources: list[tuple[str, dict[str, Any]]] = []
    lambda_, gateway = account.aws("lambda"), account.aws("apigateway")
    for name, function in account.functions(stage).items():
        asked = ("FunctionName", "Runtime", "Role", "Handler", "Timeout", "MemorySize", "Environment", "TracingConfig")
        resources.append(("AWS::Lambda::Function", {key: function[key] for key in asked}))
        try:
            policy = json.loads(lambda_.get_policy(FunctionName=name)["Policy"])
        except lambda_.exceptions.ResourceNotFoundException:
            continue
        for statement in policy["Statement"]:
            conditions = {
                key.lower(): value for each in statement.get("Condition", {}).values() for key, value in each.items()
            }
            [principal] = as_list(statement["Principal"]["Service"])
            permission = {"Action": statement["Action"], "FunctionName": name, "Principal": principal}
            for key in ("SourceArn", "SourceAccount"):
                if f"aws:{key.lower()}" in conditions:
                    permission[key] = conditions[f"aws:{key.lower()}"]
            resources.append(("AWS::Lambda::Permission", permission))
    for api in account.apis(stage):
        found = gateway.get_rest_api(restApiId=api)
        endpoint = {"Types": found["endpointConfiguration"]["types"]}
        resources.append(("AWS::ApiGateway::RestApi", {"Name": found["name"], "EndpointConfiguration": endpoint}))
        stages = gateway.get_stages(restApiId=api)["item"]
        resources += [("AWS::ApiGateway::Stage", _stage(each)) for each in stages]
        for each in gateway.get_resources(restApiId=api, embed=["methods"])["items"]:
            for method, settings in each.get("resourceMethods", {}).items():
                properties = {"HttpMethod": method, "AuthorizationType": settings["authorizationType"]}
                properties["ApiKeyRequired"] = settings.get("apiKeyRequired", False)
                resources.append(("AWS::ApiGateway::Method", properties))
    numbered = {f"Resource{number}": {"Type": each[0], "Properties": each[1]} for number, each in enumerate(resources)}
    return json.dumps({"Resources": numbered}, default=str)


def _stage(found: Mapping[str, Any]) -> dict[str, Any]:
    properties = {
        "StageName": found["stageName"],
        "TracingEnabled": found.get("tracingEnabled", False),
        "CacheClusterEnabled": found.get("cacheClusterEnabled", False),
    }
    if settings := found.get("accessLogSettings"):
        properties["AccessLogSetting"] = {"DestinationArn": settings["destinationArn"], "Format": settings["format"]}
    return properties


def reasons() -> dict[str, str]:
    """Returns the comments above the skipped checks in the checkov configuration, keyed by check."""
    return {check: reason for reason, check in re.findall(r"((?:^  # .*\n)+)^  - (\w+)$", CONFIG.read_text(), re.M)}


def without_suppressions(template: dict[str, Any], suppressions: dict[Finding, str]) -> str:
    """Removes the suppressed checks from the template, and adds them with their reasons to ``suppressions``."""
    for name, resource in template["Resources"].items():
        for each in resource.get("Metadata", {}).pop("checkov", {}).get("skip", []):
            suppressions[Finding(each["id"], f"{resource['Type']}.{name}")] = each["comment"]
    return json.dumps(template, default=str)
