"""Folds names, so that names that look the same are the same name, and shows names in messages."""

from __future__ import annotations

import re
import unicodedata

# Characters without width, such as soft hyphens, joiners, direction marks and byte order marks.
ZERO_WIDTH = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
# An SQL pattern that finds every name that ``fold`` changes, also in several names joined by "|". It also finds some
# names in rare scripts that ``fold`` does not change. ``fold`` keeps every string of the characters in these ranges.
MAYBE_UNFOLDED = (
    "^ | $|  | [|]|[|] |"
    "[^ -~\u00a1-\u00ac\u00ae-\u02ff\u0388-\u0482\u048a-\u052f\u05d0-\u05ea\u0620-\u064a\u0e01-\u0e37\u1e00-\u1eff"
    "\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u3041-\u3098\u309b-\u3163\u3400-\u9fff\uac00-\ud7a3"
    "\U0001f300-\U0001faff]"
)
VALUE_CHARACTERS = 100


def fold(text: str) -> str:
    """Returns ``text`` in Unicode's composed form, trimmed, with single spaces and without zero-width characters."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", ZERO_WIDTH.sub("", text))
    return " ".join(text.split())


def clean(text: str) -> str:
    """Removes white space around ``text``, and converts it to Unicode's composed form."""
    text = text.strip()
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def shortened(text: str) -> str:
    """Returns at most 100 characters of ``text``."""
    return text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…"


def quoted(text: str) -> str:
    """Returns ``text`` in quotation marks, on one line and shortened to 100 characters."""
    shown = (each if each.isprintable() else f"\\u{ord(each):04x}" for each in shortened(text))
    return f"'{''.join(shown)}'"
