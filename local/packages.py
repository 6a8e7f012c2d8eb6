"""Programs that the system's package manager installs: apt-get on Debian and Ubuntu, brew on macOS."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from local.processes import StackError, only_one, run_quietly

# The package managers refuse to work twice at a time; of this checkout's commands, one waits for the other.
LOCK = Path(__file__).parent.parent / ".local" / "packages.lock"

# Debian keeps servers there, which is not on everybody's PATH.
PLACES = ("/usr/sbin", "/usr/local/sbin")


def install(name: str, *, apt: Sequence[str], brew: Sequence[str], otherwise: str) -> None:
    """Install the packages, of the one name or the other, that make up the program ``name``.

    Raises ``StackError`` where that cannot be done; ``otherwise`` says what else helps.
    """
    if sys.platform == "darwin" and shutil.which("brew"):
        refreshing, installing = ["brew", "update"], ["brew", "install", *brew]
    elif shutil.which("apt-get") and (os.geteuid() == 0 or shutil.which("sudo")):
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        manager = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes"]
        # What is in their way stays.
        installing = [*manager, "install", "--no-remove", "--no-install-recommends", *apt]
        refreshing = [*manager, "update"]
    else:
        raise StackError(f"{name} is not installed, and neither apt-get nor brew can do it here. {otherwise}")
    with only_one(LOCK):
        try:
            try:
                run_quietly(*installing)
            except StackError:
                # Perhaps the lists of packages are missing or old.
                run_quietly(*refreshing)
                run_quietly(*installing)
        except StackError as error:
            raise StackError(f"{error}\n{otherwise}") from None


def program(name: str) -> Path | None:
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))
    return Path(found) if found else None
