"""Tests uploads (flow 3) under faults.

Every upload's rows must be in MySQL exactly once, and its result must be announced once.
"""

import math
from dataclasses import replace
from hashlib import md5

from tests.faults import counting
from tests.faults.cases import SOME, Case, afresh, cases, killing, short, together, trap, wire
from tests.faults.conftest import Record
from tests.faults.counting import File, count_uploads, inbox, new_file
from tests.system.events import Event, s3_event
from tests.system.faults import (
    before_call,
    cut_after,
    cut_before,
    denied,
    failed,
    failed_after,
    invalid,
    slow,
    throttled,
    truncated,
    unavailable,
)
from tests.system.letters import own_letters
from tests.system.stack import Faulty
from tests.system.system import logged, new_id, wait_for

READ = {"operation": "s3:GetObject", "caller": "receive_upload"}
ANNOUNCE = {"operation": "sns:Publish", "caller": "receive_upload"}


def kill_the_import(system: Faulty) -> None:
    system.kill_all("receive_upload")


@cases(
    {
        "S3 throttles the read": wire(**READ, fault=throttled, first=SOME - 1),
        "S3 returns 500 for the read": wire(**READ, fault=failed, first=SOME - 1),
        "the connection is cut before the read": wire(**READ, fault=cut_before, first=SOME - 1),
        "the download of the file is cut off": wire(**READ, fault=truncated, first=2),
        "SNS throttles": wire(**ANNOUNCE, fault=throttled, first=SOME - 1),
        "SNS accepts the notification but returns 500": wire(**ANNOUNCE, fault=failed_after, first=SOME - 1),
        "SNS accepts the notification, but its response is lost": wire(**ANNOUNCE, fault=cut_after, first=SOME - 1),
        "Secrets Manager returns 500 for the database's secret": together(
            afresh("receive_upload"), wire("secretsmanager:GetSecretValue", failed, first=SOME - 1)
        ),
        "MySQL refuses the connection": lambda system: system.gate.shut(times=2),
        "the MySQL connection is cut during the import": trap(sent=2_000, times=2),
        "MySQL stores the rows, but its response is lost": trap(word=b"COMMIT", answered=True, times=2),
        "MySQL is slow": lambda system: system.gate.slowed(0.1),
        "MySQL is restarted during the import": trap(Faulty.restart_mysql, sent=2_000),
        "the function is killed before the read": killing("s3:GetObject", "receive_upload", first=1),
        "the function is killed during the import": trap(kill_the_import, sent=2_000),
        "the function is killed before the commit": trap(kill_the_import, word=b"COMMIT"),
        "the function is killed before it publishes": killing("sns:Publish", "receive_upload"),
        "the function is killed after it publishes": killing("sns:Publish", "receive_upload", done=True),
        "one call in three fails": wire("(s3|sns):.*", failed, share=0.33),
    },
    in_short=["MySQL is restarted during the import"],
)
def test_files_uploaded_during_this_fault(system: Faulty, case: Case, record: Record) -> None:
    with case(system):
        files = [upload(system, new_file()) for _ in range(2)]
        wait_for(lambda: all(inbox(system, each.key) for each in files), "the notifications")
    record(count_uploads(system, files))


# --- repeated and late events -----------------------------------------------------------------------------------------


def wait_for_notification(system: Faulty, file: File) -> None:
    wait_for(lambda: len(inbox(system, file.key)) >= file.notifications, f"the notification of {file.key}")


def upload(system: Faulty, file: File) -> File:
    system.upload(file.key, file.body)
    return file


def event(system: Faulty, file: File) -> Event:
    """Rebuilds the latest S3 event for a file from the ``uploads`` table."""
    [(sequencer, etag)] = system.sql("SELECT sequencer, etag FROM uploads WHERE object_key = %s", file.key)
    return s3_event(system.env["UPLOADS_BUCKET"], file.key, etag, sequencer)


def deliver(system: Faulty, *events: object) -> None:
    for each in events:
        system.call("receive_upload", each)


def test_each_event_arrives_three_times(system: Faulty, record: Record) -> None:
    files = [upload(system, new_file()) for _ in range(2)]
    for each in files:
        wait_for_notification(system, each)
        deliver(system, event(system, each), event(system, each))
    count = count_uploads(system, files)
    assert not count.again
    record(count)


def test_an_older_event_arrives_late(system: Faulty, record: Record) -> None:
    old = upload(system, new_file(rows=50))
    wait_for_notification(system, old)
    late = event(system, old)
    new = upload(system, replace(old, rows=50, quantity=9, notifications=2))
    wait_for_notification(system, new)
    deliver(system, late)
    record(count_uploads(system, [new]))


