"""Tests the functions with the oldest and the newest AWS SDK that a Lambda runtime can have.

Lambda's runtimes contain the SDK, and AWS changes it without a deploy. The two versions are in the requirements files.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wiring.stage import ROOT

pytestmark = pytest.mark.long

# The tests of the modules that use more of botocore than its operations: its session, its events, how it parses and
# streams answers, and its errors.
TESTED = ("announce", "clients", "dead_letters", "errors", "functions", "inventory", "queues", "render", "storage")


@pytest.mark.parametrize("age", ["oldest", "newest"])
def test_the_functions_run_with_the_sdk(age: str, tmp_path: Path) -> None:
    lock = ROOT / "tests" / "deploying" / f"{age}-sdk-requirements.txt"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([*pip, "--require-hashes", f"--target={tmp_path}", f"--requirement={lock}"], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    ask = [sys.executable, "-c", "import botocore; print(botocore.__version__)"]
    used = subprocess.run(ask, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert re.search(rf"^botocore=={re.escape(used)} ", lock.read_text(), re.MULTILINE)
    files = [f"tests/unit/test_{name}.py" for name in TESTED]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
