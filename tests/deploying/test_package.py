"""The deployment package of this Python, for Lambda with the same version on another kind of machine."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infra.deploy import project
from infra.deploy.target import Target
from tests.wiring.fakes import OUTPUTS
from tests.wiring.stage import place

pytestmark = pytest.mark.long

# Modules that the functions import, and that only the package has.
IMPORTS = "import chalice.app, cffi, cryptography.hazmat.bindings._rust, humanize, jinja2, jwt, markupsafe, pymysql"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = Target("test", tmp_path_factory.mktemp("project"), False, {}, place())
    project.write_project(target, project.configure(target, OUTPUTS, "2026-11-21"))
    return project.build_package(target.project)


def test_what_is_compiled_is_for_this_python_on_lambda(package: Path) -> None:
    with zipfile.ZipFile(package) as file:
        compiled = [name.rpartition("/")[2] for name in file.namelist() if name.endswith(".so")]
    tag = f"cpython-{sys.version_info.major}{sys.version_info.minor}-x86_64-linux-gnu"
    assert len(compiled) == 3
    assert [name for name in compiled if tag not in name and ".abi3." not in name] == []


@pytest.mark.skipif(sys.platform != "linux", reason="what is compiled for Lambda runs on Linux alone")
def test_what_the_functions_import_is_in_it(package: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(package) as file:
        file.extractall(tmp_path)
    # Without site-packages: with nothing but the package and Python's own library, and boto3, which Lambda has.
    bare = [sys.executable, "-S", "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {IMPORTS}"]
    done = subprocess.run(bare, capture_output=True, text=True, cwd=tmp_path, env={})
    assert done.returncode == 0, done.stderr
