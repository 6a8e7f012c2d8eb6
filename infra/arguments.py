"""Argument types for the command-line programs.

If an argument is invalid, the program prints a one-line error and exits.
"""

from __future__ import annotations

import argparse
import json
import re
from datetime import timedelta
from typing import NoReturn

# RDS rejects names that end with a hyphen or contain two hyphens in a row.
STAGE = re.compile(r"(?!.*(--|-$))[a-z][a-z0-9-]{0,19}")
STAGE_RULE = "at most 20 lower-case letters, digits and single hyphens"
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Parser(argparse.ArgumentParser):
    """An argument parser that prints an error on one line, without the usage message."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def stage(text: str) -> str:
    """Returns a valid stage name unchanged. Raises ``ArgumentTypeError`` if the name is not valid."""
    if not STAGE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"must be {STAGE_RULE}; got {json.dumps(text)}")
    return text


def since(text: str) -> timedelta:
    """Converts ``90s``, ``15m``, ``12h`` or ``7d`` to a duration."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})([smhd])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"must be a duration such as 90s, 15m, 12h or 7d; got {json.dumps(text)}")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def add_user(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``make user`` to a parser. The list ``actions`` contains what to do to an existing user."""
    for name in ("name", "group"):
        parser.add_argument(name)
    for action, about in (
        ("disable", "refuse every sign-in of this user"),
        ("enable", "let a disabled user sign in again"),
        ("remove", "delete this user"),
    ):
        parser.add_argument(f"--{action}", dest="actions", action="append_const", const=action, default=[], help=about)
    parser.add_argument("--yes", action="store_true", help="disable or remove even the last manager")
