"""Answers the console's requests about uploads in place of the API, for states that are slow or rare in the system."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Route

from tests.browser.conftest import Visit
from tests.browser.console import Console, Person

Upload = dict[str, Any]
ID = "0123456789ab"
FILE = "monday-delivery.csv"
NAMES = {"supplier_name": "Café Altura", "type": "Arabica"}
COUNTS = {"new": 3, "updated": 1, "unchanged": 4, "bad": 2, "notMentioned": 1}


def values(quantity: int, price: str | None = "16,40", description: str | None = "Plum and cocoa") -> dict[str, Any]:
    return {"price": price, "description": description, "quantity": quantity}


def upload(status: str, **others: Any) -> Upload:
    """Returns an upload as the API shows it."""
    upload_id = others.get("uploadId", ID)
    filename = others.get("filename", FILE)
    return {
        **{"uploadId": upload_id, "key": f"previews/2026-11-29-{upload_id}/{filename}", "filename": filename},
        **{"bytes": 390, "status": status, "uploadedBy": "ana", "uploadedAt": "2026-11-29T10:00:00.000000Z"},
        **{"rowsRead": 10, "encoding": "utf-8", "delimiter": ";", "counts": COUNTS, "unusedColumns": ["sku"]},
        **{"reason": None, "looksLike": None, "samples": [], "differences": [], "undo": None},
        **{"undoable": status != "UNDONE", "undoableUntil": "2099-02-27T10:00:00.000000Z"},
        **others,
    }


def unread(status: str, **others: Any) -> Upload:
    """Returns an upload without the results of a preview."""
    return upload(status, **{"encoding": None, "delimiter": None, "counts": None, "unusedColumns": [], **others})


def bean(change: str, product: str, **others: Any) -> dict[str, Any]:
    return {"change": change, **NAMES, "product_name": product, **others}


CHANGES = [
    bean("changed", "Geisha La Palma", line=2, before=values(12), after=values(40, "18,50")),
    bean("new", "Finca Deborah", line=3, after=values(25, "42,00", "Jasmine and bergamot")),
    bean("new", "Las Lajas", line=5, after=values(1200, None, "Red fruit")),
    bean("new", "Sidra", line=6, after=values(7, "38,00", None)),
    {"change": "bad", "line": 4, "reason": "quantity is empty"},
    {"change": "bad", "line": 7, "reason": "quantity is '1,200', but must be a whole number without separators"},
    bean("notMentioned", "Old Harvest", before=values(3, "9,80", None)),
]
SAMPLES = ["Café Altura", "Rösterei Zürich"]
UNDO = {
    **{"requestedBy": "ben", "undoneAt": "2026-11-29T10:05:00.000000Z", "restored": 4, "kept": 22},
    "keptBeans": [{**NAMES, "product_name": f"Sidra {number}"} for number in range(1, 21)],
}
DIFFERENCES = [
    {"line": 2, **NAMES, "product_name": "Geisha La Palma", "then": values(12), "now": values(9)},
    {"line": 3, **NAMES, "product_name": "Finca Deborah", "then": None, "now": values(2)},
    {"line": 9, **NAMES, "product_name": "Las Lajas", "then": values(6), "now": None},
]


class FakeUploads:
    """The routes under ``/uploads`` and the uploads bucket, with ``uploads`` in the order of the list.

    ``script`` maps an action to the upload's next states, or to an error message. An action's response shows the first
    state, and each later response shows the next one. The action ``offer`` requests an upload link. ``actions`` records
    the requested actions with their bodies.
    """

    def __init__(self, console: Console, *uploads: Upload, changes: list[Any] = CHANGES, **script: Any) -> None:
        self.uploads, self.changes, self.script = list(uploads), changes, script
        self._console = console
        self.actions: list[tuple[str, Any]] = []
        self._next: list[Upload] = []
        self._bucket = f"{console.env['AWS_ENDPOINT_URL']}/{console.env['UPLOADS_BUCKET']}"
        console.page.route(re.compile(rf"^{re.escape(console.address)}/uploads([/?].*)?$"), self._answer)
        console.page.route(f"{self._bucket}*", lambda route: route.fulfill(status=204))

    def _answer(self, route: Route) -> None:
        place = urlsplit(route.request.url.removeprefix(f"{self._console.address}/uploads"))
        _, upload_id, action = f"{place.path}//".split("/")[:3]
        if route.request.method == "POST":
            self._act(route, upload_id, action or "offer")
            return
        if self._next:
            self._become(self._next.pop(0))
        found = [each for each in self.uploads if upload_id in ("", each["uploadId"])]
        if not upload_id:
            route.fulfill(json={"uploads": [each for each in found if each["status"] != "WAITING"], "next": None})
        elif not found:
            route.fulfill(status=404, json={"Code": "NotFoundError", "Message": "no upload has this id"})
        else:
            route.fulfill(json={"upload": found[0], **self._page(parse_qs(place.query))})

    def _page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        kind, start, limit = query.get("change", [""])[0], int(query.get("next", ["0"])[0]), int(query["limit"][0])
        found = [each for each in self.changes if each["change"] == kind]
        more = str(start + limit) if len(found) > start + limit else None
        return {"changes": found[start : start + limit], "next": more}

    def _act(self, route: Route, upload_id: str, action: str) -> None:
        self.actions.append((action, route.request.post_data_json))
        states = self.script[action]
        if isinstance(states, str):
            status, code = (400, "BadRequestError") if action == "offer" else (409, "ConflictError")
            route.fulfill(status=status, json={"Code": code, "Message": states})
            return
        self._next = list(states[1:])
        self._become(states[0])
        link = {"uploadId": states[0]["uploadId"], "key": "k", "url": self._bucket, "fields": {"key": "k"}}
        if action == "offer":
            route.fulfill(status=201, json={**link, "expiresAt": "2099-01-01T00:00:00Z", "maxBytes": 50_000_000})
        else:
            route.fulfill(status=202, json=states[0])

    def _become(self, state: Upload) -> None:
        ids = [each["uploadId"] for each in self.uploads]
        if state["uploadId"] in ids:
            self.uploads[ids.index(state["uploadId"])] = state
        else:
            self.uploads.insert(0, state)


def with_fake(
    visit: Visit, person: Person, *uploads: Upload, tab: str = "#uploads", **given: Any
) -> tuple[Console, FakeUploads]:
    """Opens a tab of the console with fake uploads."""
    console = visit(**given.pop("options", {}))
    fake = FakeUploads(console, *uploads, **given)
    console.open(tab)
    console.sign_in(person)
    return console, fake
