"""Deploys earlier versions of this project from git, and talks to the API of any version."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from infra.deploy import project
from local.cloud import CREDENTIALS
from tests.deploying.checkout import ROOT, Checkout, Place
from tests.system import people
from tests.system.waiting import wait_for

# Each is the last commit of its version: in the next changed CHANGELOG.md, [Unreleased] has a first entry.
COMMITS = {
    "0.1.0": "9774558ed6f0ba77a457dff7d8e7043431b56203",
    "0.2.0": "34914a5850e896e18e3a324afbb7a7d2724d492c",
}


def files(version: str, *names: str) -> tarfile.TarFile:
    """Returns an archive of an earlier version, or of only some of its files."""
    command = ["git", "archive", COMMITS[version], *names]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert archive.returncode == 0, f"git has no commit {COMMITS[version]} ({version}): run `git fetch --unshallow`"
    return tarfile.open(fileobj=io.BytesIO(archive.stdout))


def checkout(place: Place, version: str) -> Checkout:
    """Returns a checkout of an earlier version. It deploys as an administrator, because 0.1.0 had no deployer."""
    folder = place.folder / version
    files(version).extractall(folder, filter="data")
    (folder / ".local").mkdir()
    (folder / ".local" / project.INSTALLED.name).symlink_to(project.INSTALLED)
    variables = {**CREDENTIALS, **place.cloud.store_secrets(place.database)}
    if version == "0.1.0":
        variables |= _database_of_0_1_0(place, folder)
    return Checkout(folder, place.cloud.endpoint, variables)


def _database_of_0_1_0(place: Place, folder: Path) -> dict[str, str]:
    """Creates the user and the tables that 0.1.0 expected, and returns the variables that named them."""
    database = place.database.variables
    schema = (folder / "infra" / "schema.sql").read_text()
    user = f"'{database['DB_USER']}'@'%'"
    for statement in (
        f"CREATE USER {user} IDENTIFIED BY '{database['DB_PASSWORD']}'",
        f"GRANT ALL ON {database['DB_NAME']}.* TO {user}",
        *("".join(line for line in schema.splitlines(True) if not line.startswith("--")).split(";")[:-1]),
    ):
        place.sql(statement)
    return {name: database[name] for name in ("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD")}


@dataclass(frozen=True)
class Api:
    """The REST API of the only stage in ``place``, behind API Gateway. Requests carry a manager's token."""

    place: Place
    stage: str
    # The password of the test's user in each user pool.
    passwords: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        [api] = self.place.account.apis(self.stage)
        return f"{self.place.cloud.endpoint}/_aws/execute-api/{api}/api"

    def headers(self) -> dict[str, str]:
        """Signs in, and returns the header with the token. In 0.1.0, a stage has no users and needs no token."""
        outputs, cognito = self.place.account.outputs(self.stage), self.place.account.aws("cognito-idp")
        if not (pool := outputs.get("UserPoolId")):
            return {}
        if pool not in self.passwords:
            self.passwords[pool] = people.add(cognito, pool, "ines", "managers")
        answer = people.sign_in(cognito, outputs["UserPoolClientId"], "ines", self.passwords[pool])
        return {"Authorization": str(answer["AuthenticationResult"]["IdToken"])}

    def status(self, path: str) -> int:
        """Returns the status of a request without a token."""
        return urllib3.request("GET", self.url + path, retries=False, timeout=30).status

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        headers |= {"Content-Type": "application/json", **self.headers()}
        data = None if body is None else json.dumps(body)
        answer = urllib3.request(method, self.url + path, body=data, headers=headers, retries=False, timeout=30)
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.data.decode()}"
        return answer.json()

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("POST", path, body, **headers)

    def wait(self, path: str, *names: str) -> Any:
        """Waits until an order exists, or until the ``status`` of a report or an upload is one of ``names``."""

        def look() -> Any:
            answer = urllib3.request("GET", self.url + path, headers=self.headers(), retries=False, timeout=30)
            found = answer.json()
            found = found.get("upload", found)
            return found if answer.status == 200 and (not names or found["status"] in names) else None

        return wait_for(look, f"{path} {names}")
