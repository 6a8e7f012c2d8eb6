"""Generates the Chalice project of a stage: a folder with a configuration and links to the code."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from chalice.constants import DEFAULT_LAMBDA_ARCHITECTURE

from infra import pip
from infra.deploy.machine import this_machine
from infra.deploy.target import REPOSITORY, DeployError, Say, Target
from infra.files import write_private
from infra.functions import LIMITED, NAMES

LINKED = ("app.py", "chalicelib", "requirements.txt")
# Chalice copies the content of this project folder unchanged into the package.
VENDOR = "vendor"
# All local stages in this checkout share the requirements that are installed in this folder.
INSTALLED = REPOSITORY / ".local" / "requirements"
# The functions run on the same Python version as the deploy.
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
# Chalice, Lambda and the tests support these Python versions.
RUNTIMES = ("python3.11", "python3.12", "python3.13", "python3.14")
# Only the deploy uses these outputs, so functions do not receive them.
OWN_OUTPUTS = (
    *("ARCHITECTURE", "API_RATE_LIMIT", "API_BURST_LIMIT", "MYSQL_CONCURRENCY", "ACCESS_LOGS_ARN", "API_WEB_ACL_ARN"),
)
# The deploy waits at least this many seconds between two lines of Chalice output.
PROGRESS_SECONDS = 10


def require_runtime() -> None:
    """Raises ``DeployError`` if the functions would run on an unsupported Python version."""
    if RUNTIME not in RUNTIMES:
        raise DeployError(
            f"{RUNTIME} is not supported: delete the folder .venv, and choose {RUNTIMES[0]} to {RUNTIMES[-1]}, "
            "as in `make deploy PYTHON=python3.13`"
        )


def tracked_config() -> dict[str, Any]:
    """Returns the content of ``.chalice/config.json`` that all stages share."""
    config: dict[str, Any] = json.loads((REPOSITORY / ".chalice" / "config.json").read_text())
    return config


def api_stage() -> str:
    """Returns the name of the API Gateway stage. All REST APIs use the same name."""
    return str(tracked_config()["api_gateway_stage"])


def configure(target: Target, outputs: Mapping[str, str], orders_since: str, concurrency: int = 0) -> dict[str, Any]:
    """Returns the Chalice configuration that deploys this checkout to one stage.

    ``concurrency`` is the reserved concurrency of each function in ``LIMITED``. 0 means no limit.
    """
    environment = {
        "CAFE_STAGE": target.stage,
        "ORDERS_SINCE": orders_since,
        **{
            name: value for name, value in outputs.items() if not name.endswith("_ROLE_ARN") and name not in OWN_OUTPUTS
        },
    }
    tracked = tracked_config()
    functions: dict[str, Any] = {}
    for name in NAMES:
        role = "API_ROLE_ARN" if name == "api_handler" else f"{name.upper()}_ROLE_ARN"
        mysql = target.database.configuration(name) if target.database else {}
        limit = {"reserved_concurrency": concurrency} if concurrency and name in LIMITED else {}
        own = tracked["lambda_functions"].get(name, {})
        functions[name] = {**own, **mysql, **limit, "iam_role_arn": outputs[role]}
    processor = this_machine().processor if target.local else outputs["ARCHITECTURE"]
    stage: dict[str, Any] = {"environment_variables": environment, "lambda_functions": functions}
    stage["lambda_architecture"] = processor
    # CAFE_BUILD identifies a deployed function's code and configuration.
    environment["CAFE_BUILD"] = digest(stage)
    config = {key: value for key, value in tracked.items() if key != "lambda_functions"}
    return {**config, "stages": {target.stage: stage}}


def digest(stage: dict[str, Any]) -> str:
    """Returns a digest of the code and of a stage's configuration."""
    digest = hashlib.sha256(json.dumps([tracked_config(), stage], sort_keys=True).encode())
    digest.update(RUNTIME.encode())
    for path in sorted(each for name in LINKED for each in [REPOSITORY / name, *(REPOSITORY / name).rglob("*")]):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(REPOSITORY)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def build(config: dict[str, Any]) -> str:
    """Returns the digest that ``configure`` stored in ``config``."""
    [stage] = config["stages"].values()
    return str(stage["environment_variables"]["CAFE_BUILD"])


