"""Chromium, in which the console is tested and measured: one that is there, or the system's package."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from local.packages import install as install_packages
from local.packages import program
from local.processes import StackError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APPLICATIONS = (
    Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
    Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
)
# The package of the browser only recommends a font, without which its pictures have no letters.
PACKAGES = ("chromium", "fonts-liberation")
OTHER_BROWSER = "To use a Chromium or a Chrome that is there already, set CHROMIUM to its path."
# Beside those that Playwright gives it anyhow.
FLAGS = ("--disable-gpu", "--disable-quic")


def find(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The browser that CHROMIUM names, or else one that is installed. Raises ``StackError`` where CHROMIUM is wrong."""
    if named := environment.get("CHROMIUM"):
        found = program(named)
        if not found:
            raise StackError(f"CHROMIUM is set to {named!r}, and there is no such program")
        return found
    installed = [found for name in NAMES if (found := program(name))]
    return next(iter([*installed, *(path for path in APPLICATIONS if path.exists())]), None)


def install() -> Path:
    """Install it with the system's package manager. Raises ``StackError`` where that cannot be done."""
    install_packages("Chromium", apt=PACKAGES, brew=["--cask", "chromium"], otherwise=OTHER_BROWSER)
    found = find()
    if not found:
        # Ubuntu's package has no more in it than the way to another one.
        raise StackError(f"Chromium was installed, and its program is not found. {OTHER_BROWSER}")
    return found


@contextmanager
def running(path: Path) -> Iterator[Browser]:
    """The browser at ``path``, without a window, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
