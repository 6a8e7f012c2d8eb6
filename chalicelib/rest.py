"""What the REST routes have in common: who calls, a body, and a list's parameters, with errors that name the field."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, NoReturn

from chalice.app import MultiDict, Request

from chalicelib.errors import NAME_CHARACTERS, BodyTooLarge, InvalidRequest

BODY_BYTES = 1_000_000
# Brackets within brackets. Python's own parser takes a thousand or ten thousand of them, by its version.
DEPTH = 100
PAGE_LIMIT = 100
DEFAULT_LIMIT = 50

TOO_DEEP = "body: its brackets are nested too deeply"


class Page(NamedTuple):
    """A list's parameters: ``limit`` from 1 to 100, the token ``next``, and the list's own ``filters``."""

    limit: int
    next: str | None
    filters: dict[str, str]


class Caller(NamedTuple):
    """Who sent a request, by the token that came with it."""

    name: str
    groups: tuple[str, ...]

    @property
    def is_manager(self) -> bool:
        return "managers" in self.groups


def caller(request: Request) -> Caller:
    """Who sent it, as the authorizer has said; only for routes that have one."""
    said = request.context["authorizer"]
    return Caller(said["principalId"], tuple(said["groups"].split(",")))


def body(request: Request, *, nothing: Any = None) -> Any:
    """The request's body as JSON; ``nothing`` where there is none.

    Raises ``BodyTooLarge`` over 1 MB and ``InvalidRequest`` for what is no JSON. Chalice's own ``json_body`` answers
    500 for brackets nested too deeply, and takes ``NaN``.
    """
    raw = request.raw_body
    if len(raw) > BODY_BYTES:
        raise BodyTooLarge(len(raw), BODY_BYTES)
    if not raw.strip():
        return nothing
    try:
        content = json.loads(raw, parse_constant=_no_constant)
    except RecursionError:
        raise InvalidRequest([TOO_DEEP]) from None
    except UnicodeDecodeError as error:
        raise InvalidRequest([f"body: is not UTF-8 at byte {error.start}"]) from None
    except json.JSONDecodeError as error:
        raise InvalidRequest([f"body: is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"]) from None
    except ValueError:
        # Python's own limit, of which its message speaks to programmers.
        raise InvalidRequest(["body: has a number with too many digits"]) from None
    if _is_too_deep(content):
        raise InvalidRequest([TOO_DEEP])
    return content


def _is_too_deep(content: Any) -> bool:
    level = [content]
    for _ in range(DEPTH + 1):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        if not inner:
            return False
        level = inner
    return True


def page(request: Request, *filters: str) -> Page:
    """``limit``, ``next`` and the ``filters`` of a list's query string. Raises ``InvalidRequest``."""
    given, number = _parameters(request, "limit", "next", *filters)
    return Page(number, given.get("next"), {name: given[name] for name in filters if name in given})


def limit(request: Request) -> int:
    """``limit``, the only parameter of a list without pages. Raises ``InvalidRequest``."""
    return _parameters(request, "limit")[1]


def parameters(request: Request, *names: str) -> dict[str, str]:
    """Those of ``names`` that a route which gives no list was asked with. Raises ``InvalidRequest``."""
    given, problems = _given(request, names)
    if problems:
        raise InvalidRequest(problems)
    return {name: given[name] for name in names if name in given}


def _parameters(request: Request, *allowed: str) -> tuple[MultiDict, int]:
    """The parameters of a list, and its limit."""
    given, problems = _given(request, allowed)
    text = given.get("limit", str(DEFAULT_LIMIT))
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(PAGE_LIMIT)) else 0
    if not 1 <= number <= PAGE_LIMIT:
        problems.append(f"limit: must be a whole number from 1 to {PAGE_LIMIT}")
    if problems:
        raise InvalidRequest(problems)
    return given, number


def _given(request: Request, allowed: tuple[str, ...]) -> tuple[MultiDict, list[str]]:
    """The parameters, and what is wrong with them: each must be allowed, and there once."""
    given: MultiDict = request.query_params or MultiDict({})
    problems = [
        f"{name[:NAME_CHARACTERS]}: is not a parameter of this route, which takes {', '.join(allowed)}"
        for name in given
        if name not in allowed
    ]
    problems += [
        f"{name[:NAME_CHARACTERS]}: is there {len(given.getlist(name))} times"
        for name in given
        if len(given.getlist(name)) > 1
    ]
    return given, problems


def _no_constant(name: str) -> NoReturn:
    raise InvalidRequest([f"body: is not JSON: {name} is no JSON number"])


def base_url(request: Request) -> str:
    """The API's own absolute URL, with the stage's path behind API Gateway and without it under ``chalice local``."""
    scheme = request.headers.get("x-forwarded-proto", "http")
    path: str = request.context.get("path") or request.path
    return f"{scheme}://{request.headers.get('host', 'localhost')}{path.removesuffix(request.path)}"
