"""Tests that all files, Chalice and Lambda agree on the Python versions, and that commands refuse other versions."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import botocore.session
import pytest
import yaml
from chalice.deploy.packager import DependencyBuilder, LambdaDeploymentPackager
from packaging.specifiers import SpecifierSet

from infra.deploy import __main__ as command
from infra.deploy import project
from infra.deploy.package import build_package, package_file
from infra.deploy.target import DeployError, Target
from tests import pythons
from tests.wiring.fakes import distributions
from tests.wiring.stage import ROOT

OTHERS = ("3.10", "3.15")


def test_every_file_names_the_same_versions_which_chalice_and_lambda_support() -> None:
    lambda_ = botocore.session.get_session().get_service_model("lambda")
    assert set(project.RUNTIMES) <= set(lambda_.shape_for("Runtime").enum)
    abis = LambdaDeploymentPackager._RUNTIME_TO_ABI
    assert {abis[each] for each in project.RUNTIMES} <= DependencyBuilder._RUNTIME_GLIBC.keys()
    assert tuple(each.removeprefix("python") for each in project.RUNTIMES) == pythons.VERSIONS
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    specifiers = SpecifierSet(pyproject["project"]["requires-python"])
    assert [each for each in (*OTHERS, *pythons.VERSIONS) if each in specifiers] == list(pythons.VERSIONS)
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text())["jobs"]
    assert jobs["pythons"]["strategy"]["matrix"]["python"] == list(pythons.VERSIONS)
    first, last = pythons.VERSIONS[0], pythons.VERSIONS[-1]
    assert f"Python {first} to {last}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("version", "made"), [(each, True) for each in pythons.VERSIONS] + [(each, False) for each in OTHERS]
)
def test_make_refuses_another_version_at_once_and_names_the_supported_ones(
    version: str, made: bool, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    python = tmp_path / "python"
    # The fake interpreter reports the given version, and creates an empty environment.
    lie = f"import sys; sys.version_info = ({version.replace('.', ', ')}, 0)"
    python.write_text(
        f'#!/bin/sh\nif [ "$1" = -m ]; then mkdir .venv; else exec "{sys.executable}" -c "{lie}; $2"; fi\n'
    )
    python.chmod(0o700)
    done = subprocess.run(["make", ".venv/python", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode == 0) is made
    assert (tmp_path / ".venv").exists() is made
    assert made or "Python 3.11 to 3.14 is needed" in done.stdout


@pytest.mark.parametrize(("name", "refused"), [("./named", True), (".venv/bin/python", False)])
def test_make_refuses_an_environment_whose_version_is_not_the_named_one(
    name: str, refused: bool, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    says(tmp_path, ".venv/bin/python", "3.11")
    says(tmp_path, "named", "3.13")
    (tmp_path / ".venv" / "python").touch()
    done = subprocess.run(["make", "-n", "stop", f"PYTHON={name}"], cwd=tmp_path, capture_output=True, text=True)
    problem = ".venv has Python 3.11, and ./named is another version: remove the folder .venv"
    assert (problem in done.stderr) is refused


def test_a_deploy_refuses_another_version_before_it_asks_aws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("AWS was asked")

    monkeypatch.setattr(project, "RUNTIME", "python3.15")
    monkeypatch.setattr(command.preflight, "caller_identity", asked)
    assert command.main(["prod"]) == 1
    assert (
        "python3.15 is not supported: delete the folder .venv, and choose python3.11 to python3.14"
        in capsys.readouterr().err
    )


def test_a_package_without_one_of_its_requirements_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Chalice builds an incomplete package when it finds no wheel for Lambda."""
    (tmp_path / "app.py").touch()
    (tmp_path / "requirements.txt").write_text("# A comment.\npyjwt[crypto]==2.15.1\nPython_JSON.logger==4.2.0\n")
    monkeypatch.setattr("infra.deploy.package.REPOSITORY", tmp_path)
    target, config = Target("prod", tmp_path, False, {}, None), {"stages": {"prod": {}}}
    package = package_file(tmp_path, config)
    package.parent.mkdir(parents=True)
    shutil.make_archive(
        str(package.with_suffix("")), "zip", distributions(tmp_path / "all", "pyjwt", "python_json_logger")
    )
    assert build_package(target, config) == package
    shutil.make_archive(str(package.with_suffix("")), "zip", distributions(tmp_path / "less", "python_json_logger"))
    with pytest.raises(DeployError, match=r"^pyjwt: no wheel for Lambda with python3\.\d+"):
        build_package(target, config)
    assert not package.exists()


# --- make test-pythons ------------------------------------------------------------------------------------------------


def says(folder: Path, name: str, version: str) -> None:
    """Creates a fake interpreter that reports this version."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o700)


@pytest.mark.parametrize(
    ("named", "outcomes", "status"),
    [
        ([], ["passed", "passed", "passed", "not on this machine"], 0),
        ([], ["passed", "failed: its requirements could not be installed", "passed", "passed"], 1),
        ([], ["not on this machine"] * 4, 1),
        (["3.14"], ["not on this machine"], 1),
        (["3.14"], ["passed"], 0),
        (["3.10"], [], 2),
    ],
)
def test_the_outcome_of_each_version_is_shown_and_a_named_one_must_exist(
    named: list[str],
    outcomes: list[str],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    left = iter(outcomes)
    monkeypatch.setattr(pythons, "outcome", lambda _: next(left))
    assert pythons.main(named) == status
    shown = re.findall(r"^  (\S+)  (.+)$", capsys.readouterr().out, re.MULTILINE)
    assert shown == (list(zip(named or pythons.VERSIONS, outcomes, strict=True)) if outcomes else [])