def architecture(config: Mapping[str, Any]) -> str:
    """Returns the processor architecture of the functions, such as ``arm64``, from the configuration."""
    [stage] = config["stages"].values()
    return str({"lambda_architecture": DEFAULT_LAMBDA_ARCHITECTURE, **config, **stage}["lambda_architecture"])


def write_project(target: Target, config: dict[str, Any]) -> None:
    """Writes the project folder. The configuration of other stages in the folder does not change."""
    folder = target.project / ".chalice"
    folder.mkdir(parents=True, exist_ok=True)
    links = {name: REPOSITORY / name for name in LINKED}
    if target.local:
        # A local stage uses packages for this machine. Chalice downloads packages only if requirements.txt exists.
        del links["requirements.txt"]
        links[VENDOR] = installed_here()
    for name in (*LINKED, VENDOR):
        link = target.project / name
        if name not in links:
            link.unlink(missing_ok=True)
        elif not (link.is_symlink() and link.readlink() == links[name]):
            link.unlink(missing_ok=True)
            link.symlink_to(links[name])
    path = folder / "config.json"
    stages = json.loads(path.read_text())["stages"] if path.exists() else {}
    write_private(path, json.dumps({**config, "stages": {**stages, **config["stages"]}}, indent=2) + "\n")


def forget(target: Target) -> None:
    """Removes the stage from the project folder."""
    (target.project / f"{target.stage}.outputs.json").unlink(missing_ok=True)
    record_file(target.project, target.stage).unlink(missing_ok=True)
    path = target.project / ".chalice" / "config.json"
    if path.exists():
        config = json.loads(path.read_text())
        config["stages"].pop(target.stage, None)
        write_private(path, json.dumps(config, indent=2) + "\n")


def record_file(project: Path, stage: str) -> Path:
    """Returns the path of the file with Chalice's record of deployed resources."""
    return project / ".chalice" / "deployed" / f"{stage}.json"


def installed_here() -> Path:
    """Returns a folder with the requirements of the functions, installed for this machine and Python version.

    Installs missing requirements.
    """
    requirements = REPOSITORY / "requirements.txt"
    digest = hashlib.sha256(f"{this_machine()!r} {sys.version}\n{requirements.read_text()}".encode())
    folder = INSTALLED / digest.hexdigest()[:16]
    if folder.exists():
        return folder
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=INSTALLED) as made:
        packages = Path(made) / "packages"
        command = [*pip.install_command(), "--no-compile", f"--target={packages}", f"--requirement={requirements}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise DeployError(f"pip could not install requirements.txt for the functions:\n{done.stdout.strip()}")
        # The functions do not need command-line programs from the requirements.
        shutil.rmtree(packages / "bin", ignore_errors=True)
        # Another deploy may have created the folder in the meantime.
        with suppress(OSError):
            packages.rename(folder)
    return folder


def remove_compiled_files() -> None:
    """Removes compiled Python files, because they would change the digest of the package on every run."""
    for folder in (REPOSITORY / "chalicelib").rglob("__pycache__"):
        shutil.rmtree(folder, ignore_errors=True)


def run_chalice(project: Path, stage: str, command: str, say: Say) -> None:
    """Runs a ``chalice`` command. If the command fails, raises ``DeployError`` with the end of its output."""
    remove_compiled_files()
    # With -P, modules in this folder cannot hide Python's.
    chalice = [sys.executable, "-P", str(Path(__file__).with_name("chalice_command.py"))]
    arguments = [*chalice, "--project-dir", str(project), command, "--stage", stage]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    lines: list[str] = []
    shown = time.monotonic()
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            if time.monotonic() > shown + PROGRESS_SECONDS:
                shown = time.monotonic()
                say(f"  chalice: {line.strip()}")
    if process.returncode:
        tail = "\n".join([line for line in lines if line][-15:])
        raise DeployError(f"chalice {command} failed:\n{tail}")
