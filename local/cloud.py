"""Installs, starts and stops MiniStack, which emulates AWS locally, and provides credentials for MiniStack.

MiniStack and its functions use a separate virtual environment and separate environment variables.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import pip
from infra.files import write_private
from local.ministack import launcher
from local.processes import Process, answers, basic_environment, exclusive_lock, fingerprint, run_quietly

if TYPE_CHECKING:
    from local.database import Database

HERE = Path(__file__).parent
LAUNCHER = Path(launcher.__file__)
REQUIREMENTS = HERE / "ministack-requirements.txt"
PRIVATE_REQUIREMENTS = HERE / "ministack-own-requirements.txt"
# All local stacks in this checkout, including those of the tests, share this virtual environment.
VIRTUAL_ENVIRONMENT = HERE.parent / ".local" / "ministack"
PYTHON = VIRTUAL_ENVIRONMENT / "bin" / "python"
PRIVATE_PACKAGES = VIRTUAL_ENVIRONMENT / launcher.PRIVATE_FOLDER
# Each package folder contains a stamp file with a fingerprint of the installed requirements.
STAMP = VIRTUAL_ENVIRONMENT / "installed"
PRIVATE_STAMP = PRIVATE_PACKAGES / "installed"

DEPLOYER_POLICIES = sorted((HERE.parent / "infra" / "deployer").glob("*.json"))
DEPLOYER, BOUNDARY = "deployer", "cafe-boundary"
# At most this many unpacked packages are kept for reuse when MiniStack is restarted.
KEPT_PACKAGES = 2

REGION = "us-east-1"
# MiniStack's root access key is not secret, because MiniStack listens only on 127.0.0.1.
CREDENTIALS = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "test")


@dataclass(frozen=True)
class Cloud:
    """A MiniStack process. ``patches`` lists patch files to apply after the files in ``local/ministack``."""

    folder: Path
    port: int
    patches: tuple[Path, ...] = ()

    @cached_property
    def process(self) -> Process:
        return Process("ministack", self.folder)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def live(self) -> Path:
        """The command `make dev` copies the saved code and the debugger's files to this folder."""
        return self.folder / "live"

    @property
    def _code(self) -> Path:
        """This folder contains unpacked deployment packages, in subfolders named after their digests."""
        return self.folder / "code"

    @property
    def _temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def _saved(self) -> Path:
        """This folder contains MiniStack's state after the last deploy to an empty MiniStack."""
        return self.folder / "saved"

    @property
    def _created_file(self) -> Path:
        """This file stores the access key and the ARNs of the secrets that MiniStack created for the deploy."""
        return self.folder / "created.json"

    @property
    def _command(self) -> list[str]:
        # Without the option -P, files in the launcher's folder could hide modules of other packages.
        return [str(PYTHON), "-P", str(LAUNCHER), *map(str, self.patches)]

    @property
    def _variables(self) -> dict[str, str]:
        return {
            "TMPDIR": str(self._temporary),
            "GATEWAY_PORT": str(self.port),
            "BIND_HOST": "127.0.0.1",
            # STATE_DIR contains the user pool's signing keys. By default, all stacks on a machine would share
            # STATE_DIR.
            "STATE_DIR": str(self._temporary / "state"),
            "PERSIST_STATE": "1",
            "MINISTACK_REGION": REGION,
            "LIVE_FOLDER": str(self.live),
            "CODE_DIR": str(self._code),
            "AUTH": "true",
            # By default, MiniStack's IoT service would listen on all network addresses.
            "IOT_MTLS_ENABLED": "0",
            # If MiniStack could reach Docker, it would remove the containers of other MiniStack processes.
            "DOCKER_HOST": "unix:///nonexistent",
        }

    @property
    def installed(self) -> bool:
        return _is_current(STAMP, REQUIREMENTS) and _is_current(PRIVATE_STAMP, PRIVATE_REQUIREMENTS)

    def install(self) -> None:
        """Creates MiniStack's virtual environment."""
        with exclusive_lock(VIRTUAL_ENVIRONMENT.with_suffix(".lock")):
            install = pip.install_command(PYTHON)
            # Another command may have installed MiniStack while this command waited for the lock.
            if not _is_current(STAMP, REQUIREMENTS):
                # The environment has no pip, because functions could otherwise import pip without packaging it.
                run_quietly(sys.executable, "-m", "venv", "--clear", "--without-pip", str(VIRTUAL_ENVIRONMENT))
                run_quietly(*install, "--requirement", str(REQUIREMENTS))
                STAMP.write_text(fingerprint(REQUIREMENTS, sys.version))
            if not _is_current(PRIVATE_STAMP, PRIVATE_REQUIREMENTS):
                target = ("--target", str(PRIVATE_PACKAGES), "--requirement", str(PRIVATE_REQUIREMENTS))
                run_quietly(*install, "--upgrade", *target)
                PRIVATE_STAMP.write_text(fingerprint(PRIVATE_REQUIREMENTS, sys.version))

    @property
    def _fingerprint(self) -> str:
        sources = (LAUNCHER.parent, *self.patches, REQUIREMENTS, PRIVATE_REQUIREMENTS)
        return fingerprint(*sources, self._command, self._variables)

    def runs(self) -> bool:
        return self.process.runs(self._fingerprint) and self._answers()

    def start(self, key: str = "") -> None:
        """Starts MiniStack. Restores the state saved under ``key``, if that state exists."""
        key_file, state = self._saved / "key", self._temporary / "state"
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._created_file.unlink(missing_ok=True)
        if key_file.exists() and key_file.read_text() == self._complete_key(key):
            shutil.copytree(self._saved / "state", state)
            shutil.copy(self._saved / self._created_file.name, self._created_file)
        self.start_process()

    def save(self, key: str) -> None:
        """Saves MiniStack's state under ``key``, in place of the previously saved state."""
        process, state = self.process.pid(), self._temporary / "state"
        # A restored state already contains the file `saved`, which signals that MiniStack has saved its state.
        (state / "saved").unlink(missing_ok=True)
        if process:
            os.kill(process, signal.SIGUSR1)
        self.process.wait((state / "saved").exists)
        shutil.rmtree(self._saved, ignore_errors=True)
        # MiniStack may be writing temporary files while its state is copied.
        shutil.copytree(state, self._saved / "state", ignore=shutil.ignore_patterns("*.tmp"))
        shutil.copy(self._created_file, self._saved)
        # The key file is written last, so an incomplete copy of the state is never used.
        (self._saved / "key").write_text(self._complete_key(key))

    def _complete_key(self, key: str) -> str:
        return fingerprint(key, self._fingerprint)

    def start_process(self) -> None:
        """Starts MiniStack's process, and waits until MiniStack responds."""
        self._temporary.mkdir(parents=True, exist_ok=True)
        for old in sorted(self._code.glob("*"), key=lambda path: path.stat().st_mtime)[:-KEPT_PACKAGES]:
            shutil.rmtree(old)
        # Functions inherit MiniStack's environment, so it contains only a few environment variables from the shell.
        self.process.start(self._command, {**basic_environment(), **self._variables}, self._fingerprint, self.port)
        self.process.wait(self._answers)

    def deployer_credentials(self) -> dict[str, str]:
        """Returns an access key for a user with exactly the permissions in ``infra/deployer/``."""
        policies = {each.stem: each.read_text() for each in DEPLOYER_POLICIES}
        return self._create_once("deployer", json.dumps(policies), partial(self._create_deployer, policies))

    def _create_once(self, name: str, key: str, create: Callable[[], dict[str, str]]) -> dict[str, str]:
        """Calls ``create``, and stores its result for the next call with the same ``key``.

        The stored results are saved, restored and removed together with MiniStack's state.
        """
        file, digest = self._created_file, fingerprint(key)
        stored = json.loads(file.read_text()) if file.exists() else {}
        if stored.get(name, {}).get("digest") != digest:
            stored[name] = {"digest": digest, "result": create()}
            write_private(file, json.dumps(stored))
        result: dict[str, str] = stored[name]["result"]
        return result

    def _create_deployer(self, policies: dict[str, str]) -> dict[str, str]:
        iam = self.client("iam")
        with suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_user(UserName=DEPLOYER)
        self._limit_roles(policies.pop(BOUNDARY))
        for name, policy in policies.items():
            iam.put_user_policy(UserName=DEPLOYER, PolicyName=name, PolicyDocument=policy)
        # On AWS, an administrator sets this account-wide role once. APIs need the role to write access logs.
        logs = {"op": "replace", "path": "/cloudwatchRoleArn", "value": "arn:aws:iam::000000000000:role/api-logs"}
        self.client("apigateway").update_account(patchOperations=[logs])
        created = iam.create_access_key(UserName=DEPLOYER)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": created["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": created["SecretAccessKey"]}

    def _limit_roles(self, boundary: str) -> None:
        """Creates or updates the policy that limits every role."""
        iam, arn = self.client("iam"), f"arn:aws:iam::000000000000:policy/deployers/{BOUNDARY}"
        try:
            iam.create_policy(Path="/deployers/", PolicyName=BOUNDARY, PolicyDocument=boundary)
        except iam.exceptions.EntityAlreadyExistsException:
            # A policy can have only five versions.
            for each in iam.list_policy_versions(PolicyArn=arn)["Versions"]:
                if not each["IsDefaultVersion"]:
                    iam.delete_policy_version(PolicyArn=arn, VersionId=each["VersionId"])
            iam.create_policy_version(PolicyArn=arn, PolicyDocument=boundary, SetAsDefault=True)

    def store_secrets(self, database: Database) -> dict[str, str]:
        """Stores the database's secrets in Secrets Manager.

        Returns the ARN of each secret, keyed by the environment variable for the deploy.
        """
        contents = database.secrets
        return self._create_once("secrets", json.dumps(contents), partial(self._create_secrets, contents))

    def _create_secrets(self, contents: Mapping[str, str]) -> dict[str, str]:
        secrets = self.client("secretsmanager")
        arns = {}
        for variable, content in contents.items():
            # MiniStack ignores tags in a boundary, so these names begin with `cafe-` like the secrets of a stage.
            name = "cafe-local-" + variable.removesuffix("_SECRET_ARN").replace("_", "-").lower()
            try:
                arns[variable] = secrets.create_secret(Name=name, SecretString=content)["ARN"]
            except secrets.exceptions.ResourceExistsException:
                arns[variable] = secrets.put_secret_value(SecretId=name, SecretString=content)["ARN"]
        return arns

    def client(self, service: str) -> Any:
        """Returns a boto3 client for MiniStack that has all permissions."""
        import boto3

        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

    def stop(self) -> None:
        # MiniStack can be killed immediately, because its state in memory is discarded anyway.
        self.process.stop(seconds=0)
        # MiniStack does not remove the temporary folders of its worker processes.
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _answers(self) -> bool:
        return answers(f"{self.endpoint}/_ministack/health")


def _is_current(stamp: Path, requirements: Path) -> bool:
    return stamp.exists() and stamp.read_text() == fingerprint(requirements, sys.version)
