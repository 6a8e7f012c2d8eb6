"""Runs the main job of ``make run``, which uses all five flows of the system through public interfaces."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import boto3
from botocore.config import Config

from local.api import SECONDS as ANSWER_SECONDS
from local.api import Api, Token, fetch
from local.processes import StackError

# This limit is ten times what a step takes on a busy machine with two processors.
STEP_SECONDS = 300
# Shorter pauses would take processor time from the functions.
PAUSE_SECONDS = 0.1

# Two rows are invalid on purpose, because a quantity cannot be negative or "a few".
INVENTORY = """\
supplier_name,type,product_name,price,description,quantity
Hillside Growers,Arabica,Yirgacheffe Natural,19.80,Blueberry and jasmine,42
Hillside Growers,Arabica,Huila Washed,16.40,Caramel and red apple,4
Hillside Growers,Robusta,Wayanad Bold,9.90,Dark and heavy,-3
Harbour Roasters,Arabica,House Blend,14.00,"For every day, by the bag",180
Harbour Roasters,Decaf,Mountain Water,15.20,,a few
"""


def main(env: Mapping[str, str], token: Token, sign_in: str) -> None:
    """Runs the main job once on the stack that ``env`` describes, and prints the results.

    ``token`` returns a manager's token, and ``sign_in`` explains how to sign in. Raises ``StackError`` if a step takes
    longer than five minutes.
    """
    api = Api(env["CAFE_API_URL"], token)
    run = secrets.token_hex(3)
    began = time.monotonic()

    print("The main job, through the public API")
    key = f"inventory/demo-{run}.csv"
    s3_of_a_person(env).put_object(Bucket=env["UPLOADS_BUCKET"], Key=key, Body=INVENTORY.encode())
    order = {"customerID": "table-4", "orderID": f"demo-{run}", "item": "Flat white", "quantity": 2}
    more_orders = [
        {"customerID": "table-7", "items": [{"item": "Espresso"}, {"item": "Almond croissant", "quantity": 3}]},
        {"customerID": "takeaway-12", "item": "Cold brew", "note": "No ice, please"},
    ]
    api.post("/orders", order)
    api.post("/orders", order)
    placed = [order["orderID"], *(each["orderID"] for each in api.post("/orders", more_orders)["orders"])]

    def notifications(fact: str, value: str) -> list[dict[str, Any]]:
        return [each for each in api.notifications() if each["facts"].get(fact) == value]

    def announcements_of(order_id: str) -> list[dict[str, Any]]:
        return [each for each in api.notifications() if order_id in each["facts"].get("orderIDs", ())]

    storage_href = api.post("/create_report", {"kind": "storage"})["href"]
    [upload] = wait(f"upload {key}", lambda: notifications("key", key))
    # The inventory report must include the imported rows, so it starts only now.
    inventory_href = api.post("/create_report", {"kind": "inventory"})["href"]
    wait(f"{len(placed)} orders stored", lambda: all(api.find(f"/orders/{each}") for each in placed))
    announcements = wait("orders announced", lambda: announcements_of(f"demo-{run}"))
    inventory = wait("inventory report", lambda: succeeded(api.get(inventory_href)))
    storage = wait("storage report", lambda: succeeded(api.get(storage_href)))
    wait(
        "notifications of both reports",
        lambda: all(notifications("id", report["reportId"]) for report in (inventory, storage)),
    )
    if b"Yirgacheffe Natural" not in fetch(inventory["url"]):
        raise StackError(f"report {inventory['reportId']} does not show the uploaded rows: see `make logs`")

    print(f"  {'done':<40} {time.monotonic() - began:5.1f} s\n")
    stored = [each for each in api.get("/orders?limit=100")["orders"] if each["orderID"] in placed]
    print("Results")
    first, *others = [line.strip() for line in upload["message"].splitlines() if line.strip()]
    row("Upload", first)
    for line in others:
        row("", line)
    row(
        "Orders",
        f"{len(stored)} stored out of 4 sent, because one was sent twice; {len(announcements)} announcement"
        + "s" * (len(announcements) != 1),
    )
    row("Inventory", "{rows} beans of {suppliers} suppliers, {quantity} in stock".format(**inventory["summary"]))
    row("Storage", storage["summary"]["message"])
    row("Inbox", f"{len(api.notifications())} notifications; on AWS they are also sent by e-mail, SMS or HTTPS")
    print("\nLinks (they expire after an hour)")
    row("Report", inventory["url"])
    row("Sizes", storage["url"])
    row("Console", env["CAFE_API_URL"] + "/")
    row("Sign in", sign_in)
    print("\nNext steps")
    row("", "source .local/env")
    row("", f'curl -H "Authorization: $CAFE_TOKEN" "$CAFE_API_URL/orders/{order["orderID"]}"')
    row("", "make logs      follow the functions     make status    show what runs and where")
    row("", "make test      run every test           make stop      stop everything")


def row(label: str, text: str) -> None:
    print(f"  {label:<10} {text}")


def s3_of_a_person(env: Mapping[str, str]) -> Any:
    """Returns an S3 client with a user's access key, because users upload files directly to the bucket."""
    return boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        region_name=env["AWS_DEFAULT_REGION"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        config=Config(connect_timeout=3, read_timeout=ANSWER_SECONDS),
    )


def succeeded(report: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the report if it has succeeded, or None if it is still running.

    Raises ``StackError`` if the report failed.
    """
    if report["status"] == "RUNNING":
        return None
    if report["status"] != "SUCCEEDED":
        raise StackError(
            f"report {report['reportId']} has the status {report['status']}: {report['error']}. "
            f"`make trace ID={report['reportId']}` shows its steps"
        )
    return report


def wait(label: str, look: Callable[[], Any]) -> Any:
    """Calls ``look`` until it returns a true value, and returns that value.

    In a terminal, also shows the elapsed seconds.
    """
    began = time.monotonic()
    live = sys.stdout.isatty()
    while True:
        found = look()
        seconds = time.monotonic() - began
        if found:
            print(("\r" if live else "") + f"  {label:<40} {seconds:5.1f} s", flush=True)
            return found
        if seconds > STEP_SECONDS:
            raise StackError(f"{label}: not done after {STEP_SECONDS} s. `make logs` shows the functions' logs")
        if live:
            print(f"\r  {label:<40} {seconds:5.1f} s …", end="", flush=True)
        time.sleep(PAUSE_SECONDS)
