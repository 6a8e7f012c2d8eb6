"""Checks a deployed stage with cfn-lint, checkov and cloudsplaining, and removes the permissions of each role in turn.

The tests prove that no role has more permissions than its function needs. If a role lacks a permission that the local
cloud enforces, a call is denied. The local cloud does not enforce permissions that a service uses on a role's behalf.
For permissions that are not enforced, docs/permissions.md links to the AWS documentation.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from cfnlint.api import lint  # type: ignore[import-untyped]

from local.cloud import DEPLOYER, REGION
from tests.deploying.checkout import Checkout, Place
from tests.deploying.exercises import EXERCISES, Exercise, Stage, dead_order
from tests.deploying.graders import (
    CONFIG,
    Finding,
    checkov,
    cloudsplaining,
    functions_template,
    policy_template,
    reasons,
    without_suppressions,
)
from tests.system.waiting import changed, wait_for
from tests.template import load
from tests.wiring.deployer import ATTEMPTS, POLICIES
from tests.wiring.permissions import Permission, Row, as_list, documented, permission_of
from tests.wiring.permissions import functions as functions_of
from tests.wiring.stage import SCHEDULES, rendered, resolve

pytestmark = pytest.mark.long

RIGHTS = [(exercise, right) for exercise in EXERCISES for right in exercise.rights]


@pytest.fixture(scope="module")
def stage(place: Place, here: Checkout) -> Stage:
    here.deploy("graded", *(f"--parameter={name}={value}" for name, value in SCHEDULES.items()))
    return Stage(place, "graded")


@pytest.fixture(scope="module")
def page() -> list[Row]:
    return documented(functions_of())


class Role:
    def __init__(self, stage: Stage, name: str) -> None:
        self._iam = stage.aws("iam")
        prefix = f"cafe-{stage.name}-resources-{name}-"
        roles = stage.place.account.all("iam", "list_roles", "Roles")
        [self.name] = [each["RoleName"] for each in roles if each["RoleName"].startswith(prefix)]

    def without(self, rights: list[tuple[str, str]]) -> AbstractContextManager[None]:
        """Takes permissions away from the role during a ``with`` block. ``rights`` are pairs of action and resource."""
        pairs = [
            (action, resource)
            for statement in self._policy()[1]["Statement"]
            for action in as_list(statement["Action"])
            for resource in as_list(statement["Resource"])
        ]
        assert not set(rights) - set(pairs), "the role never had these permissions"
        left = [pair for pair in pairs if pair not in rights]
        # IAM rejects a policy without statements.
        nothing = ("sts:GetCallerIdentity", "arn:aws:iam::000000000000:role/nobody")
        statements = [
            {"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in left or [nothing]
        ]
        return self.with_statements(statements)

    def _policy(self) -> tuple[str, dict[str, Any]]:
        """Returns the name and the document of the role's only policy."""
        [name] = self._iam.list_role_policies(RoleName=self.name)["PolicyNames"]
        return name, self._iam.get_role_policy(RoleName=self.name, PolicyName=name)["PolicyDocument"]

    def with_statements(self, statements: list[Any]) -> AbstractContextManager[None]:
        """Replaces the role's permissions during a ``with`` block."""
        policy, document = self._policy()

        def put(content: Any) -> None:
            self._iam.put_role_policy(RoleName=self.name, PolicyName=policy, PolicyDocument=json.dumps(content))

        return changed(put, document, {**document, "Statement": statements})


def deployed(stage: Stage, permission: Permission) -> tuple[str, str]:
    """Returns a permission's action, and the ARN of its resource in the deployed stage."""
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


# --- cfn-lint and checkov ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["resources.yaml", "database.yaml"])
def test_cfn_lint_reports_nothing_about_a_template_with_its_state_machines(file: str) -> None:
    """`make check` lints only the template files, but the state machine definitions are not in these files."""
    assert lint(rendered(file), regions=["us-east-1", "eu-central-1"]) == []


def test_checkov_reports_only_findings_that_have_a_reason_and_every_reason_is_needed(
    stage: Stage, tmp_path: Path
) -> None:
    cfn = stage.aws("cloudformation")
    stacks = {name: cfn.get_template(StackName=f"cafe-{stage.name}-{name}") for name in ("deploys", "resources")}
    templates = {
        **{f"{name}.json": each["TemplateBody"] for name, each in stacks.items()},
        # The database template is rendered because the local stage creates no MySQL database.
        "database.json": rendered("database.yaml"),
        # Chalice creates functions and APIs without a template, so the test generates a template for them.
        "functions.json": functions_template(stage.place.account, stage.name),
        **{f"{name}.json": policy_template(name, each) for name, each in POLICIES.items()},
    }
    suppressions: dict[Finding, str] = {}
    bare = {name: without_suppressions(load(text), suppressions) for name, text in templates.items()}
    failed = checkov(bare, tmp_path)
    left_out = reasons()
    assert set(left_out) == set(yaml.safe_load(CONFIG.read_text())["skip-check"])
    assert all(reason.strip() for reason in (*suppressions.values(), *left_out.values()))
    assert suppressions.keys() <= failed
    # The checkov configuration must skip exactly the checks that fail for a resource without its own suppression.
    assert set(left_out) == {each.check for each in failed - suppressions.keys()}


