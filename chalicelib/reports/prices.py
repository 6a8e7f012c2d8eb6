"""Reads prices, which are stored as people write them, but only if a price has one possible reading."""

from __future__ import annotations

import re
from decimal import Decimal

from chalicelib.names import fold
from chalicelib.settings import DOLLAR

# A price may have a comma or a point before decimals. Points, commas, spaces or apostrophes may separate thousands. A
# price with more than nine digits before the decimals is treated as a mistake.
PLAIN = re.compile(r"([0-9]{1,9})(?:[.,]([0-9]{1,4}))?")
GROUPED = re.compile(r"([1-9][0-9]{0,2}(?:([.,' ’])[0-9]{3})(?:\2[0-9]{3})?)(?:(?!\2)[.,]([0-9]{1,4}))?")
# Most prices have this form, which needs no other step.
USUAL = re.compile(r"[0-9]{1,9}\.[0-9]{2}")
# A price such as ``1.234`` or ``1,234`` could have thousands or decimals.
AMBIGUOUS = re.compile(r"[1-9][0-9]{0,2}[.,][0-9]{3}")


def parse_price(text: str, currency: str = DOLLAR) -> Decimal | None:
    """Returns a price such as ``4.20``, ``12,50 $`` or ``1.234,50`` as a number, or None if it is not one number.

    Returns None for a negative price or another currency, because such a price would make the total wrong.
    """
    if USUAL.fullmatch(text):
        return Decimal(text)
    bare = fold(text)
    bare = bare.removeprefix(currency) if bare.startswith(currency) else bare.removesuffix(currency)
    bare = bare.strip()
    if AMBIGUOUS.fullmatch(bare):
        return None
    if match := PLAIN.fullmatch(bare):
        return Decimal(f"{match[1]}.{match[2] or 0}")
    if match := GROUPED.fullmatch(bare):
        return Decimal(f"{re.sub('[^0-9]', '', match[1])}.{match[3] or 0}")
    return None
