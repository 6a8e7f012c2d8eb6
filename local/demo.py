"""What ``make run`` ends with: the main job through all five flows, by the public interfaces only."""

from __future__ import annotations

import json
import re
import secrets
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import boto3
from botocore.config import Config

from local.processes import StackError

# For a step, and for one answer: ten times what a busy machine with two processors takes.
SECONDS = 300
ANSWER_SECONDS = 60
PAUSE = 0.05

# Two rows are bad on purpose: no product's quantity is negative, and none is "a few".
INVENTORY = """\
supplier_name,type,product_name,price,description,quantity
Hillside Growers,Arabica,Yirgacheffe Natural,19.80,Blueberry and jasmine,42
Hillside Growers,Arabica,Huila Washed,16.40,Caramel and red apple,4
Hillside Growers,Robusta,Wayanad Bold,9.90,Dark and heavy,-3
Harbour Roasters,Arabica,House Blend,14.00,"For every day, by the bag",180
Harbour Roasters,Decaf,Mountain Water,15.20,,a few
"""

# Gives a token that lasts for some minutes at least.
Token = Callable[[], str]


def main(env: Mapping[str, str], token: Token, sign_in: str) -> None:
    """Does the main job once against the stack that ``env`` describes, and prints what came out.

    ``token`` gives a manager's, and ``sign_in`` says how a person gets one. Raises ``StackError`` where a step does
    not end within five minutes.
    """
    api = Api(env["CAFE_API_URL"], token)
    run = secrets.token_hex(3)
    began = time.monotonic()

    print("The main job, through the public API")
    key = f"inventory/demo-{run}.csv"
    uploads(env).put_object(Bucket=env["UPLOADS_BUCKET"], Key=key, Body=INVENTORY.encode())
    order = {"customerID": "table-4", "orderID": f"demo-{run}", "item": "Flat white", "quantity": 2}
    others = [
        {"customerID": "table-7", "items": [{"item": "Espresso"}, {"item": "Almond croissant", "quantity": 3}]},
        {"customerID": "takeaway-12", "item": "Cold brew", "note": "No ice, please"},
    ]
    api.post("/orders", order)
    api.post("/orders", order)
    placed = [order["orderID"], *(each["orderID"] for each in api.post("/orders", others)["orders"])]

    import_told = wait(f"upload {key}", lambda: api.notification("upload", key))
    # Only now: the report shall show what was imported.
    reports = {kind: api.post("/create_report", {"kind": kind})["href"] for kind in ("inventory", "storage")}
    wait(f"{len(placed)} orders stored", lambda: all(api.find(f"/orders/{each}") for each in placed))
    announced = wait(
        "orders announced", lambda: [n for n in api.notifications("order") if f"demo-{run}" in n["message"]]
    )
    inventory = wait("inventory report", lambda: ended(api.get(reports["inventory"])))
    storage = wait("storage report", lambda: ended(api.get(reports["storage"])))
    told = wait("both reports mailed", lambda: [api.notification(*each) for each in mailed(inventory, storage)])
    link = re.search(r"http\S+", told[0]["message"])
    page = fetch(link[0]) if link else b""
    if b"Yirgacheffe Natural" not in page:
        raise StackError("the link that was mailed does not open the inventory report")

    print(f"  {'done':<40} {time.monotonic() - began:5.1f} s\n")
    stored = [each for each in api.get("/orders?limit=100")["orders"] if each["orderID"] in placed]
    print("What came out")
    row("Upload", import_told["message"].splitlines()[0])
    for line in import_told["message"].splitlines()[1:]:
        if line.strip():
            row("", line.strip())
    row(
        "Orders",
        f"{len(stored)} stored of 4 sent, because one was sent twice; {len(announced)} announcement"
        + "s" * (len(announced) != 1),
    )
    row("Inventory", "{rows} beans of {suppliers} suppliers, {quantity} in stock".format(**inventory["summary"]))
    row("Storage", storage["summary"]["message"])
    row("Inbox", f"{len(api.notifications())} notifications; on AWS they are also e-mails, SMS or HTTPS calls")
    print("\nWhere to look (the links open for an hour)")
    row("Report", inventory["url"])
    row("Sizes", storage["url"])
    row("Console", env["CAFE_API_URL"] + "/")
    row("Sign in", sign_in)
    print("\nWhat to type next")
    row("", "source .local/env")
    row("", f'curl -H "Authorization: $CAFE_TOKEN" "$CAFE_API_URL/orders/{order["orderID"]}"')
    row("", "make logs      follow the functions     make status    what is up and where")
    row("", "make test      run every test           make stop      end it all")


