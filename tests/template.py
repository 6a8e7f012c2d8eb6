"""Reads the CloudFormation templates in ``infra/`` for all tests."""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

from infra.template import parse


@cache
def _parsed(text: str) -> bytes:
    return pickle.dumps(parse(text))


def load(text: str) -> dict[str, Any]:
    """Returns a parsed template that the caller may change. Each template is parsed only once per process."""
    template: dict[str, Any] = pickle.loads(_parsed(text))
    return template
