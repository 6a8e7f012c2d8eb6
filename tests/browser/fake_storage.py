"""Storage reports that a browser test makes up: their parts, their growth, and the pages of the API that show them."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator

from tests.browser.console import Console, Person
from tests.browser.steps import intercept

MOMENT = "2026-11-29T10:00:00.000000Z"
GB = 10**9


def part(kind: str, size: int, count: int = 1, storage_class: str = "STANDARD", oldest: str | None = None) -> Any:
    return {"kind": kind, "storageClass": storage_class, "bytes": size, "count": count, "oldest": oldest}


UPLOADS = part("unfinishedUploads", GB, 4, oldest="2026-11-17T09:00:00.000000Z")
PARTS = [part("current", 3 * GB), part("noncurrent", 2 * GB), UPLOADS, part("deleteMarkers", 0, 2)]


def bucket(name: str, size: int, parts: list[Any] | None = None) -> dict[str, Any]:
    return {"name": name, "bytes": size, "objects": 1, "asOf": MOMENT, "parts": parts}


BUCKETS = [
    bucket("beans", 6 * GB, PARTS),
    bucket("archive", GB, [part("current", GB, storage_class="GLACIER")]),
    bucket("drafts", 1_000, [part("unfinishedUploads", 1_000, oldest=MOMENT)]),
    *(bucket(f"bucket-{number}", 0, [] if number else None) for number in range(7)),
]


def growing(name: str, last: int | None, month: int | None, *sizes: int | None) -> dict[str, Any]:
    return {"name": name, "sinceLast": last, "sinceMonth": month, "sizes": sizes}


# The days have no report of 26 November, and beans have no figure on 28 November.
GROWTH = {
    **{"days": ["2026-11-24", "2026-11-25", "2026-11-27", "2026-11-28", "2026-11-29"], "lastReport": MOMENT},
    **{"monthReport": "2026-10-29T10:00:00.000000Z", "sinceLast": 12 * 10**8, "sinceMonth": 3 * GB},
    "buckets": [
        growing("beans", GB, 2 * GB, 4 * GB, 5 * GB, 5 * GB, None, 6 * GB),
        growing("archive", 0, None, None, None, None, None, GB),
        *(growing(f"bucket-{number}", 1, 1, 1, 1, 1, 1, 2) for number in range(6)),
        growing("gone", -GB, -GB, GB, GB, GB, GB, 0),
        growing("secret", None, None, GB, GB, GB, GB, None),
        growing("unknown", None, None, None, None, None, None, None),
    ],
}


def summary(mode: str = "listing", **others: Any) -> dict[str, Any]:
    """Returns a summary. Without ``others``, it has only the fields of reports made by earlier versions."""
    buckets = others.get("buckets", [bucket("old", 7)])
    given = {"totalBytes": sum(each["bytes"] for each in buckets), "bucketCount": len(buckets), "buckets": buckets}
    return {**given, "bucketsWithoutFigure": 0, "errors": [], "mode": mode, "asOf": MOMENT, "partial": False, **others}


WITH_VERSIONS = summary(versions=True, buckets=BUCKETS, growth=GROWTH)


def storage_report(status: str, name: str = "storage-x", **others: Any) -> dict[str, Any]:
    """Returns a storage report as the API shows it."""
    given = {"reportId": name, "kind": "storage", "status": status, "startedAt": MOMENT, "finishedAt": MOMENT}
    return {**given, "href": f"/reports/{name}", "url": None, "error": None, "requestedBy": None, **others}


def with_reports(console: Console, manager: Person, *reports: dict[str, Any]) -> Locator:
    """Opens the tab with fake reports, the newest first."""
    intercept(console, "GET", "reports", lambda route: route.fulfill(json={"reports": reports, "next": None}))
    for each in reports:
        intercept(console, "GET", each["href"][1:], lambda route, each=each: route.fulfill(json=each))  # type: ignore[misc]
    console.open("#reports")
    console.sign_in(manager)
    return console.view("Reports")
