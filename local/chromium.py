"""Finds, installs and runs Chromium for the console's tests and benchmarks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from local.packages import find_program
from local.packages import install as install_packages
from local.processes import StackError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APPLICATIONS = (
    Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
    Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
)
# The chromium package installs no fonts, and screenshots taken without fonts would contain no text.
PACKAGES = ("chromium", "fonts-liberation")
USE_OTHER_BROWSER = "To use an existing Chromium or Chrome, set CHROMIUM to its path."
# The browser starts with these flags in addition to Playwright's own flags.
FLAGS = ("--disable-gpu", "--disable-quic")


def find(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Returns the path of the browser in CHROMIUM, or of an installed browser if CHROMIUM is not set.

    Returns None if no browser is installed. Raises ``StackError`` if CHROMIUM names a program that does not exist.
    """
    if name := environment.get("CHROMIUM"):
        path = find_program(name)
        if not path:
            raise StackError(f"CHROMIUM is {name}, but no such program exists: set CHROMIUM to the path of a browser")
        return path
    installed = [path for name in NAMES if (path := find_program(name))]
    return next(iter([*installed, *(path for path in APPLICATIONS if path.exists())]), None)


def install() -> Path:
    """Installs Chromium with the system's package manager. Raises ``StackError`` if the installation fails."""
    install_packages("Chromium", apt=PACKAGES, brew=["--cask", "chromium"], alternative=USE_OTHER_BROWSER)
    path = find()
    if not path:
        # Ubuntu's Chromium package contains only a reference to a snap.
        raise StackError(f"the Chromium package was installed, but it contains no browser. {USE_OTHER_BROWSER}")
    return path


@contextmanager
def running(path: Path) -> Iterator[Browser]:
    """Runs the browser at ``path`` headless, under Playwright's control."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
