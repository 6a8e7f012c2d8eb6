"""Reads the fields of a JSON object and collects all problems.

A single error response can then name every invalid field.
"""

from __future__ import annotations

from typing import Any

from chalicelib.errors import NAME_CHARACTERS, InvalidRequest, Problem


class Fields:
    """The fields of one JSON object in a request.

    ``place`` is the path of the object in the request body, such as ``orders[1]``. All objects in a request add their
    problems to the same list ``problems``.
    """

    def __init__(self, values: dict[str, Any], problems: list[Problem], place: str = "") -> None:
        self.values = values
        self.problems = problems
        self.place = place

    @classmethod
    def of_body(cls, body: Any, names: tuple[str, ...], *, of: str, expected: str) -> Fields:
        """Returns the fields of a request's body. Raises ``InvalidRequest`` if the body is not a JSON object.

        ``names`` lists the allowed fields. In error messages, ``of`` names the object and ``expected`` describes its
        format.
        """
        problems: list[Problem] = []
        fields = cls.of(body, names, problems, of=of, expected=expected)
        if fields is None:
            raise InvalidRequest(problems)
        return fields

    @classmethod
    def of(
        cls, value: Any, names: tuple[str, ...], problems: list[Problem], place: str = "", *, of: str, expected: str
    ) -> Fields | None:
        """Returns the fields of ``value``, or None if ``value`` is not a JSON object."""
        if not isinstance(value, dict):
            problems.append(Problem(place or "body", f"must be {expected}"))
            return None
        fields = cls(value, problems, place)
        for name in value:
            if name not in names:
                fields.refuse(name[:NAME_CHARACTERS], f"is not a field of {of}")
        return fields

    def path(self, name: str) -> str:
        """Returns the path of the field in the request body."""
        return f"{self.place}.{name}" if self.place else name

    def refuse(self, name: str, message: str) -> None:
        """Records a problem with a field."""
        self.problems.append(Problem(self.path(name), message))

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a field's value unchanged, or ``default`` if the field is missing."""
        return self.values.get(name, default)

    def whole_number(self, name: str, least: int, most: int, *, default: int, unit: str = "") -> int:
        """Returns a field's value as a whole number, or ``default`` if the field is missing or invalid."""
        number = whole_number(self.values.get(name, default))
        if number is None or not least <= number <= most:
            self.refuse(name, f"must be a whole number{unit} from {least:,} to {most:,}")
            return default
        return number

    def check(self) -> None:
        """Raises ``InvalidRequest`` if any field has a problem."""
        if self.problems:
            raise InvalidRequest(self.problems)


def whole_number(value: Any) -> int | None:
    """Returns a JSON value as an integer, or None if it is not a whole number. In JSON, 2.0 is the same number as 2."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    # In Python, True and False are instances of int.
    return value if isinstance(value, int) and not isinstance(value, bool) else None
