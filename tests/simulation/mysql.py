"""The inventory in memory, in place of ``chalicelib.uploads.stock``: transactions, row locks and lost commits."""

from __future__ import annotations

import io
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from chalicelib.errors import DatabaseUnavailable
from chalicelib.reports.inventory import COLUMNS, SELECTED_COLUMNS
from chalicelib.uploads.comparing import VALUES
from chalicelib.uploads.importing import Imported, ReportBad, Staged
from chalicelib.uploads.rows import IDENTITY, BadRow, Row
from chalicelib.uploads.undoing import Undone

LOCK_SECONDS = 50

Bean = tuple[str, ...]
Values = tuple[str | None, str | None, int]


class Mysql:
    """``commits`` lists each committed change of the stock as (its kind, the id of its upload, the imported rows)."""

    def __init__(self, gate: Callable[..., Any], sleep: Callable[[float], None]) -> None:
        self.gate = gate
        self.sleep = sleep
        self.beans: dict[Bean, Values | None] = {}
        self.events: dict[bytes, tuple[str, str | None, bool]] = {}
        self.changes: dict[str, dict[Bean, tuple[Values | None, Values]]] = {}
        self.locks: dict[Any, Stock] = {}
        self.commits: list[tuple[str, str, dict[Bean, int]]] = []

    def stock(self) -> dict[Bean, Values]:
        return {bean: values for bean, values in self.beans.items() if values}

    @contextmanager
    def open_stock(self) -> Iterator[Stock]:
        self.gate("mysql", "connect", {}, lambda: None)
        stock = Stock(self)
        try:
            yield stock
        finally:
            stock.end()

    @contextmanager
    def connect(self) -> Iterator[Any]:
        """Yields as much of a PyMySQL connection as a report needs: the stock as packets of MySQL's text protocol."""
        self.gate("mysql", "query", {}, lambda: None)
        suppliers = sorted({bean[0] for bean in self.stock()})
        packets = []
        for number, (bean, values) in enumerate(self.stock().items(), 1):
            row = dict.fromkeys(COLUMNS, "") | {"supplier": bean[0], "type": bean[1], "product_name": bean[2]}
            row |= {name: str(value) for name, value in zip(VALUES, values, strict=True)}
            row |= {"bean_id": str(number), "supplier_id": str(suppliers.index(bean[0]) + 1)}
            packets.append(b"".join(bytes([len(row[name])]) + row[name].encode() for name in SELECTED_COLUMNS))
        yield _Connection([*packets, b"\xfe\0\0\0\0"])


class _Connection:
    def __init__(self, packets: list[bytes]) -> None:
        self._rfile = io.BytesIO(b"".join(len(each).to_bytes(3, "little") + b"\0" + each for each in packets))
        self._result = self

    def cursor(self, _kind: Any) -> _Connection:
        return self

    def execute(self, _query: str) -> None:
        pass


