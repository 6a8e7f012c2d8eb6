"""The notifications about uploads. Their facts are also the result that the uploads table stores."""

from __future__ import annotations

from typing import Any

import humanize

from chalicelib.notifications import Notification, counted
from chalicelib.uploads.importing import Imported
from chalicelib.uploads.undoing import UNDOABLE_CHANGES, Undone
from chalicelib.uploads.upload import Upload

RESULT = ("counts", "reason", "undoable", "undoableUntil", "encoding", "delimiter", "unusedColumns")


def received(upload: Upload) -> Notification:
    details = "The file is kept for 90 days. Only inventory/*.csv files are imported."
    return _notification(upload, "received", details, {"outcome": "received"})


def refused(upload: Upload, reason: str) -> Notification:
    facts = {"outcome": "notImported", "uploadId": upload.id, "reason": reason}
    return _notification(upload, "not imported", f"Nothing was imported: {reason}.", facts)


def imported(upload: Upload, result: Imported, undoable_until: str) -> Notification:
    outcome = f"{counted(result.good, 'row')} imported, {result.bad:,} bad"
    facts = {
        "outcome": "imported",
        "uploadId": upload.id,
        **result.counts,
        "counts": {**result.counts, "notMentioned": None},
        "undoable": result.undoable,
        "undoableUntil": undoable_until if result.undoable else None,
    }
    return _notification(upload, outcome, _details(result), facts)


def undone(upload: Upload, result: Undone) -> Notification:
    outcome = f"undone, {counted(result.restored, 'bean')} restored, {result.kept:,} kept"
    lines = [f"The import was undone: {counted(result.restored, 'bean')} restored."]
    if result.kept:
        lines.append(f"{counted(result.kept, 'bean')} kept, because someone has changed them since the import:")
        lines += ["- " + ", ".join(each.values()) for each in result.kept_beans]
    if result.kept > len(result.kept_beans):
        lines.append(f"and {result.kept - len(result.kept_beans):,} more")
    facts = {"outcome": "undone", "uploadId": upload.id, "restored": result.restored, "kept": result.kept}
    return _notification(upload, outcome, "\n".join(lines), {**facts, "keptBeans": result.kept_beans}, "/undo")


def _notification(upload: Upload, outcome: str, details: str, facts: dict[str, Any], suffix: str = "") -> Notification:
    size = humanize.naturalsize(upload.size)
    subject = f"Upload: {outcome} ({upload.name})"
    return Notification(
        kind="upload",
        key=f"upload/{upload.name}/{upload.sequencer}{suffix}",
        subject=subject,
        message=f"{upload.name} ({size}) was received at {upload.time}.\n{details}",
        sms=subject,
        correlation_ids=(upload.correlation_id,) if upload.correlation_id else (),
        facts={"key": upload.key, **facts},
    )


def _details(imported: Imported) -> str:
    lines = [
        f"{counted(imported.good, 'row')} imported: {imported.new:,} new, {imported.updated:,} updated, "
        f"{imported.unchanged:,} unchanged."
    ]
    if imported.bad:
        lines.append(f"{counted(imported.bad, 'row')} left out:")
        lines += [f"- line {line:,}: {reason}" for line, reason in imported.bad_rows]
    if imported.bad > len(imported.bad_rows):
        lines.append(f"and {imported.bad - len(imported.bad_rows):,} more")
    if not imported.undoable:
        lines.append(f"This import cannot be undone, because it changed more than {UNDOABLE_CHANGES:,} beans.")
    return "\n".join(lines)
