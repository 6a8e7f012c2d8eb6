"""Tests the life of two stages on the local cloud, from the first deploy to an empty account.

Every deploy in this file runs with exactly the permissions in ``infra/deployer/``. The tests run in order,
and every test except the last leaves the stage ``one`` deployed and complete.
"""

from __future__ import annotations

import json
import re
import urllib.error
from collections import deque
from typing import Any

import pytest

from tests.deploying.checkout import Checkout, Place
from tests.system.system import wait_for
from tests.wiring.stage import SCHEDULES

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def empty(place: Place) -> set[str]:
    """Returns the account's resources before the first deploy."""
    place.cloud.deployer_credentials()
    return place.account.everything()


def test_the_first_deploy_shows_its_plan_and_ends_with_a_healthy_api(
    place: Place, empty: set[str], here: Checkout
) -> None:
    said = here.deploy("one")
    for line in (
        r"account 000000000000 in us-east-1 at http://127.0.0.1:\d+, as user/deployer",
        r"cafe-one-resources: new, \d+ resources \(",
        r"functions and API: deploying \d+ functions with chalice, build \w{16}",
        r"check: every setting is correct",
        r"smoke test: the API answers, and every function runs",
    ):
        assert re.search(line, said), said
    assert place.account.version("one")
    assert place.account.state("one")["under_way"] is None


@pytest.mark.parametrize("checkout", ["here", "elsewhere"])
def test_a_second_deploy_changes_nothing_even_from_another_clone(
    place: Place, checkout: str, request: pytest.FixtureRequest
) -> None:
    before = place.account.snapshot("one")
    said = request.getfixturevalue(checkout).deploy("one")
    assert "cafe-one-resources: nothing to change" in said
    assert "functions and API: nothing to change" in said
    assert place.account.snapshot("one") == before


def test_a_lost_record_is_rebuilt_by_name_and_no_resource_is_created_twice(place: Place, elsewhere: Checkout) -> None:
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


def test_a_second_stage_leaves_the_first_unchanged(place: Place, here: Checkout) -> None:
    """The second stage's name begins with the first stage's name, so matching by prefix would confuse the stages."""
    before = place.account.snapshot("one")
    here.deploy("one-more")
    assert place.account.snapshot("one") == before
    assert place.account.version("one-more")
    assert place.account.apis("one").keys() != place.account.apis("one-more").keys()
    assert not set(place.account.functions("one")) & set(place.account.functions("one-more"))


def test_each_rollback_goes_one_release_back(place: Place) -> None:
    first = place.account.version("one")
    changed = place.checkout("changed")
    code = place.account.code("one")
    releases = place.account.state("one")["releases"]
    for number in ("2", "3"):
        settings = (changed.folder / "chalicelib" / "settings.py").read_text()
        settings = re.sub(r'VERSION = ".*"', f'VERSION = "{number}"', settings)
        (changed.folder / "chalicelib" / "settings.py").write_text(settings)
        assert "only the code changed" in changed.deploy("one")
        assert place.account.version("one") == number
    assert len(place.account.state("one")["releases"]) == len(releases) + 2
    # The new copy of the repository can roll back, although it deployed none of the releases.
    clone = place.checkout("clone")
    assert "smoke test" in clone.deploy("one", "--rollback")
    assert place.account.version("one") == "2"
    clone.deploy("one", "--rollback")
    assert place.account.version("one") == first
    assert place.account.code("one") == code
    assert place.account.state("one") == {"releases": releases, "under_way": None}


def test_a_deploy_of_the_code_that_a_rollback_restored_changes_nothing(place: Place, here: Checkout) -> None:
    before = place.account.snapshot("one")
    assert "functions and API: nothing to change" in here.deploy("one")
    assert place.account.snapshot("one") == before


def test_a_scheduled_report_is_made_once_and_its_schedule_goes_with_its_parameter(place: Place, here: Checkout) -> None:
    """To avoid a long wait, the test adds a schedule that has the same target and is due immediately."""
    asked = {**SCHEDULES, "ScheduleTimezone": "Asia/Tokyo"}
    said = here.deploy("one", *(f"--parameter={name}={value}" for name, value in asked.items()))
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
    token, [api] = place.account.managers_token("one"), place.account.apis("one")
    report = place.account.get("one", f"/reports/{name}", token)
    assert (report["kind"], report["status"], report["requestedBy"]) == ("storage", "SUCCEEDED", None)
    # The first deploy could name the console's address only after it had created the API.
    page = f"/_aws/execute-api/{api}/api/#reports/storage~{name}/"
    wait_for(lambda: page in str(place.account.get("one", "/notifications", token)), "the console's page in the mail")
    # A stack parameter keeps its value in later deploys until it is set to an empty string.
    here.deploy("one", "--parameter", "InventoryReportSchedule=")
    assert [each["Name"] for each in scheduler.list_schedules()["Schedules"]] == ["cafe-one-storage-report"]
    here.deploy("one", "--parameter", "StorageReportSchedule=")
    assert scheduler.list_schedules()["Schedules"] == []


