"""Runs the tests that need no deployed stack under each Python version that the functions can use.

The command is ``python -m tests.pythons [3.14 …]``.

Each version has its own virtual environment in ``.local/pythons`` and builds its own deployment package. The summary
names the versions that are not installed on this machine. A version that is named on the command line must be
installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
# The versions are copied from infra/deploy/project.py, because importing that module needs the project's requirements.
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
ENVIRONMENTS = ROOT / ".local" / "pythons"
REQUIREMENTS = ROOT / "requirements-dev.txt"
TESTS = ("tests/unit", "tests/wiring", "tests/deploying/test_package.py")


def find(version: str) -> Path | None:
    """Returns an interpreter that really runs as this version.

    The pyenv commands fail for versions that are not selected.
    """
    for candidate in _candidates(version):
        with_version = [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        said = subprocess.run(with_version, capture_output=True, text=True)
        if said.stdout.strip() == version:
            return candidate
    return None


def _candidates(version: str) -> Iterator[Path]:
    for name in (f"python{version}", "python3"):
        if found := shutil.which(name):
            yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python"))


def environment(version: str, interpreter: Path) -> Path:
    """Returns the interpreter of the version's virtual environment, after creating or updating it if necessary."""
    folder = ENVIRONMENTS / version
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    stamp, python = folder / "requirements", folder / "bin" / "python"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"Python {version}: installing the tests' requirements into {folder.relative_to(ROOT)}", flush=True)
        subprocess.run([interpreter, "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--require-hashes", "-r", REQUIREMENTS], check=True)
        stamp.write_text(wanted)
    return python


def outcome(version: str) -> str:
    """Runs the tests, and returns ``passed``, ``failed``, ``not on this machine``, or an installation error."""
    interpreter = find(version)
    if interpreter is None:
        return "not on this machine"
    try:
        python = environment(version, interpreter)
    except subprocess.CalledProcessError:
        return "failed: its requirements could not be installed"
    print(f"Python {version}: {interpreter}", flush=True)
    # Compiled ``.pyc`` files would change the built package.
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [python, "-m", "pytest", "-m", "", "-q", "-n", "2", "-p", "no:cacheprovider", *TESTS]
    return "failed" if subprocess.run(command, cwd=ROOT, env=variables).returncode else "passed"


def main(named: list[str]) -> int:
    if unknown := [each for each in named if each not in VERSIONS]:
        print(f"{', '.join(unknown)}: not supported; use {', '.join(VERSIONS)}", file=sys.stderr)
        return 2
    outcomes = {version: outcome(version) for version in named or VERSIONS}
    print("\nThe tests under each Python")
    for version, said in outcomes.items():
        print(f"  {version}  {said}")
    ran = [said for said in outcomes.values() if said in ("passed", "failed")]
    good = ("passed",) if named else ("passed", "not on this machine")
    return 0 if ran and all(said in good for said in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