# --- cloudsplaining ---------------------------------------------------------------------------------------------------


def test_cloudsplaining_reports_no_risk_of_any_role_or_of_the_deployer(stage: Stage, tmp_path: Path) -> None:
    details = stage.aws("iam").get_account_authorization_details()
    roles = [each for each in details["RoleDetailList"] if each["RoleName"].startswith(f"cafe-{stage.name}-")]
    assert len(roles) == len({row.permission.role for row in documented(functions_of())})
    # The roles on the local stage lack the network permissions for MySQL, so the test checks that policy separately.
    [network] = resolve().of_type("AWS::IAM::Policy").values()
    assert cloudsplaining(roles, {"network": network["PolicyDocument"], **POLICIES}, tmp_path) == set()


# --- the deployer -----------------------------------------------------------------------------------------------------


def test_the_policy_simulator_denies_the_deployer_every_way_to_more_rights(stage: Stage) -> None:
    """The attempts are those of tests/wiring/deploy/test_policy.py, decided by another implementation of IAM."""
    iam, wrong = stage.aws("iam"), []
    user = iam.get_user(UserName=DEPLOYER)["User"]["Arn"]
    for may, action, resource, context in ATTEMPTS:
        entries = [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in context.items()
        ]
        given = {"ActionNames": [action], "ResourceArns": [resource], "ContextEntries": entries}
        [result] = iam.simulate_principal_policy(PolicySourceArn=user, **given)["EvaluationResults"]
        if (result["EvalDecision"] == "allowed") is not may:
            wrong.append((action, resource, context, result["EvalDecision"]))
    assert wrong == []


def test_a_role_with_every_permission_still_cannot_leave_the_boundary(stage: Stage) -> None:
    role = Role(stage, "ApiRole")
    with role.with_statements([{"Effect": "Allow", "Action": "*", "Resource": "*"}]):
        arn = f"arn:aws:iam::000000000000:role/{role.name}"
        keys = stage.aws("sts").assume_role(RoleArn=arn, RoleSessionName="boundary")["Credentials"]
        session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], REGION)
        endpoint = stage.aws("iam").meta.endpoint_url
        assert session.client("sqs", endpoint_url=endpoint).get_queue_attributes(QueueUrl=stage.queue("orders"))
        with pytest.raises(ClientError, match="AccessDenied"):
            session.client("iam", endpoint_url=endpoint).create_user(UserName="administrator")


# --- without permissions ----------------------------------------------------------------------------------------------


def test_every_exercise_and_every_flow_works_without_the_permissions_that_only_services_use(
    stage: Stage, page: list[Row]
) -> None:
    unproved = [row.permission for row in page if row.source and not row.permission.action.startswith("ec2:")]
    with ExitStack() as stack:
        for name in {each.role for each in unproved}:
            rights = [deployed(stage, each) for each in unproved if each.role == name]
            stack.enter_context(Role(stage, name).without(rights))
        for exercise in EXERCISES:
            answer = exercise.run(stage)
            assert answer.ok, (exercise, answer.said)
            assert not answer.refused, (exercise, answer.said)
        executions = {kind: stage.execution(kind) for kind in ("inventory", "storage")}
        order = dead_order(stage)
        stage.aws("sqs").send_message(QueueUrl=stage.queue("orders"), MessageBody=json.dumps(order))
        assert [stage.ended(kind, name) for kind, name in executions.items()] == ["SUCCEEDED", "SUCCEEDED"]
        wait_for(lambda: order["orderID"] in stage.api("GET", "/notifications").said, "the order's announcement")


@pytest.mark.parametrize(
    ("exercise", "right"), RIGHTS, ids=[f"{exercise.role} {' '.join(right)}" for exercise, right in RIGHTS]
)
def test_an_exercise_without_one_of_its_permissions_is_denied(
    stage: Stage, page: list[Row], exercise: Exercise, right: tuple[str, str]
) -> None:
    permission = permission_of(page, exercise.role, *right)
    with Role(stage, exercise.role).without([deployed(stage, permission)]):
        answer = exercise.run(stage)
    assert answer.refused, answer.said
