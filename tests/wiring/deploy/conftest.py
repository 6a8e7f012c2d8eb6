"""Fixtures for a deploy: its target, skipped pauses, and the lines that it prints."""

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
    """Skips every pause, because the fakes advance whenever their state is read."""
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture
def said() -> list[str]:
    """The lines that the deploy prints."""
    return []
