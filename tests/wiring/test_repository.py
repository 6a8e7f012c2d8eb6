"""Tests that the repository has exact versions, only the needed requirements, and nothing generated or private."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires

from packaging.requirements import Requirement

from tests.wiring.stage import ROOT

REQUIREMENTS = [
    "requirements.txt",
    "requirements-dev.txt",
    "local/requirements.txt",
    "local/ministack-requirements.txt",
    "local/ministack-own-requirements.txt",
]
# Lambda provides boto3 and botocore, and Chalice adds its own runtime to the package.
PROVIDED = {"boto3", "botocore", "chalice"}
# The patterns are written so that they do not match this test file.
MACHINE_PATH = re.compile(r"(?<![\w.:/}$)-])/(?:home|root|Users|work|opt|mnt|var/folders)/\w|[A-Z]:\\\\?(?:Users|home)")
SECRET = re.compile(
    r"(?:AKIA|ASIA)[A-Z0-9]{16}|-----BEGIN [A-Z ]*PRIVATE KEY-----|gh[pousr]_[A-Za-z0-9]{36}|xox[abp]-[A-Za-z0-9-]{10}"
    r"|(?i:secret_?access_?key|password|token)[\"']?\s*[:=]\s*[\"'][A-Za-z0-9/+=]{32,}[\"']"
)


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def texts() -> Iterator[tuple[str, str]]:
    """Yields every text file that is in git, or that the next `git add` would add."""
    for name in git("ls-files", "--cached", "--others", "--exclude-standard"):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            yield name, content.decode()


def requirements(file: str) -> dict[str, str]:
    """Returns the versions that a requirements file itself pins, keyed by distribution."""
    versions = {}
    for line in (ROOT / file).read_text().splitlines():
        if line and not line.startswith(("#", "-r ")):
            match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z0-9,_-]+\])?==([0-9][A-Za-z0-9.]*)", line)
            assert match, f"{file}: {line!r} is not pinned to one version"
            versions[normal(match[1])] = match[2]
    return versions


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_every_requirement_has_one_exact_version_everywhere() -> None:
    versions: dict[str, set[str]] = {}
    for file in REQUIREMENTS:
        for distribution, version in requirements(file).items():
            versions.setdefault(distribution, set()).add(version)
    assert {name: several for name, several in versions.items() if len(several) > 1} == {}


def test_the_functions_require_exactly_what_they_import() -> None:
    imported = set()
    for path in [ROOT / "app.py", *(ROOT / "chalicelib").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).split(".")[0])
    distributions = packages_distributions()
    needed = {normal(distributions[module][0]) for module in imported - sys.stdlib_module_names - {"app", "chalicelib"}}
    # Indirect requirements are also pinned, so a commit always builds the same package.
    needed -= PROVIDED
    while more := {each for one in needed for each in required_by(one)} - needed:
        needed |= more
    assert requirements("requirements.txt").keys() == needed


def required_by(distribution: str) -> set[str]:
    """Returns the requirements of a distribution, including those of the extra in requirements.txt."""
    asked = re.search(rf"^{distribution}\[(\w+)\]", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    lines = [Requirement(line) for line in requires(distribution) or []]
    here = {"extra": asked[1] if asked else ""}
    return {normal(each.name) for each in lines if not each.marker or each.marker.evaluate(here)}


def test_every_test_in_the_page_on_reliability_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "reliability.md").read_text()))
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert named - set(re.findall(r"^def (test_\w+)", tests, re.MULTILINE)) == set()


def test_no_file_contains_a_machines_path_or_a_credential() -> None:
    for name, text in texts():
        assert not MACHINE_PATH.search(text), name
        assert not SECRET.search(text), name


def test_generated_files_stay_out_of_git() -> None:
    generated = [".venv/run", ".local/env", ".stages/.chalice/config.json", ".chalice/deployed/dev.json"]
    generated += [".chalice/deployments/package.zip", "chalicelib/__pycache__/orders.cpython-311.pyc"]
    assert git("check-ignore", "--no-index", *generated) == generated
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []
