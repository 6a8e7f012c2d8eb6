"""The whole system on one machine, in one folder: started, healed and stopped as one.

MiniStack keeps its state in memory. So the stack is fresh or it is whole: where MiniStack is new, everything is made
anew with it, the database and Chalice's record of the deployed functions too, and nothing points to what is gone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from infra.files import write_private
from local.cloud import CREDENTIALS, REGION, Cloud
from local.database import Database, Server
from local.processes import (
    NO_PROXY,
    Process,
    StackError,
    answers,
    basic_environment,
    fingerprint,
    only_one,
    require_free,
)
from local.users import GROUPS, Users

ROOT = Path(__file__).parent.parent
# Of the virtual environment that this runs in.
PROGRAMS = Path(sys.executable).parent
SOURCES = (ROOT / "app.py", ROOT / "chalicelib")

Say = Callable[[str], None]


def say(line: str) -> None:
    """Print at once, and the whole line at once: several work side by side."""
    print(f"{line}\n", end="", flush=True)


@dataclass(frozen=True)
class Stack:
    """One independent copy of the system: two with other folders and other ports know nothing of each other."""

    folder: Path
    stage: str = "dev"
    api_port: int = 8000
    aws_port: int = 4566
    db_port: int = 33306
    db_server: Server | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Stack:
        """The stack of this checkout, from CAFE_API_PORT, CAFE_AWS_PORT, CAFE_DB_PORT and CAFE_DB_HOST."""

        def port(variable: str, default: str) -> int:
            value = environment.get(variable) or default
            if not value.isdecimal() or not 0 < int(value) < 65536:
                raise StackError(f"{variable} must be a port number, not {value!r}")
            return int(value)

        return cls(
            ROOT / ".local",
            api_port=port("CAFE_API_PORT", "8000"),
            aws_port=port("CAFE_AWS_PORT", "4566"),
            db_port=port("CAFE_DB_PORT", "33306"),
            db_server=Server.read(environment),
        )

    @cached_property
    def cloud(self) -> Cloud:
        return Cloud(self.folder / "cloud", self.aws_port)

    @cached_property
    def database(self) -> Database:
        return Database(self.folder / "database", self.db_port, self.db_server)

    @cached_property
    def users(self) -> Users:
        return Users(self.folder / "users.json")

    @cached_property
    def api(self) -> Process:
        return Process("api", self.folder / "api")

    @property
    def project(self) -> Path:
        """The Chalice project folder of this stage, which the deploy fills."""
        return self.folder / "project"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def start(self, say: Say = say) -> dict[str, str]:
        """Bring up what is not up yet, deploy, and return the variables of ``<folder>/env``."""
        with self._alone(say):
            self._check_ports()
            self.database.prepare()
            self._install(say)
            if self._is_whole() and self.cloud.runs() and self.database.runs():
                say(f"  MiniStack on port {self.aws_port} and MariaDB on port {self.db_port} are up")
                self._deploy(say)
            else:
                self._clear()
                start_cloud = partial(_timed, say, f"MiniStack on port {self.aws_port}", self.cloud.start)
                at_once(start_cloud, partial(self._start_database, say))
                self._deploy(say)
                _timed(say, "seed data", self.database.seed)
            return self._finish(say)

    def _finish(self, say: Say) -> dict[str, str]:
        """Starts what needs the deployed system, and returns the variables of ``<folder>/env``."""
        self._whole.write_text(self._identity)
        self._make_users()
        self._write_environment()
        _timed(say, f"API on port {self.api_port}", self._start_api)
        return self.variables()

    def stop(self, say: Say = say) -> None:
        """End every process that ``start`` has started, and forget what lived in them."""
        with self._alone(say):
            running = [name for name, process in self.processes.items() if process.pid()]
            self.api.stop()
            self.database.stop()
            self._clear()
            say(f"  stopped: {', '.join(running)}" if running else "  nothing was up")

    @property
    def processes(self) -> dict[str, Process]:
        return {"API": self.api, "MiniStack": self.cloud.process, "MariaDB": self.database.process}

    def variables(self) -> dict[str, str]:
        """What ``<folder>/env`` exports. Raises ``StackError`` before the first ``start``."""
        outputs = self.project / f"{self.stage}.outputs.json"
        if not outputs.exists():
            raise StackError("nothing is deployed here yet: run `make run`")
        return {
            "AWS_ENDPOINT_URL": self.cloud.endpoint,
            "AWS_DEFAULT_REGION": REGION,
            **CREDENTIALS,
            "CAFE_API_URL": self.api_url,
            "CAFE_STAGE": self.stage,
            **self.database.variables,
            **json.loads(outputs.read_text()),
        }

    @property
    def _whole(self) -> Path:
        """It is there while everything is deployed, and says to which MiniStack and which database."""
        return self.folder / "whole"

    @property
    def _identity(self) -> str:
        return f"{self.cloud.process.pid()} {self.database.address}"

    def _is_whole(self) -> bool:
        return self._whole.exists() and self._whole.read_text() == self._identity

    def _check_ports(self) -> None:
        """Before anything is started or stopped, every port must be free, or ours already."""
        ports = {"CAFE_API_PORT": self.api_port, "CAFE_AWS_PORT": self.aws_port, "CAFE_DB_PORT": self.db_port}
        if len(set(ports.values())) < len(ports):
            raise StackError(f"these must be three different ports: {ports}")
        processes = (self.api, self.cloud.process, self.database.process)
        for (variable, port), process in zip(ports.items(), processes, strict=True):
            needed = not (process is self.database.process and self.db_server)
            if needed and process.port() != port:
                require_free(port, variable)

    def _install(self, say: Say) -> None:
        parts: dict[str, Cloud | Database] = {"MiniStack": self.cloud, "MariaDB": self.database}
        missing = {name: part for name, part in parts.items() if not part.installed}
        if missing:
            say(f"  installing {' and '.join(missing)}, this once")
            at_once(*(partial(_timed, say, f"{name} installed", part.install) for name, part in missing.items()))

    def _clear(self) -> None:
        """Forget everything that lived in the MiniStack of before."""
        self.cloud.stop()
        self._whole.unlink(missing_ok=True)
        self.users.file.unlink(missing_ok=True)
        (self.folder / "env").unlink(missing_ok=True)
        (self.project / f"{self.stage}.outputs.json").unlink(missing_ok=True)
        (self.project / ".chalice" / "deployed" / f"{self.stage}.json").unlink(missing_ok=True)

    def _start_database(self, say: Say) -> None:
        """Empty, whether its server has to be started or not."""
        if not self.database.runs():
            _timed(say, f"MariaDB on port {self.db_port}", self.database.start)
        self.database.empty()

    def _deploy(self, say: Say) -> None:
        """The same deploy as to AWS, with another endpoint, and with the rights that it has there."""
        environment = {
            # The shell's own, for it may say where pip finds packages; but nothing that leads to another account.
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            **self.cloud.tell(self.database),
            **self.cloud.deployer(),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_ENDPOINT_URL": self.cloud.endpoint,
            "AWS_DEFAULT_REGION": REGION,
        }
        command = [sys.executable, "-m", "infra.deploy", self.stage, "--project-dir", str(self.project)]
        command += ["--local", "--yes", "--origin", self.api_url]
        _timed(say, "deployed", partial(_run, command, environment, say))

    def _make_users(self) -> None:
        """One of each group, with passwords that stay as long as the user pool does."""
        if self.users.file.exists():
            return
        # Imported here: a stack that has them is up sooner.
        from infra import users

        variables = self.variables()
        pool_id, cognito = variables["USER_POOL_ID"], self.cloud.client("cognito-idp")
        passwords = {name: users.new_password() for name in GROUPS}
        for name, group in GROUPS.items():
            users.make(cognito, pool_id, name, group)
            cognito.admin_set_user_password(UserPoolId=pool_id, Username=name, Password=passwords[name], Permanent=True)
        self.users.write(f"http://127.0.0.1:{self.aws_port}", variables["USER_POOL_CLIENT_ID"], passwords)

    def _start_api(self) -> None:
        """``chalice local`` under the API's own role, so that its policy is enforced on this side too.

        The credentials come from a profile that assumes the role, and botocore renews them by itself.
        """
        configuration = self.folder / "aws" / "config"
        configuration.parent.mkdir(exist_ok=True)
        keys = "\n".join(f"{name.lower()} = {value}" for name, value in CREDENTIALS.items())
        write_private(
            configuration,
            f"[profile local]\n{keys}\n\n"
            "[profile api]\n"
            f"role_arn = {self.variables()['API_ROLE_ARN']}\n"
            "source_profile = local\nrole_session_name = chalice-local\nduration_seconds = 43200\n",
        )
        variables = {
            "AWS_CONFIG_FILE": str(configuration),
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_PROFILE": "api",
            "AWS_ENDPOINT_URL": self.cloud.endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        command = [
            *(str(PROGRAMS / "chalice"), "--project-dir", str(self.project), "local", "--no-autoreload"),
            *("--host", "127.0.0.1", "--port", str(self.api_port), "--stage", self.stage),
        ]
        # Started again where the code, the configuration or the cloud is another.
        wanted = fingerprint(
            command,
            variables,
            *SOURCES,
            configuration,
            self.project / ".chalice" / "config.json",
            self.cloud.process.pid(),
        )
        if self.api.runs(wanted) and self._api_answers():
            return
        self.api.stop()
        self.api.start(command, {**basic_environment(), **variables}, wanted, self.api_port)
        self.api.wait(self._api_answers)

    def _api_answers(self) -> bool:
        return answers(f"{self.api_url}/health")

    def _write_environment(self) -> None:
        """``<folder>/env``, to be sourced, with two commands: the ``chalice`` that knows where this stage's project
        is, and ``cafe-token``."""
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        for name, command in {
            "chalice": f"{_quoted(PROGRAMS / 'chalice')} --project-dir {_quoted(self.project)}",
            "cafe-token": f"{_quoted(sys.executable)} -P -m local.users {_quoted(self.users.file)}",
        }.items():
            wrapper = programs / name
            # Compiled files would travel in the deployment package.
            lines = ["#!/bin/sh", "export PYTHONDONTWRITEBYTECODE=1"]
            lines += [f"export PYTHONPATH={_quoted(ROOT)}"] if name == "cafe-token" else []
            wrapper.write_text("\n".join([*lines, f'exec {command} "$@"']) + "\n")
            wrapper.chmod(0o755)
        lines = [f"export {name}={_quoted(value)}" for name, value in self.variables().items()]
        lines += [f'export {name}="{hosts}${{{name}:+,${name}}}"' for name, hosts in NO_PROXY.items()]
        lines += [
            # The shell's own would go before the keys above.
            "unset AWS_PROFILE AWS_SESSION_TOKEN",
            f'export PATH={_quoted(programs)}:{_quoted(PROGRAMS)}:"$PATH"',
            # Last, and in a condition: where there is none to be had, everything else is set all the same.
            "if CAFE_TOKEN=$(cafe-token); then export CAFE_TOKEN; else unset CAFE_TOKEN; fi",
        ]
        write_private(self.folder / "env", "\n".join(lines) + "\n")

    def _alone(self, say: Say) -> AbstractContextManager[None]:
        return only_one(self.folder / "lock", lambda: say("  another command is at work here: waiting for it to end"))


def at_once(*works: Callable[[], object]) -> None:
    """Runs ``works`` side by side; when all have ended, raises the first error."""
    with ThreadPoolExecutor() as pool:
        futures: list[Future[object]] = [pool.submit(work) for work in works]
    for future in futures:
        future.result()


def _run(command: list[str], environment: Mapping[str, str], say: Say) -> None:
    """Run the deploy, and pass on what it says as it says it."""
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            say(f"    {line.rstrip()}")
    if process.returncode:
        raise StackError("the deploy failed: what it says is above")


def _timed(say: Say, what: str, work: Callable[[], object]) -> None:
    began = time.monotonic()
    work()
    say(f"  {what:<40} {time.monotonic() - began:5.1f} s")


def _quoted(value: object) -> str:
    """For any shell, whatever is in it."""
    return "'" + str(value).replace("'", "'\\''") + "'"
