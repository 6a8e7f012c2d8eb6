"""Contains distributions of keys as they occur in buckets, for the benchmark of listing and for property tests.

``KEYSPACES`` maps the name of a distribution to a function. The function takes a number and returns that many different
keys in S3's order, which is the order of their bytes in UTF-8. The same number always gives the same keys.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from random import Random
from uuid import UUID

SHARED = "Exports of the Back Office/" + "a/very/long/shared/prefix/" * 10
WORDS = ("Bean", "bean", "Beans", "Croissant", "croissant", "Espresso", "ESPRESSO", "espresso_macchiato", "Flat White")
SCRIPTS = "咖啡豆茶水奶糖杯店早晚日月春夏秋冬東京北海☕🥐🍩🫘🥛🍰😀🏪éßж"


def _any_script(number: int, random: Random) -> str:
    return f"{''.join(random.choices(SCRIPTS, k=2))}/{''.join(random.choices(SCRIPTS, k=4))}-{number}.jpg"


def _words(number: int, random: Random) -> str:
    """Returns words in mixed case after a long shared prefix."""
    return f"{SHARED}{' '.join(random.choices(WORDS, k=3))}/{random.choice(WORDS)} & <{number}>+~%41.csv"


def _partition(number: int, random: Random) -> str:
    """Returns a file of a Hive partition. Half of the files are in one partition."""
    store = int(1 / (1 - random.random())) % 500
    return f"sales/year={2020 + store % 7}/store={store}/part-{number:05}-{random.getrandbits(32):08x}.parquet"


def _keys(key: Callable[[int, Random], str], number: int) -> list[str]:
    random = Random(number)
    # Python's order of characters is the order of their bytes in UTF-8.
    return sorted(key(each, random) for each in range(number))


KEYSPACES: dict[str, Callable[[int], list[str]]] = {
    "dates": partial(_keys, lambda n, _: f"orders/{date(2024, 1, 1) + timedelta(n % 997):%Y/%m/%d}/{n:07}.json"),
    "uuids": partial(_keys, lambda _, random: str(UUID(int=random.getrandbits(128), version=4))),
    "hashes": partial(_keys, lambda _, random: f"{(digest := f'{random.getrandbits(160):040x}')[:2]}/{digest}"),
    "flat": partial(_keys, lambda n, _: f"receipts/{n:09}.pdf"),
    # Nine tenths of the keys are under one prefix.
    "skewed": partial(
        _keys, lambda n, _: f"{'logs/2026/production' if n % 10 else f'customer-{n % 97:02}'}/{n:08}.log"
    ),
    "any_script": partial(_keys, _any_script),
    "words": partial(_keys, _words),
    "partitions": partial(_keys, _partition),
}