def test_an_event_arrives_again_after_another_file_changed_the_same_beans(system: Faulty, record: Record) -> None:
    first = upload(system, new_file(quantity=5))
    wait_for_notification(system, first)
    other = upload(system, new_file(supplier=first.supplier, quantity=9))
    wait_for_notification(system, other)
    deliver(system, event(system, first))
    record(count_uploads(system, [other]))


def test_an_older_event_fails_and_is_retried_after_the_newer_one(system: Faulty, record: Record) -> None:
    old = new_file(quantity=5)
    with system.wire.fault(**READ, fault=failed, first=2):
        upload(system, old)
        wait_for(lambda: system.wire.rules[-1].met == 2, "the older event's failure")
        new = upload(system, replace(old, quantity=9))
        wait_for_notification(system, new)
    record(count_uploads(system, [new]))


def test_a_newer_event_arrives_while_the_older_one_is_processed(system: Faulty, record: Record) -> None:
    old = new_file(quantity=5)
    with system.wire.fault(**READ, fault=slow(2), first=1) as slowness:
        upload(system, old)
        wait_for(lambda: slowness.met, "the read for the older event")
        new = upload(system, replace(old, quantity=9))
    record(count_uploads(system, [new]))


def test_the_object_is_overwritten_before_it_is_read(system: Faulty, record: Record) -> None:
    file = new_file(quantity=5)
    new = replace(file, quantity=9)
    overwrite = before_call(lambda _call: upload(system, new))
    with system.wire.fault(**READ, fault=overwrite, first=1):
        upload(system, file)
    # Once the newer event is announced, any notification about the older event is also in the inbox.
    announced = "SELECT 1 FROM uploads WHERE object_key = %s AND etag = %s AND announced"
    wait_for(lambda: system.sql(announced, new.key, md5(new.body.encode()).hexdigest()), "the newer event")
    record(count_uploads(system, [new]))


def test_an_event_with_two_records_is_delivered_again(system: Faulty, record: Record) -> None:
    first, second = upload(system, new_file()), upload(system, new_file())
    for each in (first, second):
        wait_for_notification(system, each)
    records = event(system, first)["Records"] + event(system, second)["Records"]
    for _ in range(2):
        deliver(system, {"Records": records})
    record(count_uploads(system, [first, second]))


def test_a_file_that_is_not_imported_is_announced_twice_under_one_key(system: Faulty, record: Record) -> None:
    key = f"photos/{new_id('p')}.jpg"
    with system.wire.fault(**ANNOUNCE, fault=failed_after, first=3):
        system.upload(key, b"x")
        wait_for(lambda: inbox(system, key), "the notification")
    record(count_uploads(system, [File(key, new_id("nobody"), rows=0)]))


@cases(
    {
        "MySQL is unavailable for longer than all tries": lambda system: system.gate.shut(times=math.inf),
        "S3 is unavailable for longer than all tries": wire(**READ, fault=unavailable),
        "S3 refuses access for longer than all tries": wire(**READ, fault=denied),
        "SNS is unavailable for longer than all tries": wire(**ANNOUNCE, fault=unavailable),
        "the function is killed at six tries": killing("s3:GetObject", "receive_upload", first=6),
    },
    in_short=["MySQL is unavailable for longer than all tries"],
)
def test_an_upload_during_this_outage(system: Faulty, case: Case, record: Record) -> None:
    file = new_file()
    with case(system):
        upload(system, file)
        wait_for(lambda: logged(system, "retry_failures", file.key), "the first retry")
    record(count_uploads(system, [file]))


def test_retry_failures_is_killed_before_it_deletes_what_it_has_sent(system: Faulty, record: Record) -> None:
    file, queue = new_file(), {"QueueUrl": system.env["RETRIES_QUEUE_URL"]}
    sqs = system.aws("sqs")
    # The killed function's message would come back after six minutes.
    sqs.set_queue_attributes(**queue, Attributes={"VisibilityTimeout": "2"})
    try:
        with killing("lambda:Invoke", "retry_failures", done=True, first=1)(system), system.gate.shut(times=math.inf):
            upload(system, file)
            wait_for(lambda: counting.in_queue(system, "RETRIES_QUEUE_URL"), "the event in the retries queue")
        count = count_uploads(system, [file])
        wait_for(lambda: not counting.in_queue(system, "RETRIES_QUEUE_URL"), "the second try")
    finally:
        sqs.set_queue_attributes(**queue, Attributes={"VisibilityTimeout": "360"})
    record(count)


@short
def test_what_s3_refuses_for_its_content_waits_for_a_person(system: Faulty, record: Record) -> None:
    with own_letters(system) as letters:
        file = new_file(key=f"inventory/{letters.new_id('u')}.csv")
        with system.wire.fault(**READ, fault=invalid):
            upload(system, file)
            letter = letters.one(file.key)
        assert letter["why"].startswith("AWS refused GetObject (InvalidParameter)")
        counting.redrive(system, file.key)
        record(count_uploads(system, [file]))