def test_the_api_keeps_its_rate_limit_and_a_waf_can_be_added_and_removed(place: Place, here: Checkout) -> None:
    gateway, wafv2 = place.account.aws("apigateway"), place.account.aws("wafv2")
    [api] = place.account.apis("one")
    before = gateway.get_stage(restApiId=api, stageName="api")
    limits_of_methods = {name: each["throttlingRateLimit"] for name, each in before["methodSettings"].items()}
    # MiniStack does not encode the slashes of the paths.
    assert (limits_of_methods["*/*"], limits_of_methods["/health/HEAD"], limits_of_methods["//GET"]) == (100, 10, 10)
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
    assert "API: WAF disassociated" in here.deploy("one", *limits, "--parameter", "Waf=off")
    assert wafv2.list_web_acls(Scope="REGIONAL")["WebACLs"] == []
    with pytest.raises(wafv2.exceptions.WAFNonexistentItemException):
        wafv2.get_web_acl_for_resource(ResourceArn=protected[0])
    after = gateway.get_stage(restApiId=api, stageName="api")
    assert after["methodSettings"] == before["methodSettings"]


def test_a_missing_permission_is_named_before_the_first_change(place: Place, here: Checkout) -> None:
    iam = place.account.aws("iam")
    names = {"UserName": "deployer", "PolicyName": "cafe-deployer-functions"}
    policy = iam.get_user_policy(**names)["PolicyDocument"]
    lacking = json.loads(json.dumps(policy).replace('"lambda:AddPermission", ', ""))
    assert lacking != policy
    iam.put_user_policy(**names, PolicyDocument=json.dumps(lacking))
    try:
        before = place.account.everything()
        status, said = here.run("never")
        assert status == 1
        assert "lambda:AddPermission on arn:aws:lambda:us-east-1:000000000000:function:cafe-never-x" in said
        assert place.account.everything() == before
    finally:
        iam.put_user_policy(**names, PolicyDocument=json.dumps(policy))


def test_another_owners_resource_with_a_stages_name_stops_the_deploy_and_stays(place: Place, here: Checkout) -> None:
    sqs = place.account.aws("sqs")
    queue = sqs.create_queue(QueueName="cafe-taken-orders")["QueueUrl"]
    before = place.account.everything()
    status, said = here.run("taken")
    assert status == 1
    assert "AWS::SQS::Queue: cafe-taken-orders" in said
    assert place.account.everything() == before
    sqs.delete_queue(QueueUrl=queue)


def test_the_next_deploy_of_the_same_stage_takes_over_kept_data(place: Place, here: Checkout) -> None:
    s3, dynamodb = place.account.aws("s3"), place.account.aws("dynamodb")
    reports, uploads = (f"cafe-one-more-{each}-000000000000" for each in ("reports", "uploads"))
    s3.put_object(Bucket=reports, Key="kept.txt", Body=b"kept")
    item: dict[str, Any] = {"orderID": {"S": "kept"}, "customerID": {"S": "table-4"}}
    dynamodb.put_item(TableName="cafe-one-more-orders", Item=item)
    wait_for(lambda: announcements(place, "one-more", "kept"), "the announcement of the stored order")
    said = here.deploy("one-more", "--destroy", "--keep-data")
    left = {each for each in place.account.everything() if re.search(r"cafe-one-more(-|$)", each)}
    assert left == {
        "dynamodb: cafe-one-more-notifications",
        "dynamodb: cafe-one-more-orders",
        "dynamodb: cafe-one-more-requests",
        "dynamodb: cafe-one-more-uploads",
        f"s3: {reports}",
        f"s3: {uploads}",
    }
    assert "left of the stage: its data" in said
    said = here.deploy("one-more")
    assert "imports existing data: " in said
    # The stage has a new API, so its notifications link to another address.
    [stack] = place.account.aws("cloudformation").describe_stacks(StackName="cafe-one-more-resources")["Stacks"]
    values = {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}
    [api] = place.account.apis("one-more")
    assert values["ConsoleUrl"].endswith(f"/_aws/execute-api/{api}/api/")
    assert s3.get_object(Bucket=reports, Key="kept.txt")["Body"].read() == b"kept"
    assert dynamodb.get_item(TableName="cafe-one-more-orders", Key={"orderID": {"S": "kept"}})["Item"] == item
    assert dynamodb.describe_table(TableName="cafe-one-more-orders")["Table"]["DeletionProtectionEnabled"]
    # The new mapping reads the stream from its start, so it delivers the old order before the new order.
    dynamodb.put_item(TableName="cafe-one-more-orders", Item={**item, "orderID": {"S": "new"}})
    wait_for(lambda: announcements(place, "one-more", "new"), "the announcement of the new order")
    assert len(announcements(place, "one-more", "kept")) == 1


def announcements(place: Place, stage: str, order_id: str) -> list[str]:
    """Returns the inbox items that announce an order."""
    items = place.account.aws("dynamodb").scan(TableName=f"cafe-{stage}-notifications")["Items"]
    return [each["facts"]["S"] for each in items if f'"{order_id}"' in each.get("facts", {}).get("S", "")]


def test_a_destroyed_stage_leaves_the_other_unchanged(place: Place, here: Checkout) -> None:
    before = place.account.snapshot("one")
    assert "left of the stage: nothing" in here.deploy("one-more", "--destroy", "--delete-data", "one-more")
    assert not [each for each in place.account.everything() if re.search(r"cafe-one-more(-|$)", each)]
    assert place.account.snapshot("one") == before
    assert place.account.version("one")


def test_after_the_last_stage_the_account_is_as_empty_as_before(
    place: Place, empty: set[str], elsewhere: Checkout
) -> None:
    """The stage is destroyed twice from a copy of the repository that has never deployed it."""
    place.account.aws("s3").put_object(Bucket="cafe-one-reports-000000000000", Key="inventory/a.csv", Body=b"x")
    for _ in range(2):
        assert "left of the stage: nothing" in elsewhere.deploy("one", "--destroy", "--delete-data", "one")
    assert place.account.everything() == empty
