"""Prepares texts from MySQL for people. HTML is escaped later, by the template."""

from __future__ import annotations

import re
import unicodedata

# Matches characters that change the writing direction of the following text, even outside their HTML element.
DIRECTION_CHARACTERS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Substitutes U+FFFD for all characters in ``text`` that change the writing direction."""
    return DIRECTION_CHARACTERS.sub("\ufffd", text)


def visible(text: str) -> str:
    """Returns ``text`` without surrounding white space, or an empty string if no character is visible."""
    return text.strip() if any(unicodedata.category(character)[0] not in "ZC" for character in text) else ""


def bean_name(name: str) -> str:
    """Returns a bean's name for people, or a substitute if the bean is unnamed."""
    return visible(name) or "Unnamed bean"


def supplier_name(supplier_id: str, name: str) -> str:
    """Returns a supplier's name for people, or a substitute if the supplier is unnamed or missing."""
    if not supplier_id:
        return "No supplier on record"
    return visible(name) or f"Unnamed supplier {supplier_id}"
