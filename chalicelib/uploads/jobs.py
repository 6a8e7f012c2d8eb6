"""The work on uploads that needs MySQL: importing, previewing, applying and undoing.

A change of the stock and the ledger share one transaction. An event that is delivered twice, or after a newer event,
changes nothing. After the commit, the result is written to the uploads table, which the API reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from chalicelib import metrics
from chalicelib.errors import CafeError, Unavailable
from chalicelib.logs import logger
from chalicelib.notifications import Notification, Publish
from chalicelib.timeline import timestamp
from chalicelib.uploads import comparing, outcomes, undoing
from chalicelib.uploads.detection import NotImported
from chalicelib.uploads.importing import Imported, Staged
from chalicelib.uploads.ledger import Ledger
from chalicelib.uploads.records import KEPT, Records, Status
from chalicelib.uploads.rows import BadRow, Reading, Row, read_rows
from chalicelib.uploads.stock import Stock
from chalicelib.uploads.upload import Overwritten, Upload, chunks, is_current, open_file

# The progress of a large file is recorded after each block of this many rows.
PROGRESS_ROWS = 25_000
OVERTAKEN = "a newer file with the same key replaced this file"

log = logger("uploads")

Stage = Callable[[Stock, Upload], tuple[Staged, Reading]]


class Outdated(CafeError):
    """The stock has changed since the preview. ``differences`` lists the first beans that differ."""

    def __init__(self, differences: list[comparing.Change]) -> None:
        self.differences = differences
        super().__init__("the stock has changed since the preview; make a new preview")


@dataclass(frozen=True)
class Jobs:
    """``open_stock`` opens a connection to MySQL. ``reports_bucket`` keeps the pages of previews."""

    s3: Any
    open_stock: Callable[[], AbstractContextManager[Stock]]
    publish: Publish
    records: Records
    uploads_bucket: str
    reports_bucket: str
    now: Callable[[], datetime]

    def import_file(self, upload: Upload) -> None:
        """Imports a file that was put under ``inventory/``."""
        self.records.arrive(upload.id, upload.to_record(), Status.IMPORTING, self.now())
        self._finish(upload, self._import_once(upload, self._stage), {})

    def apply(self, upload: Upload) -> None:
        """Imports a previewed file, unless the stock has changed since the preview."""
        stored = self.records.get(upload.id)
        if stored["status"] != Status.IMPORTING:
            # This request failed before, was repeated, and is now redriven from the dead letters.
            log.info("request is out of date", extra={"key": upload.key, "status": stored["status"]})
            return
        folder = stored["result"]["folder"]

        def stage_as_previewed(stock: Stock, upload: Upload) -> tuple[Staged, Reading]:
            staged, reading = self._stage(stock, replace(upload, encoding=stored["result"]["readAs"]))
            present = stock.locked_changes()
            if found := comparing.differences(folder, present, self.s3, self.reports_bucket):
                raise Outdated(found)
            return staged, reading

        try:
            notification = self._import_once(upload, stage_as_previewed)
        except Outdated as error:
            result = {**stored["result"], "reason": str(error), "differences": error.differences}
            self.records.change(upload.id, {Status.IMPORTING}, Status.OUTDATED, self.now(), result=result)
        else:
            self._finish(upload, notification, stored["result"])

    def preview(self, upload: Upload) -> None:
        """Compares a file with the stock, and stores the differences. Does not change the stock."""
        self.records.arrive(upload.id, upload.to_record(), Status.PREVIEWING, self.now())
        folder = f"uploads/{upload.id}/{self.now():%Y%m%dT%H%M%S%f}"
        pages = comparing.Pages(self.s3, self.reports_bucket, folder)
        result: dict[str, Any] = {"folder": folder, "readAs": upload.encoding}
        try:
            with self.open_stock() as stock:
                result |= self._compare(stock, upload, pages)
            status = Status.PREVIEWED
        except (NotImported, Overwritten) as error:
            status = Status.REFUSED
            result |= outcomes.result(outcomes.refusal(error))
        self.records.change(upload.id, {Status.PREVIEWING}, status, self.now(), result=result)
        log.info("upload previewed", extra={"key": upload.key, "status": status, **pages.counts})

    def _compare(self, stock: Stock, upload: Upload, pages: comparing.Pages) -> dict[str, Any]:
        def bad(row: BadRow) -> None:
            pages.add({"change": "bad", **row._asdict()})

        staged, reading = self._stage(stock, upload, lock=False, report_bad=bad)
        for change in stock.differences():
            pages.add(change)
        pages.close()
        counts = pages.counts
        changed = counts["new"] + counts["changed"]
        compared = {
            "new": counts["new"],
            "updated": counts["changed"],
            "unchanged": staged.rows - changed,
            "bad": staged.bad,
            "notMentioned": counts["notMentioned"],
        }
        undoable = changed <= undoing.UNDOABLE_CHANGES
        return {"pages": counts, **outcomes.result({**reading.facts, **compared, "undoable": undoable})}

    def undo(self, upload: Upload) -> None:
        """Restores the beans that an import changed, unless someone has changed them since."""
        with self.open_stock() as stock:
            stock.lock_rows_only()
            ledger = Ledger(stock, f"undo/{upload.id}")
            if not ledger.lock(self.publish):
                ledger.write("1", upload.etag, outcomes.undone(upload, stock.undo(upload.id)))
            stock.commit()
            ledger.lock(self.publish)
            stock.commit()
        stored = self.records.get(upload.id)
        facts = ledger.notification.facts if ledger.notification else {}
        names = ("restored", "kept", "keptBeans")
        undo = {**stored["undo"], "undoneAt": timestamp(self.now()), **{name: facts[name] for name in names}}
        result = {**stored["result"], "undoable": False, "undoableUntil": None}
        self.records.change(upload.id, {Status.UNDOING}, Status.UNDONE, self.now(), undo=undo, result=result)

    def _import_once(self, upload: Upload, stage: Stage) -> Notification | None:
        """Imports a file unless its event is known. Returns the notification of the object's last event."""
        imported = Imported()
        with self.open_stock() as stock:
            stock.lock_rows_only()
            ledger = Ledger(stock, upload.key)
            handled = ledger.lock(self.publish)
            if upload.is_new(handled, lambda: is_current(upload, self.s3, self.uploads_bucket)):
                self._finish_earlier(upload, ledger.notification)
                try:
                    imported, notification = self._import(stock, upload, stage)
                    ledger.write(upload.with_handled(handled), upload.etag, notification)
                except Overwritten:
                    log.info(
                        "overwritten before it could be read; the newer file has its own event",
                        extra={"key": upload.key},
                    )
            else:
                log.info("event known already", extra={"key": upload.key, "sequencer": upload.sequencer})
            stock.commit()
            # Row counts are published as metrics only after the commit, because a failed import is retried.
            metrics.emit({"RowsGood": imported.good, "RowsBad": imported.bad})
            # Publishes the notification while the row is locked, so that simultaneous deliveries publish it only once.
            ledger.lock(self.publish)
            stock.commit()
        return ledger.notification

    def _import(self, stock: Stock, upload: Upload, stage: Stage) -> tuple[Imported, Notification]:
        try:
            staged, reading = stage(stock, upload)
        except NotImported as error:
            log.warning("inventory not imported", extra={"key": upload.key, "reason": str(error)})
            return Imported(), outcomes.refused(upload, error)
        imported = stock.import_staged(staged, upload.id)
        log.info("inventory imported", extra={"key": upload.key, **imported.counts, **reading.facts})
        until = timestamp(self.now() + KEPT)
        return imported, outcomes.imported(upload, imported, reading, until)

    def _stage(
        self, stock: Stock, upload: Upload, *, lock: bool = True, report_bad: Callable[[BadRow], None] | None = None
    ) -> tuple[Staged, Reading]:
        with closing(open_file(upload, self.s3, self.uploads_bucket)) as body:
            reading = read_rows(chunks(body), upload.encoding)
            return stock.stage(self._with_progress(upload, reading), lock=lock, report_bad=report_bad), reading

    def _with_progress(self, upload: Upload, reading: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
        """Yields the rows, and records the progress."""
        for count, row in enumerate(reading, 1):
            yield row
            if count % PROGRESS_ROWS == 0:
                # An import does not fail only because its progress cannot be shown.
                with suppress(Unavailable):
                    self.records.progress(upload.id, count)

    def _finish(self, upload: Upload, notification: Notification | None, previewed: dict[str, Any]) -> None:
        """Writes the result of an import to the uploads table. ``previewed`` is the result of the file's preview."""
        # A request to apply a preview may be delivered twice, and only one of the two may find the stock as previewed.
        begun = {Status.IMPORTING, Status.IMPORTED, Status.REFUSED, Status.OUTDATED}
        facts = outcomes.known_facts(upload, notification)
        if not facts:
            # If this file was imported, the newer file's event has written its result already.
            facts, begun = {"outcome": "notImported", "reason": OVERTAKEN}, {Status.IMPORTING}
        self._write(upload.id, begun, facts, previewed)

    def _finish_earlier(self, upload: Upload, notification: Notification | None) -> None:
        """Writes the result of the object's previous event, which may have failed after its commit."""
        facts = notification.facts if notification else {}
        if facts.get("uploadId", upload.id) != upload.id:
            self._write(facts["uploadId"], {Status.IMPORTING}, facts, {})

    def _write(self, upload_id: str, begun: set[Status], facts: Mapping[str, Any], previewed: dict[str, Any]) -> None:
        status = Status.IMPORTED if facts["outcome"] == "imported" else Status.REFUSED
        result = outcomes.result(facts)
        if "counts" in previewed and "counts" in result:
            # Only a preview counts the beans that the file does not mention.
            result["counts"]["notMentioned"] = previewed["counts"]["notMentioned"]
        self.records.change(upload_id, begun, status, self.now(), result={**previewed, **result})
