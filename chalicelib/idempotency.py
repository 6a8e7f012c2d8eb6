"""The header ``Idempotency-Key``: a client that sends a request again with its key sends the same request.

Each key is an item of the requests table, with a digest of what was asked for. One conditional write takes the key or
finds that it was taken for the same request, so of many calls at the same moment all agree on one request. What the
request then makes has a name that comes from the key, so making it again makes nothing new.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timedelta
from typing import Any

from chalicelib.errors import Conflict, InvalidRequest, Problem, aws_errors

KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
# As long as Step Functions remembers the name of an execution.
KEPT = timedelta(days=90)


@aws_errors()
def claim(route: str, key: str, content: Any, *, dynamodb: Any, table: str, now: datetime) -> None:
    """Takes ``key`` for the request of ``content``, anything that JSON can hold, at ``route``.

    Does nothing where it was taken for the same request before. Raises ``InvalidRequest`` for a malformed key, and
    ``Conflict`` for one that was used for another request in the last 90 days.
    """
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
            # DynamoDB may take days to delete what has expired.
            ConditionExpression="attribute_not_exists(requestKey) OR digest = :digest OR expiresAt < :now",
            ExpressionAttributeValues=values,
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        message = f"{key} was used for another request; take a new one"
        raise Conflict([Problem("Idempotency-Key", message)]) from None
