"""Who comes in, who does not, and what a session survives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Make, Visit
from tests.browser.console import Console, Person
from tests.browser.test_orders import new_customer
from tests.system.system import System

# Chromium's own words for the user pool's refusal.
REFUSED = "status of 400"
HOUR = "01:00:00"


@pytest.fixture
def pool(system: System) -> Any:
    """The user pool, with the rights of whoever runs the back office."""
    client = system.aws("cognito-idp")

    def ask(action: str, person: Person, **more: str) -> None:
        getattr(client, action)(UserPoolId=system.env["USER_POOL_ID"], Username=person.name, **more)

    return ask


def session(console: Console) -> Any:
    return json.loads(console.page.evaluate("sessionStorage.getItem('cafe-session')"))


def refreshes(console: Console) -> int:
    """How often it asked for new tokens."""
    return sum("REFRESH_TOKEN_AUTH" in (each.post_data or "") for each in console.requests)


def test_nothing_is_asked_of_the_api_before_somebody_is_signed_in(visit: Visit) -> None:
    console = visit()
    expect(console.page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(console.page.get_by_role("navigation")).to_be_hidden()
    files = f"{console.address}/console/"
    assert [each.url for each in console.requests if not each.url.startswith(files)] == [f"{console.address}/"]


def test_a_wrong_password_is_said_and_the_right_one_lets_in(visit: Visit, manager: Person) -> None:
    console = visit()
    console.expect_complaint(REFUSED)
    console.enter(manager.name, "wrong")
    expect(console.page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    expect(console.page.get_by_label("Name", exact=True)).to_have_value(manager.name)
    console.sign_in(manager)
    expect(console.page.get_by_role("heading", name="Today", level=1)).to_be_visible()
    expect(console.page.get_by_role("banner")).to_contain_text("manager")


def test_a_name_that_nobody_has_is_refused_in_the_same_words(visit: Visit) -> None:
    console = visit()
    console.expect_complaint(REFUSED)
    console.enter("nobody", "wrong")
    expect(console.page.get_by_role("alert")).to_have_text("The name or the password is wrong.")


def test_an_empty_form_is_not_sent(visit: Visit) -> None:
    console = visit()
    console.enter("", "")
    expect(console.page.get_by_role("alert")).to_have_text("Both fields are needed.")
    expect(console.page.get_by_label("Name", exact=True)).to_be_focused()
    assert [each for each in console.requests if each.method == "POST"] == []


def test_who_was_given_a_password_chooses_another_at_the_first_time(visit: Visit, people: Make) -> None:
    person = people("staff", chosen=False)
    own = Person(person.name, f"{person.password}-of-mine")
    console = visit()
    console.enter(person.name, person.password)
    first, again = console.page.get_by_label("New password", exact=True), console.page.get_by_label("once more")
    first.fill(own.password)
    again.fill("another")
    console.page.get_by_role("button", name="Keep this password").click()
    expect(console.page.get_by_role("alert")).to_have_text("The two new passwords are not the same.")
    again.fill(own.password)
    again.press("Enter")
    expect(console.page.get_by_role("button", name="Sign out")).to_be_visible()

    visit(own)


def test_a_new_password_that_the_policy_refuses_is_said_and_another_one_taken(visit: Visit, people: Make) -> None:
    """MiniStack takes any password, so the first answer is Cognito's own."""
    why = "Password did not conform with policy: Password not long enough"
    person = people("staff", chosen=False)
    console = visit()
    console.expect_complaint(REFUSED)
    console.enter(person.name, person.password)
    refusal = {"__type": "InvalidPasswordException", "message": why}
    pool = f"{console.env['AWS_ENDPOINT_URL']}/"
    console.page.route(pool, lambda route: route.fulfill(status=400, json=refusal), times=1)
    choose_password(console, "short")
    expect(console.page.get_by_role("alert")).to_have_text(why)
    choose_password(console, f"{person.password}-of-mine")
    expect(console.page.get_by_role("button", name="Sign out")).to_be_visible()


def choose_password(console: Console, password: str) -> None:
    console.page.get_by_label("New password", exact=True).fill(password)
    console.page.get_by_label("once more").fill(password)
    console.page.get_by_role("button", name="Keep this password").click()


def test_a_session_survives_a_reload_and_is_of_this_tab_alone(visit: Visit, staff: Person) -> None:
    console = visit(staff)
    console.open()
    expect(console.page.get_by_role("banner")).to_contain_text(staff.name)
    assert console.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]

    other = console.context.new_page()
    other.goto(f"{console.address}/")
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()


def test_signing_out_ends_the_session_in_the_user_pool_too_and_leaves_nothing(
    visit: Visit, staff: Person, system: System
) -> None:
    console = visit(staff, "#orders")
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
    console.sign_in(staff)
    expect(console.page.get_by_label("Customer", exact=True)).to_have_value("")


def type_order(console: Console, customer: str) -> None:
    console.page.get_by_label("Customer", exact=True).fill(customer)
    console.page.get_by_label("Item", exact=True).fill("Cortado")


def place_order(console: Console) -> None:
    console.page.get_by_role("button", name="Place the order").click()


