"""Reads the CloudFormation templates in ``infra/``, for the tests of every folder."""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

import yaml


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML with CloudFormation's short forms: ``!Sub x`` is ``{"Fn::Sub": "x"}``."""


def _short_form(loader: Any, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        raise TypeError(f"!{name}: cannot read this form")
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


Loader.add_multi_constructor("!", _short_form)


@cache
def _parsed(text: str) -> bytes:
    return pickle.dumps(yaml.load(text, Loader))


def load(text: str) -> dict[str, Any]:
    """Returns a template as a document of the caller's own; each text is parsed once in a process."""
    template: dict[str, Any] = pickle.loads(_parsed(text))
    return template
