"""The repository's habits: exact versions, lean requirements, nothing generated or private in git."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.wiring.stage import ROOT

REQUIREMENTS = [
    "requirements.txt",
    "requirements-dev.txt",
    "local/requirements.txt",
    "local/ministack-requirements.txt",
    "local/ministack-own-requirements.txt",
]
# Lambda's runtime has boto3 with all that it needs, and Chalice adds its own runtime to the package.
BY_ITSELF = {"boto3", "botocore", "chalice"}
# Written so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.:/}$)-])/(?:home|root|Users|work|opt|mnt|var/folders)/\w|[A-Z]:\\\\?(?:Users|home)")
SECRET = re.compile(
    r"(?:AKIA|ASIA)[A-Z0-9]{16}|-----BEGIN [A-Z ]*PRIVATE KEY-----|gh[pousr]_[A-Za-z0-9]{36}|xox[abp]-[A-Za-z0-9-]{10}"
    r"|(?i:secret_?access_?key|password|token)[\"']?\s*[:=]\s*[\"'][A-Za-z0-9/+=]{32,}[\"']"
)


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def texts() -> Iterator[tuple[str, str]]:
    """Every file that is in git, or would be after the next `git add`, if it is a text."""
    for name in git("ls-files", "--cached", "--others", "--exclude-standard"):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            yield name, content.decode()


def requirements(file: str) -> dict[str, str]:
    """The version of each distribution that the file itself names."""
    found = {}
    for line in (ROOT / file).read_text().splitlines():
        if line and not line.startswith(("#", "-r ")):
            match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z0-9,_-]+\])?==([0-9][A-Za-z0-9.]*)", line)
            assert match, f"{file}: {line!r} is not pinned to one version"
            found[normal(match[1])] = match[2]
    return found


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize("file", REQUIREMENTS)
def test_every_requirement_is_one_exact_version(file: str) -> None:
    assert requirements(file)


def test_the_same_distribution_has_the_same_version_everywhere() -> None:
    versions: dict[str, set[str]] = {}
    for file in REQUIREMENTS:
        for distribution, version in requirements(file).items():
            versions.setdefault(distribution, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_the_functions_require_what_they_import_and_nothing_else() -> None:
    imported = set()
    for path in [ROOT / "app.py", *(ROOT / "chalicelib").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).split(".")[0])
    distributions = packages_distributions()
    needed = {normal(distributions[module][0]) for module in imported - sys.stdlib_module_names - {"app", "chalicelib"}}
    # What those require is pinned too, so that the same commit makes the same deployment package.
    wanted = needed - BY_ITSELF
    while more := {each for one in wanted for each in required_by(one)} - wanted:
        wanted |= more
    assert requirements("requirements.txt").keys() == wanted


def required_by(distribution: str) -> set[str]:
    """With the extras that the functions' requirements ask for."""
    asked = re.search(rf"^{distribution}\[(\w+)\]", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    found = [Requirement(line) for line in requires(distribution) or []]
    here = {"extra": asked[1] if asked else ""}
    return {normal(each.name) for each in found if not each.marker or each.marker.evaluate(here)}


def test_every_test_that_the_promises_name_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "reliability.md").read_text()))
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert named - set(re.findall(r"^def (test_\w+)", tests, re.MULTILINE)) == set()


def test_no_file_names_a_folder_of_one_machine() -> None:
    assert {name: MACHINE_PATH.findall(text) for name, text in texts() if MACHINE_PATH.search(text)} == {}


def test_no_file_holds_a_credential() -> None:
    assert [name for name, text in texts() if SECRET.search(text)] == []


@pytest.mark.parametrize(
    "path",
    [
        ".venv/run",
        ".local/env",
        ".local/screenshots/today-light-desktop.png",
        ".stages/.chalice/config.json",
        ".chalice/deployed/dev.json",
        ".chalice/deployments/package.zip",
        "node_modules/asl-validator/package.json",
        "chalicelib/__pycache__/orders.cpython-311.pyc",
        ".pytest_cache/README.md",
        ".mypy_cache/missing_stubs",
        ".ruff_cache/CACHEDIR.TAG",
        ".hypothesis/examples",
        ".coverage",
    ],
)
def test_what_is_generated_stays_out_of_git(path: str) -> None:
    assert git("check-ignore", "--no-index", path) == [path]


def test_what_is_the_same_everywhere_is_in_git() -> None:
    tracked = set(git("ls-files"))
    assert {".chalice/config.json", "app.py", "requirements.txt", "infra/resources.yaml"} <= tracked
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []


def test_the_top_level_holds_what_the_project_needs_and_nothing_else() -> None:
    allowed = {
        ".chalice",
        ".ci",
        ".github",
        ".gitignore",
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "app.py",
        "benchmarks",
        "chalicelib",
        "docs",
        "infra",
        "local",
        "pyproject.toml",
        "requirements-dev.txt",
        "requirements.txt",
        "tests",
    }
    assert {Path(name).parts[0] for name in git("ls-files")} <= allowed
