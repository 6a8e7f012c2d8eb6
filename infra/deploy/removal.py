"""Removes a stage from AWS, including the tables and buckets that its stacks leave behind."""

from __future__ import annotations

import time
from typing import Any

from botocore.exceptions import ClientError

from infra.deploy import api_settings, chalice_record, database, project, protection, resources_of_stage, stacks
from infra.deploy.resources_of_stage import Resource, existing_resources, lines_by_kind
from infra.deploy.stacks import DATA
from infra.deploy.target import Clients, DeployError, Say, Target

WAIT_SECONDS = 120


def destroy(target: Target, clients: Clients, account: str, keep_data: bool, say: Say) -> None:
    """Removes the stage, except its data if ``keep_data`` is true.

    Raises ``DeployError`` if any other resource still exists.

    Every step removes only resources that still exist, so another run finishes an interrupted removal.
    """
    cfn = clients("cloudformation")
    # If this is refused, nothing has been deleted yet. Users cannot be kept, because a user pool cannot be imported.
    protection.remove_from_users(target, clients)
    # The API is deleted before the functions that it invokes.
    if acl := stacks.outputs(cfn, target.stack("resources")).get("API_WEB_ACL_ARN"):
        api_settings.disassociate(acl, target, clients, say)
    for api in chalice_record.rest_apis(target, clients):
        clients("apigateway").delete_rest_api(restApiId=api)
        say(f"REST API {api}: deleted")
    had_functions = _delete_functions(target, clients, say)
    if not keep_data:
        # Lambda needs the roles of the functions to delete their network interfaces, so the roles are deleted later.
        database.remove(target, clients, say, may_have_changed=had_functions)
    for part in ("resources", "deploys"):
        name = target.stack(part)
        if not stacks.find(cfn, name):
            continue
        if part == "deploys":
            _empty(clients("s3"), stacks.outputs(cfn, name).get("DEPLOYS_BUCKET"), say)
        stacks.delete(cfn, name, say)
    mysql = resources_of_stage.database_resources(target, account)
    for resource in existing_resources(target, clients, account):
        # A late log line from a function or MySQL can recreate a deleted log group.
        kept = keep_data and (resource.kind in DATA or resource in mysql)
        if resource.kind in ("AWS::Logs::LogGroup", "AWS::Cognito::UserPool", *DATA) and not kept:
            _delete(resource, target, clients, say)
    left = existing_resources(target, clients, account)
    data = [each for each in left if keep_data and (each.kind in DATA or each in mysql)]
    project.forget(target)
    if data:
        say("data kept for the next deploy of this stage:\n" + "\n".join(lines_by_kind(data)))
    if rest := [each for each in left if each not in data]:
        raise DeployError(
            "these resources still exist, so run `make destroy` again:\n" + "\n".join(lines_by_kind(rest))
        )
    if snapshots := database.snapshots(target, clients):
        say(f"snapshots of MySQL, which cost money until you delete them: {', '.join(snapshots)}")
        say("  aws rds delete-db-cluster-snapshot --db-cluster-snapshot-identifier <name>")
    remaining = [name for name, found in (("its data", data), ("snapshots of MySQL", snapshots)) if found]
    say("left of the stage: " + (" and ".join(remaining) or "nothing"))


def _delete_functions(target: Target, clients: Clients, say: Say) -> bool:
    """Deletes the functions with their mappings, and returns whether any existed."""
    lambda_ = clients("lambda")
    functions = chalice_record.functions(target, clients)
    for name, mapping in chalice_record.mappings(functions, clients):
        lambda_.delete_event_source_mapping(UUID=mapping["UUID"])
        say(f"{name}: event source mapping deleted")
    # The functions are deleted later, because their mappings can be found only while the functions exist.
    end = time.monotonic() + WAIT_SECONDS
    while list(chalice_record.mappings(functions, clients, deleting=True)):
        if time.monotonic() > end:
            raise DeployError("the event source mappings are still being deleted: try again in a minute")
        time.sleep(1)
    for configuration in functions.values():
        lambda_.delete_function(FunctionName=configuration["FunctionName"])
    if functions:
        say(f"{len(functions)} functions: deleted")
    return bool(functions)


def _delete(resource: Resource, target: Target, clients: Clients, say: Say) -> None:
    if resource.kind == "AWS::S3::Bucket":
        _empty(clients("s3"), resource.name, say)
        clients("s3").delete_bucket(Bucket=resource.name)
    elif resource.kind == "AWS::Logs::LogGroup":
        clients("logs").delete_log_group(logGroupName=resource.name)
    elif resource.kind == "AWS::Cognito::UserPool":
        for pool_id in list(protection.user_pools(target, clients("cognito-idp"))):
            clients("cognito-idp").delete_user_pool(UserPoolId=pool_id)
    else:
        dynamodb = clients("dynamodb")
        protection.remove_from_table(dynamodb, resource.name)
        dynamodb.delete_table(TableName=resource.name)
        dynamodb.get_waiter("table_not_exists").wait(TableName=resource.name, WaiterConfig={"Delay": 2})
    say(f"{resource.name}: deleted")


def _empty(s3: Any, bucket: str | None, say: Say) -> None:
    """Deletes all versions of every object in a bucket."""
    if bucket is None:
        return
    count = 0
    try:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            versions = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            keys = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in versions]
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
    say(f"{bucket}: deleted {count:,} objects and versions")
