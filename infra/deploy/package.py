"""Builds the deployment package of a stage, and unpacks the package of an earlier release."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import cache_from_source
from io import StringIO
from pathlib import Path
from typing import Any

from chalice.deploy.packager import LambdaDeploymentPackager
from chalice.utils import UI, ChaliceZipFile, OSUtils
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.deploy.lock import LockedDependencies, require_locked
from infra.deploy.machine import lambda_machine, require_fit, this_machine
from infra.deploy.project import RUNTIME, VENDOR, architecture, remove_compiled_files
from infra.deploy.target import REPOSITORY, DeployError, Target
from infra.files import write_private

# Lambda unpacks the package into this folder, so tracebacks show paths in it.
TASK = "/var/task"
# `cryptography` needs only the compiled module of cffi, so the bytecode of these packages would never be loaded.
NEVER_LOADED = "/(cffi|pycparser)/"


def package_file(project: Path, config: dict[str, Any]) -> Path:
    """Returns the path of the deployment package for the project's current code, even if the package does not exist."""
    # No dependency builder is needed to compute the file name.
    packager = LambdaDeploymentPackager(OSUtils(), None, UI(), architecture(config))  # type: ignore[arg-type]
    return Path(packager.deployment_package_filename(str(project), RUNTIME))


class _QuickZip(ChaliceZipFile):
    """A zip file that is written quickly, for a package that is not sent over a network."""

    def writestr(self, *arguments: Any, **options: Any) -> None:
        super().writestr(*arguments, **{**options, "compresslevel": 1})


class _QuickZips(OSUtils):
    def open_zip(self, filename: str, mode: str, compression: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipFile:
        return _QuickZip(filename, mode, compression=compression, osutils=self)


def build_package(target: Target, config: dict[str, Any]) -> Path:
    """Builds the deployment package that ``chalice deploy`` will use for the project's current code.

    Raises ``DeployError`` if a requirement is missing, the functions cannot load a compiled module, or a Python file
    cannot be compiled.
    """
    remove_compiled_files()
    osutils, processor = _QuickZips() if target.local else OSUtils(), architecture(config)
    dependencies = LockedDependencies(osutils, architecture=processor)
    packager = LambdaDeploymentPackager(osutils, dependencies, UI(StringIO()), processor)
    package = Path(packager.create_deployment_package(str(target.project), RUNTIME))
    try:
        _require_complete(package)
        if not target.local:
            require_locked(package)
        remedy = "check whether `pip config list` sets a different platform, and deploy again to build a new package"
        require_runs(target, config, package, remedy)
        if not target.local:
            add_bytecode(package)
    except DeployError:
        # A faulty package is deleted so that the next deploy does not use it.
        package.unlink()
        if target.local:
            shutil.rmtree((target.project / VENDOR).readlink())
        raise
    return package


def add_bytecode(package: Path) -> None:
    """Adds compiled bytecode to a package, so that functions start faster. Equal packages stay equal.

    Python does not compare the bytecode with the source files, so a package must not be edited afterwards.
    """
    with zipfile.ZipFile(package) as file:
        if cache_from_source("app.py") in file.namelist():
            return
    with tempfile.TemporaryDirectory() as made:
        folder, whole = Path(made) / "code", Path(made) / "package.zip"
        with zipfile.ZipFile(package) as file:
            file.extractall(folder, [name for name in file.namelist() if "__pycache__" not in name])
        compile_all(folder)
        with zipfile.ZipFile(whole, "w") as file:
            for path in sorted(each for each in folder.rglob("*") if each.is_file()):
                # Neither the time nor the permissions of this machine's file become part of the package.
                info = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                info.external_attr = 0o644 << 16
                file.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)
        # An interrupted deploy must not leave half a package.
        part = package.with_suffix(".part")
        shutil.move(whole, part)
        part.replace(package)


def compile_all(folder: Path) -> None:
    """Compiles the Python files in ``folder`` for Lambda."""
    # Bytecode depends on what else the process has loaded, so a new process without site-packages compiles the files.
    command = [sys.executable, "-I", "-S", "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash"]
    paths = ["-x", NEVER_LOADED, "-s", str(folder), "-p", TASK, str(folder)]
    done = subprocess.run([*command, *paths], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise DeployError(f"the package cannot be compiled:\n{done.stdout.strip()}")


def require_runs(target: Target, config: dict[str, Any], package: Path, remedy: str) -> None:
    """Raises ``DeployError`` if the package contains a compiled module that the functions cannot load."""
    require_fit(package, this_machine() if target.local else lambda_machine(architecture(config)), remedy)


def _require_complete(package: Path) -> None:
    if missing := _required((REPOSITORY / "requirements.txt").read_text()) - _installed(package):
        names = ", ".join(sorted(missing))
        raise DeployError(f"{names}: no wheel for Lambda with {RUNTIME} exists, or the package index did not respond")


def _required(requirements: str) -> set[str]:
    """Returns the locked requirements for this system and Python."""
    locked = [Requirement(line) for line in re.findall(r"^\w[^\n\\]*", requirements, re.MULTILINE)]
    return {canonicalize_name(each.name) for each in locked if not each.marker or each.marker.evaluate()}


def _installed(package: Path) -> set[str]:
    """Returns the requirements in a package. Chalice silently omits requirements that it cannot build."""
    with zipfile.ZipFile(package) as file:
        return {canonicalize_name(name.partition("-")[0]) for name in file.namelist() if ".dist-info/" in name}


def package_with(project: Path, digest: str) -> Path:
    """Returns the package with this digest. The digest has the format of Lambda's ``CodeSha256``."""
    packages = (project / ".chalice" / "deployments").glob("*.zip")
    for path in sorted(packages, key=lambda path: path.stat().st_mtime, reverse=True):
        if base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode() == digest:
            return path
    raise DeployError(
        "the functions have the package from another deploy: wait until that deploy ends, and deploy again"
    )


def package_sizes(package: Path) -> list[tuple[str, int]]:
    """Returns a package's top-level files and folders with their compressed sizes in bytes, largest first."""
    parts: dict[str, int] = {}
    with zipfile.ZipFile(package) as file:
        for each in file.infolist():
            part = each.filename.split("/")[0]
            parts[part] = parts.get(part, 0) + each.compress_size
    return sorted(parts.items(), key=lambda part: -part[1])


def unpack(package: Path, requirements: str, config: dict[str, Any], project: Path) -> None:
    """Creates a project from a package and its configuration so that Chalice deploys the same package again."""
    folder = project / ".chalice"
    (folder / "deployments").mkdir(parents=True)
    with zipfile.ZipFile(package) as file:
        names = [name for name in file.namelist() if name.split("/")[0] in ("app.py", "chalicelib")]
        file.extractall(project, [name for name in names if "__pycache__" not in name])
    (project / "requirements.txt").write_text(requirements)
    write_private(folder / "config.json", json.dumps(config))
    shutil.copy(package, package_file(project, config))
