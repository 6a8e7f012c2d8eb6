"""Tests the CloudFormation stack with the MySQL database of a stage.

The tests create the stack, check that a second deploy changes nothing, and remove the stack.

The local AWS emulator only records the database cluster and starts no server. The emulator does not support separate
security group rules or secrets created by RDS, so the tests remove them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.deploy import database, stacks
from infra.deploy.stacks import Stack
from infra.deploy.target import DeployError, Target
from tests.system.system import System

LEFT_OUT = (
    (r"(?m)^  FunctionsTo\w+: .*\n", ""),
    (r'\{"Fn::GetAtt": \["Cluster", "MasterUserSecret\.SecretArn"\]\}', '{"Ref": "Secret"}'),
)


class Account:
    """The account in the local AWS emulator, with a deployed stage named ``own``."""

    def __init__(self, system: System, folder: Path) -> None:
        self.system = system
        self.target = Target("own", folder, False, {}, None)
        self.said: list[str] = []

    def clients(self, service: str, seconds: int = 60) -> Any:
        return self.system.aws(service)

    def stack(self) -> Stack:
        stack = database.stack(self.target, self.clients)
        body = stack.body
        for pattern, replacement in LEFT_OUT:
            body, found = re.subn(pattern, replacement, body)
            assert found == 2
        return replace(stack, body=body)

    def change(self) -> stacks.Change | None:
        return stacks.prepare(self.stack(), self.clients("cloudformation"), None, self.said.append)

    def clusters(self) -> list[dict[str, Any]]:
        found = self.clients("rds").describe_db_clusters()["DBClusters"]
        return [each for each in found if each["DBClusterIdentifier"] == "cafe-own"]


@pytest.fixture
def account(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    monkeypatch.setattr(database, "INTERFACES_PAUSE_SECONDS", 0.1)
    monkeypatch.setitem(database.SNAPSHOT_WAIT, "Delay", 1)
    account = Account(system, tmp_path)
    change = account.change()
    assert change
    stacks.apply(change, account.clients("cloudformation"), account.said.append)
    yield account
    database.remove(account.target, account.clients, account.said.append)


def test_a_database_is_created_as_described_and_a_second_deploy_changes_nothing(account: Account) -> None:
    [cluster] = account.clusters()
    assert cluster["ServerlessV2ScalingConfiguration"] == {"MinCapacity": 0.5, "MaxCapacity": 4.0}
    assert (cluster["DeletionProtection"], cluster["StorageEncrypted"]) == (True, True)
    assert database.existing_location(account.target, account.clients) is None
    place = database.own_location(account.target, account.clients)
    assert (len(place.subnets), len(place.security_groups)) == (2, 1)
    assert account.change() is None


def test_a_removed_database_leaves_only_its_final_snapshot(account: Account) -> None:
    before = database.snapshots(account.target, account.clients)
    for _ in range(2):
        database.remove(account.target, account.clients, account.said.append)
    [snapshot] = set(database.snapshots(account.target, account.clients)) - set(before)
    assert re.fullmatch(r"cafe-own-final-\d{8}-\d{6}-\d{6}", snapshot)
    assert f"database: taking the final snapshot {snapshot}" in account.said
    assert account.said[-1] == "cafe-own-database: deleted"
    assert account.clusters() == []
    known = account.clients("secretsmanager").list_secrets(IncludePlannedDeletion=True)["SecretList"]
    assert "cafe-own-database" not in {each["Name"] for each in known}
    vpcs = account.clients("ec2").describe_vpcs()["Vpcs"]
    assert [each for each in vpcs if each["CidrBlock"] == "10.83.0.0/24"] == []


def test_the_removal_waits_for_a_network_in_use_and_then_names_what_uses_it(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2, place = account.clients("ec2"), database.own_location(account.target, account.clients)
    interface = ec2.create_network_interface(SubnetId=place.subnets[0], Groups=list(place.security_groups))
    name = interface["NetworkInterface"]["NetworkInterfaceId"]
    with monkeypatch.context() as patch:
        patch.setattr(database, "INTERFACES_SECONDS", 0.3)
        with pytest.raises(DeployError, match=f"the network is still in use by {name}: try again later"):
            database.remove(account.target, account.clients, account.said.append)
    assert account.said[-1].startswith("database: waiting for Lambda to release the network")
    assert len(account.clusters()) == 1
    ec2.delete_network_interface(NetworkInterfaceId=name)
