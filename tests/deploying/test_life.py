"""The life of two stages on the local cloud, from the first deploy to an empty account, with all that may go wrong.

Every deploy here has exactly the rights of ``infra/deployer-policy.json``. The tests are in the order of that life, and
each leaves the stage ``one`` deployed and whole.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.error
from collections import deque
from functools import partial
from typing import Any

import pytest

from tests.deploying.conftest import Checkout, Place
from tests.system.system import wait_for
from tests.system.wire import Call, Cut, Exchange, Reply, invalid

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def empty(place: Place) -> set[str]:
    """What there is in an account before the first deploy."""
    place.cloud.deployer()
    return place.account.everything()


def version(place: Place, stage: str = "one") -> str:
    health = place.account.get(stage, "/health")
    assert (health["status"], health["stage"]) == ("ok", stage)
    return str(health["version"])


def test_the_first_deploy_shows_what_it_makes_and_ends_with_an_api_that_works(
    place: Place, empty: set[str], here: Checkout
) -> None:
    said = here.deploy("one")
    for line in (
        r"account 000000000000 in us-east-1 at http://127.0.0.1:\d+, as user/deployer",
        r"cafe-one-resources: new, \d+ resources \(",
        r"functions and API: deploying \d+ functions with chalice, build \w{16}",
        r"check: every setting is right",
        r"smoke test: the API answers, and every function runs",
    ):
        assert re.search(line, said), said
    assert version(place)
    assert place.account.state("one")["under_way"] is None


@pytest.mark.parametrize("checkout", ["here", "elsewhere"])
def test_a_second_deploy_changes_nothing_from_another_clone_as_well(
    place: Place, checkout: str, request: pytest.FixtureRequest
) -> None:
    before = place.account.snapshot("one")
    said = request.getfixturevalue(checkout).deploy("one")
    assert "cafe-one-resources: nothing to change" in said
    assert "functions and API: nothing to change" in said
    assert place.account.snapshot("one") == before


def test_where_the_record_is_lost_it_is_made_again_by_name_and_nothing_is_made_twice(
    place: Place, elsewhere: Checkout
) -> None:
    before = place.account.snapshot("one")
    bucket = place.account.aws("s3").list_object_versions(Bucket="cafe-one-deploys-000000000000")
    for each in bucket["Versions"]:
        place.account.aws("s3").delete_object(
            Bucket="cafe-one-deploys-000000000000", Key=each["Key"], VersionId=each["VersionId"]
        )
    elsewhere.deploy("one")
    after = place.account.snapshot("one")
    assert after["apis"].keys() == before["apis"].keys()
    assert {uuid for uuid, *_ in after["mappings"]} == {uuid for uuid, *_ in before["mappings"]}
    assert after["subscriptions"] == before["subscriptions"]
    assert place.account.code("one").keys() == before["functions"].keys()


def test_a_second_stage_beside_it_leaves_the_first_as_it_is(place: Place, here: Checkout) -> None:
    """Its name begins with that of the first, so that only whole names tell them apart."""
    before = place.account.snapshot("one")
    here.deploy("one-more")
    assert place.account.snapshot("one") == before
    assert version(place, "one-more")
    assert place.account.apis("one").keys() != place.account.apis("one-more").keys()
    assert not set(place.account.functions("one")) & set(place.account.functions("one-more"))


def goes_back(place: Place, checkout: Checkout, *reasons: str) -> None:
    """A deploy fails for these reasons, and what served before serves again."""
    code, state, before = place.account.code("one"), place.account.state("one"), version(place)
    [api] = place.account.apis("one")
    status, said = checkout.run("one")
    assert status == 1, said
    for each in reasons:
        assert each in said
    assert "The previous release was restored and serves" in said
    assert place.account.code("one") == code
    assert place.account.state("one") == state
    assert version(place) == before
    assert place.account.apis("one").keys() == {api}
    stack = place.account.aws("cloudformation").describe_stacks(StackName="cafe-one-resources")["Stacks"][0]
    assert stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")


def test_code_that_does_not_start_is_taken_back(place: Place) -> None:
    broken = place.checkout("broken")
    broken.edit(
        "app.py",
        "settings = Settings.read()\n",
        "settings = Settings.read()\n    assert sys.argv[0].endswith('chalice')\n",
    )
    goes_back(place, broken, "the database is not up to date: ")


def test_a_function_that_fails_where_the_api_does_not_is_taken_back(place: Place) -> None:
    broken = place.checkout("half")
    broken.edit("chalicelib/orders/store.py", "from __future__ import annotations\n", "import nothing_like_it\n")
    goes_back(place, broken, "deployed, but it does not work", "store_orders: fails on an empty event")


def with_buckets(checkout: Checkout, **names: str) -> Checkout:
    """Its template has these buckets more."""
    more = "".join(
        f"  {key}:\n    Type: AWS::S3::Bucket\n    Properties: {{BucketName: {name}}}\n" for key, name in names.items()
    )
    checkout.edit("infra/resources.yaml", "\nOutputs:\n", f"{more}\nOutputs:\n")
    return checkout


def test_a_template_that_fails_is_taken_back_with_all_that_came_before_it(place: Place) -> None:
    broken = with_buckets(place.checkout("twice"), First="the-same-name", Second="the-same-name")
    broken.edit("infra/resources.yaml", "VisibilityTimeout: 190", "VisibilityTimeout: 192")
    goes_back(place, broken, "cafe-one-resources failed, and CloudFormation rolled everything back", "Second")
    assert "s3: the-same-name" not in place.account.everything()


def test_a_plan_that_takes_something_of_somebody_else_is_refused_before_anything_is_done(place: Place) -> None:
    place.account.aws("s3").create_bucket(Bucket="somebody-elses")
    before = place.account.snapshot("one")
    status, said = with_buckets(place.checkout("taken"), Taken="somebody-elses").run("one")
    assert status == 1
    assert "The affected resources are Taken" in said
    after = place.account.snapshot("one")
    after["objects"] = [each for each in after["objects"] if "templates/" not in each[1]]
    before["objects"] = [each for each in before["objects"] if "templates/" not in each[1]]
    assert after == before
    place.account.aws("s3").delete_bucket(Bucket="somebody-elses")


def test_a_setting_that_lambda_refuses_is_taken_back_with_the_code_and_the_template(place: Place) -> None:
    """All three changed: the release before has another template, another code and other settings."""
    broken = place.checkout("refused")
    broken.edit("infra/deploy/wiring.py", '"MaximumRetryAttempts": 1000', '"MaximumRetryAttempts": 999')
    broken.edit("chalicelib/settings.py", 'VERSION = "0.1.0"', 'VERSION = "refused"')
    broken.edit("infra/resources.yaml", "VisibilityTimeout: 190", "VisibilityTimeout: 191")
    refusing = place.wire.fault("lambda:PUT", invalid, when=lambda call: '"MaximumRetryAttempts": 999' in call)
    with refusing as rule:
        goes_back(place, broken, "Invalid parameter", "change OrdersQueue (AWS::SQS::Queue): VisibilityTimeout")
    assert rule.met
    queue = place.account.aws("sqs").get_queue_url(QueueName="cafe-one-orders")["QueueUrl"]
    found = place.account.aws("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["VisibilityTimeout"])
    assert found["Attributes"]["VisibilityTimeout"] == "190"


def test_rollback_puts_the_release_before_back_and_another_goes_further(place: Place) -> None:
    first = version(place)
    changed = place.checkout("changed")
    code = place.account.code("one")
    releases = place.account.state("one")["releases"]
    for number in ("2", "3"):
        settings = (changed.folder / "chalicelib" / "settings.py").read_text()
        settings = re.sub(r'VERSION = ".*"', f'VERSION = "{number}"', settings)
        (changed.folder / "chalicelib" / "settings.py").write_text(settings)
        changed.deploy("one")
        assert version(place) == number
    assert len(place.account.state("one")["releases"]) == len(releases) + 2
    # From a clone that has deployed none of them.
    clone = place.checkout("clone")
    assert "smoke test" in clone.deploy("one", "--rollback")
    assert version(place) == "2"
    clone.deploy("one", "--rollback")
    assert version(place) == first
    assert place.account.code("one") == code
    assert place.account.state("one") == {"releases": releases, "under_way": None}


def test_what_was_put_back_is_what_the_next_deploy_of_that_code_finds(place: Place, here: Checkout) -> None:
    before = place.account.snapshot("one")
    assert "functions and API: nothing to change" in here.deploy("one")
    assert place.account.snapshot("one") == before


def test_a_migration_that_fails_is_taken_back_with_the_code_and_finished_by_the_next_deploy(
    place: Place, here: Checkout
) -> None:
    broken = place.checkout("migration")
    file = broken.folder / "chalicelib" / "database" / "migrations" / "0002_prices.sql"
    file.write_text("CREATE TABLE IF NOT EXISTS prices (id INT);\nALTER TABLE prices ADD amount CENTS;\n")
    goes_back(place, broken, "the database is not up to date: 0002_prices.sql, statement 2 of 2: Unknown data type")
    assert [column[0] for column in place.sql("SHOW COLUMNS FROM prices")] == ["id"]
    file.write_text(file.read_text().replace("CENTS", "INT"))
    assert "database: 0002_prices" in broken.deploy("one")
    assert [column[0] for column in place.sql("SHOW COLUMNS FROM prices")] == ["id", "amount"]
    # Code that knows nothing of it goes on beside it.
    assert "database: nothing to change" in here.deploy("one")


def test_a_scheduled_report_is_made_once_and_shown_by_the_api_and_its_schedule_goes_with_its_parameter(
    place: Place, here: Checkout
) -> None:
    """By another schedule with the same target, which is due at once: nobody waits until six."""
    weekly = (
        "--parameter",
        "InventoryReportSchedule=cron(0 6 ? * MON *)",
        "--parameter",
        "ScheduleTimezone=Asia/Tokyo",
    )
    said = here.deploy("one", "--parameter", "StorageReportSchedule=cron(0 6 * * ? *)", *weekly)
    assert "functions and API: nothing to change" in said
    scheduler, machines = place.account.aws("scheduler"), place.account.aws("stepfunctions")
    names = {each["Name"] for each in scheduler.list_schedules()["Schedules"]}
    assert names == {"cafe-one-storage-report", "cafe-one-inventory-report"}
    schedule = scheduler.get_schedule(Name="cafe-one-storage-report")
    due = {"ScheduleExpression": "at(2026-11-21T00:00:00)", "ActionAfterCompletion": "DELETE"}
    same = {name: schedule[name] for name in ("FlexibleTimeWindow", "Target")}
    scheduler.create_schedule(Name="now", **same, **due)
    machine = place.account.outputs("one")["StorageReportArn"]
    [name] = wait_for(
        lambda: [
            each["name"]
            for each in machines.list_executions(stateMachineArn=machine)["executions"]
            if each["status"] == "SUCCEEDED"
        ],
        "a scheduled report",
    )
    given = json.loads(schedule["Target"]["Input"])
    with pytest.raises(machines.exceptions.ExecutionAlreadyExists):
        machines.start_execution(stateMachineArn=machine, name=name, input=given["Input"])
    report = place.account.get("one", f"/reports/{name}", place.account.managers_token("one"))
    assert (report["kind"], report["status"], report["requestedBy"]) == ("storage", "SUCCEEDED", None)
    # What was set stays, and what is set to nothing goes.
    here.deploy("one", "--parameter", "InventoryReportSchedule=")
    assert [each["Name"] for each in scheduler.list_schedules()["Schedules"]] == ["cafe-one-storage-report"]
    here.deploy("one", "--parameter", "StorageReportSchedule=")
    assert scheduler.list_schedules()["Schedules"] == []


def test_the_api_answers_as_many_requests_as_its_parameters_say_and_a_waf_comes_and_goes(
    place: Place, here: Checkout
) -> None:
    gateway, wafv2 = place.account.aws("apigateway"), place.account.aws("wafv2")
    [api] = place.account.apis("one")
    before = gateway.get_stage(restApiId=api, stageName="api")
    assert before["methodSettings"]["*/*"]["throttlingRateLimit"] == 100
    assert "/aws/apigateway/cafe-one-access" in before["accessLogSettings"]["destinationArn"]
    limits = ("--parameter", "ApiRateLimit=1", "--parameter", "ApiBurstLimit=2")
    said = here.deploy("one", *limits, "--parameter", "Waf=on")
    assert "functions and API: nothing to change" in said
    [acl] = wafv2.list_web_acls(Scope="REGIONAL")["WebACLs"]
    protected = wafv2.list_resources_for_web_acl(WebACLArn=acl["ARN"], ResourceType="API_GATEWAY")["ResourceArns"]
    assert protected == [f"arn:aws:apigateway:us-east-1::/restapis/{api}/stages/api"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        deque(place.account.get("one", "/health") for _ in range(20))
    assert refused.value.code == 429
    limits = ("--parameter", "ApiRateLimit=100", "--parameter", "ApiBurstLimit=200")
    assert "API: WAF taken away" in here.deploy("one", *limits, "--parameter", "Waf=off")
    assert wafv2.list_web_acls(Scope="REGIONAL")["WebACLs"] == []
    with pytest.raises(wafv2.exceptions.WAFNonexistentItemException):
        wafv2.get_web_acl_for_resource(ResourceArn=protected[0])
    after = gateway.get_stage(restApiId=api, stageName="api")
    assert after["methodSettings"] == before["methodSettings"]


# --- cut off ----------------------------------------------------------------------------------------------------------

# After which of its calls the deploy is killed: the first one of each kind, in this order.
STEPS = (
    ("cloudformation:ExecuteChangeSet", "cafe-cut-deploys"),
    ("s3:PutObject", "stage.json"),
    ("cloudformation:ExecuteChangeSet", "cafe-cut-resources"),
    ("lambda:POST", "/functions"),
    ("lambda:POST", "/event-source-mappings"),
    ("s3:PutBucket", "notification"),
    ("sns:Subscribe", ""),
    ("apigateway:POST", "/restapis?"),
    ("apigateway:POST", "/deployments"),
    ("s3:PutObject", "packages/"),
    ("lambda:PUT", "/event-source-mappings/"),
    ("sns:SetSubscriptionAttributes", ""),
    ("lambda:Invoke", "cafe-cut-migrate"),
    ("cognito-idp:AdminCreateUser", ""),
    ("s3:PutObject", "releases/"),
)


class Killer:
    """Kills a deploy with all its processes after a call has taken effect, and before its answer has arrived."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, exchange: Exchange) -> Reply:
        exchange.forward_whole()
        assert self.process
        os.killpg(self.process.pid, signal.SIGKILL)
        raise Cut


