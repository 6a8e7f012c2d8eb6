"""Tests sign-in, sign-out and sessions in the console."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Make, Visit
from tests.browser.console import Console, Person
from tests.browser.steps import (
    expect_one_order,
    expect_placed,
    fill,
    intercept,
    new_customer,
    order_form,
    refuse,
    send_order,
    with_clock,
)
from tests.system.system import System, wait_for

# Chromium logs this text when the user pool refuses a request.
REFUSED = "status of 400"
HOUR = "01:00:00"
RULES = ("at least 12 characters", "an uppercase letter (A–Z)", "a lowercase letter (a–z)", "a digit")


@pytest.fixture
def pool(system: System) -> Any:
    """Returns a function that calls a Cognito admin API for a person in the user pool."""
    client = system.aws("cognito-idp")

    def ask(action: str, person: Person, **more: str) -> None:
        getattr(client, action)(UserPoolId=system.env["USER_POOL_ID"], Username=person.name, **more)

    return ask


def session(page: Page) -> Any:
    return json.loads(page.evaluate("sessionStorage.getItem('cafe-session')"))


def refreshes(console: Console) -> int:
    """Counts the page's requests for new tokens."""
    return sum("REFRESH_TOKEN_AUTH" in (each.post_data or "") for each in console.requests)


