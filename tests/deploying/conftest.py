"""A local cloud of its own with a proxy before it, a MariaDB for all stages, and checkouts to deploy from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chalicelib import clients
from chalicelib.settings import Database as Settings
from local.cloud import REGION, Cloud
from local.database import Database
from local.processes import free_ports
from tests.deploying.account import Account
from tests.system.wire import Wire

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Checkout:
    """One copy of the repository, with what it generates in a folder of its own."""

    folder: Path
    endpoint: str
    variables: dict[str, str]

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {name}"
        (self.folder / name).write_text(text.replace(old, new))

    def start(self, stage: str, *options: str) -> subprocess.Popen[str]:
        """A deploy under way, in a group of processes that can be ended as one."""
        return subprocess.Popen(
            [sys.executable, "-m", "infra.deploy", stage, "--local", "--yes", *options],
            cwd=self.folder,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))},
                **self.variables,
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
                "AWS_DEFAULT_REGION": REGION,
                "AWS_ENDPOINT_URL": self.endpoint,
                "PYTHONDONTWRITEBYTECODE": "1",
                "NO_PROXY": "127.0.0.1",
                "no_proxy": "127.0.0.1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, stage: str, *options: str) -> tuple[int, str]:
        """Exit status and all that was said."""
        process = self.start(stage, *options)
        said, _ = process.communicate(timeout=300)
        return process.returncode, said

    def deploy(self, stage: str, *options: str) -> str:
        """All that a deploy says, which ends well."""
        status, said = self.run(stage, *options)
        assert status == 0, said
        return said


@dataclass(frozen=True)
class Place:
    """Where the tests deploy to: everybody's calls go by the wire, but those of the tests' own look at the account."""

    cloud: Cloud
    database: Database
    wire: Wire
    account: Account
    folder: Path

    def checkout(self, name: str) -> Checkout:
        port: Any = self.wire.server_address[1]
        shutil.copytree(self.folder / "origin", self.folder / name)
        variables = {**self.cloud.deployer(), **self.cloud.tell(self.database)}
        return Checkout(self.folder / name, f"http://127.0.0.1:{port}", variables)

    def sql(self, statement: str) -> list[Any]:
        """The rows, with the rights of the database's administrator."""
        functions, admin = self.database.secrets.values()
        database = Settings.of_secret(functions).logged_in(admin)
        with clients.mysql(database) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())


def copy_repository(folder: Path) -> None:
    """As it is now: what is edited meanwhile is not deployed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    wire_port, port, db_port = free_ports(3)
    folder = tmp_path_factory.mktemp("place")
    copy_repository(folder / "origin")
    cloud, database = Cloud(folder / "cloud", port), Database(folder / "database", db_port)
    cloud.install()
    if not database.installed:
        database.install()
    wire = Wire(wire_port, port)
    try:
        cloud.start()
        database.prepare()
        database.start()
        database.empty()
        # Before anybody looks: they are of the MySQL that is there, and of no stage.
        cloud.tell(database)
        yield Place(cloud, database, wire, Account(cloud), folder)
    finally:
        wire.close()
        database.stop()
        cloud.stop()


@pytest.fixture(scope="module")
def here(place: Place) -> Checkout:
    return place.checkout("here")


@pytest.fixture(scope="module")
def elsewhere(place: Place) -> Checkout:
    """Another clone, which has never deployed anything."""
    return place.checkout("elsewhere")
