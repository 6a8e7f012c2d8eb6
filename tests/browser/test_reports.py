"""Tests the Reports tab. The tests request, watch and open a report, and then copy and renew its link."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.browser.conftest import Visit
from tests.browser.console import Console, Person
from tests.browser.fake_storage import WITH_VERSIONS, storage_report, summary, with_reports
from tests.browser.steps import intercept, lose, refuse, request_report, with_clock
from tests.system.inventory import table_renamed, tables_locked
from tests.system.system import System, new_id


def steps(console: Console) -> Locator:
    return console.page.get_by_role("img", name=re.compile("The steps so far|No step"))


def test_a_report_is_requested_watched_and_opened(visit: Visit, manager: Person, system: System) -> None:
    console = visit(manager)
    view = console.go("Reports")
    with tables_locked(system):
        report_id = request_report(view)
        title = console.page.get_by_role("heading", name="Inventory report", level=1)
        expect(title).to_be_visible()
        expect(steps(console)).to_have_accessible_name(re.compile("Read inventory: running"))
        for text in ("The report is running.", "Running", f"by {manager.name}, running for"):
            expect(view).to_contain_text(text)
    expect(steps(console)).to_have_accessible_name(re.compile("Read inventory: done.*Notify report: done"))
    expect(view).to_contain_text(", took")
    report = system.get(f"/reports/{report_id}")
    assert (report["status"], report["requestedBy"]) == ("SUCCEEDED", manager.name)
    expect(view).to_contain_text(f"Suppliers{report['summary']['suppliers']}")
    with console.page.expect_popup() as opened:
        view.get_by_role("link", name="Open the report").click()
    expect(opened.value.get_by_role("heading", level=1)).to_contain_text("nventory")
    # The page itself is in UTC, and its script converts the time to the zone of the viewer in Zürich.
    expect(opened.value.locator("header time")).to_have_text(re.compile(r" at \d\d:\d\d CES?T$"))
    opened.value.close()


def test_a_reports_link_is_copied_counts_down_and_is_renewed(visit: Visit, manager: Person, system: System) -> None:
    report = system.report({})
    console = with_clock(visit(), manager, f"#reports/{report['reportId']}")
    console.context.grant_permissions(["clipboard-read", "clipboard-write"])
    view = console.view("Reports")
    link = view.get_by_role("link", name="Open the report")
    expect(view).to_contain_text(re.compile(r"The link works for 5\d:\d\d more|The link works for 60:00 more"))
    view.get_by_role("button", name="Copy the link").click()
    expect(view.get_by_role("button", name="Copied")).to_be_visible()
    first = console.page.evaluate("navigator.clipboard.readText()")
    assert system.request("GET", first).status == 200
    # Two links that are made in the same second are identical, so the test waits for the next second.
    expect(view).not_to_contain_text("60:00")
    view.get_by_role("button", name="Make a new link").click()
    expect(link).not_to_have_attribute("href", first)
    assert system.request("GET", str(link.get_attribute("href"))).status == 200

    console.page.clock.fast_forward("30:00")
    expect(view).to_contain_text(re.compile(r"The link works for (2\d|30):\d\d more"))
    console.page.clock.fast_forward("31:00")
    expect(view).to_contain_text("The link has expired. Make a new one.")
    expect(link).to_be_hidden()


def test_the_page_in_a_mail_asks_for_the_password_and_then_gives_a_new_link(
    visit: Visit, manager: Person, system: System
) -> None:
    name = new_id("für.März(2)")
    system.aws("stepfunctions").start_execution(stateMachineArn=system.env["INVENTORY_REPORT_ARN"], name=name)
    [first, page] = re.findall(r"http\S+", system.notification(f"Inventory report {name}", "report")["message"])
    console = visit(tab=page.removeprefix(f"{system.env['CAFE_API_URL']}/"))
    console.sign_in(manager)
    view = console.view("Reports")
    expect(console.page.get_by_role("heading", name="Inventory report", level=1)).to_be_visible()
    link = str(view.get_by_role("link", name="Open the report").get_attribute("href"))
    assert link != first
    assert system.request("GET", link).status == 200

    message = console.go("Inbox").get_by_role("listitem").filter(has_text=name)
    message.locator("summary").click()
    message.get_by_role("link", name="the report's page").click()
    expect(view.get_by_role("link", name="Open the report")).to_be_visible()


def test_the_picture_shows_how_long_each_state_took_and_its_retries(
    visit: Visit, manager: Person, system: System
) -> None:
    report_id = system.report({})["reportId"]
    console = visit(manager)

    def retried(route: Route) -> None:
        history = route.fetch().json()
        [state] = [each for each in history["states"] if each["name"] == "ReadInventory"]
        state |= {"tries": 3, "startedAt": "2026-11-29T10:00:00.000000Z", "finishedAt": "2026-11-29T10:01:12.000000Z"}
        route.fulfill(json=history)

    intercept(console, "GET", f"reports/{report_id}/history", retried)
    console.open(f"#reports/{report_id}")
    expect(steps(console)).to_have_accessible_name(re.compile("Read inventory: done, 1 min 12 s, 3 tries"))
    expect(steps(console)).to_have_accessible_name(re.compile(r"Notify report: done, [\d.]+ m?s"))
    expect(steps(console).get_by_text("1 min 12 s, 3 tries")).to_be_visible()
    expect(console.page).to_have_title(re.compile(r"^Inventory report, \d+:\d\d · "))


def test_a_failed_report_shows_why_and_where(visit: Visit, manager: Person, system: System) -> None:
    console = visit(manager, "#reports")
    view = console.view("Reports")
    with table_renamed(system, "suppliers"):
        report_id = request_report(view)
        expect(view).to_contain_text("Why it failed")
    expect(view).to_contain_text(system.get(f"/reports/{report_id}")["error"])
    expect(steps(console)).to_have_accessible_name(re.compile("Read inventory: failed"))
    view.get_by_text("Step by step").click()
    expect(view.get_by_role("listitem").filter(has_text="Read inventory")).to_contain_text("failed")

    console.page.get_by_role("link", name="All reports").click()
    expect(view.get_by_role("listitem").filter(has_text=report_id)).to_contain_text("Failed")


def test_a_failed_report_is_requested_again_exactly_once(visit: Visit, manager: Person, system: System) -> None:
    with table_renamed(system, "suppliers"):
        failed = system.report({})
    for tab in ("#reports", f"#reports/{failed['reportId']}"):
        console = visit(manager, tab)
        # Both clicks of the double-click and the retry after the lost response must be the same report.
        console.expect_complaint("ERR_FAILED")
        intercept(console, "POST", "create_report", lose, 1)
        console.view("Reports").get_by_role("button", name=f"Try again {failed['reportId']}").dblclick()
        expect(console.page.get_by_role("link", name="Open the report")).to_be_visible()
        assert failed["reportId"] not in console.page.url
        sent = [each for each in console.requests if each.url.endswith("/create_report")]
        assert [each.post_data_json for each in sent] == [{"kind": "inventory"}] * 2
        assert len({each.headers["idempotency-key"] for each in sent}) == 1


@pytest.mark.parametrize(
    ("mode", "versions", "sent"),
    [("metrics", False, {}), ("listing", None, {}), ("listing", True, {"versions": True})],
)
@pytest.mark.parametrize("tab", ["#reports", "#reports/storage-x"])
def test_a_storage_report_is_requested_again_as_before_and_a_refusal_is_shown(
    visit: Visit, manager: Person, tab: str, mode: str, versions: bool | None, sent: dict[str, Any]
) -> None:
    console = visit()
    console.expect_complaint("status of 400")
    intercept(console, "POST", "create_report", refuse(400, "the till is jammed"))
    history = {"states": [waiting("Measure")]}
    intercept(console, "GET", "reports/storage-x/history", lambda route: route.fulfill(json=history))
    view = with_reports(console, manager, storage_report("FAILED", mode=mode, versions=versions))
    console.open(tab)
    view.get_by_role("button", name="Try again").click()
    expect(view.get_by_role("alert")).to_have_text("the till is jammed")
    assert console.calls("POST", "create_report") == [{"kind": "storage", "mode": mode, **sent}]


def waiting(name: str) -> dict[str, Any]:
    place = {"kind": "task", "column": 0, "row": 0, "parent": None, "next": [], "catch": []}
    return {
        **place,
        "name": name,
        "status": "waiting",
        "startedAt": None,
        "finishedAt": None,
        "tries": 0,
        "error": None,
    }


def test_old_versions_are_offered_and_sent_only_when_objects_are_counted(visit: Visit, manager: Person) -> None:
    console = visit()
    console.expect_complaint("status of 400")
    intercept(console, "POST", "create_report", refuse(400))
    view = with_reports(console, manager)
    box = view.get_by_role("checkbox", name="Old versions and unfinished uploads too (more calls to S3)")
    expect(box).to_be_hidden()
    view.get_by_role("radio", name="Storage").check()
    box.check()
    sent = []
    for mode, more in (("listing", {"versions": True}), ("metrics", {})):
        view.get_by_role("radio", name="Count every object" if more else "Ask CloudWatch").check()
        expect(box).to_be_visible(visible=bool(more))
        view.get_by_role("button", name="Request the report").click()
        sent.append({"kind": "storage", "mode": mode, **more})
        expect(view.get_by_role("alert")).to_have_text("no")
        expect(view.get_by_role("button", name="Request the report")).to_have_attribute("aria-busy", "false")
    assert console.calls("POST", "create_report") == sent


UNREAD = [{"bucket": "secret", "error": "AccessDenied"}]
SIZE = ", old versions and unfinished uploads included"
NO_FIGURE = ". CloudWatch has no figure for 1 bucket (empty or new)"


@pytest.mark.parametrize(
    ("size", "without", "errors", "words"),
    [
        (None, 1, [], f"Size unknown{NO_FIGURE}"),
        (5, 1, [], f"5 Bytes in 1 bucket{SIZE}{NO_FIGURE}"),
        (None, 0, UNREAD, "Size unknown"),
        (None, 0, [], "No buckets"),
    ],
)
def test_a_size_without_a_figure_is_never_0_bytes(
    visit: Visit, manager: Person, size: int | None, without: int, errors: list[dict[str, str]], words: str
) -> None:
    sizes = {"beans": size} if size else {}
    sizes |= {"new": None} if without else {}
    as_of = {name: "2026-11-28T00:00:00.000000Z" if known else None for name, known in sizes.items()}
    buckets = [{"name": each, "bytes": sizes[each] or 0, "objects": None, "asOf": as_of[each]} for each in sizes]
    found = {"bucketsWithoutFigure": without, "buckets": buckets, "errors": errors, "asOf": as_of.get("beans")}
    view = with_reports(visit(), manager, storage_report("SUCCEEDED", summary=summary("metrics", **found)))
    storage = view.get_by_role("region", name="Storage")
    expect(storage.locator(".lead")).to_have_text(words)
    expect(storage).not_to_contain_text("0 Bytes")
    expect(storage.get_by_text("no figure", exact=True)).to_have_count(without)


def test_storage_is_shown_as_bars_sorted_by_size_in_both_modes(visit: Visit, manager: Person, system: System) -> None:
    console = visit(manager, "#reports")
    view = console.view("Reports")
    form = view.locator("form", has=console.page.get_by_role("heading", name="New report"))
    for mode in ("Ask CloudWatch", "Count every object"):
        form.get_by_text("Storage", exact=True).check()
        form.get_by_text(mode).check()
        report_id = request_report(view)
        expect(steps(console)).to_have_accessible_name(re.compile("Notify storage: done"))
        console.page.get_by_role("link", name="All reports").click()
    buckets = system.get(f"/reports/{report_id}")["summary"]["buckets"]
    assert len(buckets) > 1

    storage = view.get_by_role("region", name="Storage")
    expect(storage.get_by_role("listitem").first).to_contain_text(buckets[0]["name"])
    storage.get_by_text("Counted object by object").check()
    expect(storage.get_by_role("radio", name=re.compile(r"Counted object by object as of \d+:\d\d"))).to_be_checked()
    bars = storage.locator("svg.bar rect:not(.track)").evaluate_all(
        "bars => bars.map(bar => bar.getAttribute('width'))"
    )
    widths = [float(each.removesuffix("%")) for each in bars]
    assert widths == sorted(widths, reverse=True)
    storage.get_by_text("CloudWatch's daily figures").check()
    # The local cloud publishes no figures.
    expect(storage).to_contain_text("CloudWatch has no figure for")


def test_each_way_to_measure_shows_its_newest_report(visit: Visit, manager: Person) -> None:
    ways = {"c": summary(), "b": WITH_VERSIONS, "a": summary()}
    reports = [storage_report("SUCCEEDED", f"storage-{name}", summary=each) for name, each in ways.items()]
    storage = with_reports(visit(), manager, *reports).get_by_role("region", name="Storage")
    expect(storage.get_by_role("radio", name=re.compile("^Counted object by object as of"))).to_be_checked()
    expect(storage.get_by_role("radio", name="CloudWatch's daily figures not measured yet")).to_be_disabled()
    # This report was made before reports contained parts and growth.
    expect(storage.get_by_role("listitem")).to_have_text(["old 7 Bytes · 1 object"])
    expect(storage.get_by_role("heading", name="Growth")).to_have_count(0)
    storage.get_by_text("Counted with old versions").check()
    expect(storage.locator(".legend > li")).to_have_text([" current", " old versions", " unfinished uploads"])


def test_a_report_with_versions_explains_each_bucket_by_its_parts(visit: Visit, manager: Person) -> None:
    report = storage_report("SUCCEEDED", summary=WITH_VERSIONS)
    storage = with_reports(visit(), manager, report).get_by_role("region", name="Storage")
    expect(storage.locator(".lead")).to_have_text("7.0 GB in 10 buckets, old versions and unfinished uploads included")
    bars = storage.locator(".bars > li")
    expect(bars.locator(".hint").filter(visible=True)).to_have_text(
        [
            "3.0 GB current · 2.0 GB old versions · 1.0 GB in 4 unfinished uploads, the oldest 12 days old"
            " · 2 delete markers",
            "1.0 GB current in GLACIER",
            "1.0 kB in 1 unfinished upload, the oldest less than a day old",
        ]
    )
    stripes = bars.first.locator("rect:not(.track)").evaluate_all(
        "bars => bars.map(bar => [bar.getAttribute('class'), Math.round(parseFloat(bar.getAttribute('width')))])"
    )
    assert stripes == [["current", 50], ["noncurrent", 33], ["unfinishedUploads", 17], ["deleteMarkers", 0]]
    expect(bars).to_have_count(8)
    storage.get_by_role("button", name="Show 2 more buckets").click()
    expect(bars).to_have_count(10)
    expect(bars.nth(8)).to_be_focused()


def test_growth_shows_both_differences_and_gaps_and_never_0_bytes(visit: Visit, manager: Person) -> None:
    report = storage_report("SUCCEEDED", summary=WITH_VERSIONS)
    storage = with_reports(visit(), manager, report).get_by_role("region", name="Storage")
    growth = storage.locator(".growth > li")
    expect(storage).to_contain_text("Growth+1.2 GB since 29 Nov, 11:00 · +3.0 GB in a month")
    expect(growth).to_have_count(8)
    storage.get_by_role("button", name="Show 3 more buckets").click()
    for name, words in {
        "beans": "+1.0 GB since 29 Nov, 11:00 · +2.0 GB in a month",
        "archive": "no change since 29 Nov, 11:00 · no figure in a month",
        "gone": "−1.0 GB since 29 Nov, 11:00 · −1.0 GB in a month",
        "secret": "no figure since 29 Nov, 11:00 · no figure in a month",
    }.items():
        expect(growth.filter(has_text=name)).to_have_text(name + words)
    line = growth.first.get_by_role("img", name="4.0 GB to 6.0 GB, 4 figures in 6 days")
    # Each day without a figure ends the line.
    [path] = line.locator("path").evaluate_all("paths => paths.map(path => path.getAttribute('d').match(/[ML]\\d/g))")
    assert path == ["M0", "L1", "M3", "M5"]
    expect(growth.last.get_by_role("img")).to_have_count(0)


def test_the_list_can_be_filtered_by_kind(visit: Visit, manager: Person, system: System) -> None:
    inventory, storage = system.report({}), system.report({"kind": "storage"})
    console = visit(manager, "#reports")
    reports = console.page.get_by_role("region", name="Requested reports")
    expect(reports).to_contain_text(inventory["reportId"])
    expect(reports).to_contain_text(storage["reportId"])
    reports.get_by_label("Show", exact=True).select_option("storage")
    expect(reports).to_contain_text(storage["reportId"])
    expect(reports).not_to_contain_text(inventory["reportId"])


def test_two_reports_with_one_name_open_each_their_own(visit: Visit, manager: Person, system: System) -> None:
    name = new_id("für-März(2)")
    for machine in (system.env["INVENTORY_REPORT_ARN"], system.env["STORAGE_REPORT_ARN"]):
        system.aws("stepfunctions").start_execution(stateMachineArn=machine, name=name)
    console = visit(manager, "#reports")
    for title in ("Inventory report", "Storage report"):
        row = console.page.get_by_role("listitem").filter(has_text=name).filter(has_text=title)
        expect(row).to_contain_text("Ready", timeout=30_000)
        row.get_by_role("link").click()
        expect(console.page.get_by_role("heading", name=title, level=1)).to_be_visible()
        expect(console.view("Reports").get_by_role("link", name="Open the report")).to_be_visible()
        console.page.go_back()
