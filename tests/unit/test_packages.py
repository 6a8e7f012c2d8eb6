"""Tests that system programs are found or installed, or that the error says what to do."""

import os
import sys
from pathlib import Path

import pytest

from local import chromium, packages
from local.database import Database
from local.processes import StackError


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a temporary folder the whole PATH, and makes the user root."""
    for name in ("env", "sh", "touch"):
        (tmp_path / name).symlink_to(Path("/usr/bin") / name)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    monkeypatch.setattr(packages, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(packages, "SYSTEM_FOLDERS", ())
    monkeypatch.setattr(chromium, "APPLICATIONS", ())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


def put(folder: Path, name: str, script: str = "") -> Path:
    """Creates a program that records its arguments and then runs ``script``."""
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "{name} $*" >> "$ASKED"\n{script}\n')
    path.chmod(0o755)
    return path


def calls(folder: Path) -> list[str]:
    return (folder / "asked").read_text().splitlines()


def test_chromium_is_found_under_each_of_its_names(machine: Path) -> None:
    assert chromium.find({}) is None
    chrome = put(machine, "google-chrome")
    assert chromium.find({}) == chrome
    assert chromium.find({"CHROMIUM": ""}) == chrome
    debians = put(machine, "chromium")
    assert chromium.find({}) == debians


def test_the_variable_overrides_the_search_and_must_be_valid(machine: Path) -> None:
    put(machine, "chromium")
    mine = put(machine, "mine")
    assert chromium.find({"CHROMIUM": str(mine)}) == mine
    assert chromium.find({"CHROMIUM": "mine"}) == mine
    with pytest.raises(
        StackError,
        match="CHROMIUM is /nowhere/chrome, but no such program exists: set CHROMIUM to the path of a browser",
    ):
        chromium.find({"CHROMIUM": "/nowhere/chrome"})


def test_a_package_is_installed_without_removing_any_other(machine: Path) -> None:
    put(machine, "apt-get", f'touch "{machine}/chromium"; /bin/chmod +x "{machine}/chromium"')
    assert chromium.install() == machine / "chromium"
    assert calls(machine) == ["apt-get --yes install --no-remove --no-install-recommends chromium fonts-liberation"]


def test_old_package_lists_are_updated_and_the_installation_is_retried(machine: Path) -> None:
    put(machine, "apt-get", f'case "$*" in *update) touch "{machine}/new";; *) test -e "{machine}/new";; esac')
    Database(machine, 1).install()
    assert [line.split()[2] for line in calls(machine)] == ["install", "update", "install"]


def test_a_failed_installation_is_an_error_with_its_reason_and_another_way(machine: Path) -> None:
    put(machine, "apt-get", "echo E: Unable to locate package; exit 100")
    with pytest.raises(
        StackError, match=r"(?s)Unable to locate package.*To use an existing Chromium .* set CHROMIUM to its path"
    ):
        chromium.install()
    with pytest.raises(StackError, match=r"(?s)Unable to locate package.*To use an existing MySQL .* set CAFE_DB_HOST"):
        Database(machine, 1).install()


def test_a_package_that_does_not_contain_the_program_is_an_error(machine: Path) -> None:
    put(machine, "apt-get")
    with pytest.raises(StackError, match="Chromium package was installed, but it contains no browser"):
        chromium.install()


@pytest.mark.parametrize("person", [0, 1000])
def test_without_a_package_manager_nothing_is_tried(
    machine: Path, monkeypatch: pytest.MonkeyPatch, person: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: person)
    if person:
        put(machine, "apt-get")
    with pytest.raises(StackError, match="Chromium is not installed, and neither apt-get nor brew can install it here"):
        chromium.install()
    assert not (machine / "asked").exists()


def test_without_root_sudo_installs_without_a_password(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    put(machine, "apt-get")
    put(machine, "sudo")
    Database(machine, 1).install()
    assert calls(machine)[0].startswith("sudo -n env DEBIAN_FRONTEND=noninteractive apt-get --yes install")


def test_on_macos_brew_installs_it(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    put(machine, "brew", f'touch "{machine}/chromium"; /bin/chmod +x "{machine}/chromium"')
    assert chromium.install() == machine / "chromium"
    Database(machine, 1).install()
    assert calls(machine) == ["brew install --cask chromium", "brew install mariadb"]
