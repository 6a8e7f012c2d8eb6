"""What is really deployed, graded: by checkov, by cloudsplaining, and by taking each right away from each role.

No role may do more than its function does: each right that the local cloud enforces is taken away, and is missed. The
others are those that a service uses in a role's name: the same exercises and whole flows go on without all of them, so
it is the sources in docs/permissions.md that vouch for these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import template
from local.cloud import DEPLOYER_POLICY, REGION
from tests.deploying.conftest import Checkout, Place
from tests.deploying.exercises import EXERCISES, Exercise, Stage, dead_order
from tests.deploying.graders import (
    CONFIG,
    checkov,
    cloudsplaining,
    functions_template,
    policy_template,
    reasons,
    with_policy,
    without_suppressions,
)
from tests.system.system import wait_for
from tests.system.wire import Exchange, Reply
from tests.template import load
from tests.wiring.permissions import Permission, Row, as_list, documented, found
from tests.wiring.permissions import functions as functions_of
from tests.wiring.stage import SCHEDULES, resolve

pytestmark = pytest.mark.long

RIGHTS = [(exercise, right) for exercise in EXERCISES for right in exercise.rights]


# What cloudsplaining finds of who deploys, and why it is so. Of the roles it finds nothing.
DEPLOYER_RISKS = {
    (
        "InfrastructureModification",
        "a new network has no name yet, and CloudFormation does not say that it sets the tags in the same call; what "
        "takes away or changes what is there asks for the tag app=cafe",
    ): {
        *("ec2:AssociateRouteTable", "ec2:AuthorizeSecurityGroupEgress", "ec2:AuthorizeSecurityGroupIngress"),
        *("ec2:CreateRouteTable", "ec2:CreateSecurityGroup", "ec2:CreateSubnet", "ec2:CreateTags", "ec2:CreateVpc"),
        *("ec2:CreateVpcEndpoint", "ec2:ModifySubnetAttribute", "ec2:ModifyVpcAttribute"),
        "route53:AssociateVPCWithHostedZone",
    },
    (
        "InfrastructureModification",
        "WAF's documentation does not say what names the API in this; whatever it is put in front of has to be allowed "
        "as well, which is apigateway:SetWebACL, and nothing else is",
    ): {"wafv2:AssociateWebACL", "wafv2:DisassociateWebACL"},
}
DEPLOYER_SKIPS = {"CKV_AWS_111": "the same finding, of the same new networks"}


def named(value: Any) -> str:
    if isinstance(value, Exercise):
        return value.role
    return " ".join(value)


@pytest.fixture(scope="module")
def deployments() -> list[dict[str, Any]]:
    """What was asked of API Gateway's CreateDeployment."""
    return []


@pytest.fixture(scope="module")
def stage(place: Place, here: Checkout, deployments: list[dict[str, Any]]) -> Stage:
    def note(exchange: Exchange) -> Reply:
        deployments.append(exchange.call.json)
        return exchange.forward()

    with place.wire.fault("apigateway:POST", note, when=lambda call: "/deployments" in call):
        here.deploy("graded", *(f"--parameter={name}={value}" for name, value in SCHEDULES.items()))
    return Stage(place, "graded")


@pytest.fixture(scope="module")
def page() -> list[Row]:
    return documented(functions_of())


