"""Implements the ``Idempotency-Key`` header. A request that is repeated with the same key takes effect only once.

The requests table stores each key with a digest of the request's content. A conditional write claims the key, so two
different requests cannot use the same key. The ids of orders and reports are derived from the key, so a repeated
request creates nothing new.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timedelta
from typing import Any

from chalicelib.errors import Conflict, InvalidRequest, Problem, aws_errors

KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Keys are kept for 90 days because Step Functions remembers an execution's name for 90 days.
KEPT = timedelta(days=90)


@aws_errors()
def claim(route: str, key: str | None, content: Any, *, dynamodb: Any, table: str, now: datetime) -> None:
    """Claims ``key`` for a request with the given JSON ``content``. Does nothing if ``key`` is None.

    If the same request is repeated, it can claim the key again. Raises ``InvalidRequest`` if the key is malformed, and
    ``Conflict`` if another request has used the key in the last 90 days.
    """
    if key is None:
        return
    if not KEY.fullmatch(key):
        raise InvalidRequest([Problem("Idempotency-Key", "must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -")])
    values = {
        ":digest": {"S": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()},
        ":now": {"N": str(int(now.timestamp()))},
    }
    try:
        dynamodb.put_item(
            TableName=table,
            Item={
                "requestKey": {"S": f"{route} {key}"},
                "digest": values[":digest"],
                "expiresAt": {"N": str(int((now + KEPT).timestamp()))},
            },
            # DynamoDB may take days to delete an expired item, so the condition checks ``expiresAt``.
            ConditionExpression="attribute_not_exists(requestKey) OR digest = :digest OR expiresAt < :now",
            ExpressionAttributeValues=values,
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        message = f"{key} was used for another request; use a new key"
        raise Conflict([Problem("Idempotency-Key", message)]) from None
