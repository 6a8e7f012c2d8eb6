"""Installs programs with the system's package manager: apt-get on Debian and Ubuntu, brew on macOS."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from local.processes import StackError, exclusive_lock, run_quietly

# Only one package manager can run at a time, so commands in this checkout wait for each other.
LOCK = Path(__file__).parent.parent / ".local" / "packages.lock"

# Debian installs server programs in these folders, which are often missing from PATH.
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")


def install(name: str, *, apt: Sequence[str], brew: Sequence[str], alternative: str) -> None:
    """Installs the program ``name`` with the system's package manager.

    If the installation fails, raises ``StackError`` with a message that ends with ``alternative``.
    """
    if sys.platform == "darwin" and shutil.which("brew"):
        refresh, install = ["brew", "update"], ["brew", "install", *brew]
    elif shutil.which("apt-get") and (os.geteuid() == 0 or shutil.which("sudo")):
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        manager = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes"]
        # The option --no-remove keeps apt-get from removing conflicting packages.
        install = [*manager, "install", "--no-remove", "--no-install-recommends", *apt]
        refresh = [*manager, "update"]
    else:
        raise StackError(f"{name} is not installed, and neither apt-get nor brew can install it here. {alternative}")
    with exclusive_lock(LOCK):
        try:
            try:
                run_quietly(*install)
            except StackError:
                # The package manager's lists may be missing or out of date.
                run_quietly(*refresh)
                run_quietly(*install)
        except StackError as error:
            raise StackError(f"{error}\n{alternative}") from None


def find_program(name: str) -> Path | None:
    """Returns the path of an installed program."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_FOLDERS]))
    return Path(found) if found else None
