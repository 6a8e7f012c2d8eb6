"""Defines the steps of a deploy. The table in docs/deploying.md lists the same steps in the same order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from infra.deploy import chalice_record, code, database, preflight, project, protection, stacks, triggers, wiring
from infra.deploy.context import Changes, Context
from infra.deploy.mysql_location import MysqlLocation
from infra.deploy.package import build_package, package_sizes, package_with
from infra.deploy.project import RUNTIME, build
from infra.deploy.releases import Release, Releases, State, template_key
from infra.deploy.shared_steps import (
    api_of,
    disassociate_waf,
    open_releases,
    require_settings,
    run_chalice,
    smoke_test,
)
from infra.deploy.stacks import Stack
from infra.deploy.target import REPOSITORY, DeployError, Target
from infra.files import write_private
from infra.template import expanded


class Deployment:
    """A deploy of this checkout.

    Each step of the deploy is a method, and the attributes contain the results of the steps.
    """

    releases: Releases
    state: State
    # The release that currently serves requests, or None before the first deploy.
    serving: Release | None
    location: MysqlLocation
    owns_database: bool
    # The target also contains the location of the stage's database.
    target: Target
    resources: Stack
    # These outputs come from the resources stack. The outputs of the API and the database are added later.
    outputs: dict[str, str]
    config: dict[str, Any]
    functions_are_current: bool
    # The package contains the code of the functions. The triggers are the routes and event sources in the code.
    package: Path
    package_location: dict[str, str]
    triggers: str
    only_code_changed: bool
    # These APIs call the stage's function too. An upgrade from 0.1.0 to 0.2.0 left one, which needs no token.
    surplus_apis: list[str]
    release: Release

    def __init__(self, context: Context) -> None:
        self.context = context
        self.clients, self.say = context.clients, context.say
        self.changes = Changes(context)
        self.begun = self.changed = self.migrated = False

    def preflight(self) -> None:
        """Checks the parameters. ``Changes`` checks the account before the first change."""
        supported = {name for file in ("resources.yaml", "database.yaml") for name in expanded(file)["Parameters"]}
        if unknown := sorted(self.context.target.parameters.keys() - supported):
            names = ", ".join(unknown)
            raise DeployError(
                f"--parameter {names}: infra/resources.yaml and infra/database.yaml do not have this parameter"
            )

    def update_deploys_stack(self) -> None:
        self.releases = open_releases(self.context, self.changes)
        self.state = self.releases.state()
        if self.state.under_way:
            by, since = self.state.under_way["by"], self.state.under_way["since"]
            self.say(f"finishing the deploy that {by} started at {since}")
        self.serving = self.releases.release(self.state.serving) if self.state.serving else None
        self.changes.begin = self._begin

    def _begin(self) -> None:
        if not self.begun:
            self.releases.begin(self.state, self.context.caller.arn)
        self.begun = True

    def update_database_stack(self) -> None:
        target = self.context.target
        location = database.existing_location(target, self.clients)
        self.owns_database = location is None
        if location is None:
            stack = database.stack(target, self.clients)
            protection.remove_after_failure(target, "database", self.clients, self.say)
            self._update(stack)
            location = database.own_location(target, self.clients)
        self.location = location
        self.target = replace(target, database=location)

    def update_resources_stack(self) -> None:
        body = self.context.template("resources.yaml")
        parameters = stacks.supported_parameters(body, self.target.parameters)
        console = self._console(self.serving.outputs if self.serving else {})
        self.resources = self.context.stack("resources", body, {**self.location.parameters, **parameters, **console})
        waf = self.resources.parameters.get("Waf")
        protection.remove_after_failure(self.target, "resources", self.clients, self.say)
        self.changed = self._update(self.resources, lambda: disassociate_waf(self.context, self.resources, waf))
        self.outputs = stacks.outputs(self.clients("cloudformation"), self.resources.name)
        self.config = project.configure(self.target, self.outputs, self._orders_since(), self._reserved_concurrency())
        project.write_project(self.target, self.config)

    def _update(self, stack: Stack, before: Callable[[], None] = lambda: None, ask: bool = True) -> bool:
        """Updates a stack to its desired state, and returns whether a change was necessary."""
        change = stacks.prepare(stack, self.clients("cloudformation"), self.releases.url, self.say)
        if change:
            self.changes.apply(change, before, ask)
        else:
            self.say(f"{stack.name}: nothing to change")
        return change is not None

    def update_tables(self) -> None:
        """Migrates the database before the functions get new code. In a new stage, ``migrate`` does not exist yet."""
        self.functions_are_current, self.only_code_changed = self._functions_are_current(), False
        if self.functions_are_current:
            database.migrate(self.target, self.clients, self.say)
            self.migrated, self.triggers = True, self.serving.triggers if self.serving else ""
            return
        self.changes.confirm(self._function_changes())
        variables = self.config["stages"][self.target.stage]["environment_variables"]
        # If the package cannot be built or cannot run, the deploy stops before it changes a function.
        with ThreadPoolExecutor() as pool:
            reading = pool.submit(triggers.read, self.target.project, variables)
            checking = pool.submit(self._settings_are_unchanged)
            self.package = build_package(self.target, self.config)
            self.triggers = reading.result()
            unchanged = checking.result()
        self.only_code_changed = unchanged and self.serving is not None and self.serving.triggers == self.triggers
        self.changes.begin()
        self.package_location = self.releases.keep_package(build(self.config), self.package)
        self.migrated = database.migrate_first(self.target, self.config, self.package_location, self.clients, self.say)

    def deploy_functions(self) -> None:
        target = self.target
        if self.functions_are_current and self.serving:
            self.say("functions and API: nothing to change")
            chalice_record.write(target.project, target.stage, self.serving.record)
        elif self.serving and self.migrated and self.only_code_changed:
            self.changed = True
            self.say("functions: only the code changed, so all functions are updated in parallel, without Chalice")
            code.update(target, self.config, self.package_location, self.clients)
            chalice_record.write(target.project, target.stage, self.serving.record)
        else:
            self.changed = True
            run_chalice(self.context, target.project, self.outputs)
            deployed = self._deployed_package()
            self.say(_package_line(deployed))
            if deployed != self.package:
                self.package = deployed
                self.releases.keep_package(build(self.config), deployed)
            if not self.migrated:
                database.migrate(target, self.clients, self.say)
        if not self.functions_are_current:
            for api in self.surplus_apis:
                self.clients("apigateway").delete_rest_api(restApiId=api)
        self.outputs = self._all_outputs()

    def apply_settings(self) -> None:
        """Applies the settings that Chalice cannot apply, and tells the state machines the address of a new API."""
        console = self._console(self.outputs)
        if not self.resources.parameters.items() >= console.items():
            self.resources = replace(self.resources, parameters={**self.resources.parameters, **console})
            # A person has already confirmed the API, and its address follows from it.
            self._update(self.resources, ask=False)
        if not (self.functions_are_current or self.only_code_changed):
            wiring.apply(self.target, wiring.desired(self.target, self.outputs), self.clients, self.say)

    def check(self) -> None:
        if not self.functions_are_current:
            require_settings(self.context, self.config, wiring.desired(self.target, self.outputs))
        # After this line, `local/stack.py` already restarts the local API.
        self.say("check: every setting is correct")

    def rotate_password(self) -> None:
        if self.owns_database:
            database.rotate(self.target, self.location, self.clients, self.say)

    def test(self) -> None:
        """Tests the new release, unless nothing has changed."""
        self.release = Release(
            name=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{build(self.config)}",
            runtime=RUNTIME,
            requirements=(REPOSITORY / "requirements.txt").read_text(),
            config=self.config,
            stacks={self.resources.name: self._kept_stack()},
            outputs=self.outputs,
            wiring=wiring.desired(self.target, self.outputs),
            record=chalice_record.read(self.target.project, self.target.stage),
            triggers=self.triggers,
        )
        if self.changed:
            package = None if self.functions_are_current else self.package
            smoke_test(self.context, self.releases, self.release, package)

    def keep_release(self) -> dict[str, str]:
        """Stores the release for rollbacks, and returns the stage's outputs."""
        unchanged = self.serving and replace(self.release, name=self.serving.name) == self.serving
        if not unchanged or self.state.under_way:
            self.releases.keep_template(self.resources.body)
            self.releases.keep(self.release)
            self.releases.end(self.releases.forget_older([*self.state.releases, self.release.name]))
        write_outputs(self.target, self.outputs)
        return self.outputs

    # --- details

    def _functions_are_current(self) -> bool:
        """Returns whether Chalice has nothing to deploy. Also restores settings changed outside the deploy."""
        serving, target = self.serving, self.target
        if serving is None or self.state.under_way or build(serving.config) != build(self.config):
            return False
        if not wiring.is_current(target, self.config, api_of(serving.record), self.clients):
            return False
        settings = wiring.desired(target, {**serving.outputs, **self.outputs})
        wiring.apply(target, settings, self.clients, self.say)
        problems = wiring.check(target, self.config, settings, self.clients)
        for each in problems:
            self.say(f"setting differs: {each}")
        return not problems

    def _settings_are_unchanged(self) -> bool:
        """Returns whether the new configuration equals that of the last release, and every setting is still correct."""
        serving = self.serving
        if serving is None or self.state.under_way:
            return False
        if serving.runtime != RUNTIME or not code.is_only_change(self.config, serving.config):
            return False
        if not wiring.is_current(self.target, serving.config, api_of(serving.record), self.clients):
            return False
        settings = wiring.desired(self.target, {**serving.outputs, **self.outputs})
        return not wiring.check(self.target, self.config, settings, self.clients)

    def _console(self, outputs: Mapping[str, str]) -> dict[str, str]:
        """Returns the parameter with the console's address, or no parameter if the stage has no API yet."""
        address = next(iter(self.context.target.origins), outputs.get("REST_API_URL"))
        return {"ConsoleUrl": f"{address.rstrip('/')}/"} if address else {}

    def _orders_since(self) -> str:
        table = self.clients("dynamodb").describe_table(TableName=self.outputs["ORDERS_TABLE"])["Table"]
        # botocore returns times in the local time zone.
        return f"{table['CreationDateTime'].astimezone(UTC):%Y-%m-%d}"

    def _reserved_concurrency(self) -> int:
        """Returns the reserved concurrency for each limited function, or 0 for no limit."""
        concurrency = int(self.outputs["MYSQL_CONCURRENCY"])
        if concurrency and not preflight.can_reserve(self.target, concurrency, self.clients):
            self.say(f"warning: no concurrency is reserved, because the account's limit is too low for {concurrency}")
            return 0
        return concurrency

    def _function_changes(self) -> list[str]:
        existing = set(chalice_record.functions(self.target, self.clients))
        asked = set(self.config["stages"][self.target.stage]["lambda_functions"])
        configs = (self.serving.config if self.serving else self.config, self.config)
        builds, processors = [build(each) for each in configs], [project.architecture(each) for each in configs]
        lines = [
            f"functions and API: deploying {len(asked)} functions with chalice, "
            f"build {' -> '.join(dict.fromkeys(builds))}"
        ]
        if processors[0] != processors[1]:
            lines.append(f"  processor {' -> '.join(processors)}")
        if new := asked - existing:
            lines.append(f"  add {', '.join(sorted(new))}" if existing else "  all functions are new")
        if removed := existing - asked:
            lines.append(f"  remove {', '.join(sorted(removed))}")
        served = api_of(self.serving.record) if self.serving else None
        apis = chalice_record.rest_apis(self.target, self.clients)[1:]
        self.surplus_apis = [each for each in apis if each != served]
        return lines + [f"  remove the REST API {each}: it is not the stage's address" for each in self.surplus_apis]

    def _deployed_package(self) -> Path:
        """Returns the deployed package.

        Its digest identifies the package, because the file name depends on the code.
        """
        function = self.target.function("api_handler")
        configuration = self.clients("lambda").get_function_configuration(FunctionName=function)
        return package_with(self.target.project, configuration["CodeSha256"])

    def _all_outputs(self) -> dict[str, str]:
        record = chalice_record.read(self.target.project, self.target.stage)
        [api] = [each for each in record if each["name"] == "rest_api"]
        url = str(api["rest_api_url"]).rstrip("/")
        if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
            url = f"{endpoint}/_aws/execute-api/{api['rest_api_id']}/{project.api_stage()}"
        configured = self.config["stages"][self.target.stage]
        own = {
            "CAFE_STAGE": self.target.stage,
            "ORDERS_SINCE": configured["environment_variables"]["ORDERS_SINCE"],
            "REST_API_URL": url,
            "REST_API_ID": api["rest_api_id"],
        }
        return {**self.outputs, **own, **configured["lambda_functions"]["migrate"]["environment_variables"]}

    def _kept_stack(self) -> dict[str, Any]:
        parameters = stacks.current_parameters(self.clients("cloudformation"), self.resources.name)
        return {"template": template_key(self.resources.body), "parameters": parameters}


class Step(NamedTuple):
    name: str
    run: Callable[[Deployment], None]


STEPS = (
    Step("preflight", Deployment.preflight),
    Step("deploys", Deployment.update_deploys_stack),
    Step("database", Deployment.update_database_stack),
    Step("resources", Deployment.update_resources_stack),
    Step("tables", Deployment.update_tables),
    Step("functions and API", Deployment.deploy_functions),
    Step("settings", Deployment.apply_settings),
    Step("check", Deployment.check),
    Step("rotation", Deployment.rotate_password),
    Step("smoke test", Deployment.test),
)


def write_outputs(target: Target, outputs: Mapping[str, str]) -> None:
    """Writes the stage's outputs to ``<stage>.outputs.json``."""
    write_private(target.project / f"{target.stage}.outputs.json", json.dumps(outputs, indent=2) + "\n")


def _package_line(package: Path) -> str:
    parts = package_sizes(package)
    largest = ", ".join(f"{name} {size / 1000:,.0f}" for name, size in parts[:6])
    return f"package: {sum(size for _, size in parts) / 1000:,.0f} kB ({largest} …)"
