"""Tests applied previews and undo under faults. Every bean must end as the last completed action left it."""

from tests.faults.cases import Case, cases, killing, short, trap, wire
from tests.faults.conftest import Record
from tests.faults.counting import Count, File, inbox, new_file, stock
from tests.faults.test_uploads import kill_the_import, upload, wait_for_notification
from tests.system.faults import failed, failed_after, throttled
from tests.system.stack import Faulty
from tests.system.system import wait_for
from tests.system.waiting import at_once

RESULT = {"operation": "dynamodb:UpdateItem", "caller": "receive_upload"}
MIDDLE = 1_000
FAULTS = {
    "MySQL stores the changes, but its response is lost": trap(word=b"COMMIT", answered=True, times=2),
    "the MySQL connection is cut half-way": trap(sent=MIDDLE, times=2),
    "MySQL is restarted half-way": trap(Faulty.restart_mysql, sent=MIDDLE),
    "the function is killed half-way": trap(kill_the_import, sent=MIDDLE),
    "the function is killed before the commit": trap(kill_the_import, word=b"COMMIT"),
    "the function is killed before it publishes": killing("sns:Publish", "receive_upload"),
    "the function is killed after it publishes": killing("sns:Publish", "receive_upload", done=True),
    "DynamoDB throttles the result": wire(**RESULT, fault=throttled, first=4),
    "DynamoDB stores the result but returns 500": wire(**RESULT, fault=failed_after, first=2),
}


def upload_id(system: Faulty, file: File) -> str:
    uploads = system.get("/uploads?limit=100")["uploads"]
    return str(next(each["uploadId"] for each in uploads if each["key"] == file.key))


def imported_twice(system: Faulty) -> tuple[File, File]:
    """Imports a file and another file that changes the same beans. Returns both files."""
    first = upload(system, new_file(quantity=5))
    wait_for_notification(system, first)
    second = upload(system, new_file(supplier=first.supplier, quantity=9))
    wait_for_notification(system, second)
    return first, second


def act(system: Faulty, identifier: str, action: str) -> None:
    assert system.request("POST", f"/uploads/{identifier}/{action}", {}).status == 202


def ends(system: Faulty, identifier: str, status: str) -> None:
    wait_for(lambda: system.get(f"/uploads/{identifier}")["upload"]["status"] == status, f"the status {status}", 90)


def count(system: Faulty, expected: File, changed: File, notifications: int) -> Count:
    """Counts the beans that are not as ``expected``, and the surplus notifications about the file ``changed``."""
    wait_for(lambda: len(inbox(system, changed.key)) >= notifications, "the notifications")
    right = {f"Bean {number}": expected.quantity for number in range(expected.rows)}
    wrong = right.items() ^ stock(system, expected.supplier).items()
    surplus = len(inbox(system, changed.key)) - notifications
    return Count(accepted=expected.rows, lost=len(wrong), doubled=surplus)


@cases(FAULTS, in_short=["MySQL is restarted half-way"])
def test_an_import_is_undone_during_this_fault(system: Faulty, case: Case, record: Record) -> None:
    first, second = imported_twice(system)
    identifier = upload_id(system, second)
    with case(system):
        act(system, identifier, "undo")
        ends(system, identifier, "UNDONE")
    record(count(system, first, second, notifications=2))


@cases(FAULTS, in_short=["the function is killed after it publishes"])
def test_a_preview_is_applied_during_this_fault(system: Faulty, case: Case, record: Record) -> None:
    first = upload(system, new_file(quantity=5))
    wait_for_notification(system, first)
    link = system.request("POST", "/uploads", {"filename": "may.csv", "preview": True}).json
    previewed = new_file(key=link["key"], supplier=first.supplier, quantity=9)
    upload(system, previewed)
    ends(system, link["uploadId"], "PREVIEWED")
    assert set(stock(system, first.supplier).values()) == {5}
    with case(system):
        act(system, link["uploadId"], "apply")
        ends(system, link["uploadId"], "IMPORTED")
    record(count(system, previewed, previewed, notifications=1))


def test_an_undo_is_requested_twice_at_once(system: Faulty, record: Record) -> None:
    first, second = imported_twice(system)
    identifier = upload_id(system, second)
    answers = at_once(lambda: system.request("POST", f"/uploads/{identifier}/undo", {}), times=2)
    # The second request may arrive after the end of the undo, and is then refused.
    statuses = sorted((answer.status, "is UNDONE" in answer.text) for answer in answers)
    assert statuses in ([(202, False), (202, False)], [(202, False), (409, True)]), statuses
    ends(system, identifier, "UNDONE")
    record(count(system, first, second, notifications=2))


@short
def test_an_undo_and_an_import_of_the_same_beans_run_at_once(system: Faulty, record: Record) -> None:
    _, second = imported_twice(system)
    identifier = upload_id(system, second)
    act(system, identifier, "undo")
    third = upload(system, new_file(supplier=second.supplier, quantity=7))
    wait_for_notification(system, third)
    ends(system, identifier, "UNDONE")
    record(count(system, third, third, notifications=1))


def test_the_record_of_the_upload_fails_until_the_event_is_retried(system: Faulty, record: Record) -> None:
    file = new_file()
    with system.wire.fault(**RESULT, fault=failed, first=4):
        upload(system, file)
        wait_for_notification(system, file)
        ends(system, upload_id(system, file), "IMPORTED")
    record(count(system, file, file, notifications=1))
