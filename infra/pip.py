"""Installs locked Python packages with uv if it is on the PATH, and otherwise with pip. uv is much faster than pip."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def install_command(python: Path | str = sys.executable) -> list[str]:
    """Returns the beginning of a command that installs packages for the Python interpreter ``python``.

    The command refuses packages whose hashes are not in the requirements file.
    """
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--require-hashes", "--python", str(python)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    return [*pip, "install", "--quiet", "--require-hashes"]
