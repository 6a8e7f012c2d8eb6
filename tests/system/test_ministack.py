"""Tests that every patch in local/ministack is still needed and makes MiniStack behave like AWS."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.cloud import Cloud
from local.ministack import launcher
from tests.system import ministack_checks
from tests.system.emulator import Emulator, UnpatchedCloud, running

# `make verify-deploy` runs these tests, because a deploy relies on the patches.
pytestmark = pytest.mark.long

PATCHES = [patch.__name__ for patch in launcher.patches()]


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    Cloud(Path(), 0).install()


@pytest.fixture(scope="module")
def unpatched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with running(UnpatchedCloud, tmp_path_factory.mktemp("unpatched")) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with running(Cloud, tmp_path_factory.mktemp("patched")) as emulator:
        yield emulator


def test_every_patch_has_a_check_and_every_check_a_patch() -> None:
    functions = inspect.getmembers(ministack_checks, inspect.isfunction)
    checks = {name for name, each in functions if each.__module__ == ministack_checks.__name__ and name[0] != "_"}
    assert checks == set(PATCHES)
    assert len(PATCHES) == len(set(PATCHES))


@pytest.mark.parametrize("name", PATCHES)
def test_without_its_patch_ministack_differs_from_aws(unpatched: Emulator, name: str) -> None:
    assert not getattr(ministack_checks, name)(unpatched), "MiniStack now behaves as AWS: delete the patch"


@pytest.mark.parametrize("name", PATCHES)
def test_with_its_patch_ministack_behaves_as_aws(patched: Emulator, name: str) -> None:
    assert getattr(ministack_checks, name)(patched)


def test_another_version_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "version", lambda name: "1.6.0")
    # MiniStack is not installed in the test environment, but the launcher checks the version before the import.
    refused = r"^MiniStack 1\.6\.0 is installed, .* for 1\.5\.33: .*\.py says how to upgrade$"
    with pytest.raises(SystemExit, match=refused) as refusal:
        launcher.main()
    assert "\n" not in str(refusal.value)
