"""Saves evidence of failed tests, such as logs and screenshots, in ``.local/failures``."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.system import System

FAILURES = Path(__file__).parents[2] / ".local" / "failures"
# This stash entry maps each phase of a test (setup, call or teardown) to the report of that phase.
REPORTS = pytest.StashKey[dict[str, pytest.TestReport]]()


def failed(node: pytest.Item) -> bool:
    """Returns whether the test failed. Fixtures call this function in their teardown."""
    report = node.stash.get(REPORTS, {}).get("call")
    return bool(report and report.failed)


def folder_of(nodeid: str) -> Path:
    """Returns the folder for a test's evidence, and creates it if necessary."""
    folder = FAILURES / re.sub(r"[^\w.-]+", "_", nodeid.removeprefix("tests/"))[:150]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save_logs(system: System, folder: Path, since: float) -> None:
    """Saves the function logs since the Unix time ``since``, and the logs of all servers."""
    logs = system.aws("logs")
    for group in logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/")["logGroups"]:
        name = group["logGroupName"]
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=name, startTime=int(since * 1000))
        text = "\n".join(event["message"].rstrip() for page in pages for event in page["events"])
        if text:
            (folder / f"{name.rpartition('/')[2]}.log").write_text(text + "\n")
    for process in system.stack.processes.values():
        if process.log.exists():
            shutil.copy(process.log, folder)
