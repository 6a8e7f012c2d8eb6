"""Tests the deployment packages: one for each Lambda processor, and one for the local machine."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from infra.deploy import project
from infra.deploy.machine import compiled_for, this_machine
from infra.deploy.package import build_package
from infra.deploy.target import Target
from tests.wiring.fakes import OUTPUTS
from tests.wiring.stage import place

pytestmark = pytest.mark.long

# The functions import these modules from the deployment package.
IMPORTS = "import chalice.app, cffi, cryptography.hazmat.bindings._rust, humanize, jinja2, jwt, markupsafe, pymysql"
# Each processor has a number in ELF headers, and a name in the file names of compiled modules.
ELF = {"x86_64": (62, "x86_64"), "arm64": (183, "aarch64")}
Packages = Callable[[str], Path]


def build(folder: Path, processor: str) -> Path:
    """Builds the package for Lambda on this ``processor``, or for a local stage if ``processor`` is ``here``."""
    processor = processor.removeprefix("another ")
    target = Target("test", folder, processor == "here", {}, place())
    config = project.configure(target, {**OUTPUTS, "ARCHITECTURE": processor}, "2026-11-21")
    project.write_project(target, config)
    return build_package(target, config)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Builds all packages concurrently, because pip spends most of its time waiting for the package index.

    Returns a function that takes a processor and returns its package.
    """
    with ThreadPoolExecutor() as pool:
        building: dict[str, Future[Path]] = {
            each: pool.submit(build, tmp_path_factory.mktemp(each), each) for each in ("here", *ELF, "another arm64")
        }
    return lambda processor: building[processor].result()


def compiled(package: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(package) as file:
        return {name.rpartition("/")[2]: file.read(name) for name in file.namelist() if name.endswith(".so")}


@pytest.mark.parametrize("processor", ELF)
def test_compiled_modules_are_for_this_python_on_lambda(packages: Packages, processor: str) -> None:
    modules = compiled(packages(processor))
    number, in_names = ELF[processor]
    tag = f"cpython-{sys.version_info.major}{sys.version_info.minor}-{in_names}-linux-gnu"
    assert len(modules) == 3
    assert [name for name in modules if tag not in name and ".abi3." not in name] == []
    assert {int.from_bytes(content[18:20], "little") for content in modules.values()} == {number}


def test_compiled_modules_of_a_local_stage_are_for_this_machine(packages: Packages) -> None:
    here = this_machine()
    for content in compiled(packages("here")).values():
        made_for = compiled_for(content)
        assert made_for
        assert made_for[0] == here.system
        assert here.processor in made_for[1]


def test_a_package_that_is_built_twice_has_the_same_digest(packages: Packages) -> None:
    assert packages("arm64").read_bytes() == packages("another arm64").read_bytes()


@pytest.mark.parametrize("processor", ELF)
def test_bytecode_of_every_module_enlarges_the_package_by_at_most_a_quarter(packages: Packages, processor: str) -> None:
    with zipfile.ZipFile(packages(processor)) as file:
        sizes = {each.filename: each.compress_size for each in file.infolist()}
    bytecode = {name for name in sizes if name.endswith(".pyc")}
    modules = {name for name in sizes if name.endswith(".py") and not name.startswith(("cffi/", "pycparser/"))}
    assert bytecode == {Path(cache_from_source(name)).as_posix() for name in modules}
    assert {"chalice/app.py", "jinja2/filters.py", "chalicelib/settings.py"} <= modules
    assert sum(sizes.values()) <= 1.25 * sum(size for name, size in sizes.items() if name not in bytecode)


def test_the_package_contains_what_the_functions_import(packages: Packages, tmp_path: Path) -> None:
    here = this_machine()
    for name in ("here", *(each for each in ELF if (here.system, here.processor) == ("Linux", each))):
        with zipfile.ZipFile(packages(name)) as file:
            file.extractall(tmp_path / name)
        # The option -S hides site-packages, so Python finds only the deployment package and the standard library. The
        # package does not contain boto3, because Lambda provides it.
        path = f"import sys; sys.path.insert(0, {str(tmp_path / name)!r})"
        bare = [sys.executable, "-S", "-P", "-c", f"{path}; {IMPORTS}"]
        done = subprocess.run(bare, capture_output=True, text=True, cwd=tmp_path, env={})
        assert done.returncode == 0, done.stderr
