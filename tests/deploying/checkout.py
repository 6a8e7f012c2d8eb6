"""Provides copies of the repository, and a local cloud to deploy them to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chalicelib import clients
from chalicelib.settings import Database as Settings
from infra.deploy import project
from local.cloud import REGION, Cloud
from local.database import Database
from local.processes import free_ports
from tests.deploying.account import Account
from tests.system.wire import Wire

ROOT = Path(__file__).parents[2]
WITHOUT_FILES_AND_PROXY = {
    **dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
}


@dataclass(frozen=True)
class Checkout:
    """A copy of the repository from which a test deploys."""

    folder: Path
    endpoint: str
    variables: dict[str, str]

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert text.count(old) == 1, f"{name} contains {old!r} {text.count(old)} times"
        (self.folder / name).write_text(text.replace(old, new))

    def start(self, stage: str, *options: str) -> subprocess.Popen[str]:
        """Starts a deploy in a new process group, so a test can kill all processes of the deploy."""
        return subprocess.Popen(
            [sys.executable, "-m", "infra.deploy", stage, "--local", "--yes", *options],
            cwd=self.folder,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))},
                **self.variables,
                **WITHOUT_FILES_AND_PROXY,
                "AWS_DEFAULT_REGION": REGION,
                "AWS_ENDPOINT_URL": self.endpoint,
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, stage: str, *options: str) -> tuple[int, str]:
        process = self.start(stage, *options)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def deploy(self, stage: str, *options: str) -> str:
        """Runs a deploy that must succeed, and returns its output."""
        status, output = self.run(stage, *options)
        assert status == 0, output
        return output


@dataclass(frozen=True)
class Place:
    """A local cloud. A deploy connects to the local cloud through a proxy, and tests read the account directly."""

    cloud: Cloud
    database: Database
    wire: Wire
    account: Account
    folder: Path

    def checkout(self, name: str) -> Checkout:
        port: Any = self.wire.server_address[1]
        shutil.copytree(self.folder / "origin", self.folder / name)
        # All copies of the repository share the requirements that pip installed for the local stage.
        project.INSTALLED.mkdir(parents=True, exist_ok=True)
        (self.folder / name / ".local").mkdir()
        (self.folder / name / ".local" / project.INSTALLED.name).symlink_to(project.INSTALLED)
        variables = {**self.cloud.deployer_credentials(), **self.cloud.store_secrets(self.database)}
        return Checkout(self.folder / name, f"http://127.0.0.1:{port}", variables)

    def sql(self, statement: str) -> list[Any]:
        """Runs a statement as the database administrator, and returns the rows."""
        functions, admin = self.database.secrets.values()
        database = Settings.of_secret(functions).logged_in(admin)
        with clients.mysql(database) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())


@contextmanager
def new_place(folder: Path) -> Iterator[Place]:
    """Starts a local cloud behind a proxy, and starts one MariaDB server for all stages."""
    wire_port, port, db_port = free_ports(3)
    _copy_repository(folder / "origin")
    cloud, database = Cloud(folder / "cloud", port), Database(folder / "database", db_port)
    cloud.install()
    if not database.installed:
        database.install()
    wire = Wire(wire_port, port)
    try:
        cloud.start()
        database.create_passwords()
        database.start()
        database.recreate()
        # These belong to no stage, so they are created before a test first reads the account.
        cloud.store_secrets(database)
        cloud.deployer_credentials()
        yield Place(cloud, database, wire, Account(cloud), folder)
    finally:
        wire.close()
        database.stop()
        cloud.stop()


def _copy_repository(folder: Path) -> None:
    """Copies the current files of the repository, so edits during the tests are not deployed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
