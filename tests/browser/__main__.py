"""Takes the screenshots of the console for the README, on a stack with one day of café orders.

Run the script with ``python -m tests.browser [FOLDER]``. All data in the screenshots comes from the deployed system.
The placement times of the orders are spread over the day.
"""

from __future__ import annotations

import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

from PIL import Image
from playwright.sync_api import expect

from chalicelib.orders.order import Item, Order
from chalicelib.timeline import timestamp
from local import chromium
from local.demo import INVENTORY
from local.processes import free_ports
from local.stack import ROOT, Stack
from tests.browser.console import DEFAULTS, DESKTOP, PHONE, Console, Person
from tests.system.system import System, wait_for

# Each number is the number of orders in one hour, starting at ``OPENS``, the opening hour.
HOURS = (6, 11, 9, 7, 8, 14, 12, 6, 5, 7, 4, 3)
OPENS = 7
CUSTOMERS = [*(f"table-{number}" for number in range(1, 13)), "takeaway", "Zoë", "the bakery next door"]
MENU = (
    *("Flat white", "Espresso", "Cappuccino", "Cortado", "Cold brew"),
    *("Almond croissant", "Cheesecake", "Matcha latte"),
)
# ``COLORS`` limits the number of colors in each screenshot to keep the file small.
COLORS = 128
# Here, the café opens when the day in UTC begins. A new stack lists orders from that day on.
ZONE = "Asia/Bangkok"
# This many orders are still open.
OPEN = 9


def orders(now: datetime) -> list[Order]:
    """Returns demo orders that were placed between the café's opening time and ``now``.

    The fixed random seed makes the orders reproducible.
    """
    chance = random.Random(7)
    opened = now.astimezone(ZoneInfo(ZONE)).replace(hour=OPENS, minute=0, second=0, microsecond=0)
    found = []
    for hour, count in enumerate(HOURS):
        for number in range(count):
            placed = opened + timedelta(hours=hour, minutes=60 * chance.random())
            items = tuple(
                Item(each, chance.choice((1, 1, 1, 2))) for each in chance.sample(MENU, chance.choice((1, 1, 2)))
            )
            order_id = f"{placed:%H%M}-{number:02}-{chance.randrange(16**4):04x}"
            customer = chance.choice(CUSTOMERS)
            found.append(Order(order_id, customer, items, None, timestamp(placed.astimezone(UTC)), "staff"))
    return [order for order in found if order.placed_at < timestamp(now)]


def work(system: System) -> str:
    """Places a day's orders, uploads an inventory file and requests two reports.

    Returns the id of the inventory report.
    """
    sqs, placed = system.aws("sqs"), orders(datetime.now(UTC))
    for start in range(0, len(placed), 10):
        entries = [
            {"Id": str(number), "MessageBody": order.to_json()}
            for number, order in enumerate(placed[start : start + 10])
        ]
        sqs.send_message_batch(QueueUrl=system.env["ORDERS_QUEUE_URL"], Entries=entries)
    wait_for(lambda: len(system.all("/orders", "orders")) == len(placed), "the day's orders")
    for order in sorted(placed, key=lambda each: each.placed_at)[:-OPEN]:
        for before, status in (("PLACED", "READY"), ("READY", "SERVED")):
            system.request("PATCH", f"/orders/{order.order_id}", {"from": before, "status": status})
    key = system.upload("inventory/monday-delivery.csv", INVENTORY)
    system.notification(key, "upload")
    system.report({"kind": "storage", "mode": "listing"})
    report_id = system.report({})["reportId"]
    system.notification(report_id, "report")
    return str(report_id)


def take(console: Console, person: Person, tab: str, shown: str, file: Path) -> None:
    """Saves a screenshot of a tab once the text ``shown`` is visible."""
    console.open(tab)
    console.sign_in(person)
    expect(console.page.get_by_text(shown).filter(visible=True).first).to_be_visible()
    console.page.screenshot(path=file)
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(COLORS).save(file, optimize=True)
    console.close()
    console.check()
    print(f"  {file}  {file.stat().st_size / 1000:.0f} kB")


def main(folder: Path) -> None:
    path = chromium.find() or chromium.install()
    api_port, aws_port, db_port = free_ports(3)
    with TemporaryDirectory() as temporary, chromium.running(path) as browser:
        stack = Stack(Path(temporary), api_port=api_port, aws_port=aws_port, db_port=db_port)
        try:
            system = System(stack, stack.start())
            report_id = work(system)
            person = Person("manager", stack.users.passwords["manager"])
            for name, tab, shown, viewport in (
                ("today", "#today", "Low in stock", DESKTOP),
                ("report", f"#reports/{report_id}", "The link works for", DESKTOP),
                ("orders", "#orders", "open orders", PHONE),
            ):
                for theme, ending in (("light", ""), ("dark", "-dark")):
                    context = browser.new_context(
                        **{**DEFAULTS, "viewport": viewport, "color_scheme": theme, "timezone_id": ZONE}
                    )
                    console = Console(context, system.env["CAFE_API_URL"], system.env)
                    take(console, person, tab, shown, folder / f"console-{name}{ending}.png")
        finally:
            stack.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
