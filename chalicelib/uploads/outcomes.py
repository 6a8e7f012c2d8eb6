"""The notifications about uploads. Their facts are also the result that the uploads table stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import humanize

from chalicelib.errors import CafeError
from chalicelib.names import quoted
from chalicelib.notifications import Notification, counted
from chalicelib.uploads.detection import Column, NotImported
from chalicelib.uploads.importing import Imported
from chalicelib.uploads.rows import COLUMNS_SHOWN, Reading
from chalicelib.uploads.undoing import UNDOABLE_CHANGES, Undone
from chalicelib.uploads.upload import Upload


def result(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a notification's facts that the uploads table stores, in the format of the API."""
    columns, counts = facts.get("unusedColumns", []), {}
    if "new" in facts:
        counts = {"counts": {name: facts.get(name) for name in ("new", "updated", "unchanged", "bad", "notMentioned")}}
    names = ("reason", "undoable", "undoableUntil", "encoding", "delimiter")
    return {
        **counts,
        **{name: facts[name] for name in names if name in facts},
        "unusedColumns": [column["name"] or _nameless(column["position"]) for column in columns],
        "looksLike": "windows-1252" if facts.get("looksLike") == "cp1252" else None,
        "samples": facts.get("cells", []),
    }


def _nameless(position: int) -> str:
    return f"column {position:,} without a name"


def known_facts(upload: Upload, notification: Notification | None) -> dict[str, Any]:
    """Returns the facts of an upload's notification, or no facts if the notification is about another upload."""
    facts = dict(notification.facts) if notification else {}
    if notification and "uploadId" not in facts and notification.key == key(upload):
        # Version 0.2.0 stored no upload id, and 0.1.0 stored no facts, so the subject is all that says the outcome.
        refused = notification.subject.startswith("Upload: not imported")
        return {"outcome": "notImported" if refused else "imported", **facts}
    return facts if facts.get("uploadId") == upload.id else {}


def received(upload: Upload) -> Notification:
    details = "The file is kept for 90 days. Only inventory/*.csv files are imported."
    return _notification(upload, "received", details, {"outcome": "received"})


def refusal(error: CafeError) -> dict[str, Any]:
    """Returns the facts of a file that was not imported."""
    seen: dict[str, Any] = {}
    if isinstance(error, NotImported) and error.looks_like:
        seen = {"looksLike": error.looks_like, "cells": [*error.cells]}
    return {"outcome": "notImported", "reason": str(error), **seen}


def refused(upload: Upload, error: NotImported) -> Notification:
    facts = {"uploadId": upload.id, **refusal(error)}
    return _notification(upload, "not imported", f"Nothing was imported: {error}.", facts)


def imported(upload: Upload, result: Imported, reading: Reading, undoable_until: str) -> Notification:
    outcome = f"{counted(result.good, 'row')} imported, {result.bad:,} bad"
    facts = {
        "outcome": "imported",
        "uploadId": upload.id,
        **result.counts,
        **reading.facts,
        "undoable": result.undoable,
        "undoableUntil": undoable_until if result.undoable else None,
    }
    return _notification(upload, outcome, _details(result, reading.unused_columns), facts)


def undone(upload: Upload, result: Undone) -> Notification:
    outcome = f"undone for {counted(result.restored, 'bean')}, {result.kept:,} kept"
    lines = [f"The import was undone for {counted(result.restored, 'bean')}."]
    if result.kept:
        lines.append(f"{counted(result.kept, 'bean')} kept, because someone has changed them since the import:")
        lines += ["- " + ", ".join(map(quoted, each.values())) for each in result.kept_beans]
    if result.kept > len(result.kept_beans):
        lines.append(f"and {result.kept - len(result.kept_beans):,} more")
    facts = {"outcome": "undone", "uploadId": upload.id, "restored": result.restored, "kept": result.kept}
    return _notification(upload, outcome, "\n".join(lines), {**facts, "keptBeans": result.kept_beans}, "/undo")


def _notification(upload: Upload, outcome: str, details: str, facts: dict[str, Any], suffix: str = "") -> Notification:
    size = humanize.naturalsize(upload.size)
    subject = f"Upload: {outcome} ({upload.name})"
    return Notification(
        kind="upload",
        key=key(upload) + suffix,
        subject=subject,
        message=f"{upload.name} ({size}) was received at {upload.time}.\n{details}",
        sms=subject,
        correlation_ids=(upload.correlation_id,) if upload.correlation_id else (),
        facts={"key": upload.key, **facts},
    )


def key(upload: Upload) -> str:
    """Returns the key of the notification about an uploaded file."""
    return f"upload/{upload.name}/{upload.sequencer}"


def _details(imported: Imported, unused: list[Column]) -> str:
    lines = [
        f"{counted(imported.good, 'row')} imported: {imported.new:,} new, {imported.updated:,} updated, "
        f"{imported.unchanged:,} unchanged."
    ]
    if unused:
        names = [quoted(name) if name else _nameless(position) for position, name in unused]
        more = f" and {len(unused) - COLUMNS_SHOWN:,} more" if len(unused) > COLUMNS_SHOWN else ""
        lines.append(f"Columns that were not used: {', '.join(names[:COLUMNS_SHOWN])}{more}.")
    if imported.bad:
        lines.append(f"{counted(imported.bad, 'row')} left out:")
        lines += [f"- line {line:,}: {reason}" for line, reason in imported.bad_rows]
    if imported.bad > len(imported.bad_rows):
        lines.append(f"and {imported.bad - len(imported.bad_rows):,} more")
    if not imported.undoable:
        lines.append(f"This import cannot be undone, because it changed more than {UNDOABLE_CHANGES:,} beans.")
    return "\n".join(lines)
