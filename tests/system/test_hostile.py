"""What the API does with requests that nobody meant well: as its description says, and never a 500."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.system.conftest import ROOT, System

CONFIG = Path(__file__).with_name("schemathesis.toml")
# Enough to reach each check on each route, and always the same requests: a failure repeats.
EXAMPLES = 12
SEED = 20261121


def test_the_api_keeps_its_description_whatever_is_sent(system: System, tmp_path: Path) -> None:
    """Every check of schemathesis on every route: no 500, documented statuses, types, headers and bodies, no request
    refused that the description allows, none taken that it forbids."""
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [
            *(program, "--config-file", CONFIG, "run", f"{system.env['CAFE_API_URL']}/openapi.json"),
            *("--max-examples", str(EXAMPLES), "--seed", str(SEED), "--no-color", "--warnings", "off"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    # It has tried every route, and not stopped at a server that did not answer.
    routes = json.loads((ROOT / "chalicelib" / "openapi.json").read_text())["paths"]
    operations = sum(len(methods) for methods in routes.values())
    assert f"Tested: {operations}\n" in done.stdout
    assert int(re.findall(r"([0-9]+) generated", done.stdout)[0]) > 100 * len(routes) / 2
