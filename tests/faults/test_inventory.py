"""Tests the inventory report (flow 1) under faults.

Every accepted report must end and be announced once, and its links must work.
"""

from tests.faults.cases import (
    SOME,
    Case,
    afresh,
    cases,
    invoking,
    killing,
    publishing,
    short,
    together,
    trap,
    wire,
)
from tests.faults.conftest import Record
from tests.faults.counting import count_reports, count_scheduled_report, reports_in, request_reports, wait_for_reports
from tests.system.faults import (
    cut_after,
    cut_before,
    denied,
    failed,
    failed_after,
    slow,
    throttled,
    truncated,
    unavailable,
)
from tests.system.reports import execution_arn, start, states
from tests.system.stack import Faulty
from tests.system.system import Answer, new_id, wait_for
from tests.system.waiting import at_once

READY, FAILURE = "Subject=Inventory+report+ready", "Subject=Inventory+report+failed"


@cases(
    {
        "Step Functions throttles the API": wire("states:StartExecution", throttled, first=SOME),
        "the report is started, but the response is lost": wire("states:StartExecution", cut_after, first=SOME),
        "Lambda refuses ReadInventory once": invoking("read_inventory", failed, first=1),
        "Lambda throttles ReadInventory": invoking("read_inventory", throttled, first=SOME),
        "ReadInventory succeeds, but its response is lost": invoking("read_inventory", cut_after, first=1),
        "Lambda refuses RenderReport once": invoking("render_report", failed, first=1),
        "RenderReport succeeds, but its response is lost": invoking("render_report", cut_after, first=1),
        "Lambda refuses PresignReport once": invoking("presign_report", throttled, first=1),
        "SNS throttles NotifyReport": publishing(READY, throttled, first=SOME),
        "SNS accepts the link but returns 500": publishing(READY, failed_after, first=2),
        "SNS accepts the link, but its response is lost": publishing(READY, cut_after, first=2),
        "S3 throttles the CSV file": wire("s3:PutObject", throttled, caller="read_inventory", first=SOME),
        "S3 returns 500 for the page": wire("s3:PutObject", failed, caller="render_report", first=SOME),
        "the download of the rows is cut off": wire("s3:GetObject", truncated, caller="render_report", first=2),
        "Secrets Manager throttles the database's secret": together(
            afresh("read_inventory"), wire("secretsmanager:GetSecretValue", throttled, first=SOME)
        ),
        "MySQL refuses the connection": lambda system: system.gate.shut(times=3),
        "MySQL's result is cut off": trap(got=3000, times=2),
        "MySQL is restarted during the read": trap(Faulty.restart_mysql, got=3000),
        "MySQL is slow": lambda system: system.gate.slowed(0.2),
        "one call in five fails": wire("(s3|sns|states|lambda):.*", failed, share=0.2),
    },
    in_short=[
        "MySQL is restarted during the read",
        "RenderReport succeeds, but its response is lost",
        "SNS accepts the link, but its response is lost",
    ],
)
def test_reports_requested_during_this_fault_succeed(system: Faulty, case: Case, record: Record) -> None:
    record(count_reports(system, reports_in(system, case), wanted="SUCCEEDED"))


@cases(
    {
        "Lambda refuses ReadInventory every time": invoking("read_inventory", failed),
        "Lambda refuses RenderReport every time": invoking("render_report", failed),
        "Lambda refuses PresignReport every time": invoking("presign_report", failed),
        "SNS refuses NotifyReport every time": publishing(READY, throttled),
        "SNS refuses NotifyReport with a 403": publishing(READY, denied),
        "MySQL refuses every connection": lambda system: system.gate.shut(),
        "the reports bucket refuses the CSV file": wire("s3:PutObject", denied, caller="read_inventory"),
        "the reports bucket refuses the page": wire("s3:PutObject", unavailable, caller="render_report"),
        "the page is refused and SNS throttles NotifyFailure": together(
            wire("s3:PutObject", denied, caller="render_report"), publishing(FAILURE, throttled, first=2)
        ),
        "SNS refuses every notification": publishing("Subject=Inventory+report", throttled),
        "SNS cannot be reached": publishing("Subject=Inventory+report", cut_before),
    },
    in_short=["Lambda refuses RenderReport every time", "SNS refuses every notification"],
)
def test_reports_that_cannot_succeed_are_announced_as_failed(system: Faulty, case: Case, record: Record) -> None:
    record(count_reports(system, reports_in(system, case), wanted="FAILED"))


@cases(
    {
        "MySQL refuses every connection of a scheduled report": lambda system: system.gate.shut(),
        "Lambda throttles ReadInventory of a scheduled report": invoking("read_inventory", throttled),
        "S3 is unavailable to a scheduled report": wire("s3:PutObject", unavailable, caller="render_report"),
        "SNS throttles every notification of a scheduled report": publishing("Subject=Inventory+report", throttled),
    },
    in_short=["MySQL refuses every connection of a scheduled report"],
)
def test_a_scheduled_report_outlasts_this_fault(system: Faulty, case: Case, record: Record) -> None:
    record(count_scheduled_report(system, case, "inventory", "report"))


def test_a_scheduled_report_that_cannot_succeed_fails_at_once(system: Faulty, record: Record) -> None:
    with system.wire.fault("s3:PutObject", denied, caller="read_inventory"):
        report_id = start(system, "inventory", '{"scheduled": true}')
        wait_for_reports(system, [report_id])
    record(count_reports(system, [report_id], wanted="FAILED"))
    assert states(system, report_id)["WaitBeforeRetry"]["status"] == "skipped"


@cases(
    {
        "ReadInventory is killed before its file is stored": killing("s3:PutObject", "read_inventory"),
        "RenderReport is killed before its page is stored": killing("s3:PutObject", "render_report"),
    }
)
def test_reports_of_a_killed_function_end_and_are_announced(system: Faulty, case: Case, record: Record) -> None:
    record(count_reports(system, reports_in(system, case)))


def test_notify_report_times_out(system: Faulty, record: Record) -> None:
    # The delayed publication also takes effect, so SNS delivers two notifications with the same key.
    with system.patience("inventory", "NotifyReport", 1), publishing(READY, slow(3), first=1)(system):
        accepted = request_reports(system, 1)
        wait_for(lambda: system.subscriber.about(accepted[0])[f"report/{accepted[0]}"] == 2, "the late notification")
    record(count_reports(system, accepted, wanted="SUCCEEDED"))


def test_the_report_is_aborted(system: Faulty, record: Record) -> None:
    with system.wire.fault("lambda:Invoke", slow(2), caller="states") as slowness:
        accepted = request_reports(system, 1)
        wait_for(lambda: slowness.met, "the first state")
        system.aws("stepfunctions").stop_execution(executionArn=execution_arn(system, accepted[0]))
    record(count_reports(system, accepted, wanted="ABORTED"))


def test_the_whole_report_times_out(system: Faulty, record: Record) -> None:
    with system.patience("inventory", None, 1), system.wire.fault("lambda:Invoke", slow(3), caller="states"):
        accepted = request_reports(system, 1)
        wait_for_reports(system, accepted)
    record(count_reports(system, accepted, wanted="TIMED_OUT"))


def test_the_same_post_ten_times_at_once_with_a_key(system: Faulty, record: Record) -> None:
    key = new_id("k")
    answers = at_once(lambda: system.post("/create_report", {}, Idempotency_Key=key))
    assert answers == answers[:1] * 10
    record(count_reports(system, {answers[0]["reportId"]}, wanted="SUCCEEDED"))


@short
def test_one_key_for_reports_of_both_kinds_ten_times_at_once(system: Faulty, record: Record) -> None:
    key = new_id("k")

    def post(kind: str) -> Answer:
        return system.request("POST", "/create_report", {"kind": kind}, Idempotency_Key=key)

    answers = at_once(post, "inventory", "storage")
    assert sorted(answer.status for answer in answers) == [202] * 5 + [409] * 5, [answer.text for answer in answers]
    [accepted] = {answer.json["reportId"] for answer in answers if answer.status == 202}
    known = [system.request("GET", f"/reports/{kind}-{key}").status for kind in ("inventory", "storage")]
    assert sorted(known) == [200, 404]
    record(count_reports(system, [accepted], wanted="SUCCEEDED"))
