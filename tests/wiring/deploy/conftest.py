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
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Skips every pause of a deploy, because the fakes change their state whenever it is read. Returns the seconds."""
    pauses = [0.0]
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses


@pytest.fixture
def said() -> list[str]:
    """Returns the list to which a deploy adds the lines that it prints."""
    return []
