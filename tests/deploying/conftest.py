"""Defines fixtures for the deploy tests: a local cloud, and copies of the repository to deploy from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploying.checkout import Checkout, Place, new_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with new_place(tmp_path_factory.mktemp("place")) as place:
        yield place


@pytest.fixture(scope="module")
def here(place: Place) -> Checkout:
    return place.checkout("here")


@pytest.fixture(scope="module")
def elsewhere(place: Place) -> Checkout:
    """Returns a second copy of the repository that has never deployed anything."""
    return place.checkout("elsewhere")
