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
    # The manager's password in each user pool.
    passwords: dict[str, str] = field(default_factory=dict)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> urllib3.BaseHTTPResponse:
        [api] = self.place.account.apis(self.stage)
        url = f"{self.place.cloud.endpoint}/_aws/execute-api/{api}/api{path}"
        headers |= {"Content-Type": "application/json"}
        return urllib3.request(method, url, body=json.dumps(body), headers=headers, retries=False, timeout=30)

    def token(self) -> dict[str, str]:
        """Signs in, and returns the header with the token. In 0.1.0, a stage has no users and needs no token."""
        outputs, cognito = self.place.account.outputs(self.stage), self.place.account.aws("cognito-idp")
        if not (pool := outputs.get("UserPoolId")):
            return {}
        if pool not in self.passwords:
            self.passwords[pool] = people.add(cognito, pool, "ines", "managers")
        answer = people.sign_in(cognito, outputs["UserPoolClientId"], "ines", self.passwords[pool])
        return {"Authorization": str(answer["AuthenticationResult"]["IdToken"])}

    def get(self, path: str) -> Any:
        answer = self.send("GET", path, **self.token())
        assert answer.status == 200, f"{path}: {answer.status} {answer.data.decode()}"
        return answer.json()

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        answer = self.send("POST", path, {} if body is None else body, **self.token(), **headers)
        assert answer.status < 300, f"{path}: {answer.status} {answer.data.decode()}"
        return answer.json()

    def wait(self, path: str, status: str) -> Any:
        """Waits until an order, a report or an upload has this status."""
        token = self.token()

        def look() -> Any:
            answer = self.send("GET", path, **token).json()
            found = answer.get("upload", answer)
            return found if found.get("status") == status else None

        return wait_for(look, f"{path} to be {status}")
