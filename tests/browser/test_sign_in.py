"""Tests sign-in, sign-out and sessions in the console."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Route, expect

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
from tests.system.system import System

# Chromium logs this text when the user pool refuses a request.
REFUSED = "status of 400"
HOUR = "01:00:00"


@pytest.fixture
def pool(system: System) -> Any:
    """Returns a function that calls a Cognito admin API for a person in the user pool."""
    client = system.aws("cognito-idp")

    def ask(action: str, person: Person, **more: str) -> None:
        getattr(client, action)(UserPoolId=system.env["USER_POOL_ID"], Username=person.name, **more)

    return ask


def session(console: Console) -> Any:
    return json.loads(console.page.evaluate("sessionStorage.getItem('cafe-session')"))


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
    """The test fakes Cognito's error for a short password, because the AWS emulator MiniStack accepts any password."""
    why = "Password did not conform with policy: Password not long enough"
    person = people("staff", chosen=False)
    own = Person(person.name, f"{person.password}-of-mine")
    console = visit()
    console.expect_complaint(REFUSED)
    console.enter(person.name, person.password)
    alert = console.page.get_by_role("alert")
    choose_password(console, own.password, "another")
    expect(alert).to_have_text("The two passwords differ. Type the same password in both fields.")

    refusal = {"__type": "InvalidPasswordException", "message": why}
    pool = f"{console.env['AWS_ENDPOINT_URL']}/"
    console.page.route(pool, lambda route: route.fulfill(status=400, json=refusal), times=1)
    choose_password(console, "short")
    expect(alert).to_have_text(why)
    choose_password(console, own.password)
    expect(console.page.get_by_role("button", name="Sign out")).to_be_visible()

    visit(own)


def test_a_session_survives_a_reload_and_is_limited_to_its_browser_tab(visit: Visit, staff: Person) -> None:
    console = visit(staff)
    console.open()
    expect(console.page.get_by_role("banner")).to_contain_text(staff.name)
    # All JSON Web Tokens start with ``eyJ``.
    assert "eyJ" not in console.page.evaluate("JSON.stringify(localStorage) + document.cookie")

    other = console.context.new_page()
    other.goto(f"{console.address}/")
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()


def test_signing_out_ends_the_session_in_the_user_pool_and_clears_the_page(
    visit: Visit, people: Make, system: System
) -> None:
    person = people("staff")
    console = visit(person, "#orders")
    console.page.get_by_label("Customer", exact=True).fill("somebody")
    console.go("Inbox")
    refresh = session(console)["refresh"]
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
    first = session(console)["id"]
    console.page.clock.fast_forward("56:00")
    send_order(console, new_customer())
    expect_placed(console)
    expect(console.page.get_by_role("dialog")).to_be_hidden()
    assert session(console)["id"] != first
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
    send_order(console, new_customer())
    expect_placed(console)
    assert refreshes(console) == 2


def test_a_token_that_the_api_refuses_is_refreshed_once(visit: Visit, staff: Person, system: System) -> None:
    """The API can refuse a token if the computer's clock is wrong or the computer was asleep."""
    customer = new_customer()
    console = visit(staff, "#orders")
    console.expect_complaint("status of 403")
    refused = session(console)["id"]
    met = intercept(console, "POST", "orders", refuse(403), times=1)
    send_order(console, customer)
    expect_one_order(console, system, customer)
    assert len(met) == refreshes(console) == 1
    sent = [each for each in console.requests if (each.method, each.url) == ("POST", f"{console.address}/orders")]
    assert [each.headers["authorization"] for each in sent] == [f"Bearer {refused}", f"Bearer {session(console)['id']}"]
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
    expect_placed(console)


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