class Role:
    """A role of the stage, as it is deployed."""

    def __init__(self, stage: Stage, name: str) -> None:
        self._stage = stage
        self._iam = stage.aws("iam")
        prefix = f"cafe-{stage.name}-resources-{name}-"
        pages = self._iam.get_paginator("list_roles").paginate()
        [self.name] = [
            each["RoleName"] for page in pages for each in page["Roles"] if each["RoleName"].startswith(prefix)
        ]

    @contextmanager
    def without(self, rights: list[tuple[str, str]]) -> Iterator[None]:
        """For a while the role lacks these pairs of an action and a resource, and has all its others."""
        [policy] = self._iam.list_role_policies(RoleName=self.name)["PolicyNames"]
        document = self._iam.get_role_policy(RoleName=self.name, PolicyName=policy)["PolicyDocument"]
        pairs = [
            (action, resource)
            for statement in document["Statement"]
            for action in as_list(statement["Action"])
            for resource in as_list(statement["Resource"])
        ]
        assert not set(rights) - set(pairs), "the role never had these"
        left = [pair for pair in pairs if pair not in rights]
        # A policy without a statement is none.
        nothing = ("sts:GetCallerIdentity", "arn:aws:iam::000000000000:role/nobody")
        statements = [
            {"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in left or [nothing]
        ]
        self._put(policy, {**document, "Statement": statements})
        try:
            yield
        finally:
            self._put(policy, document)

    def _put(self, policy: str, document: Any) -> None:
        self._iam.put_role_policy(RoleName=self.name, PolicyName=policy, PolicyDocument=json.dumps(document))


def deployed(stage: Stage, permission: Permission) -> tuple[str, str]:
    """The permission's action, and its resource as the stage has it."""
    resource = permission.resource
    for name, value in {"stage": stage.name, "region": REGION, "account": "000000000000"}.items():
        resource = resource.replace(f"<{name}>", value)
    variables = {
        "/stream/<time>": "ORDERS_STREAM_ARN",
        "-database-<random>": "DB_SECRET_ARN",
        "!cluster-<id>-<random>": "DB_ADMIN_SECRET_ARN",
    }
    for end, variable in variables.items():
        if resource.endswith(end):
            resource = stage.variables("rotate_password")[variable]
    return permission.action, resource


# --- checkov ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def beside_the_templates(stage: Stage) -> dict[str, str]:
    """What else is deployed: what Chalice made, and who deploys."""
    return {
        "functions.json": functions_template(stage.place.account, stage.name),
        "deployer.json": policy_template(json.loads(DEPLOYER_POLICY.read_text()), DEPLOYER_SKIPS),
    }


def test_checkov_finds_nothing_in_the_templates_nor_in_what_is_deployed(
    stage: Stage, beside_the_templates: dict[str, str], tmp_path: Path
) -> None:
    cfn = stage.aws("cloudformation")
    deployed = {
        f"deployed-{name}.yaml": cfn.get_template(StackName=f"cafe-{stage.name}-{name}", TemplateStage="Processed")
        for name in ("deploys", "resources")
    }
    found = checkov(
        {
            **{file: template.text(template.expanded(file)) for file in template.FILES},
            **{name: each["TemplateBody"] for name, each in deployed.items()},
            **beside_the_templates,
        },
        tmp_path,
    )
    assert found.failed == set()
    assert all(reason.strip() for reason in found.skipped.values()), found.skipped


def test_each_check_that_is_left_out_has_its_reason_and_would_find_something(
    beside_the_templates: dict[str, str], tmp_path: Path
) -> None:
    left_out = reasons()
    assert set(left_out) == set(yaml.safe_load(CONFIG.read_text())["skip-check"])
    assert all(left_out.values()), left_out
    bare, suppressed = {}, set()
    for name, text in {
        **{file.replace(".yaml", ".json"): template.text(template.expanded(file)) for file in template.FILES},
        **beside_the_templates,
    }.items():
        bare[name], of_this = without_suppressions(load(text))
        suppressed |= of_this
    found = checkov(bare, tmp_path, None)
    assert found.skipped == {}
    assert suppressed <= found.failed
    assert set(left_out) == {each.check for each in found.failed - suppressed}


@pytest.mark.usefixtures("stage")
def test_the_apis_stage_is_traced(deployments: list[dict[str, Any]]) -> None:
    """Neither the local cloud nor moto's server keeps that setting, so the call itself is looked at."""
    assert [each["tracingEnabled"] for each in deployments] == [True]


# --- cloudsplaining ---------------------------------------------------------------------------------------------------


def test_cloudsplaining_finds_no_risk_in_any_role(stage: Stage, tmp_path: Path) -> None:
    details = stage.aws("iam").get_account_authorization_details()
    roles = [each for each in details["RoleDetailList"] if each["RoleName"].startswith(f"cafe-{stage.name}-")]
    assert len(roles) == len({row.permission.role for row in documented(functions_of())})
    assert cloudsplaining({**details, "RoleDetailList": roles, "UserDetailList": []}, tmp_path) == set()


def test_cloudsplaining_finds_no_risk_in_the_rights_that_only_mysqls_network_needs(tmp_path: Path) -> None:
    """The local stage is in none, so these are not among its roles."""
    [policy] = resolve().of_type("AWS::IAM::Policy").values()
    assert cloudsplaining(with_policy("network", policy["PolicyDocument"]), tmp_path) == set()


def test_cloudsplaining_finds_of_who_deploys_what_is_known_with_its_reason(tmp_path: Path) -> None:
    policy = json.loads(DEPLOYER_POLICY.read_text())
    known = {("deployer", risk, action) for (risk, _), actions in DEPLOYER_RISKS.items() for action in actions}
    assert cloudsplaining(with_policy("deployer", policy), tmp_path) == known


# --- rights taken away ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exercise", EXERCISES, ids=[f"{each.role} {named(each.rights[0])}" for each in EXERCISES])
def test_with_its_rights_a_function_is_refused_nothing(stage: Stage, exercise: Exercise) -> None:
    answer = exercise.run(stage)
    assert answer.ok, answer.said
    assert not answer.refused, answer.said


@pytest.mark.parametrize(("exercise", "right"), RIGHTS, ids=named)
def test_without_one_of_its_rights_it_is_refused(
    stage: Stage, page: list[Row], exercise: Exercise, right: tuple[str, str]
) -> None:
    permission = found(page, exercise.role, *right)
    with Role(stage, exercise.role).without([deployed(stage, permission)]):
        answer = exercise.run(stage)
    assert answer.refused, answer.said


def test_what_is_not_proved_so_is_not_asked_for_here(stage: Stage, page: list[Row]) -> None:
    """Without all of it at once every exercise works, and so do the flows from end to end."""
    here = [row.permission for row in page if row.source and not row.permission.action.startswith("ec2:")]
    with ExitStack() as stack:
        for name in {each.role for each in here}:
            rights = [deployed(stage, each) for each in here if each.role == name]
            stack.enter_context(Role(stage, name).without(rights))
        for exercise in EXERCISES:
            answer = exercise.run(stage)
            assert answer.ok, answer.said
            assert not answer.refused, answer.said
        for kind in ("inventory", "storage"):
            assert stage.ended(kind, stage.execution(kind)) == "SUCCEEDED"
        order = dead_order(stage)
        stage.aws("sqs").send_message(QueueUrl=stage.queue("orders"), MessageBody=json.dumps(order))
        wait_for(lambda: order["orderID"] in stage.api("GET", "/notifications").said, "the order's announcement")
