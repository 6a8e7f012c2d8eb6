"""CloudFormation templates as Python data, read once each."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

from infra.template import parse

# All callers share what it returns, so none of them changes it.
parsed = cache(parse)


def load(text: str) -> dict[str, Any]:
    """Returns a copy of the template for the caller to change."""
    return deepcopy(parsed(text))
