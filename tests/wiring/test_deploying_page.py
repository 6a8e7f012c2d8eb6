"""docs/deploying.md and the README's section on AWS: their figures are those of the code."""

from __future__ import annotations

import re

import pytest

from infra.deploy import preflight, project, releases
from infra.deploy.target import REPOSITORY
from infra.functions import NAMES
from tests.deploying.account import LISTS
from tests.deploying.test_life import STEPS


@pytest.fixture(scope="module")
def text() -> str:
    return " ".join((REPOSITORY / "docs" / "deploying.md").read_text().split())


def test_what_it_counts_is_so(text: str) -> None:
    for words, number in {
        r"a stage has (\d+) functions": len(NAMES),
        r"for each of the last (\w+) releases": {10: "ten"}[releases.KEPT],
        r"is empty \| yes, (\d+) lists": len(LISTS),
        r"a deploy killed after each of (\d+) steps": len(STEPS),
    }.items():
        [told] = re.findall(words, text)
        assert told == str(number), words
    versions = [each.removeprefix("python") for each in project.RUNTIMES]
    assert f"{', '.join(versions[:-1])} or {versions[-1]}: they get" in text


def test_the_policy_fits_into_a_role_and_not_into_a_managed_policy_or_a_user(text: str) -> None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: white space does not count."""
    size = len(re.sub(r"\s", "", preflight.POLICY.read_text()))
    assert 6_144 < size <= 10_240
    assert "it is too long for a managed policy, and for a user" in text


def test_the_readmes_section_on_aws_is_ten_lines_and_says_how_to_deploy_go_back_and_end_it() -> None:
    section = (REPOSITORY / "README.md").read_text().split("\n## Deploying to AWS\n")[1].split("\n## ")[0].strip()
    assert len(section.splitlines()) <= 10
    for needed in (
        "infra/deployer-policy.json",
        "make deploy STAGE=",
        "make user STAGE=",
        "make rollback STAGE=",
        "make destroy STAGE=",
        "KEEP_DATA=1",
        "docs/deploying.md",
        "dollars a month",
    ):
        assert needed in section
