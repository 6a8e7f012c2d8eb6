"""Patches for CloudFormation, and for the deletion of user pools."""

import contextvars
from functools import wraps
from typing import Any


def bucket_tags() -> None:
    """AWS sets the tags that a template declares for a bucket.

    MiniStack's CloudFormation ignores the tags of buckets. The deploy uses the tags of a bucket to check that an
    earlier stage of the same name left the bucket behind.
    """
    from ministack.services import s3
    from ministack.services.cloudformation import provisioners

    apply_configurations = provisioners._s3_apply_configurations

    @wraps(apply_configurations)
    def apply_with_tags(name: str, properties: dict[str, Any], *arguments: Any) -> None:
        apply_configurations(name, properties, *arguments)
        s3._bucket_tags[name] = {tag["Key"]: tag["Value"] for tag in properties.get("Tags", [])}

    provisioners._s3_apply_configurations = apply_with_tags


def role_boundaries() -> None:
    """AWS limits a role to the permissions boundary that its template declares.

    MiniStack enforces boundaries, but its CloudFormation ignores them. The templates declare a boundary for each role.
    """
    from ministack.services import iam
    from ministack.services.cloudformation import provisioners

    def with_boundary(provision: Any, properties_at: int) -> Any:
        @wraps(provision)
        def provision_with_boundary(*arguments: Any, **options: Any) -> Any:
            created = provision(*arguments, **options)
            iam._roles[created[0]]["PermissionsBoundary"] = arguments[properties_at].get("PermissionsBoundary", "")
            return created

        return provision_with_boundary

    roles = provisioners._RESOURCE_HANDLERS["AWS::IAM::Role"]
    roles["create"], roles["update"] = with_boundary(roles["create"], 1), with_boundary(roles["update"], 2)


def bucket_imports() -> None:
    """AWS imports an existing bucket into a stack if the change set allows imports.

    MiniStack creates the change set, but then rejects the bucket because a bucket with this name exists. If a stage was
    deleted but its data was kept, the next deploy imports the stage's buckets.
    """
    from ministack.services.cloudformation import changesets, stacks

    deploy, validation_errors = stacks._deploy_stack_async, stacks._validation_errors
    imported: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("imported", default=frozenset())

    @wraps(deploy)
    async def deploy_with_imports(*arguments: Any, **options: Any) -> None:
        identifiers = (options.get("imports") or {}).values()
        imported.set(frozenset(each["BucketName"] for each in identifiers if "BucketName" in each))
        await deploy(*arguments, **options)

    @wraps(validation_errors)
    def validate_except_imports(*arguments: Any) -> Any:
        return validation_errors(*arguments[:7], arguments[7] | imported.get())

    changesets._deploy_stack_async = deploy_with_imports
    stacks._validation_errors = validate_except_imports


def protected_user_pools() -> None:
    """AWS refuses to delete a user pool that is protected from deletion. MiniStack deletes it."""
    from ministack.services import cognito
    from ministack.services.cloudformation import provisioners

    delete, error = (
        cognito._delete_user_pool,
        "The user pool cannot be deleted because deletion protection is activated.",
    )

    def delete_unprotected(data: dict[str, Any]) -> Any:
        if cognito._user_pools.get(data["UserPoolId"], {}).get("DeletionProtection") == "ACTIVE":
            return cognito.error_response_json("InvalidParameterException", error, 400)
        return delete(data)

    def delete_with_stack(pool_id: str, _properties: dict[str, Any]) -> None:
        cognito._delete_user_pool({"UserPoolId": pool_id})
        if pool_id in cognito._user_pools:
            raise ValueError(error)

    cognito._delete_user_pool = delete_unprotected
    provisioners._RESOURCE_HANDLERS["AWS::Cognito::UserPool"]["delete"] = delete_with_stack