def test_a_deploy_that_is_killed_after_each_of_its_steps_is_finished_by_the_next(place: Place) -> None:
    """The same new stage is deployed again and again, and each time it is killed one step later."""
    checkout, killer = place.checkout("killed"), Killer()
    for operation, what in STEPS:
        is_it = partial(_concerns, what)
        with place.wire.fault(operation, killer, when=is_it, first=1):
            killer.process = checkout.start("cut")
            said, _ = killer.process.communicate(timeout=300)
        assert killer.process.returncode == -signal.SIGKILL, f"{operation} {what}: {said}"
    said = checkout.deploy("cut")
    assert "this one finishes it" in said
    assert "smoke test: the API answers, and every function runs" in said
    assert len(place.account.apis("cut")) == 1
    snapshot = place.account.snapshot("cut")
    assert len(snapshot["mappings"]) == 2
    assert len(snapshot["subscriptions"]) == 2
    assert place.account.state("cut")["under_way"] is None
    assert "functions and API: nothing to change" in checkout.deploy("cut")
    assert place.account.snapshot("cut") == snapshot
    checkout.deploy("cut", "--destroy")


def _concerns(what: str, call: Call) -> bool:
    return what in call


def test_rollback_after_a_deploy_that_was_killed_puts_back_what_served(place: Place, here: Checkout) -> None:
    code, releases = place.account.code("one"), place.account.state("one")["releases"]
    killed = place.checkout("killed-once")
    killed.edit("chalicelib/settings.py", 'VERSION = "0.1.0"', 'VERSION = "killed"')
    killer = Killer()
    half = place.wire.fault("lambda:PUT", killer, when=lambda call: "cafe-one-store_orders/code" in call)
    with half:
        killer.process = killed.start("one")
        killer.process.communicate(timeout=300)
    assert place.account.code("one") != code
    here.deploy("one", "--rollback")
    assert place.account.code("one") == code
    assert place.account.state("one") == {"releases": releases, "under_way": None}


