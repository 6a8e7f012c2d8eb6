"""The inventory in MySQL, as the work on uploads uses it. A ``Stock`` is one connection with one open transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from chalicelib.uploads import comparing, importing, undoing
from chalicelib.uploads.importing import Imported, ReportBad, Staged
from chalicelib.uploads.rows import BadRow, Row

if TYPE_CHECKING:
    from pymysql.connections import Connection
    from pymysql.cursors import Cursor


@contextmanager
def open_stock(connect: Callable[[], AbstractContextManager[Connection[Any]]]) -> Iterator[Stock]:
    """Opens a connection to MySQL. Uncommitted changes are rolled back."""
    with connect() as connection, connection.cursor() as cursor:
        yield Stock(connection, cursor)


class Stock:
    def __init__(self, connection: Connection[Any], cursor: Cursor) -> None:
        self._connection = connection
        self._cursor = cursor

    def lock_rows_only(self) -> None:
        """Avoids gap locks, so that imports wait for each other only if they share a supplier."""
        self._cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")

    def commit(self) -> None:
        self._connection.commit()

    def lock_event(self, key: bytes) -> tuple[str, str | None, bool]:
        """Locks the row of an S3 object until the commit. Returns its sequencers, its notification as JSON, and whether
        the notification was published."""
        # Unlike INSERT IGNORE, this takes the exclusive lock immediately, so two deliveries cannot deadlock.
        self._cursor.execute(
            "INSERT INTO uploads (object_key) VALUES (%s) ON DUPLICATE KEY UPDATE object_key = object_key", (key,)
        )
        self._cursor.execute(
            "SELECT sequencer, outcome, announced FROM uploads WHERE object_key = %s FOR UPDATE", (key,)
        )
        return self._cursor.fetchone() or ("", None, True)

    def write_event(self, key: bytes, sequencer: str, etag: str, outcome: str) -> None:
        self._cursor.execute(
            "UPDATE uploads SET sequencer = %s, etag = %s, outcome = %s, announced = FALSE WHERE object_key = %s",
            (sequencer, etag, outcome, key),
        )

    def mark_announced(self, key: bytes) -> None:
        self._cursor.execute("UPDATE uploads SET announced = TRUE WHERE object_key = %s", (key,))

    def stage(self, rows: Iterable[Row | BadRow], *, lock: bool, report_bad: ReportBad | None = None) -> Staged:
        return importing.stage(self._cursor, rows, lock=lock, report_bad=report_bad)

    def import_staged(self, staged: Staged, upload_id: str) -> Imported:
        return importing.import_staged(self._cursor, staged, upload_id)

    def locked_changes(self) -> Iterator[comparing.Change]:
        return comparing.changes(self._cursor, lock=True)

    def differences(self) -> Iterator[comparing.Change]:
        """Yields the changes that the staged rows would make, and then the beans that they do not mention."""
        from pymysql.cursors import SSCursor

        # This cursor does not hold all rows in memory.
        with self._connection.cursor(SSCursor) as cursor:
            yield from comparing.changes(cursor)
            yield from comparing.not_mentioned(cursor)

    def undo(self, upload_id: str) -> undoing.Undone:
        return undoing.undo(self._cursor, upload_id)
