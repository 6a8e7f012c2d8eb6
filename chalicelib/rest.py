"""Reads the caller, body and query parameters of a REST request. Errors name the invalid field or parameter."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, NamedTuple, NoReturn, cast

from chalice.app import MultiDict, Request

from chalicelib.errors import NAME_CHARACTERS, BodyTooLarge, InvalidRequest, Problem

BODY_BYTES = 1_000_000
# Maximum nesting depth of JSON in a request. The limit of the built-in JSON parser depends on the Python version.
DEPTH = 100
# API Gateway replaces bytes that are not UTF-8 with U+FFFD. JSON may also contain U+FFFD as an escape sequence.
REPLACED = re.compile(rb"\xef\xbf\xbd|(?<!\\)(?:\\\\)*\\u[fF]{3}[dD]")
PAGE_LIMIT = 100
DEFAULT_LIMIT = 50

# Every matching string is accepted, even 31 November, so that chalicelib/openapi.json can describe the exact format. A
# space means a plus sign, because an unescaped plus sign in a URL is decoded as a space.
MOMENT = re.compile(
    r"([12][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,9}))?"
    r"(?:Z|([ +-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)


class Page(NamedTuple):
    """The query parameters of a list, with ``limit`` from 1 to 100, the page token ``next``, and ``filters``."""

    limit: int
    next: str | None
    filters: dict[str, str]


class Caller(NamedTuple):
    """The user who sent a request, as identified by the authorizer."""

    name: str
    groups: tuple[str, ...]

    @property
    def is_manager(self) -> bool:
        return "managers" in self.groups


def caller(request: Request) -> Caller:
    """Returns the user who sent the request. The request's route must have an authorizer."""
    identity = request.context["authorizer"]
    return Caller(identity["principalId"], tuple(identity["groups"].split(",")))


def route(request: Request) -> str:
    """Returns the request's method and route, such as ``GET /orders/{order_id}``."""
    return f"{request.method} {request.context['resourcePath']}"


def idempotency_key(request: Request) -> str | None:
    key: str | None = request.headers.get("idempotency-key")
    return key


def body(request: Request, *, nothing: Any = None) -> Any:
    """Returns the request's JSON body, or ``nothing`` if the body is empty.

    Raises ``BodyTooLarge`` if the body is larger than 1 MB, and ``InvalidRequest`` if it is not JSON. Chalice's own
    ``json_body`` is not used, because it accepts ``NaN`` and returns a 500 for deeply nested JSON.
    """
    raw = cast(bytes, request.raw_body)
    if len(raw) > BODY_BYTES:
        raise BodyTooLarge(len(raw), BODY_BYTES)
    if not raw.strip():
        return nothing
    try:
        # Given bytes, json.loads would also accept UTF-16, which API Gateway does not pass on.
        content = json.loads(raw.decode("utf-8-sig", "surrogatepass"), parse_constant=_refuse_constant)
    except RecursionError:
        raise _invalid_body("is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise _invalid_body(f"is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise _invalid_body(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:
        # Python limits the number of digits, but its own error message is meant for programmers.
        raise _invalid_body("contains a number with too many digits") from None
    if _is_too_deep(content):
        raise _invalid_body("is nested too deeply")
    return content


def utf8_body(request: Request) -> Any:
    """Returns the request's JSON body. Raises ``InvalidRequest`` if its sender did not encode the body in UTF-8."""
    content = body(request)
    if replaced := REPLACED.search(cast(bytes, request.raw_body)):
        message = f"contains U+FFFD (byte {replaced.start()}), which replaces bytes that are not UTF-8; send UTF-8"
        raise _invalid_body(message)
    return content


def _invalid_body(message: str) -> InvalidRequest:
    return InvalidRequest([Problem("body", message)])


def _refuse_constant(name: str) -> NoReturn:
    raise _invalid_body(f"is not JSON: {name} is not a JSON number")


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
    """Returns the query parameters of a list. Raises ``InvalidRequest`` if a parameter is invalid."""
    given, number = _list_parameters(request, "limit", "next", *filters)
    return Page(number, given.get("next"), {name: given[name] for name in filters if name in given})


def limit(request: Request) -> int:
    """Returns ``limit``, the only query parameter of a list without pages.

    Raises ``InvalidRequest`` for invalid values.
    """
    return _list_parameters(request, "limit")[1]


def parameters(request: Request, *names: str) -> dict[str, str]:
    """Returns the query parameters of a route that is not a list. Raises ``InvalidRequest`` for invalid values."""
    given, problems = _read_parameters(request, names)
    if problems:
        raise InvalidRequest(problems)
    return {name: given[name] for name in names if name in given}


def _list_parameters(request: Request, *allowed: str) -> tuple[MultiDict, int]:
    """Returns the query parameters of a list, and the value of ``limit`` as a number."""
    given, problems = _read_parameters(request, allowed)
    text = given.get("limit", str(DEFAULT_LIMIT))
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(PAGE_LIMIT)) else 0
    if not 1 <= number <= PAGE_LIMIT:
        problems.append(Problem("limit", f"must be a whole number from 1 to {PAGE_LIMIT}"))
    if problems:
        raise InvalidRequest(problems)
    return given, number


def _read_parameters(request: Request, allowed: tuple[str, ...]) -> tuple[MultiDict, list[Problem]]:
    """Returns the query parameters and a ``Problem`` for each unknown or repeated parameter."""
    given: MultiDict = request.query_params or MultiDict({})
    unknown = f"is not one of the parameters of this route: {', '.join(allowed)}"
    problems = [Problem(name[:NAME_CHARACTERS], unknown) for name in given if name not in allowed]
    counts = {name: len(given.getlist(name)) for name in given}
    problems += [
        Problem(name[:NAME_CHARACTERS], f"is given {count} times") for name, count in counts.items() if count > 1
    ]
    return given, problems


def moment(name: str, text: str) -> datetime:
    """Returns the time in the query parameter ``name``. Raises ``InvalidRequest`` if it has no UTC offset."""
    match = MOMENT.fullmatch(text)
    if match is None:
        message = "must be a time with a UTC offset, such as 2026-11-21T00:00:00+01:00"
        raise InvalidRequest([Problem(name, message)])
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    fraction, sign, hours, minutes = match.groups()[6:]
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    zone = timezone(-offset if sign == "-" else offset)
    at = time(hour, minute, second, int((fraction or "").ljust(6, "0")[:6]))
    return datetime.combine(date(year, month, 1) + timedelta(days=day - 1), at, zone)


def base_url(request: Request) -> str:
    """Returns the absolute URL of the API. Behind API Gateway, the URL includes the stage path."""
    scheme = request.headers.get("x-forwarded-proto", "http")
    path: str = request.context.get("path") or request.path
    return f"{scheme}://{request.headers.get('host', 'localhost')}{path.removesuffix(request.path)}"