# --- and off again ----------------------------------------------------------------------------------------------------


def test_without_a_right_nothing_is_begun_and_the_right_is_named(place: Place, here: Checkout) -> None:
    iam = place.account.aws("iam")
    policy = iam.get_user_policy(UserName="deployer", PolicyName="deployer")["PolicyDocument"]
    lacking = json.loads(json.dumps(policy).replace('"lambda:AddPermission", ', ""))
    assert lacking != policy
    iam.put_user_policy(UserName="deployer", PolicyName="deployer", PolicyDocument=json.dumps(lacking))
    try:
        before = place.account.everything()
        status, said = here.run("never")
        assert status == 1
        assert "lambda:AddPermission on arn:aws:lambda:us-east-1:000000000000:function:cafe-never-x" in said
        assert place.account.everything() == before
    finally:
        iam.put_user_policy(UserName="deployer", PolicyName="deployer", PolicyDocument=json.dumps(policy))


def test_what_has_a_stages_names_and_is_not_its_own_is_left_alone(place: Place, here: Checkout) -> None:
    sqs = place.account.aws("sqs")
    queue = sqs.create_queue(QueueName="cafe-taken-orders")["QueueUrl"]
    before = place.account.everything()
    status, said = here.run("taken")
    assert status == 1
    assert "AWS::SQS::Queue: cafe-taken-orders" in said
    assert place.account.everything() == before
    sqs.delete_queue(QueueUrl=queue)