class Stock:
    """One transaction. ``ChainMap`` keeps its changes apart from the database until the commit."""

    def __init__(self, mysql: Mysql) -> None:
        self._mysql = mysql
        self._begin()

    def _begin(self) -> None:
        self.beans: ChainMap[Bean, Values | None] = ChainMap({}, self._mysql.beans)
        self.events = ChainMap({}, self._mysql.events)
        self.changes = ChainMap({}, self._mysql.changes)
        self.commits: list[tuple[str, str, dict[Bean, int]]] = []

    def _lock(self, name: Any) -> None:
        locks, waited = self._mysql.locks, 0.0
        while locks.get(name, self) is not self:
            if waited > LOCK_SECONDS:
                raise DatabaseUnavailable("MySQL is temporarily unavailable: lock wait timeout")
            self._mysql.sleep(0.25)
            waited += 0.25
        locks[name] = self

    def end(self) -> None:
        for name in [name for name, holder in self._mysql.locks.items() if holder is self]:
            del self._mysql.locks[name]

    def commit(self) -> None:
        def apply() -> None:
            for mine, everyones in ((self.beans, self._mysql.beans), (self.events, self._mysql.events)):
                everyones.update(mine.maps[0])  # type: ignore[attr-defined]
            self._mysql.changes.update(self.changes.maps[0])
            self._mysql.commits += self.commits
            self.end()
            self._begin()

        self._mysql.gate("mysql", "commit", {}, apply)

    def lock_rows_only(self) -> None:
        pass

    def lock_event(self, key: bytes) -> tuple[str, str | None, bool]:
        self._mysql.gate("mysql", "lock", {}, lambda: None)
        self._lock(key)
        return self.events.setdefault(key, ("", None, True))

    def write_event(self, key: bytes, sequencer: str, etag: str, outcome: str) -> None:
        self.events[key] = (sequencer, outcome, False)

    def mark_announced(self, key: bytes) -> None:
        self.events[key] = (*self.events[key][:2], True)

    def stage(self, rows: Iterable[Row | BadRow], *, lock: bool, report_bad: ReportBad | None = None) -> Staged:
        staged = Staged()
        self._rows: dict[Bean, tuple[int, Values]] = {}
        for row in rows:
            if isinstance(row, BadRow):
                staged.refuse(1, [row], report_bad)
            else:
                self._rows[row[1:4]] = (row.line, row[4:])
        staged.rows = len(self._rows)
        for supplier in sorted({bean[0] for bean in self._rows}) if lock else ():
            self._lock(supplier)
        self._mysql.gate("mysql", "stage", {}, lambda: None)
        return staged

    def import_staged(self, staged: Staged, upload_id: str) -> Imported:
        imported = Imported(bad=staged.bad, bad_rows=staged.bad_rows, undoable=True)
        recorded = dict(self.changes.get(upload_id, {}))
        for bean, (_, values) in self._rows.items():
            before = self.beans.get(bean)
            imported.new += before is None
            imported.updated += before not in (None, values)
            if before != values:
                recorded[bean] = (recorded[bean][0] if bean in recorded else before, values)
                self.beans[bean] = values
        imported.unchanged = staged.rows - imported.new - imported.updated
        self.changes[upload_id] = recorded
        self.commits.append(("import", upload_id, {bean: row[1][2] for bean, row in self._rows.items()}))
        return imported

    def locked_changes(self) -> Iterator[dict[str, Any]]:
        for bean, (line, values) in sorted(self._rows.items(), key=lambda row: row[1][0]):
            before = self.beans.get(bean)
            if before != values:
                change = {
                    "change": "changed" if before else "new",
                    "line": line,
                    **dict(zip(IDENTITY, bean, strict=True)),
                }
                shown = {"before": dict(zip(VALUES, before, strict=True))} if before else {}
                yield {**change, **shown, "after": dict(zip(VALUES, values, strict=True))}

    def differences(self) -> Iterator[dict[str, Any]]:
        yield from self.locked_changes()
        suppliers = {bean[0] for bean in self._rows}
        for bean, values in self._mysql.stock().items():
            if bean[0] in suppliers and bean not in self._rows:
                names = dict(zip(IDENTITY, bean, strict=True))
                yield {"change": "notMentioned", **names, "before": dict(zip(VALUES, values, strict=True))}

    def undo(self, upload_id: str) -> Undone:
        changed = self.changes.get(upload_id, {})
        for supplier in sorted({bean[0] for bean in changed}):
            self._lock(supplier)
        self._mysql.gate("mysql", "undo", {}, lambda: None)
        kept = [bean for bean, (_, after) in changed.items() if self.beans.get(bean) != after]
        for bean, (before, _) in changed.items():
            if bean not in kept:
                self.beans[bean] = before
        self.changes[upload_id] = {}
        self.commits.append(("undo", upload_id, {}))
        return Undone(len(changed) - len(kept), len(kept), [dict(zip(IDENTITY, bean, strict=True)) for bean in kept])
