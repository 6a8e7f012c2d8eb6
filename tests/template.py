"""Reads the CloudFormation templates in ``infra/``, for the tests of every folder."""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

from infra.template import parse


@cache
def _parsed(text: str) -> bytes:
    return pickle.dumps(parse(text))


def load(text: str) -> dict[str, Any]:
    """Returns a template as a document of the caller's own; each text is parsed once in a process."""
    template: dict[str, Any] = pickle.loads(_parsed(text))
    return template
