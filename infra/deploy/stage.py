"""A stage, deployed as a whole, put back, or taken away."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.deploy import database, preflight, project, record, smoke, stacks, wiring
from infra.deploy.place import Place
from infra.deploy.preflight import Who
from infra.deploy.project import RUNTIME, build
from infra.deploy.releases import Release, Releases, State, template_key
from infra.deploy.stacks import Stack
from infra.deploy.target import REPOSITORY, Clients, DeployError, Say, Target
from infra.files import write_private

# Shows what will be changed, and raises ``DeployError`` unless it may be.
Ask = Callable[[list[str]], None]
FAILURES = (DeployError, BotoCoreError, ClientError)


@dataclass(frozen=True)
class Stage:
    target: Target
    clients: Clients
    who: Who
    ask: Ask
    say: Say
    # Whether IAM is asked beforehand for the rights; what it simulates is not always what it does.
    check_rights: bool = True

    # --- forward

    def deploy(self) -> dict[str, str]:
        """Deploys this checkout and returns the stage's outputs. If a step fails, the release before serves again."""
        releases = self._releases()
        state = releases.state()
        if state.under_way:
            by, since = state.under_way["by"], state.under_way["since"]
            self.say(f"a deploy by {by} began at {since} and was not finished: it is finished now")
        begun = False

        def begin() -> None:
            nonlocal begun
            if not begun:
                releases.begin(state, self.who.arn)
            begun = True

        try:
            return self._forward(releases, state, begin)
        except FAILURES as error:
            if not begun:
                raise
            raise DeployError(f"{error}\n{self._recover(releases, state)}") from error

    def _may_change(self, lines: list[str]) -> None:
        """Before the first change it is looked at what would stop the deploy half-way."""
        _ = self._looked
        self.ask(lines)

    @cached_property
    def _looked(self) -> None:
        """Looks, once in a deploy."""
        target, clients = self.target, self.clients
        try:
            if self.check_rights and (missing := preflight.lacking(target, clients, self.who)):
                raise DeployError(
                    "these rights of infra/deployer-policy.json are missing:\n"
                    + "\n".join(sorted(set(missing)))
                    + "\nIf IAM's simulation is wrong about that, UNCHECKED=1 (--unchecked) goes on without it"
                )
        except preflight.NotKnown as error:
            self.say(f"permissions: not known beforehand ({error})")
        if not stacks.find(clients("cloudformation"), target.stack("resources")) and (
            taken := preflight.clashes(target, clients, self.who.account)
        ):
            raise DeployError(
                "these have the stage's names and are not its own: remove them, or choose another name\n"
                + "\n".join(taken)
            )
        for line in preflight.limits(clients):
            self.say(f"warning: {line}")

    def _releases(self) -> Releases:
        """The stage's deploys bucket; made where it is missing."""
        stack = self._stack("deploys", self._template("deploys.yaml"))
        if change := stacks.prepare(stack, self.clients("cloudformation"), None, self.say):
            self._apply(change, lambda: None)
        bucket = stacks.outputs(self.clients("cloudformation"), stack.name)["DEPLOYS_BUCKET"]
        return Releases(self.clients, bucket)

    def _template(self, file: str) -> str:
        return stacks.template(file, {"Stage": self.target.stage, "AWS::AccountId": self.who.account})

    def _stack(self, part: str, body: str, parameters: Mapping[str, str] | None = None) -> Stack:
        given = {"Stage": self.target.stage, "Local": str(self.target.local).lower(), **(parameters or {})}
        return Stack(self.target.stack(part), body, given, {"app": "cafe", "stage": self.target.stage})

    def _apply(
        self, change: stacks.Change, begin: Callable[[], None], make_way: Callable[[], None] = lambda: None
    ) -> None:
        cfn = self.clients("cloudformation")
        try:
            self._may_change(change.lines)
        except BaseException:  # a person's Ctrl-C as well
            stacks.discard(change, cfn)
            raise
        begin()
        make_way()
        stacks.apply(change, cfn, self.say)

    def _forward(self, releases: Releases, state: State, begin: Callable[[], None]) -> dict[str, str]:
        clients = self.clients
        serving = releases.release(state.serving) if state.serving else None
        changed = migrated = False
        body = self._template("resources.yaml")
        self._require_known_parameters(body)
        place, own_database = self._database(releases, begin)
        target = replace(self.target, database=place)
        resources = self._stack("resources", body, {**place.parameters, **stacks.known(body, target.parameters)})
        if change := stacks.prepare(resources, clients("cloudformation"), releases.url, self.say):
            self._apply(change, begin, lambda: self._take_waf_away(resources, resources.parameters.get("Waf")))
            changed = True
        else:
            self.say(f"{resources.name}: nothing to change")
        outputs = stacks.outputs(clients("cloudformation"), resources.name)
        config = project.configure(target, outputs, self._orders_since(outputs), self._at_once(outputs))
        project.write_project(target, config)
        if serving and not state.under_way and self._is_there(config, outputs, serving):
            self.say("functions and API: nothing to change")
            record.write(target.project, target.stage, serving.record)
            outputs = self._all_outputs(outputs, config)
        else:
            self._may_change(self._functions_to_deploy(config, serving))
            # A package that cannot be had, or cannot run, stops the deploy before it changes a function.
            package = project.build_package(target, config)
            begin()
            migrated = database.migrate_first(target, config, package, clients, self.say)
            self._run_chalice(target.project, outputs)
            package = self._deployed_package()
            self.say(_parts(package))
            releases.keep_package(build(config), package)
            changed = True
            outputs = self._all_outputs(outputs, config)
            self._complete(config, wiring.wanted(target, outputs))
        if not migrated:
            database.migrate(target, clients, self.say)
        if own_database:
            database.rotate(target, place, clients, self.say)
        self.say("check: everything is as asked")
        release = Release(
            name=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{build(config)}",
            runtime=RUNTIME,
            requirements=(REPOSITORY / "requirements.txt").read_text(),
            config=config,
            stacks={resources.name: self._kept(resources)},
            outputs=outputs,
            wiring=wiring.wanted(target, outputs),
            record=record.read(target.project, target.stage),
        )
        if changed:
            self._smoke_test(releases, release)
        if serving is None or state.under_way or replace(release, name=serving.name) != serving:
            releases.keep_template(resources.body)
            releases.keep(release)
            releases.end(releases.forget_older([*state.releases, release.name]))
        write_private(target.project / f"{target.stage}.outputs.json", json.dumps(outputs, indent=2) + "\n")
        return outputs

    def _require_known_parameters(self, *bodies: str) -> None:
        known = set().union(*map(stacks.parameters_of, (*bodies, database.template())))
        if unknown := sorted(self.target.parameters.keys() - known):
            raise DeployError(f"--parameter {', '.join(unknown)}: neither infra/resources.yaml nor infra/database.yaml")

    def _database(self, releases: Releases, begin: Callable[[], None]) -> tuple[Place, bool]:
        """The stage's MySQL, and whether it is its own, which is made where the stage has none."""
        if place := database.found(self.target, self.clients):
            return place, False
        cfn = self.clients("cloudformation")
        own = database.stack(self.target, self.clients)
        database.clear(self.target, self.clients)
        if change := stacks.prepare(own, cfn, releases.url, self.say):
            self._apply(change, begin)
        else:
            self.say(f"{own.name}: nothing to change")
        return database.of_stack(self.target, self.clients), True

    def _is_there(self, config: dict[str, Any], outputs: Mapping[str, str], serving: Release) -> bool:
        """Whether Chalice has nothing to do. What it cannot set is set, where somebody has changed it."""
        target, clients = self.target, self.clients
        if build(serving.config) != build(config) or not wiring.is_current(
            target, config, _api(serving.record), clients
        ):
            return False
        asked = wiring.wanted(target, {**serving.outputs, **outputs})
        wiring.complete(target, asked, clients, self.say)
        problems = wiring.check(target, config, asked, clients)
        for each in problems:
            self.say(f"not as asked: {each}")
        return not problems

    def _kept(self, stack: Stack) -> dict[str, Any]:
        parameters = stacks.values(self.clients("cloudformation"), stack.name)
        return {"template": template_key(stack.body), "parameters": parameters}

    def _orders_since(self, outputs: Mapping[str, str]) -> str:
        table = self.clients("dynamodb").describe_table(TableName=outputs["ORDERS_TABLE"])["Table"]
        # botocore gives the time of this machine's zone.
        return f"{table['CreationDateTime'].astimezone(UTC):%Y-%m-%d}"

    def _at_once(self, outputs: Mapping[str, str]) -> int:
        """How many of each function that needs a connection to MySQL may run; 0 is without a limit."""
        wanted = int(outputs["MYSQL_CONCURRENCY"])
        if wanted and not preflight.can_reserve(self.target, wanted, self.clients):
            self.say(f"warning: Lambda has too few functions at once here to reserve {wanted} for each that uses MySQL")
            return 0
        return wanted

    def _functions_to_deploy(self, config: dict[str, Any], serving: Release | None) -> list[str]:
        there = set(record.functions(self.target, self.clients))
        asked = set(config["stages"][self.target.stage]["lambda_functions"])
        builds = [build(each) for each in (serving.config if serving else config, config)]
        shown = " -> ".join(dict.fromkeys(builds))
        lines = [f"functions and API: deploying {len(asked)} functions with chalice, build {shown}"]
        if new := asked - there:
            lines.append(f"  add {', '.join(sorted(new))}" if there else "  all of them are new")
        if gone := there - asked:
            lines.append(f"  remove {', '.join(sorted(gone))}")
        return lines

    def _run_chalice(self, folder: Path, outputs: Mapping[str, str]) -> None:
        stage = self.target.stage
        record.write(folder, stage, record.rebuild(self.target, outputs, self.clients))
        project.run_chalice(folder, stage, "deploy", self.say)

    def _deployed_package(self) -> Path:
        """The package that the functions have: by what is in it, for its name has a digest of the code as it is now."""
        function = self.target.function("api_handler")
        found = self.clients("lambda").get_function_configuration(FunctionName=function)
        return project.package_with(self.target.project, found["CodeSha256"])

    def _all_outputs(self, outputs: Mapping[str, str], config: dict[str, Any]) -> dict[str, str]:
        [api] = [each for each in record.read(self.target.project, self.target.stage) if each["name"] == "rest_api"]
        url = str(api["rest_api_url"]).rstrip("/")
        if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
            url = f"{endpoint}/_aws/execute-api/{api['rest_api_id']}/{project.api_stage()}"
        configured = config["stages"][self.target.stage]
        since = configured["environment_variables"]["ORDERS_SINCE"]
        own = {
            "CAFE_STAGE": self.target.stage,
            "ORDERS_SINCE": since,
            "REST_API_URL": url,
            "REST_API_ID": api["rest_api_id"],
        }
        return {**outputs, **own, **configured["lambda_functions"]["migrate"]["environment_variables"]}

    def _take_waf_away(self, stack: Stack, waf: str | None) -> None:
        """From the API, before a change of the stack that ends it: what is in use cannot be deleted."""
        acl = stacks.outputs(self.clients("cloudformation"), stack.name).get("API_WEB_ACL_ARN")
        if acl and waf == "off":
            wiring.take_away(acl, self.target, self.clients, self.say)

    def _complete(self, config: dict[str, Any], asked: Mapping[str, Any]) -> None:
        """Sets what Chalice cannot, and sees that everything is as asked."""
        wiring.complete(self.target, asked, self.clients, self.say)
        problems = wiring.settled(lambda: wiring.check(self.target, config, asked, self.clients))
        if problems:
            raise DeployError("deployed, but not as asked:\n" + "\n".join(f"  {each}" for each in problems))

    def _smoke_test(self, releases: Releases, release: Release) -> None:
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / "package.zip"
            releases.fetch_package(build(release.config), package)
            problems = smoke.test(self.target, release.outputs, release.wiring, package, self.clients)
        if problems:
            raise DeployError("deployed, but it does not work:\n" + "\n".join(f"  {each}" for each in problems))
        self.say("smoke test: the API answers, and every function runs")

    # --- back

    def _recover(self, releases: Releases, state: State) -> str:
        """Puts back what served before a deploy failed; says what came of it."""
        if state.serving is None:
            return "There is no release before this one to put back: deploy again, or destroy the stage."
        self.say(f"the deploy failed: putting back {state.serving}")
        try:
            self._put_back(releases, state.serving)
        except FAILURES as error:
            return f"And {state.serving} could not be put back:\n{error}\nTry `make rollback` once more."
        releases.end(state.releases)
        return f"The release before was put back and serves: {state.serving}"

    def rollback(self) -> dict[str, str]:
        """Puts back the release before the one that serves; the one that serves if a deploy of another was cut off."""
        releases = self._releases()
        state = releases.state()
        left = state.releases if state.under_way else state.releases[:-1]
        if not left:
            raise DeployError(f"{self.target.stage} has no release before this one")
        self._may_change([f"putting back the release {left[-1]}"])
        releases.begin(state, self.who.arn)
        outputs = self._put_back(releases, left[-1])
        releases.end(left)
        return outputs

    def _put_back(self, releases: Releases, name: str) -> dict[str, str]:
        """The release's stacks first: its functions may need a role or a queue that went with a later one."""
        release = releases.release(name)
        if release.runtime != RUNTIME:
            raise DeployError(f"{name} runs on {release.runtime}: start this with that Python, and not {RUNTIME}")
        target, clients, cfn = self.target, self.clients, self.clients("cloudformation")
        outputs: dict[str, str] = {}
        for stack, kept in release.stacks.items():
            body = releases.template(kept["template"])
            former = replace(self._stack("", body), name=stack, parameters=kept["parameters"])
            if change := stacks.prepare(former, cfn, releases.url, self.say):
                self.say("\n".join(change.lines))
                self._take_waf_away(former, former.parameters.get("Waf", "off"))
                stacks.apply(change, cfn, self.say)
            outputs |= stacks.outputs(cfn, stack)
        moved = {before: outputs[key] for key, before in release.outputs.items() if outputs.get(key, before) != before}
        release = Release(**_replaced(vars(release), moved))
        project.write_project(target, release.config)
        if wiring.is_current(target, release.config, _api(release.record), clients):
            self.say("functions and API: nothing to change")
            record.write(target.project, target.stage, release.record)
        else:
            self.say(f"functions and API: putting back build {build(release.config)} with chalice")
            with tempfile.TemporaryDirectory() as folder:
                package, former_project = Path(folder) / "package.zip", Path(folder) / "project"
                releases.fetch_package(build(release.config), package)
                remedy = "deploy again from here instead, which builds a package for this machine"
                project.require_runs(target, release.config, package, remedy)
                project.unpack(package, release.requirements, release.config, former_project)
                self._run_chalice(former_project, outputs)
                record.write(target.project, target.stage, record.read(former_project, target.stage))
        release = replace(release, record=record.read(target.project, target.stage))
        self._complete(release.config, release.wiring)
        self._smoke_test(releases, release)
        releases.keep(release)
        write_private(target.project / f"{target.stage}.outputs.json", json.dumps(release.outputs, indent=2) + "\n")
        return release.outputs


def _parts(package: Path) -> str:
    parts = project.package_sizes(package)
    shown = ", ".join(f"{name} {size / 1000:,.0f}" for name, size in parts[:6])
    return f"package: {sum(size for _, size in parts) / 1000:,.0f} kB ({shown} …)"


def _api(resources: record.Record) -> str | None:
    return next((str(each["rest_api_id"]) for each in resources if each["name"] == "rest_api"), None)


def _replaced(value: Any, names: Mapping[str, str]) -> Any:
    """``value`` with each text that is one of ``names`` replaced: what was made anew has another ARN."""
    if isinstance(value, dict):
        return {key: _replaced(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value
