"""Decides when a message is tried again after a failure that may pass."""

from __future__ import annotations

import random

from chalicelib.settings import first_retry_seconds, longest_retry_seconds

# A message that still fails after a day waits for a person.
GIVE_UP_SECONDS = 86_400
# 2 ** 20 seconds is more than any longest pause, and larger powers are slow to compute.
DOUBLINGS = 20


def pause(tries: int) -> int:
    """Returns the seconds until the next try of a message that has failed ``tries`` times.

    The pause doubles with each try. A random part of up to half of it spreads the retries after an outage.
    """
    longest = min(longest_retry_seconds(), first_retry_seconds() * 2 ** min(max(tries - 1, 0), DOUBLINGS))
    return round(random.uniform(longest / 2, longest))  # noqa: S311 - not for cryptography  # nosec B311
