"""Tests that the Today tab shows figures since midnight in the viewer's time zone and a chart of orders per hour."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visit
from tests.browser.console import Person
from tests.browser.steps import new_customer, place, with_clock
from tests.system.system import System, wait_for


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


def test_the_figures_link_to_their_tabs_and_the_news_to_the_inbox(visit: Visit, manager: Person) -> None:
    for link, tab in (("Orders", "Orders"), ("Failures", "Dead letters"), ("Open the inbox", "Inbox")):
        console = visit(manager)
        console.view("Today").get_by_role("link", name=link, exact=True).click()
        console.view(tab)
