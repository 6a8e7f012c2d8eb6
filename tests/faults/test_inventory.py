"""Flow 1: every accepted report ends, its end is announced once, and every link in a notification works."""

from tests.faults.conftest import Record
from tests.faults.counting import count_reports, reports_in, request_reports, wait_for_reports
from tests.faults.weather import (
    SOME,
    Weather,
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
from tests.system.reports import execution_arn
from tests.system.stack import Faulty
from tests.system.system import Answer, new_id, wait_for
from tests.system.waiting import at_once

READY, FAILURE = "Subject=Inventory+report+ready", "Subject=Inventory+report+failed"


@cases(
    {
        "Step Functions throttles the API": wire("states:StartExecution", throttled, first=SOME),
        "Step Functions starts a report and the answer is lost": wire("states:StartExecution", cut_after, first=SOME),
        "Lambda refuses ReadInventory once": invoking("read_inventory", failed, first=1),
        "Lambda throttles ReadInventory": invoking("read_inventory", throttled, first=SOME),
        "ReadInventory is done and the answer is lost": invoking("read_inventory", cut_after, first=1),
        "Lambda refuses RenderReport once": invoking("render_report", failed, first=1),
        "RenderReport is done and the answer is lost": invoking("render_report", cut_after, first=1),
        "Lambda refuses PresignReport once": invoking("presign_report", throttled, first=1),
        "SNS throttles NotifyReport": publishing(READY, throttled, first=SOME),
        "SNS takes the link and says 500": publishing(READY, failed_after, first=2),
        "SNS takes the link and the answer is lost": publishing(READY, cut_after, first=2),
        "S3 throttles the file of the rows": wire("s3:PutObject", throttled, caller="read_inventory", first=SOME),
        "S3 answers 500 to the page": wire("s3:PutObject", failed, caller="render_report", first=SOME),
        "the rows break off on their way to the page": wire("s3:GetObject", truncated, caller="render_report", first=2),
        "Secrets Manager throttles the database's secret": together(
            afresh("read_inventory"), wire("secretsmanager:GetSecretValue", throttled, first=SOME)
        ),
        "MySQL refuses the connection": lambda system: system.gate.shut(times=3),
        "MySQL is cut off in mid-result": trap(got=3000, times=2),
        "MySQL is restarted during the read": trap(Faulty.restart_mysql, got=3000),
        "MySQL is slow": lambda system: system.gate.slowed(0.2),
        "one of five calls fails": wire("(s3|sns|states|lambda):.*", failed, share=0.2),
    },
    in_short=[
        "MySQL is restarted during the read",
        "RenderReport is done and the answer is lost",
        "SNS takes the link and the answer is lost",
    ],
)
def test_reports_requested_in_this_weather_succeed(system: Faulty, weather: Weather, record: Record) -> None:
    record(count_reports(system, reports_in(system, weather), wanted="SUCCEEDED"))


@cases(
    {
        "Lambda refuses ReadInventory for ever": invoking("read_inventory", failed),
        "Lambda refuses RenderReport for ever": invoking("render_report", failed),
        "Lambda refuses PresignReport for ever": invoking("presign_report", failed),
        "SNS refuses NotifyReport for ever": publishing(READY, throttled),
        "SNS refuses NotifyReport for good": publishing(READY, denied),
        "MySQL refuses for ever": lambda system: system.gate.shut(),
        "the reports bucket refuses the file of the rows": wire("s3:PutObject", denied, caller="read_inventory"),
        "the reports bucket refuses the page": wire("s3:PutObject", unavailable, caller="render_report"),
        "the page is refused and SNS throttles NotifyFailure": together(
            wire("s3:PutObject", denied, caller="render_report"), publishing(FAILURE, throttled, first=2)
        ),
        "SNS refuses for ever": publishing("Subject=Inventory+report", throttled),
        "SNS cannot be reached for ever": publishing("Subject=Inventory+report", cut_before),
    },
    in_short=["Lambda refuses RenderReport for ever", "SNS refuses for ever"],
)
def test_reports_that_cannot_succeed_are_announced_as_failed(system: Faulty, weather: Weather, record: Record) -> None:
    record(count_reports(system, reports_in(system, weather), wanted="FAILED"))


@cases(
    {
        "ReadInventory is killed before its file is stored": killing("s3:PutObject", "read_inventory"),
        "RenderReport is killed before its page is stored": killing("s3:PutObject", "render_report"),
    }
)
def test_reports_of_a_killed_function_end_and_are_announced(system: Faulty, weather: Weather, record: Record) -> None:
    record(count_reports(system, reports_in(system, weather)))


def test_notify_report_takes_longer_than_it_may(system: Faulty, record: Record) -> None:
    # The slow publication takes effect too, so there are two notifications with the same key.
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


def test_the_whole_report_takes_longer_than_it_may(system: Faulty, record: Record) -> None:
    with system.patience("inventory", None, 1), system.wire.fault("lambda:Invoke", slow(3), caller="states"):
        accepted = request_reports(system, 1)
        wait_for_reports(system, accepted)
    record(count_reports(system, accepted, wanted="TIMED_OUT"))


@short
def test_the_same_post_ten_times_at_the_same_moment_with_a_key(system: Faulty, record: Record) -> None:
    key = new_id("k")
    answers = at_once(lambda: system.post("/create_report", {}, Idempotency_Key=key))
    assert answers == answers[:1] * 10
    record(count_reports(system, {answers[0]["reportId"]}, wanted="SUCCEEDED"))


@short
def test_one_key_for_reports_of_both_kinds_ten_times_at_the_same_moment(system: Faulty, record: Record) -> None:
    key = new_id("k")

    def post(kind: str) -> Answer:
        return system.request("POST", "/create_report", {"kind": kind}, Idempotency_Key=key)

    answers = at_once(post, "inventory", "storage")
    assert sorted(answer.status for answer in answers) == [202] * 5 + [409] * 5, [answer.text for answer in answers]
    [accepted] = {answer.json["reportId"] for answer in answers if answer.status == 202}
    known = [system.request("GET", f"/reports/{kind}-{key}").status for kind in ("inventory", "storage")]
    assert sorted(known) == [200, 404]
    record(count_reports(system, [accepted], wanted="SUCCEEDED"))
