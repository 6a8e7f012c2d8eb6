"""Tests that failed deploys are rolled back, and that the next deploy finishes a killed deploy.

Every deploy in this file runs with exactly the permissions in ``infra/deployer/``. Each test leaves the
stage ``one`` deployed and complete.
"""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from chalicelib.settings import VERSION
from tests.deploying.checkout import Checkout, Place
from tests.deploying.steps import STEPS
from tests.system.faults import error, invalid
from tests.system.wire import Cut, Exchange, Reply

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def one(place: Place, here: Checkout) -> str:
    """Deploys the stage ``one`` while S3 refuses its function once, and returns the deploy's output.

    This stage must keep running while other deploys fail.
    """
    message = "Unable to validate the following destination configurations"

    def refused(exchange: Exchange) -> Reply:
        return error(exchange.call, 400, "InvalidArgument", message)

    with place.wire.fault("s3:PutBucket", refused, when=lambda call: "notification" in call, first=1):
        return here.deploy("one")


def goes_back(place: Place, checkout: Checkout, *reasons: str) -> None:
    """Runs a deploy that must fail for these reasons, and checks that the previous release runs again."""
    code, state, before = place.account.code("one"), place.account.state("one"), place.account.version("one")
    [api] = place.account.apis("one")
    status, said = checkout.run("one")
    assert status == 1, said
    for each in reasons:
        assert each in said
    assert "The previous release was restored and is serving" in said
    assert place.account.code("one") == code
    assert place.account.state("one") == state
    assert place.account.version("one") == before
    assert place.account.apis("one").keys() == {api}
    stack = place.account.aws("cloudformation").describe_stacks(StackName="cafe-one-resources")["Stacks"][0]
    assert stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")


def test_a_first_deploy_waits_until_s3_knows_the_functions_permission(place: Place, one: str) -> None:
    assert one.count("S3 does not accept the function receive_upload yet: trying again in 10 s") == 1
    assert "check: every setting is correct" in one
    assert len(place.account.apis("one")) == 1
    snapshot = place.account.snapshot("one")
    assert (len(snapshot["mappings"]), len(snapshot["subscriptions"])) == (3, 2)


def test_a_failing_function_behind_a_healthy_api_is_rolled_back(place: Place) -> None:
    broken = place.checkout("half")
    broken.edit("chalicelib/orders/store.py", "from __future__ import annotations\n", "import nothing_like_it\n")
    goes_back(place, broken, "deployed, but it does not work", "store_orders: fails on an empty event")


def with_buckets(checkout: Checkout, **names: str) -> Checkout:
    more = "".join(
        f"  {key}:\n    Type: AWS::S3::Bucket\n    Properties: {{BucketName: {name}}}\n" for key, name in names.items()
    )
    checkout.edit("infra/resources.yaml", "\nOutputs:\n", f"{more}\nOutputs:\n")
    return checkout


def test_a_template_that_fails_is_rolled_back_with_the_changes_before_it(place: Place) -> None:
    broken = with_buckets(place.checkout("twice"), First="the-same-name", Second="the-same-name")
    broken.edit("infra/resources.yaml", "VisibilityTimeout: 190", "VisibilityTimeout: 192")
    goes_back(place, broken, "cafe-one-resources failed, and CloudFormation rolled everything back", "Second")
    assert "s3: the-same-name" not in place.account.everything()


def test_a_first_deploy_that_fails_is_finished_by_the_next_despite_protected_resources(
    place: Place, here: Checkout
) -> None:
    """CloudFormation cannot delete the new user pool. The new tables stay, and the next deploy imports them."""
    broken = with_buckets(place.checkout("fresh"), First="cafe-fresh-x", Second="cafe-fresh-x")
    broken.edit("infra/resources.yaml", "  Second:\n", "  Second:\n    DependsOn: [OrdersTable, UserPool]\n")
    assert "cafe-fresh-resources failed, and is now ROLLBACK_FAILED" in broken.run("fresh")[1]
    assert {"dynamodb: cafe-fresh-orders", "cognito-idp: cafe-fresh-users"} <= place.account.everything()
    assert "imports existing data: " in here.deploy("fresh")
    cognito, name = place.account.aws("cognito-idp"), "cafe-fresh-users"
    pools = [each["Id"] for each in cognito.list_user_pools(MaxResults=60)["UserPools"] if each["Name"] == name]
    # MiniStack, unlike AWS, forgets the old pool and does not delete it with the failed stack.
    states = [cognito.describe_user_pool(UserPoolId=each)["UserPool"]["DeletionProtection"] for each in pools]
    assert sorted(states) == ["ACTIVE", "INACTIVE"]
    here.deploy("fresh", "--destroy", "--delete-data", "fresh")
    assert not [each for each in place.account.everything() if "cafe-fresh-" in each]


