"""Contains the steps that deploys and rollbacks share."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.deploy import api_settings, chalice_record, project, smoke, stacks, wiring
from infra.deploy.chalice_record import Record
from infra.deploy.context import Changes, Context
from infra.deploy.project import build
from infra.deploy.releases import Release, Releases
from infra.deploy.stacks import Stack
from infra.deploy.target import DeployError

# S3 sometimes does not yet know that it may invoke a new function, and Chalice does not repeat the call.
# See https://github.com/hashicorp/terraform-provider-aws/issues/19088.
NOT_YET_ALLOWED = (
    "An error occurred (InvalidArgument) when calling the PutBucketNotificationConfiguration operation: "
    "Unable to validate the following destination configurations"
)
TRIES = 4
PAUSE_SECONDS = 10


def open_releases(context: Context, changes: Changes) -> Releases:
    """Returns the stage's releases, and creates the deploys bucket if it does not exist."""
    cfn = context.clients("cloudformation")
    stack = context.stack("deploys", context.template("deploys.yaml"))
    if change := stacks.prepare(stack, cfn, None, context.say):
        changes.apply(change)
    return Releases(context.clients, stacks.outputs(cfn, stack.name)["DEPLOYS_BUCKET"])


def disassociate_waf(context: Context, stack: Stack, waf: str | None) -> None:
    """Disassociates the web ACL from the API if the next stack change deletes the web ACL."""
    acl = stacks.outputs(context.clients("cloudformation"), stack.name).get("API_WEB_ACL_ARN")
    if acl and waf == "off":
        api_settings.disassociate(acl, context.target, context.clients, context.say)


def run_chalice(context: Context, folder: Path, outputs: Mapping[str, str]) -> None:
    """Runs ``chalice deploy`` in a project folder that contains a record of the existing resources.

    Repeats the command if S3 does not yet accept a new function as the destination of its notifications.
    """
    target = context.target
    for tries_left in reversed(range(TRIES)):
        # A failed `chalice deploy` writes no record of the resources that it created.
        chalice_record.write(folder, target.stage, chalice_record.rebuild(target, outputs, context.clients))
        try:
            project.run_chalice(folder, target.stage, "deploy", context.say)
            return
        except DeployError as error:
            # Chalice breaks the lines of its messages.
            if not tries_left or NOT_YET_ALLOWED not in " ".join(str(error).split()):
                raise
        context.say(f"S3 does not accept the function receive_upload yet: trying again in {PAUSE_SECONDS} s")
        time.sleep(PAUSE_SECONDS)


def require_settings(context: Context, config: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises ``DeployError`` if any current setting differs from ``config`` or ``settings``."""
    problems = wiring.problems_after_settling(lambda: wiring.check(context.target, config, settings, context.clients))
    if problems:
        raise DeployError("deployed, but these settings differ:\n" + "\n".join(f"  {each}" for each in problems))


def smoke_test(context: Context, releases: Releases, release: Release, package: Path | None = None) -> None:
    """Runs the smoke test, and raises ``DeployError`` if the test finds problems.

    Without ``package``, the function downloads the deployment package of the release.
    """
    with tempfile.TemporaryDirectory() as folder:
        if not package:
            package = Path(folder) / "package.zip"
            releases.fetch_package(build(release.config), package)
        problems = smoke.test(context.target, release.outputs, release.wiring, package, context.clients)
    if problems:
        raise DeployError("deployed, but it does not work:\n" + "\n".join(f"  {each}" for each in problems))
    context.say("smoke test: the API answers, and every function runs")


def api_of(record: Record) -> str | None:
    """Returns the id of the REST API in Chalice's record."""
    return next((str(each["rest_api_id"]) for each in record if each["name"] == "rest_api"), None)