def test_data_that_is_kept_is_there_for_the_next_deploy_of_the_name(place: Place, here: Checkout) -> None:
    s3, dynamodb = place.account.aws("s3"), place.account.aws("dynamodb")
    reports, uploads = (f"cafe-one-more-{each}-000000000000" for each in ("reports", "uploads"))
    s3.put_object(Bucket=reports, Key="kept.txt", Body=b"kept")
    item: dict[str, Any] = {"orderID": {"S": "kept"}, "customerID": {"S": "table-4"}}
    dynamodb.put_item(TableName="cafe-one-more-orders", Item=item)
    said = here.deploy("one-more", "--destroy", "--keep-data")
    left = {each for each in place.account.everything() if re.search(r"cafe-one-more(-|$)", each)}
    assert left == {
        "dynamodb: cafe-one-more-notifications",
        "dynamodb: cafe-one-more-orders",
        "dynamodb: cafe-one-more-requests",
        f"s3: {reports}",
        f"s3: {uploads}",
    }
    assert "left of the stage: its data" in said
    said = here.deploy("one-more")
    assert "taken over with their data: " in said
    assert s3.get_object(Bucket=reports, Key="kept.txt")["Body"].read() == b"kept"
    assert dynamodb.get_item(TableName="cafe-one-more-orders", Key={"orderID": {"S": "kept"}})["Item"] == item


def test_a_destroyed_stage_leaves_the_other_as_it_is(place: Place, here: Checkout) -> None:
    before = place.account.snapshot("one")
    assert "left of the stage: nothing" in here.deploy("one-more", "--destroy")
    assert not [each for each in place.account.everything() if re.search(r"cafe-one-more(-|$)", each)]
    assert place.account.snapshot("one") == before
    assert version(place)


def test_after_the_last_stage_the_account_is_as_empty_as_before(
    place: Place, empty: set[str], elsewhere: Checkout
) -> None:
    """By an inventory of all services, from a clone that did not make it."""
    place.account.aws("s3").put_object(Bucket="cafe-one-reports-000000000000", Key="inventory/a.csv", Body=b"x")
    said = elsewhere.deploy("one", "--destroy")
    assert "left of the stage: nothing" in said
    assert place.account.everything() == empty


def test_a_stage_that_is_not_there_is_destroyed_already(elsewhere: Checkout) -> None:
    assert "left of the stage: nothing" in elsewhere.deploy("one", "--destroy")