def test_signing_in_needs_the_right_name_and_password(visit: Visit, manager: Person) -> None:
    console = visit()
    expect(console.page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(console.page.get_by_role("navigation")).to_be_hidden()
    files = f"{console.address}/console/"
    assert [each.url for each in console.requests if not each.url.startswith(files)] == [f"{console.address}/"]

    alert, name = console.page.get_by_role("alert"), console.page.get_by_label("Name", exact=True)
    console.enter("", "")
    expect(alert).to_have_text("Fill in both fields.")
    expect(name).to_be_focused()
    assert [each for each in console.requests if each.method == "POST"] == []

    console.expect_complaint(REFUSED)
    for given in ("nobody", manager.name):
        console.enter(given, "wrong")
        expect(alert).to_have_text("Incorrect username or password.")
        expect(name).to_have_value(given)
    console.sign_in(manager)
    expect(console.page.get_by_role("heading", name="Today", level=1)).to_be_visible()
    expect(console.page.get_by_role("banner")).to_contain_text("manager")


def choose_password(console: Console, password: str, again: str | None = None) -> None:
    console.page.get_by_label("New password", exact=True).fill(password)
    console.page.get_by_label("Repeat the new password").fill(again or password)
    console.page.get_by_role("button", name="Save this password").click()


def test_a_person_replaces_the_temporary_password_at_the_first_sign_in(visit: Visit, people: Make) -> None:
    """The test fakes Cognito's error for a reused password, because the page does not know this rule."""
    why = "Password has previously been used"
    person = people("staff", chosen=False)
    own = Person(person.name, f"{person.password}-of-mine")
    console = visit()
    console.expect_complaint(REFUSED)
    console.enter(person.name, person.password)
    alert = console.page.get_by_role("alert")
    sent = len(console.requests)
    choose_password(console, "short")
    expect(alert).to_have_text("The new password does not meet all rules.")
    expect(console.page.get_by_label("New password", exact=True)).to_be_focused()
    choose_password(console, own.password, "another")
    expect(alert).to_have_text("The two passwords differ. Type the same password in both fields.")
    assert len(console.requests) == sent

    refusal = {"__type": "InvalidPasswordException", "message": why}
    pool = f"{console.env['AWS_ENDPOINT_URL']}/"
    console.page.route(pool, lambda route: route.fulfill(status=400, json=refusal), times=1)
    choose_password(console, own.password)
    expect(alert).to_have_text(why)
    choose_password(console, own.password)
    expect(console.page.get_by_role("button", name="Sign out")).to_be_visible()

    visit(own)


def test_the_rules_for_a_password_are_checked_while_typing(visit: Visit, people: Make) -> None:
    person = people("staff", chosen=False)
    console = visit()
    console.enter(person.name, person.password)
    first = console.page.get_by_label("New password", exact=True)
    again = console.page.get_by_label("Repeat the new password")
    spoken = console.page.locator("#announcer")

    def expect_unmet(*unmet: str) -> None:
        rules = [f"{'not met' if rule in unmet else 'met'}: {rule}" for rule in RULES]
        expect(first).to_have_accessible_description(" ".join(rules))

    expect(first).to_be_editable()
    expect_unmet(*RULES)
    for key, unmet in {"a": RULES[:2] + RULES[3:], "É": RULES[:2] + RULES[3:], "Z": RULES[::3], "7": RULES[:1]}.items():
        first.press_sequentially(key)
        expect_unmet(*unmet)
    expect(spoken).to_be_empty()
    first.press_sequentially("12345678")
    expect_unmet()
    expect(spoken).to_have_text("The new password meets all rules.")

    again.press_sequentially("aÉZ")
    expect(again).to_have_accessible_description("")
    again.press("x")
    expect(again).to_have_accessible_description("The two passwords differ.")
    expect(spoken).to_have_text("The two passwords differ.")
    again.fill("aÉZ712345678")
    expect(again).to_have_accessible_description("")


def second_tab(console: Console) -> Page:
    """Opens the console in another tab of the same browser, without a link from the first tab."""
    page = console.context.new_page()
    page.goto(f"{console.address}/")
    return page


def test_a_session_survives_a_reload_and_a_second_tab_shares_it(visit: Visit, staff: Person) -> None:
    console = visit(staff, "#reports")
    console.open("#reports")
    expect(console.page.get_by_role("banner")).to_contain_text(staff.name)
    other = second_tab(console)
    expect(other.get_by_role("banner")).to_contain_text(staff.name)
    # All JSON Web Tokens start with ``eyJ``.
    assert "eyJ" not in console.page.evaluate("JSON.stringify(localStorage) + document.cookie")

    # The second tab uses the new tokens of the first tab.
    before = session(console.page)["id"]
    console.page.get_by_role("button", name="Check my permissions again").click()
    wait_for(lambda: before != session(console.page)["id"] == session(other)["id"], "the new tokens in both tabs")
    console.page.close()
    other.reload()
    expect(other.get_by_role("banner")).to_contain_text(staff.name)


def test_a_session_ends_with_the_last_tab(visit: Visit, staff: Person) -> None:
    console = visit(staff)
    console.page.close()
    expect(second_tab(console).get_by_role("heading", name="Sign in")).to_be_visible()


def test_signing_in_and_out_takes_effect_in_all_tabs(visit: Visit, staff: Person) -> None:
    console = visit()
    other = second_tab(console)
    leave = other.get_by_role("button", name="Sign out")
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
    console.sign_in(staff)
    expect(leave).to_be_visible()
    leave.click()
    for page in (console.page, other):
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert page.evaluate("sessionStorage.length") == 0
    console.sign_in(staff)
    expect(leave).to_be_visible()


def test_a_tab_that_was_asleep_during_the_sign_out_is_signed_out(visit: Visit, staff: Person) -> None:
    console = visit(staff)
    kept = console.page.evaluate("sessionStorage.getItem('cafe-session')")
    other = second_tab(console)
    other.get_by_role("button", name="Sign out").click()
    expect(console.page.get_by_role("heading", name="Sign in")).to_be_visible()
    # The browser restores the storage of a tab that it had unloaded to save memory.
    console.page.evaluate("text => sessionStorage.setItem('cafe-session', text)", kept)
    console.page.reload()
    expect(console.page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_signing_out_ends_the_session_in_the_user_pool_and_clears_the_page(
    visit: Visit, people: Make, system: System
) -> None:
    person = people("staff")
    console = visit(person, "#orders")
    console.page.get_by_label("Customer", exact=True).fill("somebody")
    console.go("Inbox")
    refresh = session(console.page)["refresh"]
    console.page.get_by_role("button", name="Sign out").click()
    expect(console.page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert console.page.evaluate("sessionStorage.length") == 0

    idp = system.aws("cognito-idp")
    with pytest.raises(idp.exceptions.NotAuthorizedException):
        idp.initiate_auth(
            ClientId=system.env["USER_POOL_CLIENT_ID"],
            AuthFlow="REFRESH_TOKEN_AUTH",
            AuthParameters={"REFRESH_TOKEN": refresh},
        )
    console.page.go_back()
    expect(console.page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(console.page.get_by_role("navigation")).to_be_hidden()
    console.sign_in(person)
    expect(console.page.get_by_label("Customer", exact=True)).to_have_value("")


def test_a_token_is_refreshed_silently_before_it_expires(visit: Visit, staff: Person) -> None:
    console = with_clock(visit(), staff, "#orders")
    first = session(console.page)["id"]
    console.page.clock.fast_forward("56:00")
    customer = new_customer()
    send_order(console, customer)
    expect_placed(console, customer)
    expect(console.page.get_by_role("dialog")).to_be_hidden()
    assert session(console.page)["id"] != first
    assert refreshes(console) == 1


def test_a_token_of_five_minutes_is_refreshed_before_its_end_and_not_for_each_request(
    visit: Visit, staff: Person
) -> None:
    """The test shortens the lifetime that the page hears of, because all tests share a user pool client."""
    console = visit()
    console.expect_complaint("status of 403")
    blocked = {"__type": "ForbiddenException", "message": "Request not allowed due to WAF block."}

    def shorten(route: Route) -> None:
        if "REFRESH_TOKEN_AUTH" in (route.request.post_data or "") and refreshes(console) == 1:
            route.fulfill(status=403, json=blocked)
            return
        answer = route.fetch().json()
        answer["AuthenticationResult"]["ExpiresIn"] = 300
        route.fulfill(json=answer)

    console.page.route(f"{console.env['AWS_ENDPOINT_URL']}/", shorten)
    with_clock(console, staff, "#orders")
    customer = console.page.get_by_label("Customer", exact=True)
    customer.fill("half an or")
    console.page.clock.fast_forward("03:00")
    console.go("Inbox")
    console.go("Orders")
    assert refreshes(console) == 0
    # AWS WAF blocks the first attempt. The session goes on, and the page tries again.
    for seconds in ("00:30", "00:10"):
        with console.page.expect_response(lambda each: "REFRESH_TOKEN_AUTH" in (each.request.post_data or "")):
            console.page.clock.fast_forward(seconds)
        expect(console.page.get_by_role("dialog")).to_be_hidden()
    expect(customer).to_have_value("half an or")
    name = new_customer()
    send_order(console, name)
    expect_placed(console, name)
    assert refreshes(console) == 2


def test_a_token_that_the_api_refuses_is_refreshed_once(visit: Visit, staff: Person, system: System) -> None:
    """The API can refuse a token if the computer's clock is wrong or the computer was asleep."""
    customer = new_customer()
    console = visit(staff, "#orders")
    console.expect_complaint("status of 403")
    refused = session(console.page)["id"]
    met = intercept(console, "POST", "orders", refuse(403), times=1)
    send_order(console, customer)
    expect_one_order(console, system, customer)
    assert len(met) == refreshes(console) == 1
    sent = [each for each in console.requests if (each.method, each.url) == ("POST", f"{console.address}/orders")]
    assert [each.headers["authorization"] for each in sent] == [
        f"Bearer {refused}",
        f"Bearer {session(console.page)['id']}",
    ]
    assert sent[0].post_data == sent[1].post_data


def ended_session(visit: Visit, person: Person, pool: Any, customer: str) -> Console:
    """Returns a page whose session ended while the person was filling in an order."""
    console = with_clock(visit(), person, "#orders")
    console.expect_complaint(REFUSED)
    fill(order_form(console.view("Orders")), customer, {"Cortado": "1"})
    pool("admin_user_global_sign_out", person)
    console.page.clock.fast_forward(HOUR)
    return console


def test_a_session_that_ends_during_work_asks_for_the_password_and_keeps_the_input(
    visit: Visit, people: Make, pool: Any
) -> None:
    staff, customer = people("staff"), new_customer()
    console = ended_session(visit, staff, pool, customer)
    dialog = console.page.get_by_role("dialog", name="Sign in again")
    password = dialog.get_by_label("Password", exact=True)
    expect(password).to_be_focused()
    expect(dialog.get_by_label("Name", exact=True)).to_have_value(staff.name)
    # The Escape key must not close the sign-in dialog.
    console.page.keyboard.press("Escape")
    console.page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    password.fill("wrong")
    password.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("Incorrect username or password.")
    password.fill(staff.password)
    password.press("Enter")

    expect(dialog).to_be_hidden()
    expect(console.page.get_by_label("Customer", exact=True)).to_have_value(customer)
    console.page.get_by_role("button", name="Place the order").click()
    expect_placed(console, customer)


def test_an_order_in_progress_when_the_session_ends_is_placed_once(
    visit: Visit, people: Make, system: System, pool: Any
) -> None:
    staff, customer = people("staff"), new_customer()
    console = visit(staff, "#orders")
    console.expect_complaint(REFUSED)
    console.expect_complaint("status of 403")
    pool("admin_user_global_sign_out", staff)
    intercept(console, "POST", "orders", refuse(403), times=1)
    send_order(console, customer)
    dialog = console.page.get_by_role("dialog", name="Sign in again")
    dialog.get_by_label("Password", exact=True).fill(staff.password)
    dialog.get_by_role("button", name="Sign in").click()
    expect_one_order(console, system, customer)


def test_a_person_can_sign_out_of_an_ended_session(visit: Visit, people: Make, pool: Any) -> None:
    console = ended_session(visit, people("staff"), pool, new_customer())
    console.page.get_by_role("dialog").get_by_role("button", name="Sign out instead").click()
    expect(console.page.get_by_role("navigation")).to_be_hidden()
    expect(console.page.get_by_label("Name", exact=True)).to_have_value("")


def test_a_change_of_groups_takes_effect_with_the_next_token(visit: Visit, people: Make, pool: Any) -> None:
    person = people("staff")
    console = with_clock(visit(), person, "#reports")
    request = console.page.get_by_role("button", name="Request the report")
    pool("admin_add_user_to_group", person, GroupName="managers")
    console.page.get_by_role("button", name="Check my permissions again").click()
    expect(request).to_be_visible()

    pool("admin_remove_user_from_group", person, GroupName="managers")
    # The page's current token still contains the managers group. A request with the new token may get a 403.
    console.allowed.append("status of 403.*/reports")
    console.page.clock.fast_forward("56:00")
    expect(console.page.get_by_role("heading", name="Only for managers")).to_be_visible()
    expect(request).to_be_hidden()
