"""Restores an earlier release, after a failed deploy or on request."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from infra.deploy import chalice_record, leaving_queues, project, stacks, wiring
from infra.deploy.context import Changes, Context
from infra.deploy.deployment import write_outputs
from infra.deploy.package import require_runs, unpack
from infra.deploy.project import RUNTIME, build
from infra.deploy.releases import Release, Releases, State
from infra.deploy.shared_steps import (
    api_of,
    disassociate_waf,
    open_releases,
    require_settings,
    run_chalice,
    smoke_test,
)
from infra.deploy.target import FAILURES, DeployError


def roll_back(context: Context) -> dict[str, str]:
    """Restores the previous release and returns its outputs. After an interrupted deploy, restores the last release."""
    changes = Changes(context)
    releases = open_releases(context, changes)
    state = releases.state()
    left = state.releases if state.under_way else state.releases[:-1]
    if not left:
        raise DeployError(f"{context.target.stage} has no previous release")
    changes.confirm([f"restoring the release {left[-1]}"])
    releases.begin(state, context.caller.arn)
    outputs = restore(context, releases, left[-1])
    releases.end(left)
    return outputs


def recover(context: Context, releases: Releases, state: State) -> str:
    """Restores the last release after a failed deploy, and returns a message that describes the result."""
    if state.serving is None:
        return "There is no previous release to restore: deploy again, or destroy the stage."
    context.say(f"the deploy failed: restoring {state.serving}")
    try:
        restore(context, releases, state.serving)
    except FAILURES as error:
        return f"The previous release {state.serving} could not be restored:\n{error}\nRun `make rollback` again."
    releases.end(state.releases)
    return f"The previous release was restored and is serving: {state.serving}"


def restore(context: Context, releases: Releases, name: str) -> dict[str, str]:
    """Restores a release and returns its outputs.

    The stacks are restored first, because the functions may need a role or a queue that a later release deleted. A
    queue that the release lacks is deleted last, because the later release's functions use it until they are restored.
    """
    release = releases.release(name)
    if release.runtime != RUNTIME:
        raise DeployError(
            f"the release {name} needs {release.runtime}, but this machine uses {RUNTIME}: "
            f"run the rollback with {release.runtime}"
        )
    outputs = _restore_stacks(context, releases, release, keep_queues=True)
    moved = {before: outputs[key] for key, before in release.outputs.items() if outputs.get(key, before) != before}
    release = Release(**_replaced(vars(release), moved))
    target, say = context.target, context.say
    project.write_project(target, release.config)
    if wiring.is_current(target, release.config, api_of(release.record), context.clients):
        say("functions and API: nothing to change")
        chalice_record.write(target.project, target.stage, release.record)
    else:
        say(f"functions and API: restoring build {build(release.config)} with chalice")
        _restore_functions(context, releases, release, outputs)
    release = replace(release, record=chalice_record.read(target.project, target.stage))
    wiring.apply(target, release.wiring, context.clients, say)
    require_settings(context, release.config, release.wiring)
    smoke_test(context, releases, release)
    releases.keep(release)
    write_outputs(target, release.outputs)
    _restore_stacks(context, releases, release, keep_queues=False)
    return release.outputs


def _restore_stacks(context: Context, releases: Releases, release: Release, keep_queues: bool) -> dict[str, str]:
    """Restores the stacks and returns their outputs. Queues that the release lacks are kept, or emptied and deleted."""
    cfn = context.clients("cloudformation")
    outputs: dict[str, str] = {}
    for name, kept in release.stacks.items():
        body = releases.template(kept["template"])
        if leaving := leaving_queues.find(context, name, body):
            if keep_queues:
                body = leaving_queues.added_to(body, leaving)
                # The roles of the release do not allow Lambda to send failed events to these queues.
                _restore_destinations(context, release)
            else:
                leaving_queues.empty(context, name, leaving)
        stack = replace(context.stack("", body), name=name, parameters=kept["parameters"])
        if change := stacks.prepare(stack, cfn, releases.url, context.say):
            context.say("\n".join(change.lines))
            disassociate_waf(context, stack, stack.parameters.get("Waf", "off"))
            stacks.apply(change, cfn, context.say)
        outputs |= stacks.outputs(cfn, name)
    return outputs


def _restore_destinations(context: Context, release: Release) -> None:
    target, clients = context.target, context.clients
    functions, parts = chalice_record.functions(target, clients), ("mappings", "invocations", "subscriptions")
    existing = {part: {k: v for k, v in release.wiring[part].items() if k in functions} for part in parts}
    wiring.apply_to_triggers(target, {**release.wiring, **existing}, clients, context.say)


def _restore_functions(context: Context, releases: Releases, release: Release, outputs: Mapping[str, str]) -> None:
    target = context.target
    with tempfile.TemporaryDirectory() as folder:
        package, former_project = Path(folder) / "package.zip", Path(folder) / "project"
        releases.fetch_package(build(release.config), package)
        remedy = "deploy from this machine to build a new package"
        require_runs(target, release.config, package, remedy)
        unpack(package, release.requirements, release.config, former_project)
        run_chalice(context, former_project, outputs)
        chalice_record.write(target.project, target.stage, chalice_record.read(former_project, target.stage))


def _replaced(value: Any, names: Mapping[str, str]) -> Any:
    """Replaces the strings in ``value`` that are keys of ``names``, because a recreated resource has a new ARN."""
    if isinstance(value, dict):
        return {key: _replaced(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value
