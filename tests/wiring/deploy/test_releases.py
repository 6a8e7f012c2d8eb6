"""Tests that a stage keeps its releases in order, with everything that a rollback needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.deploy import releases as module
from infra.deploy.project import RUNTIME
from infra.deploy.releases import Release, Releases, template_key
from infra.deploy.target import DeployError
from tests.wiring.fakes import DEPLOYED
from tests.wiring.stage import ACCOUNT, REGION, client

BUCKET = f"cafe-test-deploys-{ACCOUNT}"


@pytest.fixture
def releases(aws: None) -> Releases:
    client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    return Releases(client, BUCKET)


def release(name: str, build: str = "b1", template: str = "A") -> Release:
    config: dict[str, Any] = {"stages": {"test": {"environment_variables": {"CAFE_BUILD": build}}}}
    stacks = {"cafe-test-resources": {"template": template_key(template), "parameters": {"Stage": "test"}}}
    return Release(name, RUNTIME, "jinja2==3.1.6\n", config, stacks, DEPLOYED, {"mappings": {}}, [])


def keep(releases: Releases, release: Release, template: str, folder: Path) -> None:
    package = folder / "package.zip"
    package.write_bytes(b"zip")
    releases.keep_package(release.config["stages"]["test"]["environment_variables"]["CAFE_BUILD"], package)
    releases.keep_template(template)
    releases.keep(release)


def keys() -> set[str]:
    return {each["Key"] for each in client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])}


def test_a_missing_release_is_named(releases: Releases) -> None:
    with pytest.raises(DeployError, match="the release lost does not exist"):
        releases.release("lost")


def test_older_releases_are_deleted_with_objects_that_only_they_need(
    releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    for name, build, template in (("1", "b1", "A"), ("2", "b2", "B"), ("3", "b2", "C"), ("4", "b3", "B")):
        keep(releases, release(name, build, template), template, tmp_path)
    package = tmp_path / "package.zip"
    releases.keep_package("failed", package)
    assert releases.forget_older(["3", "4"]) == ["3", "4"]
    assert len(keys()) == 11
    assert releases.forget_older(["1", "2", "3", "4"]) == ["3", "4"]
    assert keys() == {
        "releases/3.json",
        "releases/4.json",
        "packages/b2.zip",
        "packages/b3.zip",
        template_key("B"),
        template_key("C"),
    }


def test_cloudformation_reads_a_template_from_the_bucket(releases: Releases) -> None:
    assert releases.url("A") == f"https://s3.eu-central-1.amazonaws.com/{BUCKET}/{template_key('A')}"
    assert keys() == {template_key("A")}


def test_a_refused_upload_fails_the_deploy(aws: None, tmp_path: Path) -> None:
    (package := tmp_path / "package.zip").write_bytes(b"zip")
    with pytest.raises(DeployError, match=r"package\.zip.*NoSuchBucket"):
        Releases(client, "cafe-missing").keep_package("b1", package)
