"""Tests how the cells of a MySQL response are read from its packets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymysql.err import OperationalError

from chalicelib.errors import DatabaseRefused
from chalicelib.reports.mysql import Batch, read_rows, split_cells
from tests.unit.answering import Connection, Row, in_utf8

KILLED = b"\xff" + (1317).to_bytes(2, "little") + b"#70100Query execution was interrupted"


def read(connection: Connection, at_once: int = 1) -> Iterable[Batch]:
    return read_rows(cast("Any", connection), "SELECT", 1, at_once)


def cells(connection: Connection) -> list[bytes]:
    rows = (row for batch in read(connection) for row in zip(*batch, strict=True))
    return [cell for first, rest in rows for cell in (first, *split_cells(rest))]


@pytest.mark.parametrize("size", [0, 1, 250, 251, 252, 255, 1_020, 65_535, 65_536, 300_000])
def test_a_cell_of_any_length_is_read(size: int) -> None:
    assert cells(Connection([(1, "x" * size, "y")] * 2)) == [b"1", b"x" * size, b"y"] * 2


@given(st.lists(st.tuples(*[st.none() | st.binary(max_size=300)] * 3), max_size=5), st.integers(1, 400))
def test_any_rows_are_read_wherever_the_network_cuts_them(rows: list[Row], block_bytes: int) -> None:
    assert cells(Connection(rows, block_bytes=block_bytes)) == [in_utf8(cell) for row in rows for cell in row]


def test_rows_come_in_lists_of_whole_rows() -> None:
    batches = list(read(Connection([(1, "x" * 97, 2)] * 1_000, block_bytes=1_000), 10))
    assert sum(len(cells) for cells, _ in batches) == 1_000
    assert all(len(cells) == len(rests) for cells, rests in batches)
    assert all(10 <= len(cells) < 24 for cells, _ in batches[:-1])


def test_an_error_between_rows_is_raised_as_pymysql_does() -> None:
    with pytest.raises(OperationalError) as raised:
        cells(Connection([(1, 2, 3)] * 5, last=KILLED))
    assert raised.value.args[:2] == (1317, "Query execution was interrupted")


@pytest.mark.parametrize("rows", [0, 1, 5_000])
def test_a_lost_connection_is_an_error_even_between_two_rows(rows: int) -> None:
    with pytest.raises(OperationalError) as raised:
        cells(Connection([(1, 2, 3)] * rows, last=None))
    assert raised.value.args[0] == 2013


def test_a_row_of_16_mb_is_refused() -> None:
    with pytest.raises(DatabaseRefused, match="a row of 16 MB is too long"):
        cells(Connection([(b"x" * (0xFFFFFF - 4),)], block_bytes=100_000))
