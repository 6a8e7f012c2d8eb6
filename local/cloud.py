"""MiniStack: AWS on 127.0.0.1, in a virtual environment and with environment variables of its own."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.files import write_private
from local.processes import Process, answers, basic_environment, fingerprint, only_one, run_quietly

if TYPE_CHECKING:
    from local.database import Database

HERE = Path(__file__).parent
LAUNCHER = HERE / "ministack_launcher.py"
REQUIREMENTS = HERE / "ministack-requirements.txt"
OWN_REQUIREMENTS = HERE / "ministack-own-requirements.txt"
# One for all stacks of this checkout: the tests' as well.
VIRTUAL_ENVIRONMENT = HERE.parent / ".local" / "ministack"
STAMP = VIRTUAL_ENVIRONMENT / "installed"
PYTHON = VIRTUAL_ENVIRONMENT / "bin" / "python"
# What MiniStack itself needs and its functions must not see: the launcher knows this folder.
OWN = VIRTUAL_ENVIRONMENT / "own"
OWN_STAMP = OWN / "installed"

DEPLOYER_POLICY = HERE.parent / "infra" / "deployer-policy.json"
DEPLOYER = "deployer"

REGION = "us-east-1"
# MiniStack's root key pair. It opens nothing but the port on 127.0.0.1.
CREDENTIALS = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "test")


@dataclass(frozen=True)
class Cloud:
    folder: Path
    port: int
    launcher: Path = LAUNCHER

    @cached_property
    def process(self) -> Process:
        return Process("ministack", self.folder)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def _temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def _variables(self) -> dict[str, str]:
        return {
            "TMPDIR": str(self._temporary),
            "GATEWAY_PORT": str(self.port),
            "BIND_HOST": "127.0.0.1",
            # The keys that sign the user pool's tokens; by default all stacks of a machine share one folder.
            "STATE_DIR": str(self._temporary / "state"),
            "MINISTACK_REGION": REGION,
            "AUTH": "true",
            # This one would listen on every address.
            "IOT_MTLS_ENABLED": "0",
            # It would look for containers that another MiniStack left behind, and remove them.
            "DOCKER_HOST": "unix:///nonexistent",
        }

    @property
    def installed(self) -> bool:
        return not _lacks(STAMP, REQUIREMENTS) and not _lacks(OWN_STAMP, OWN_REQUIREMENTS)

    def install(self) -> None:
        """Make MiniStack's virtual environment."""
        with only_one(VIRTUAL_ENVIRONMENT.with_suffix(".lock")):
            pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(PYTHON))
            # Another command may have done it meanwhile.
            if _lacks(STAMP, REQUIREMENTS):
                # Without pip: what is not in the requirements is not there for a function to import by accident.
                run_quietly(sys.executable, "-m", "venv", "--clear", "--without-pip", str(VIRTUAL_ENVIRONMENT))
                run_quietly(*pip, "install", "--quiet", "--requirement", str(REQUIREMENTS))
                STAMP.write_text(fingerprint(REQUIREMENTS, sys.version))
            if _lacks(OWN_STAMP, OWN_REQUIREMENTS):
                own = ("--target", str(OWN), "--requirement", str(OWN_REQUIREMENTS))
                run_quietly(*pip, "install", "--quiet", "--upgrade", *own)
                OWN_STAMP.write_text(fingerprint(OWN_REQUIREMENTS, sys.version))

    @property
    def _fingerprint(self) -> str:
        return fingerprint(self.launcher, REQUIREMENTS, OWN_REQUIREMENTS, self._variables)

    def runs(self) -> bool:
        return self.process.runs(self._fingerprint) and self._answers()

    def start(self) -> None:
        """Starts MiniStack with empty state, which it keeps in memory."""
        (self.folder / "deployer.json").unlink(missing_ok=True)
        self.launch()

    def launch(self) -> None:
        """Starts MiniStack's process, and waits until it answers."""
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True)
        # MiniStack hands its environment on to the functions, so nothing else of the shell's may be in it.
        environment = {**basic_environment(), **self._variables}
        self.process.start([str(PYTHON), str(self.launcher)], environment, self._fingerprint, self.port)
        self.process.wait(self._answers)

    def deployer(self) -> dict[str, str]:
        """Credentials of an identity that has the rights of ``infra/deployer-policy.json``, and no others."""
        policy, known = DEPLOYER_POLICY.read_text(), self.folder / "deployer.json"
        if known.exists() and (found := json.loads(known.read_text()))["policy"] == fingerprint(policy):
            keys: dict[str, str] = found["keys"]
            return keys
        iam = self.client("iam")
        with suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_user(UserName=DEPLOYER)
        iam.put_user_policy(UserName=DEPLOYER, PolicyName=DEPLOYER, PolicyDocument=policy)
        # What an account's administrator does once, so that its APIs have access logs; MiniStack writes none.
        logs = {"op": "replace", "path": "/cloudwatchRoleArn", "value": "arn:aws:iam::000000000000:role/api-logs"}
        self.client("apigateway").update_account(patchOperations=[logs])
        made = iam.create_access_key(UserName=DEPLOYER)["AccessKey"]
        keys = {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}
        write_private(known, json.dumps({"policy": fingerprint(policy), "keys": keys}))
        return keys

    def tell(self, database: Database) -> dict[str, str]:
        """Has Secrets Manager tell of a database, and returns the variables that a deploy wants for it."""
        secrets = self.client("secretsmanager")
        arns = {}
        for variable, content in database.secrets.items():
            name = "local-" + variable.removesuffix("_SECRET_ARN").replace("_", "-").lower()
            try:
                arns[variable] = secrets.create_secret(Name=name, SecretString=content)["ARN"]
            except secrets.exceptions.ResourceExistsException:
                arns[variable] = secrets.describe_secret(SecretId=name)["ARN"]
        return arns

    def client(self, service: str) -> Any:
        """boto3's, with all rights."""
        import boto3

        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

    def stop(self) -> None:
        # All that it has is in memory, so there is no end to wait for. It leaves a folder of each worker behind.
        self.process.stop(seconds=0)
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _answers(self) -> bool:
        return answers(f"{self.endpoint}/_ministack/health")


def _lacks(stamp: Path, requirements: Path) -> bool:
    return not stamp.exists() or stamp.read_text() != fingerprint(requirements, sys.version)
