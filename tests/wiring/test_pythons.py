"""The versions of Python: every place that names them, Chalice and Lambda agree, and another one is refused at once."""

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
from infra.deploy.target import DeployError, Target
from tests import pythons
from tests.wiring.stage import ROOT

OTHERS = ("3.10", "3.15")


def test_chalice_and_lambda_have_each_version() -> None:
    lambda_ = botocore.session.get_session().get_service_model("lambda")
    assert set(project.RUNTIMES) <= set(lambda_.shape_for("Runtime").enum)
    abis = LambdaDeploymentPackager._RUNTIME_TO_ABI
    assert {abis[each] for each in project.RUNTIMES} <= DependencyBuilder._RUNTIME_GLIBC.keys()


def test_every_place_names_the_same_versions() -> None:
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
def test_make_refuses_another_version_at_once_and_names_those_that_there_are(
    version: str, made: bool, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    python = tmp_path / "python"
    # It says of itself that it is of that version, and makes an environment of nothing.
    lie = f"import sys; sys.version_info = ({version.replace('.', ', ')}, 0)"
    python.write_text(
        f'#!/bin/sh\nif [ "$1" = -m ]; then mkdir .venv; else exec "{sys.executable}" -c "{lie}; $2"; fi\n'
    )
    python.chmod(0o700)
    done = subprocess.run(["make", ".venv/python", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode == 0) is made
    assert (tmp_path / ".venv").exists() is made
    assert made or "Python 3.11 to 3.14 is needed" in done.stdout


def test_make_refuses_an_environment_of_another_version_than_the_named_one(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "python").touch()
    for name, version in ((".venv/bin/python", "3.11"), ("named", "3.13")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {version}\n")
        (tmp_path / name).chmod(0o700)
    for name, returned in (("./named", 2), (".venv/bin/python", 0)):
        done = subprocess.run(["make", "-n", "stop", f"PYTHON={name}"], cwd=tmp_path, capture_output=True, text=True)
        assert (".venv has Python 3.11, and ./named is another one: remove the folder .venv" in done.stderr) is bool(
            returned
        )


def test_a_deploy_refuses_another_version_before_it_asks_aws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("AWS was asked")

    monkeypatch.setattr(project, "RUNTIME", "python3.15")
    monkeypatch.setattr(command.preflight, "who", asked)
    assert command.main(["prod"]) == 1
    assert "python3.15, like this deploy, and python3.11 to python3.14 are supported" in capsys.readouterr().err


def test_a_package_without_one_of_its_requirements_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As Chalice makes one where it finds no wheel for Lambda."""
    (tmp_path / "app.py").touch()
    (tmp_path / "requirements.txt").write_text("# A comment.\npyjwt[crypto]==2.15.1\nPython_JSON.logger==4.2.0\n")
    monkeypatch.setattr(project, "REPOSITORY", tmp_path)
    target, config = Target("prod", tmp_path, False, {}, None), {"stages": {"prod": {}}}
    package = project.package_file(tmp_path, config)
    package.parent.mkdir(parents=True)
    shutil.make_archive(str(package.with_suffix("")), "zip", _with(tmp_path / "all", "pyjwt", "python_json_logger"))
    assert project.build_package(target, config) == package
    shutil.make_archive(str(package.with_suffix("")), "zip", _with(tmp_path / "less", "python_json_logger"))
    with pytest.raises(DeployError, match=r"^pyjwt: no wheel for Lambda with python3\.\d+"):
        project.build_package(target, config)
    assert not package.exists()


def _with(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / f"{name}-1.dist-info").mkdir(parents=True)
        (folder / f"{name}-1.dist-info" / "METADATA").touch()
    return folder


# --- make test-pythons ------------------------------------------------------------------------------------------------


def says(folder: Path, name: str, version: str) -> Path:
    """An interpreter that says that it is of this version, or nothing."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n" if version else "#!/bin/sh\nexit 127\n")
    path.chmod(0o700)
    return path


def test_an_interpreter_is_found_by_its_name_or_among_those_of_pyenv(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert pythons.find("3.13") is None
    named = says(tmp_path, "bin/python3.12", "3.12")
    plain = says(tmp_path, "bin/python3", "3.11")
    # pyenv's own command for a version that it has and that is not chosen.
    says(tmp_path, "bin/python3.13", "")
    kept = says(tmp_path, "pyenv/versions/3.13.0/bin/python", "3.13")
    assert {each: pythons.find(each) for each in pythons.VERSIONS} == {
        "3.11": plain,
        "3.12": named,
        "3.13": kept,
        "3.14": None,
    }


@pytest.mark.parametrize(
    ("named", "outcomes", "status"),
    [
        ([], ["passed", "passed", "passed", "not on this machine"], 0),
        ([], ["passed", "failed", "passed", "passed"], 1),
        ([], ["passed", "failed: its requirements could not be installed", "passed", "passed"], 1),
        ([], ["not on this machine"] * 4, 1),
        (["3.14"], ["not on this machine"], 1),
        (["3.14"], ["passed"], 0),
    ],
)
def test_every_version_is_told_of_and_one_that_was_named_has_to_be_there(
    named: list[str],
    outcomes: list[str],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    left = iter(outcomes)
    monkeypatch.setattr(pythons, "outcome", lambda _: next(left))
    assert pythons.main(named) == status
    told = re.findall(r"^  (\S+)  (.+)$", capsys.readouterr().out, re.MULTILINE)
    assert told == list(zip(named or pythons.VERSIONS, outcomes, strict=True))


def test_a_version_that_is_not_provided_for_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert pythons.main(["3.10"]) == 2
    assert "3.10: not provided for, as 3.11, 3.12, 3.13, 3.14 are" in capsys.readouterr().err
