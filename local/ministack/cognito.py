"""Patches for Cognito."""

from functools import wraps
from typing import Any


def protected_user_pools() -> None:
    """AWS refuses to delete a user pool that is protected from deletion. CloudFormation then fails to delete its stack.

    MiniStack deletes the pool. The deploy must remove the protection where a pool may be deleted, and only there.
    """
    from ministack.services import cognito
    from ministack.services.cloudformation import provisioners

    delete, handlers = cognito._delete_user_pool, provisioners._RESOURCE_HANDLERS["AWS::Cognito::UserPool"]
    delete_by_stack = handlers["delete"]
    reason = "The user pool cannot be deleted because deletion protection is activated."

    def is_protected(pool_id: Any) -> bool:
        return (cognito._user_pools.get(pool_id) or {}).get("DeletionProtection") == "ACTIVE"

    @wraps(delete)
    def delete_unprotected(data: dict[str, Any]) -> Any:
        if is_protected(data.get("UserPoolId")):
            return cognito.error_response_json("InvalidParameterException", reason, 400)
        return delete(data)

    @wraps(delete_by_stack)
    def delete_unprotected_by_stack(pool_id: str, properties: dict[str, Any]) -> None:
        if is_protected(pool_id):
            raise ValueError(reason)
        delete_by_stack(pool_id, properties)

    cognito._delete_user_pool = delete_unprotected
    handlers["delete"] = delete_unprotected_by_stack