def test_a_setting_that_lambda_refuses_is_rolled_back_with_the_code_and_the_template(place: Place) -> None:
    """The failed release differs from the previous release in its template, code and settings."""
    broken = place.checkout("refused")
    broken.edit("infra/deploy/wiring.py", '"MaximumRetryAttempts": -1', '"MaximumRetryAttempts": 999')
    broken.edit("chalicelib/settings.py", f'VERSION = "{VERSION}"', 'VERSION = "refused"')
    broken.edit("infra/resources.yaml", "VisibilityTimeout: 190", "VisibilityTimeout: 191")
    refusing = place.wire.fault("lambda:PUT", invalid, when=lambda call: '"MaximumRetryAttempts": 999' in call)
    with refusing as rule:
        goes_back(place, broken, "Invalid parameter", "change OrdersQueue (AWS::SQS::Queue): VisibilityTimeout")
    assert rule.met
    queue = place.account.aws("sqs").get_queue_url(QueueName="cafe-one-orders")["QueueUrl"]
    found = place.account.aws("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["VisibilityTimeout"])
    assert found["Attributes"]["VisibilityTimeout"] == "190"


def test_a_failed_migration_is_rolled_back_with_the_code_and_finished_by_the_next_deploy(
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
    # Code that is older than the migration still works with the new table.
    assert "database: nothing to change" in here.deploy("one")


# --- killed -----------------------------------------------------------------------------------------------------------


class Killer:
    """Kills a deploy's processes after an AWS call took effect, but before its response arrives."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, exchange: Exchange) -> Reply:
        exchange.forward_whole()
        assert self.process
        os.killpg(self.process.pid, signal.SIGKILL)
        raise Cut


def test_a_deploy_that_was_killed_after_any_step_is_finished_by_the_next(place: Place) -> None:
    """Kills several deploys of one new stage. Each deploy gets one step further than the previous deploy."""
    checkout, killer = place.checkout("killed"), Killer()
    for operation, what in STEPS:
        with place.wire.fault(operation, killer, when=lambda call, what=what: what in call, first=1):
            killer.process = checkout.start("cut")
            said, _ = killer.process.communicate(timeout=300)
        assert killer.process.returncode == -signal.SIGKILL, f"{operation} {what}: {said}"
    said = checkout.deploy("cut")
    assert "finishing the deploy that" in said
    assert "smoke test: the API answers, and every function runs" in said
    assert len(place.account.apis("cut")) == 1
    snapshot = place.account.snapshot("cut")
    assert (len(snapshot["mappings"]), len(snapshot["subscriptions"])) == (3, 2)
    assert place.account.state("cut")["under_way"] is None
    assert "functions and API: nothing to change" in checkout.deploy("cut")
    assert place.account.snapshot("cut") == snapshot
    checkout.deploy("cut", "--destroy", "--delete-data", "cut")


def test_a_rollback_after_a_killed_deploy_restores_the_previous_release(place: Place, here: Checkout) -> None:
    code, releases = place.account.code("one"), place.account.state("one")["releases"]
    killed = place.checkout("killed-once")
    killed.edit("chalicelib/settings.py", f'VERSION = "{VERSION}"', 'VERSION = "killed"')
    killer = Killer()
    with place.wire.fault("lambda:PUT", killer, when=lambda call: "cafe-one-store_orders/code" in call):
        killer.process = killed.start("one")
        killer.process.communicate(timeout=300)
    assert place.account.code("one") != code
    here.deploy("one", "--rollback")
    assert place.account.code("one") == code
    assert place.account.state("one") == {"releases": releases, "under_way": None}