def row(label: str, text: str) -> None:
    print(f"  {label:<10} {text}")


def uploads(env: Mapping[str, str]) -> Any:
    """S3 as a person of the café has it: the bucket is how files come in."""
    return boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        region_name=env["AWS_DEFAULT_REGION"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        config=Config(connect_timeout=3, read_timeout=ANSWER_SECONDS),
    )


def ended(report: dict[str, Any]) -> dict[str, Any] | None:
    """The report once it has succeeded, None while it runs. Raises ``StackError`` where it failed."""
    if report["status"] == "RUNNING":
        return None
    if report["status"] != "SUCCEEDED":
        raise StackError(f"report {report['reportId']} {report['status'].lower()}: {report['error']}")
    return report


def mailed(inventory: dict[str, Any], storage: dict[str, Any]) -> list[tuple[str, str]]:
    return [("report", inventory["reportId"]), ("storage", storage["reportId"])]


def wait(what: str, look: Callable[[], Any]) -> Any:
    """Looks until there is something, shows the seconds meanwhile on a terminal, and returns what there is."""
    began = time.monotonic()
    live = sys.stdout.isatty()
    while True:
        found = look()
        seconds = time.monotonic() - began
        if found and not (isinstance(found, list) and None in found):
            print(("\r" if live else "") + f"  {what:<40} {seconds:5.1f} s", flush=True)
            return found
        if seconds > SECONDS:
            raise StackError(f"{what}: nothing after {SECONDS} s; `make logs` shows what the functions say")
        if live:
            print(f"\r  {what:<40} {seconds:5.1f} s …", end="", flush=True)
        time.sleep(PAUSE)


class Api:
    """The REST API, by the JSON of its answers, each asked for with a ``token``.

    Raises ``StackError`` for any answer that is an error.
    """

    def __init__(self, url: str, token: Token) -> None:
        self._url, self._token = url, token

    def get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(fetch(self._url + path, token=self._token()))
        return answer

    def post(self, path: str, body: object) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(fetch(self._url + path, json.dumps(body).encode(), self._token()))
        return answer

    def find(self, path: str) -> dict[str, Any] | None:
        """What is there, or None for a 404."""
        try:
            return self.get(path)
        except NotThere:
            return None

    def notifications(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The newest hundred, of one kind or of all."""
        found = self.get("/notifications?limit=100")["notifications"]
        return [each for each in found if kind in (None, each["kind"])]

    def notification(self, kind: str, about: str) -> dict[str, Any] | None:
        return next((each for each in self.notifications(kind) if about in each["message"] + each["subject"]), None)


class NotThere(StackError):
    pass


def fetch(url: str, body: bytes | None = None, token: str | None = None) -> bytes:
    headers = {"Content-Type": "application/json"} if body else {}
    headers |= {"Authorization": token} if token else {}
    request = urllib.request.Request(url, body, headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - of the stack  # nosec B310
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        problem = NotThere if error.code == 404 else StackError
        raise problem(
            f"{url.split('?')[0]} answered {error.code}: {textwrap.shorten(error.read().decode(), 300)}"
        ) from None
    except OSError as error:
        raise StackError(f"{url.split('?')[0]} does not answer: {error}") from None
