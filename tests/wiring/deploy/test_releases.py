"""What is kept with the stage: releases, in their order, and all that it takes to put one back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.deploy import releases as module
from infra.deploy.project import RUNTIME
from infra.deploy.releases import Release, Releases, State, template_key
from infra.deploy.target import DeployError
from tests.wiring.fakes import DEPLOYED

BUCKET = "cafe-test-deploys-123456789012"


@pytest.fixture
def releases(aws: None) -> Releases:
    boto3.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    return Releases(lambda service: boto3.client(service), BUCKET)  # type: ignore[call-overload]


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
    return {each["Key"] for each in boto3.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])}


def test_a_stage_that_was_never_deployed_has_no_release(releases: Releases) -> None:
    assert releases.state() == State()
    assert releases.state().serving is None


def test_a_deploy_under_way_says_who_began_and_when_until_it_has_ended(releases: Releases) -> None:
    releases.end(["one"])
    releases.begin(releases.state(), "arn:ana")
    state = releases.state()
    assert state.serving == "one"
    assert state.under_way
    assert state.under_way["by"] == "arn:ana"
    assert state.under_way["since"].endswith("Z")
    releases.end(["one", "two"])
    assert releases.state() == State(["one", "two"])


def test_a_release_comes_back_as_it_was_kept(releases: Releases, tmp_path: Path) -> None:
    kept = release("one")
    keep(releases, kept, "A", tmp_path)
    assert releases.release("one") == kept
    assert releases.template(kept.stacks["cafe-test-resources"]["template"]) == "A"
    releases.fetch_package("b1", tmp_path / "fetched.zip")
    assert (tmp_path / "fetched.zip").read_bytes() == b"zip"


def test_a_release_that_is_gone_is_named(releases: Releases) -> None:
    with pytest.raises(DeployError, match="the release lost is not there"):
        releases.release("lost")


def test_older_releases_go_with_what_only_they_need(
    releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    for name, build, template in (("1", "b1", "A"), ("2", "b2", "B"), ("3", "b2", "C"), ("4", "b3", "B")):
        keep(releases, release(name, build, template), template, tmp_path)
    assert releases.forget_older(["1", "2", "3", "4"]) == ["3", "4"]
    assert keys() == {
        "releases/3.json",
        "releases/4.json",
        "packages/b2.zip",
        "packages/b3.zip",
        template_key("B"),
        template_key("C"),
    }


def test_as_many_releases_as_are_kept_stay(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    assert releases.forget_older(["1", "2"]) == ["1", "2"]


def test_cloudformation_reads_a_template_where_it_was_put(releases: Releases) -> None:
    assert releases.url("A") == f"https://s3.eu-central-1.amazonaws.com/{BUCKET}/{template_key('A')}"
    assert keys() == {template_key("A")}
