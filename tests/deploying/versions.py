"""Deploys earlier versions of this project from git, and calls the API of any version."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from dataclasses import dataclass, field
from typing import Any

import urllib3

from infra.deploy import project
from local.cloud import CREDENTIALS
from tests.deploying.checkout import ROOT, Checkout, Place
from tests.system.waiting import wait_for

# Each is the last commit of its version: in the next changed CHANGELOG.md, [Unreleased] has a first entry.
COMMITS = {
    "0.1.0": "9774558ed6f0ba77a457dff7d8e7043431b56203",
    "0.2.0": "34914a5850e896e18e3a324afbb7a7d2724d492c",
}


def checkout(place: Place, version: str) -> Checkout:
    """Returns a checkout of an earlier version. It deploys as an administrator, because 0.1.0 had no deployer."""
    commit, folder = COMMITS[version], place.folder / version
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    assert archive.returncode == 0, f"git has no commit {commit} ({version}): run `git fetch --unshallow`"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as file:
        file.extractall(folder, filter="data")
    (folder / ".local").mkdir()
    (folder / ".local" / project.INSTALLED.name).symlink_to(project.INSTALLED)
    variables = {**CREDENTIALS, **place.cloud.store_secrets(place.database)}
    if version == "0.1.0":
        # At that time, people created the user and the tables, and the functions had the password as a variable.
        variables = {**CREDENTIALS, **(database := place.database.variables)}
        user, schema = f"'{database['DB_USER']}'@'%'", (folder / "infra" / "schema.sql").read_text().splitlines()
        place.sql(f"CREATE USER {user} IDENTIFIED BY '{database['DB_PASSWORD']}'")
        place.sql(f"GRANT ALL ON cafe.* TO {user}")
        for statement in "".join(line for line in schema if not line.startswith("--")).split(";")[:-1]:
            place.sql(statement)
    return Checkout(folder, place.cloud.endpoint, variables)


@dataclass(frozen=True)
class Api:
    """A stage's REST API behind API Gateway. Requests carry a manager's token."""

    place: Place
    stage: str
    # A manager's token from each client of a user pool.
    tokens: dict[str, str] = field(default_factory=dict)

    def token(self) -> dict[str, str]:
        """Returns the header with the token. In 0.1.0, a stage has no users and needs no token."""
        client = self.place.account.outputs(self.stage).get("UserPoolClientId")
        if client and client not in self.tokens:
            self.tokens[client] = self.place.account.managers_token(self.stage)
        return {"Authorization": self.tokens[client]} if client else {}

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        [api] = self.place.account.apis(self.stage)
        url = f"{self.place.cloud.endpoint}/_aws/execute-api/{api}/api{path}"
        headers |= {"Content-Type": "application/json"}
        answer = urllib3.request(method, url, body=json.dumps(body or {}), headers=headers, retries=False, timeout=30)
        return answer.status, answer.json()

    def get(self, path: str) -> Any:
        return self.post(path, method="GET")

    def post(self, path: str, body: Any = None, method: str = "POST", **headers: str) -> Any:
        status, content = self.send(method, path, body, **self.token(), **headers)
        assert status < 300, f"{path}: {content}"
        return content

    def wait(self, path: str, status: str) -> Any:
        """Waits until an order, a report or an upload has this status."""
        token = self.token()

        def look() -> Any:
            _, content = self.send("GET", path, **token)
            found = content.get("upload", content)
            return found if found.get("status") == status else None

        return wait_for(look, f"{path} to be {status}")