def test_a_token_is_refreshed_before_its_end_and_nobody_notices(visit: Visit, staff: Person, system: System) -> None:
    console = visit()
    console.page.clock.install()
    console.open("#orders")
    console.sign_in(staff)
    first = session(console)["id"]
    type_order(console, "refreshed")
    console.page.clock.fast_forward("56:00")
    place_order(console)
    expect(console.page.get_by_role("link", name="Placed", exact=True)).to_be_visible()
    expect(console.page.get_by_role("dialog")).to_be_hidden()
    assert session(console)["id"] != first
    assert refreshes(console) == 1


def test_a_token_that_the_api_refuses_is_refreshed_once(visit: Visit, staff: Person) -> None:
    """As where the clock of the person's machine is wrong, or the machine has slept."""
    console = visit(staff, "#orders")
    console.expect_complaint("status of 403")
    console.page.route("**/orders", lambda route: route.fulfill(status=403, json={"Message": "no"}), times=1)
    type_order(console, "refused-once")
    place_order(console)
    expect(console.page.get_by_role("link", name="Placed", exact=True)).to_be_visible()
    assert refreshes(console) == 1
    first, second = console.calls("POST", "orders")
    assert first == second


def test_a_session_that_ends_in_mid_work_asks_for_the_password_and_nothing_typed_is_lost(
    visit: Visit, people: Make, pool: Any
) -> None:
    staff = people("staff")
    console = visit()
    console.expect_complaint(REFUSED)
    console.page.clock.install()
    console.open("#orders")
    console.sign_in(staff)
    type_order(console, "typed-before")
    pool("admin_user_global_sign_out", staff)
    console.page.clock.fast_forward(HOUR)

    dialog = console.page.get_by_role("dialog", name="Sign in again")
    password = dialog.get_by_label("Password", exact=True)
    expect(password).to_be_focused()
    expect(dialog.get_by_label("Name", exact=True)).to_have_value(staff.name)
    # It is no dialog to be put off.
    console.page.keyboard.press("Escape")
    console.page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    password.fill("wrong")
    password.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    password.fill(staff.password)
    password.press("Enter")

    expect(dialog).to_be_hidden()
    expect(console.page.get_by_label("Customer", exact=True)).to_have_value("typed-before")
    place_order(console)
    expect(console.page.get_by_role("link", name="Placed", exact=True)).to_be_visible()


def test_an_order_that_was_on_its_way_when_the_session_ended_goes_on_and_is_placed_once(
    visit: Visit, people: Make, system: System, pool: Any
) -> None:
    staff = people("staff")
    console = visit(staff, "#orders")
    console.expect_complaint(REFUSED)
    console.expect_complaint("status of 403")
    pool("admin_user_global_sign_out", staff)
    console.page.route("**/orders", lambda route: route.fulfill(status=403, json={"Message": "no"}), times=1)
    customer = new_customer()
    type_order(console, customer)
    place_order(console)
    dialog = console.page.get_by_role("dialog", name="Sign in again")
    dialog.get_by_label("Password", exact=True).fill(staff.password)
    dialog.get_by_role("button", name="Sign in").click()
    expect(console.page.get_by_role("link", name="Placed", exact=True)).to_be_visible()
    assert len(system.all(f"/orders?customerID={customer}", "orders")) == 1


def test_who_does_not_come_back_signs_out_of_the_ended_session(visit: Visit, people: Make, pool: Any) -> None:
    staff = people("staff")
    console = visit()
    console.expect_complaint(REFUSED)
    console.page.clock.install()
    console.open("#orders")
    console.sign_in(staff)
    pool("admin_user_global_sign_out", staff)
    console.page.clock.fast_forward(HOUR)
    console.page.get_by_role("dialog").get_by_role("button", name="Sign out instead").click()
    expect(console.page.get_by_role("navigation")).to_be_hidden()
    expect(console.page.get_by_label("Name", exact=True)).to_have_value("")


def test_a_group_that_is_taken_away_takes_effect_with_the_next_token(visit: Visit, people: Make, pool: Any) -> None:
    person = people("managers")
    pool("admin_add_user_to_group", person, GroupName="staff")
    console = visit()
    console.page.clock.install()
    console.open("#reports")
    console.sign_in(person)
    expect(console.page.get_by_role("button", name="Request the report")).to_be_visible()
    pool("admin_remove_user_from_group", person, GroupName="managers")
    # By the token of before: the page asks once more with a new one, and takes that for an answer.
    console.allowed.append("status of 403.*/reports")
    console.page.clock.fast_forward("56:00")
    expect(console.page.get_by_role("heading", name="Only for managers")).to_be_visible()
    expect(console.page.get_by_role("button", name="Request the report")).to_be_hidden()


def test_who_becomes_a_manager_is_one_without_signing_in_again(visit: Visit, people: Make, pool: Any) -> None:
    person = people("staff")
    console = visit(person, "#reports")
    pool("admin_add_user_to_group", person, GroupName="managers")
    console.page.get_by_role("button", name="Check my rights again").click()
    expect(console.page.get_by_role("button", name="Request the report")).to_be_visible()
