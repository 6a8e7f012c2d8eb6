"""Tests that the Today tab shows figures since midnight in the viewer's time zone and a chart of orders per hour."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.browser.conftest import Visit
from tests.browser.console import Person
from tests.browser.steps import intercept, new_customer, place, with_clock
from tests.system.system import System, new_id, wait_for


def figure(view: Locator, name: str) -> int:
    """Returns the large number in the tile with the label ``name``."""
    tile = view.locator("dl > div", has=view.page.get_by_role("term").filter(has_text=name))
    text = tile.get_by_role("definition").first.inner_text()
    return int(re.sub(r"\D", "", text))


def test_new_orders_appear_in_the_figure_and_the_chart(visit: Visit, manager: Person, system: System) -> None:
    console = with_clock(visit(), manager)
    view = console.view("Today")
    chart = view.get_by_role("img", name=re.compile("Orders by hour"))
    expect(chart).to_be_visible()
    before = figure(view, "Orders")
    place(system, new_customer(), 3)
    console.page.clock.run_for("00:20")
    wait_for(lambda: figure(view, "Orders") >= before + 3, "the figure")

    def drawn() -> int:
        return sum(map(int, re.findall(r": (\d+)", str(chart.get_attribute("aria-label")))))

    # Other tests may place orders between reading the chart and reading the figure, so both are read again.
    wait_for(lambda: drawn() == figure(view, "Orders"), "as many orders in the chart as in the figure")


def test_the_chart_covers_the_hours_with_orders_and_the_present_hour(visit: Visit, manager: Person) -> None:
    # In the zone of this viewer, it is about three o'clock in the afternoon.
    ahead = min(14, 15 - datetime.now(UTC).hour)
    zone = timezone(timedelta(hours=ahead))
    now = datetime.now(zone)
    console = visit(timezone_id=f"Etc/GMT{-ahead:+}")

    def with_hours(route: Route) -> None:
        counts = [2 if hour in (8, 10) else 0 for hour in range(now.hour + 1)]
        hours = [
            [now.replace(hour=hour, minute=0, second=0, microsecond=0), count] for hour, count in enumerate(counts)
        ]
        orders = {"stored": 4, "hours": [[f"{start.astimezone(UTC):%FT%TZ}", count] for start, count in hours]}
        today = route.fetch().json()
        route.fulfill(json={**today, "orders": {**today["orders"], **orders}})

    intercept(console, "GET", "today", with_hours)
    console.sign_in(manager)
    chart = console.view("Today").get_by_role("img", name="Orders by hour. 8:00: 2; 10:00: 2")
    expect(chart).to_be_visible()
    labels = chart.locator("text:not(.number)").all_text_contents()
    assert labels == [f"{hour}:00" for hour in range(8, 8 + len(labels))]
    assert labels[-1] in (f"{now.hour}:00", f"{now.hour + 1}:00")


def test_the_figures_link_to_their_tabs_and_the_news_to_the_inbox(visit: Visit, manager: Person) -> None:
    for link, tab in (("Orders", "Orders"), ("Failures", "Dead letters"), ("Open the inbox", "Inbox")):
        console = visit(manager)
        console.view("Today").get_by_role("link", name=link, exact=True).click()
        console.view(tab)


def test_low_stock_is_shown_at_a_glance_and_leads_to_the_report(
    visit: Visit, manager: Person, staff: Person, system: System
) -> None:
    name = f"<b>{new_id('bean')}"
    system.sql("INSERT INTO beans (type, product_name, quantity) VALUES ('x', %s, -7000000)", name)
    try:
        report = system.report({})
    finally:
        system.sql("DELETE FROM beans WHERE product_name = %s", name)
    for person in (staff, manager):
        console = visit(person, "#today")
        low = console.view("Today").get_by_role("region", name="Low in stock")
        expect(low.get_by_role("listitem").first).to_contain_text(re.compile(f"{name}.*No supplier.*-7,000,000 left"))
        expect(low.get_by_role("link", name="inventory report")).to_have_count(int(person == manager))
    low.get_by_role("link", name="inventory report").click()
    view = console.view("Reports")
    expect(view.get_by_role("heading", level=2)).to_have_text(["Low in stock", "What changed", "Inventory", "Progress"])
    expect(view.get_by_role("region", name="Low in stock")).to_contain_text(name)
    changes = report["summary"]["changes"]["text"]
    expect(view.get_by_role("region", name="What changed")).to_contain_text(changes)


@pytest.mark.parametrize("who", ["staff", "manager"])
def test_without_a_report_today_says_how_to_see_low_stock(
    visit: Visit, who: str, request: pytest.FixtureRequest
) -> None:
    console = visit()

    def answer(route: Route) -> None:
        reply = route.fetch()
        route.fulfill(response=reply, json={**reply.json(), "lowStock": None})

    console.page.route("**/today?*", answer)
    console.sign_in(request.getfixturevalue(who))
    low = console.go("Today").get_by_role("region", name="Low in stock")
    expect(low).to_contain_text("Shown after the next inventory report.")
    if who == "staff":
        expect(low).to_contain_text("A manager can request one.")
        return
    low.get_by_role("link", name="Request one.").click()
    console.view("Reports")
