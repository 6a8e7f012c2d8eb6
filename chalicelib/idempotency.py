"""The ``Idempotency-Key`` header: a request that a client repeats with the same key takes effect only once.

The requests table stores each key with a digest of the request's content. A conditional write claims the key, so two
different requests cannot both claim it. The ids of orders and reports are derived from the key, so a repeated request
creates nothing new.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timedelta
from typing import Any

from chalicelib.errors import Conflict, InvalidRequest, Problem, aws_errors

KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
# How long Step Functions keeps an execution's name.
KEPT = timedelta(days=90)


@aws_errors()
def claim(route: str, key: str | None, content: Any, *, dynamodb: Any, table: str, now: datetime) -> None:
    """Claims ``key`` for a request whose ``content`` is any JSON value. Does nothing if ``key`` is None.

    The same request may claim its key again. Raises ``InvalidRequest`` if the key is malformed, and ``Conflict`` if
    another request has used it in the last 90 days.
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
            # DynamoDB may take days to delete an expired item.
            ConditionExpression="attribute_not_exists(requestKey) OR digest = :digest OR expiresAt < :now",
            ExpressionAttributeValues=values,
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        message = f"{key} was used for another request; use a new key"
        raise Conflict([Problem("Idempotency-Key", message)]) from None
