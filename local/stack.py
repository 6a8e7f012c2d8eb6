"""Starts, repairs and stops the whole system on one machine. All files of a stack are in one folder.

MiniStack keeps its state in memory. A new MiniStack therefore needs a deploy from scratch, with an empty database.
Chalice's record of deployed functions is deleted first, because the record refers to resources that no longer exist.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from infra.files import write_private
from local import chalice_local, env_file
from local.cloud import CREDENTIALS, REGION, Cloud
from local.database import Database, ExternalServer
from local.processes import (
    Process,
    StackError,
    accepts,
    answers,
    basic_environment,
    exclusive_lock,
    fingerprint,
    require_free_port,
)
from local.steps import Say, run_deploy, run_in_parallel, say, timed
from local.users import GROUPS, Users

ROOT = Path(__file__).parent.parent
ANSWER_SECONDS = 30
# The local API server shows the hops of an id at this path, and the console links to it.
TRACE_PATH = "local/trace"
API_SOURCES = (ROOT / "app.py", ROOT / "chalicelib")


@dataclass(frozen=True)
class Stack:
    """A copy of the whole system on one machine. Stacks with different folders and ports do not affect each other."""

    folder: Path
    stage: str = "dev"
    api_port: int = 8000
    aws_port: int = 4566
    db_port: int = 33306
    external_server: ExternalServer | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Stack:
        """Returns this checkout's stack. The CAFE_ environment variables set its ports and its MySQL server."""

        def port(variable: str, default: int) -> int:
            value = environment.get(variable) or str(default)
            if not value.isdecimal() or not 0 < int(value) < 65536:
                raise StackError(f"{variable} is {value}: set it to a port number from 1 to 65535")
            return int(value)

        return cls(
            ROOT / ".local",
            api_port=port("CAFE_API_PORT", cls.api_port),
            aws_port=port("CAFE_AWS_PORT", cls.aws_port),
            db_port=port("CAFE_DB_PORT", cls.db_port),
            external_server=ExternalServer.read(environment),
        )

    @cached_property
    def cloud(self) -> Cloud:
        return Cloud(self.folder / "cloud", self.aws_port)

    @cached_property
    def database(self) -> Database:
        return Database(self.folder / "database", self.db_port, self.external_server)

    @cached_property
    def users(self) -> Users:
        return Users(self.folder / "users.json")

    @cached_property
    def api(self) -> Process:
        return Process("api", self.folder / "api")

    @property
    def project(self) -> Path:
        """The deploy writes the stage's Chalice project into this folder."""
        return self.folder / "project"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def env_file(self) -> Path:
        return self.folder / "env"

    def start(self, say: Say = say) -> dict[str, str]:
        """Starts everything that is not running, deploys, and returns the environment file's variables."""
        with self._lock(say):
            self._check_ports()
            self.database.create_passwords()
            self.database.check_external_server()
            self._install(say)
            if self._is_deployed() and self.cloud.runs() and self.database.runs():
                say(f"  MiniStack on port {self.aws_port} and MariaDB on port {self.db_port} are already running")
                self._deploy_and_restart_api(say)
            else:
                self._remove_deployment()
                # The key depends on the addresses of the API and of MySQL, because the saved state contains them.
                key = fingerprint(self.api_url, self.database.address, *self.database.secrets.values())
                start = partial(self.cloud.start, key)
                start_cloud = partial(timed, say, f"MiniStack on port {self.aws_port}", start)
                run_in_parallel(start_cloud, partial(self._start_database, say))
                self._deploy(say)
                self.cloud.save(key)
                timed(say, "seed data", self.database.seed)
            return self._finish_start(say)

    def _finish_start(self, say: Say) -> dict[str, str]:
        """Creates the users, starts the API, and returns the environment file's variables."""
        self._deployed_file.write_text(self._deployment_target)
        self._create_users()
        self._write_environment()
        timed(say, f"API on port {self.api_port}", self._start_api)
        return self.variables()

    def deploy(self, say: Say = say) -> None:
        """Deploys the current code and infrastructure to the running stack."""
        with self._lock(say):
            self._deploy(say)
            self._write_environment()

    def restart_api(self) -> None:
        """Restarts the API if its code or configuration has changed."""
        with self._lock(say):
            self._start_api()

    def start_live_api(self, control_port: int) -> None:
        """Starts the API of ``make dev`` in place of ``chalice local``.

        The API serves no requests until it receives the path of a code folder.
        """
        command = [sys.executable, "-m", "local.live_api", "--port", str(self.api_port)]
        command += ["--stage", self.stage, "--control", str(control_port)]
        environment = {**basic_environment(), **self._api_variables()}
        self.api.stop()
        self.api.start(command, environment, "live", self.api_port)
        self.api.wait(lambda: accepts(control_port))

    def stop(self, say: Say = say) -> None:
        """Stops every process that ``start`` started, and removes the files that describe the deployed system."""
        with self._lock(say):
            running = [name for name, process in self.processes.items() if process.pid()]
            self.api.stop()
            self.database.stop()
            self._remove_deployment()
            say(f"  stopped: {', '.join(running)}" if running else "  nothing was running")

    @property
    def processes(self) -> dict[str, Process]:
        return {"API": self.api, "MiniStack": self.cloud.process, "MariaDB": self.database.process}

    def variables(self) -> dict[str, str]:
        """Returns the environment file's variables. Raises ``StackError`` if nothing is deployed."""
        if not self._outputs_file.exists():
            raise StackError("nothing is deployed here yet: run `make run`")
        return {
            "AWS_ENDPOINT_URL": self.cloud.endpoint,
            "AWS_DEFAULT_REGION": REGION,
            **CREDENTIALS,
            "CAFE_API_URL": self.api_url,
            "CAFE_STAGE": self.stage,
            **self.database.variables,
            **json.loads(self._outputs_file.read_text()),
        }

    @property
    def _outputs_file(self) -> Path:
        return self.project / f"{self.stage}.outputs.json"

    @property
    def _deployed_file(self) -> Path:
        """This file records which MiniStack process and which database the last complete deploy used."""
        return self.folder / "whole"

    @property
    def _deployment_target(self) -> str:
        return f"{self.cloud.process.pid()} {self.database.address}"

    def _is_deployed(self) -> bool:
        return self._deployed_file.exists() and self._deployed_file.read_text() == self._deployment_target

    def _check_ports(self) -> None:
        """Raises ``StackError`` if another program already uses a port of the stack.

        The check must come before any process is started or stopped.
        """
        ports = {"CAFE_API_PORT": self.api_port, "CAFE_AWS_PORT": self.aws_port, "CAFE_DB_PORT": self.db_port}
        if len(set(ports.values())) < len(ports):
            values = ", ".join(f"{variable}={port}" for variable, port in ports.items())
            raise StackError(f"two services have the same port ({values}): set three different ports")
        for (variable, port), process in zip(ports.items(), self.processes.values(), strict=True):
            unused = process is self.database.process and self.external_server
            if not unused and process.port() != port:
                require_free_port(port, variable)

    def _install(self, say: Say) -> None:
        parts: dict[str, Cloud | Database] = {"MiniStack": self.cloud, "MariaDB": self.database}
        missing = {name: part for name, part in parts.items() if not part.installed}
        if missing:
            say(f"  installing {' and '.join(missing)} (only once)")
            work = [partial(timed, say, f"{name} installed", part.install) for name, part in missing.items()]
            run_in_parallel(*work, _install_requirements)

    def _remove_deployment(self) -> None:
        """Stops MiniStack, and removes the files that describe what was deployed to it."""
        self.cloud.stop()
        chalice_record = self.project / ".chalice" / "deployed" / f"{self.stage}.json"
        for file in (
            *(self._deployed_file, self.users.file, self.env_file),
            *(self._outputs_file, chalice_record),
        ):
            file.unlink(missing_ok=True)

    def _start_database(self, say: Say) -> None:
        """Starts the database server if it is not running, and creates an empty database."""
        if not self.database.runs():
            timed(say, f"MariaDB on port {self.db_port}", self.database.start)
        self.database.recreate()

    def _deploy(self, say: Say) -> None:
        """Runs the same deploy as for AWS, with the same permissions but with MiniStack's endpoint."""
        variables = {
            # pip may need environment variables from the shell, but the AWS variables could select another AWS account.
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            **self.cloud.store_secrets(self.database),
            **self.cloud.deployer_credentials(),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_ENDPOINT_URL": self.cloud.endpoint,
            "AWS_DEFAULT_REGION": REGION,
        }
        command = [sys.executable, "-m", "infra.deploy", self.stage, "--project-dir", str(self.project)]
        # A shell that sourced the environment file, or a long test, uses one token for up to an hour.
        command += ["--local", "--yes", "--origin", self.api_url, "--parameter", "IdTokenMinutes=60"]
        # The permissions of the local deployer change only with MiniStack, so a second deploy need not check them.
        command += ["--unchecked"] if self._is_deployed() else []
        timed(say, "deployed", partial(run_deploy, command, variables, ROOT, say))

    def _deploy_and_restart_api(self, say: Say) -> None:
        """Deploys, and restarts the API while the deploy still runs its last step, the smoke test."""
        with ThreadPoolExecutor() as pool:
            restarts: list[Future[None]] = []

            def say_and_restart(line: str) -> None:
                say(line)
                if line.strip().startswith("check: "):
                    restarts.append(pool.submit(self._start_api))

            self._deploy(say_and_restart)
        for restart in restarts:
            restart.result()

    def _create_users(self) -> None:
        """Creates one user in each group, with passwords that are valid as long as the user pool exists."""
        if self.users.file.exists():
            return
        # This import is here so that a stack that already has users starts faster.
        from infra import users

        variables = self.variables()
        pool_id, cognito = variables["USER_POOL_ID"], self.cloud.client("cognito-idp")
        passwords = {name: users.new_password() for name in GROUPS}
        for name, group in GROUPS.items():
            users.make(cognito, pool_id, name, group)
            cognito.admin_set_user_password(UserPoolId=pool_id, Username=name, Password=passwords[name], Permanent=True)
        self.users.write(f"http://127.0.0.1:{self.aws_port}", variables["USER_POOL_CLIENT_ID"], passwords)

    def _start_api(self) -> None:
        """Starts ``chalice local`` with the API's role, or restarts it if code, settings or MiniStack changed."""
        variables = self._api_variables()
        command = chalice_local.command(self.project, self.api_port, self.stage)
        files = (*API_SOURCES, Path(variables["AWS_CONFIG_FILE"]), self.project / ".chalice" / "config.json")
        current = fingerprint(command, variables, *files, self.cloud.process.pid())
        if self.api.runs(current) and self._api_answers():
            return
        self.api.stop()
        self.api.start(command, {**basic_environment(), **variables}, current, self.api_port)
        self.api.wait(lambda: accepts(self.api_port))
        # If the API's code is broken, the shorter time limit makes the start fail sooner.
        self.api.wait(self._api_answers, ANSWER_SECONDS)

    def _api_variables(self) -> dict[str, str]:
        """Returns environment variables for the API, so that it uses its IAM role."""
        configuration = self.folder / "aws" / "config"
        configuration.parent.mkdir(exist_ok=True)
        role_arn = json.loads(self._outputs_file.read_text())["API_ROLE_ARN"]
        write_private(configuration, chalice_local.profiles(role_arn, CREDENTIALS.items()))
        return {
            "AWS_CONFIG_FILE": str(configuration),
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_PROFILE": "api",
            "AWS_ENDPOINT_URL": self.cloud.endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "PYTHONPATH": str(ROOT),
            "CAFE_TRACE_PATH": TRACE_PATH,
            "CAFE_LOCAL_STACK": json.dumps([str(self.folder), str(self.api_port), str(self.aws_port)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def _api_answers(self) -> bool:
        return answers(f"{self.api_url}/health")

    def _write_environment(self) -> None:
        endpoint_port = int(self.cloud.endpoint.rpartition(":")[2])
        env_file.write(self.env_file, self.variables(), (self.api_port, endpoint_port), self.users.file)

    def _lock(self, say: Say) -> AbstractContextManager[None]:
        return exclusive_lock(self.folder / "lock", lambda: say("  waiting for another command that uses this stack"))


def _install_requirements() -> None:
    """Installs the functions' requirements before the deploy needs them."""
    from infra.deploy.project import installed_here
    from infra.deploy.target import DeployError

    try:
        installed_here()
    except DeployError as error:
        raise StackError(str(error)) from None
