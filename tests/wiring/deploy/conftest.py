"""Defines fixtures for deploy tests that set the target, skip pauses or collect the printed lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.deploy.target import Target
from tests.wiring.stage import place


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target("test", tmp_path / "project", False, {}, place())


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips every pause of a deploy, because the fakes change their state whenever it is read."""
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture
def said() -> list[str]:
    """Returns the list to which a deploy adds the lines that it prints."""
    return []
