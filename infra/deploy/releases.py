"""Stores a stage's releases in its deploys bucket.

The object ``stage.json`` contains the names of the releases and, if one exists, the unfinished deploy. The last release
in the list serves requests. Each object ``releases/<name>.json`` contains one ``Release``. Each object
``packages/<build>.zip`` is a deployment package. Each object ``templates/<digest>.yaml`` is a CloudFormation template.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.deploy.chalice_record import Record
from infra.deploy.project import build
from infra.deploy.target import Clients, DeployError

KEPT = 10


@dataclass(frozen=True)
class Release:
    """A release with everything needed to restore it.

    ``stacks`` maps stack names to ``{"template": key, "parameters": {name: value}}``. ``record`` is Chalice's record of
    deployed resources.
    """

    name: str
    runtime: str
    requirements: str
    config: dict[str, Any]
    stacks: dict[str, dict[str, Any]]
    outputs: dict[str, str]
    wiring: dict[str, Any]
    record: Record
    # This field describes the triggers of the deployed code. Releases stored by older versions of this project do not
    # have this field.
    triggers: str = ""


@dataclass(frozen=True)
class State:
    """A stage's releases. ``under_way`` contains the caller and start time of an unfinished deploy, or None."""

    releases: list[str] = field(default_factory=list)
    under_way: dict[str, str] | None = None

    @property
    def serving(self) -> str | None:
        return self.releases[-1] if self.releases else None


class Releases:
    """Reads and writes a stage's releases in its deploys bucket."""

    def __init__(self, clients: Clients, bucket: str) -> None:
        self._s3, self.bucket = clients("s3"), bucket

    def state(self) -> State:
        text = self._read("stage.json")
        return State(**json.loads(text)) if text else State()

    def begin(self, state: State, caller: str) -> None:
        self._write_state(State(state.releases, {"by": caller, "since": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}))

    def end(self, releases: list[str]) -> None:
        """Records that a deploy has ended. The last release in ``releases`` serves requests."""
        self._write_state(State(releases))

    def keep(self, release: Release) -> None:
        self._put(f"releases/{release.name}.json", json.dumps(asdict(release), indent=1))

    def release(self, name: str) -> Release:
        text = self._read(f"releases/{name}.json")
        if text is None:
            raise DeployError(f"{self.bucket}: the release {name} does not exist")
        return Release(**json.loads(text))

    def keep_package(self, build: str, package: Path) -> dict[str, str]:
        """Uploads a deployment package, and returns its location in S3."""
        from boto3.exceptions import S3UploadFailedError

        location = {"S3Bucket": self.bucket, "S3Key": f"packages/{build}.zip"}
        try:
            self._s3.upload_file(str(package), *location.values())
        except S3UploadFailedError as error:
            raise DeployError(str(error)) from error
        return location

    def fetch_package(self, build: str, file: Path) -> None:
        self._s3.download_file(self.bucket, f"packages/{build}.zip", str(file))

    def keep_template(self, body: str) -> None:
        self._put(template_key(body), body)

    def template(self, key: str) -> str:
        text = self._read(key)
        if text is None:
            raise DeployError(f"{self.bucket}: the template {key} does not exist")
        return text

    def url(self, body: str) -> str:
        """Uploads a template, and returns its URL for CloudFormation."""
        self.keep_template(body)
        return f"{self._s3.meta.endpoint_url}/{self.bucket}/{template_key(body)}"

    def forget_older(self, names: list[str]) -> list[str]:
        """Deletes old releases, the files that only they used, and the packages of failed deploys.

        Returns the names of the remaining releases.
        """
        old, left = names[:-KEPT], names[-KEPT:]
        if not old:
            return names
        needed = {key for name in left for key in self._needs(self.release(name))}
        packages = self._s3.list_objects_v2(Bucket=self.bucket, Prefix="packages/").get("Contents", [])
        keys = {each["Key"] for each in packages}
        for name in old:
            keys |= {f"releases/{name}.json", *self._needs(self.release(name))}
        for key in keys - needed:
            self._s3.delete_object(Bucket=self.bucket, Key=key)
        return left

    @staticmethod
    def _needs(release: Release) -> set[str]:
        return {f"packages/{build(release.config)}.zip", *(each["template"] for each in release.stacks.values())}

    def _write_state(self, state: State) -> None:
        self._put("stage.json", json.dumps(asdict(state), indent=1))

    def _put(self, key: str, text: str) -> None:
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=text.encode())

    def _read(self, key: str) -> str | None:
        try:
            body: bytes = self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except self._s3.exceptions.NoSuchKey:
            return None
        return body.decode()


def template_key(body: str) -> str:
    """Returns the key of a template in the bucket. The key depends on the content of the template."""
    return f"templates/{hashlib.sha256(body.encode()).hexdigest()[:32]}.yaml"
