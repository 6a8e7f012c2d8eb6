"""Reads CloudFormation templates as Python data."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import yaml


class Loader(yaml.CSafeLoader):
    """YAML with CloudFormation's short forms: ``!Sub x`` is ``{"Fn::Sub": "x"}``."""


def _short_form(loader: Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        raise TypeError(f"!{name}: tests/template.py does not know this form")
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


Loader.add_multi_constructor("!", _short_form)


@cache
def parsed(text: str) -> dict[str, Any]:
    """Returns the template that all callers share, and that none of them changes."""
    template: dict[str, Any] = yaml.load(text, Loader)
    return template


def load(text: str) -> dict[str, Any]:
    """Returns a copy of the template for the caller to change."""
    return deepcopy(parsed(text))
