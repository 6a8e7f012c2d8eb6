"""Tests the generated Chalice project: its configuration, build, package, and removal with the stage."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from chalice.cli.factory import CLIFactory
from chalice.config import Config

from infra.deploy import chalice_record, package, project
from infra.deploy.target import DeployError, Target
from infra.functions import LIMITED, MYSQL_ADMINISTRATORS, MYSQL_USERS, NAMES
from tests.wiring.fakes import OUTPUTS, configured
from tests.wiring.stage import ROOT, as_variables, place, resolve

SINCE = "2026-11-21"


def as_chalice_reads(target: Target, function: str) -> Config:
    """Returns one function's configuration, as Chalice reads it from the project folder."""
    config: Config = CLIFactory(str(target.project), environ={}).create_config_obj(target.stage)
    return config.scope(target.stage, function)


def test_every_function_has_its_own_role_and_the_settings_of_the_tracked_configuration(target: Target) -> None:
    configured(target)
    tracked = project.tracked_config()
    roles = set()
    for name in NAMES:
        config = as_chalice_reads(target, name)
        asked = tracked["lambda_functions"].get(name, {})
        assert config.lambda_timeout == asked.get("lambda_timeout", tracked["lambda_timeout"])
        assert config.lambda_memory_size == asked.get("lambda_memory_size", tracked["lambda_memory_size"])
        assert config.manage_iam_role is False
        assert config.xray_enabled is True
        roles.add(config.iam_role_arn)
    assert roles == {value for name, value in OUTPUTS.items() if name.endswith("_ROLE_ARN")}
    assert len(roles) == len(NAMES)


def test_every_function_gets_the_outputs_except_roles_and_those_of_the_deploy(target: Target) -> None:
    assert set(project.OWN_OUTPUTS) <= OUTPUTS.keys()
    configured(target)
    for name in NAMES:
        variables = as_chalice_reads(target, name).environment_variables
        assert variables["CAFE_STAGE"] == "test"
        assert variables["ORDERS_SINCE"] == SINCE
        assert variables["ORDERS_QUEUE_URL"] == OUTPUTS["ORDERS_QUEUE_URL"]
        assert not any(variable.endswith("_ROLE_ARN") for variable in variables)
        assert not variables.keys() & set(project.OWN_OUTPUTS)


def test_only_functions_that_use_mysql_for_unlimited_requests_have_reserved_concurrency(target: Target) -> None:
    project.write_project(target, project.configure(target, OUTPUTS, SINCE, 10))
    limits = {name: as_chalice_reads(target, name).reserved_concurrency for name in NAMES}
    assert {name: limit for name, limit in limits.items() if limit is not None} == dict.fromkeys(LIMITED, 10)
    configured(target)
    assert {as_chalice_reads(target, name).reserved_concurrency for name in NAMES} == {None}


def test_only_the_functions_that_use_mysql_have_its_secrets_and_its_network(target: Target) -> None:
    configured(target)
    for name in NAMES:
        config = as_chalice_reads(target, name)
        variables = config.environment_variables
        database = {variable: value for variable, value in variables.items() if variable.startswith("DB_")}
        secrets = {"DB_SECRET_ARN": place().secret} if name in MYSQL_USERS else {}
        admin = {"DB_ADMIN_SECRET_ARN": place().admin_secret} if name in MYSQL_ADMINISTRATORS else {}
        assert database == {**secrets, **admin}
        network = (["subnet-1", "subnet-2"], ["sg-1"]) if name in MYSQL_USERS else (None, None)
        assert (config.subnet_ids, config.security_group_ids) == network


def test_other_stages_of_the_project_are_kept(target: Target) -> None:
    configured(target)
    prod = Target("prod", target.project, False, {}, place())
    project.write_project(prod, project.configure(prod, as_variables(resolve("prod").outputs), SINCE))
    assert as_chalice_reads(target, "store_orders").environment_variables["ORDERS_TABLE"] == "cafe-test-orders"
    assert as_chalice_reads(prod, "store_orders").environment_variables["ORDERS_TABLE"] == "cafe-prod-orders"


def test_only_the_owner_can_read_the_generated_configuration(target: Target) -> None:
    configured(target)
    assert stat.S_IMODE((target.project / ".chalice" / "config.json").stat().st_mode) == 0o600


def test_the_project_links_the_code_and_repairs_a_broken_link(target: Target) -> None:
    target.project.mkdir()
    (target.project / "app.py").symlink_to(target.project / "moved")
    configured(target)
    for name in project.LINKED:
        assert (target.project / name).resolve() == ROOT / name


def test_the_build_changes_only_with_the_configuration(target: Target) -> None:
    def build(target: Target, since: str = SINCE) -> str:
        return project.build(project.configure(target, OUTPUTS, since))

    assert build(target) == build(target)
    other = replace(target, database=place("other"))
    x86 = project.build(project.configure(target, {**OUTPUTS, "ARCHITECTURE": "x86_64"}, SINCE))
    assert len({build(target), build(other), build(target, "2026-11-22"), x86}) == 4


def test_the_build_changes_with_each_file_of_the_code(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(ROOT / "chalicelib", repository / "chalicelib")
    (repository / ".chalice").mkdir()
    for name in ("app.py", "requirements.txt", ".chalice/config.json"):
        shutil.copy(ROOT / name, repository / name)
    monkeypatch.setattr(project, "REPOSITORY", repository)
    builds = set()
    for change in ("", "app.py", "chalicelib/reports/templates/inventory.css", "requirements.txt"):
        if change:
            (repository / change).write_text("changed")
        builds.add(project.build(project.configure(target, OUTPUTS, SINCE)))
    assert len(builds) == 4


def test_the_package_of_a_deploy_is_the_one_with_lambdas_digest(tmp_path: Path) -> None:
    folder = tmp_path / ".chalice" / "deployments"
    folder.mkdir(parents=True)
    for name in ("deployed", "later"):
        (folder / f"{name}.zip").write_text(name)
    digest = base64.b64encode(hashlib.sha256(b"deployed").digest()).decode()
    assert package.package_with(tmp_path, digest) == folder / "deployed.zip"
    with pytest.raises(DeployError, match="the package from another deploy: wait until that deploy ends"):
        package.package_with(tmp_path, "of somebody else")


def test_a_destroyed_stage_leaves_no_password_and_other_stages_unchanged(target: Target) -> None:
    configured(target)
    configured(replace(target, stage="other"))
    (target.project / "test.outputs.json").write_text("{}")
    chalice_record.write(target.project, "test", [])
    project.forget(target)
    config = json.loads((target.project / ".chalice" / "config.json").read_text())
    assert list(config["stages"]) == ["other"]
    assert not (target.project / "test.outputs.json").exists()
    assert not project.record_file(target.project, "test").exists()
