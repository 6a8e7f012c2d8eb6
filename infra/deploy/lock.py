"""Packages only wheels whose hashes are locked in requirements.txt, and compares a package with these wheels.

Chalice compares no hashes when it downloads wheels for another machine than the one that deploys.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from chalice.deploy.packager import DependencyBuilder

from infra.deploy.target import DeployError

# Chalice adds its own runtime and the project's code to the package.
FROM_NO_WHEEL = ("app.py", "chalice", "chalicelib")


class LockedDependencies(DependencyBuilder):
    """Lets pip download the wheels for Lambda, and refuse each wheel whose hash is not in requirements.txt."""

    def _download_dependencies(self, abi: str, directory: str, requirements_filename: str) -> tuple[Any, Any]:
        platforms = [f"--platform={each}" for each in self._get_pip_platforms(abi)]
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
        command += ["--require-hashes", "--no-deps", "--only-binary=:all:", "--implementation=cp", f"--abi={abi}"]
        command += [*platforms, f"--dest={directory}", f"--requirement={requirements_filename}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise DeployError(f"pip could not download requirements.txt for Lambda:\n{done.stdout.strip()}")
        wheels: tuple[Any, Any] = self._categorize_wheel_files(abi, directory)
        return wheels


def require_locked(package: Path) -> None:
    """Raises ``DeployError`` if a packaged file differs from its wheel or is in no wheel.

    pip has compared the wheels with the lock. The file RECORD of a wheel has the digest of every other file.
    """
    with zipfile.ZipFile(package) as file:
        names = [name for name in file.namelist() if name.split("/")[0] not in FROM_NO_WHEEL]
        records = [name for name in names if name.endswith(".dist-info/RECORD")]
        digests = {row[0]: row[1] for name in records for row in csv.reader(file.read(name).decode().splitlines())}
        for name in names:
            # The deploy compiles modules itself.
            if name in records or name.endswith((".pyc", "/")):
                continue
            digest = base64.urlsafe_b64encode(hashlib.sha256(file.read(name)).digest()).decode().rstrip("=")
            if digests.get(name) != f"sha256={digest}":
                raise DeployError(f"the package contains {name}, but no locked wheel has this file: deploy again")
