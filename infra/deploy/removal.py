"""Takes a stage off AWS: the API and the functions, its MySQL, the stacks, and what these leave, which is the data."""

from __future__ import annotations

import time
from typing import Any

from botocore.exceptions import ClientError

from infra.deploy import database, inventory, project, record, stacks, wiring
from infra.deploy.inventory import Thing
from infra.deploy.stacks import DATA
from infra.deploy.target import Clients, DeployError, Say, Target

WAIT_SECONDS = 120


def destroy(target: Target, clients: Clients, account: str, keep_data: bool, say: Say) -> None:
    """Removes the stage, all of it or all but its data, and sees that nothing is left.

    Each step goes by what is there, so a removal that was cut off is finished by the next.
    """
    cfn = clients("cloudformation")
    # First what brings work, then what does it.
    if acl := stacks.outputs(cfn, target.stack("resources")).get("API_WEB_ACL_ARN"):
        wiring.take_away(acl, target, clients, say)
    for api in record.rest_apis(target, clients):
        clients("apigateway").delete_rest_api(restApiId=api)
        say(f"REST API {api}: deleted")
    _delete_functions(target, clients, say)
    if not keep_data:
        # Before the functions' roles go, by which Lambda leaves its network.
        database.remove(target, clients, say)
    for part in ("resources", "deploys"):
        name = target.stack(part)
        if not stacks.find(cfn, name):
            continue
        if part == "deploys":
            _empty(clients("s3"), stacks.outputs(cfn, name).get("DEPLOYS_BUCKET"), say)
        stacks.delete(cfn, name, say)
    mysql = inventory.database(target, account)
    for thing in inventory.there(target, clients, account):
        # The last words of a function, or of MySQL, may have come after their log group was gone.
        kept = keep_data and (thing.kind in DATA or thing in mysql)
        if thing.kind in ("AWS::Logs::LogGroup", *DATA) and not kept:
            _delete(thing, clients, say)
    left = inventory.there(target, clients, account)
    data = [each for each in left if keep_data and (each.kind in DATA or each in mysql)]
    project.forget(target)
    if data:
        say("kept, and taken over by the next deploy of this name:\n" + "\n".join(inventory.shown(data)))
    if rest := [each for each in left if each not in data]:
        raise DeployError("this is left, and can be removed by another try:\n" + "\n".join(inventory.shown(rest)))
    say("left of the stage: " + ("its data" if data else "nothing"))


def _delete_functions(target: Target, clients: Clients, say: Say) -> None:
    lambda_ = clients("lambda")
    found = record.functions(target, clients)
    for name, mapping in record.mappings(found, clients):
        lambda_.delete_event_source_mapping(UUID=mapping["UUID"])
        say(f"{name}: event source mapping deleted")
    # A function that is gone would leave its mappings in the account, without a name to find them by.
    end = time.monotonic() + WAIT_SECONDS
    while list(record.mappings(found, clients, deleting=True)):
        if time.monotonic() > end:
            raise DeployError("the event source mappings are still being deleted: try again in a minute")
        time.sleep(1)
    for configuration in found.values():
        lambda_.delete_function(FunctionName=configuration["FunctionName"])
    if found:
        say(f"{len(found)} functions: deleted")


def _delete(thing: Thing, clients: Clients, say: Say) -> None:
    if thing.kind == "AWS::S3::Bucket":
        _empty(clients("s3"), thing.name, say)
        clients("s3").delete_bucket(Bucket=thing.name)
    elif thing.kind == "AWS::Logs::LogGroup":
        clients("logs").delete_log_group(logGroupName=thing.name)
    else:
        dynamodb = clients("dynamodb")
        dynamodb.delete_table(TableName=thing.name)
        dynamodb.get_waiter("table_not_exists").wait(TableName=thing.name, WaiterConfig={"Delay": 2})
    say(f"{thing.name}: deleted")


def _empty(s3: Any, bucket: str | None, say: Say) -> None:
    """Removes every object with all its versions."""
    if bucket is None:
        return
    count = 0
    try:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            keys = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]
            if not keys:
                continue
            failed = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True}).get("Errors", [])
            if failed:
                raise DeployError(f"{bucket}: {failed[0]['Key']} could not be deleted: {failed[0].get('Message')}")
            count += len(keys)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise
        return
    say(f"{bucket}: emptied of {count:,} objects and versions")
