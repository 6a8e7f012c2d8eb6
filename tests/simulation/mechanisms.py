"""Takes each mechanism out of the handlers, to check that the simulation notices.

The fault matrix tests the mechanisms that are only settings, such as the retries of an event source mapping.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from botocore.exceptions import ClientError

from chalicelib import idempotency, notifications, reports
from chalicelib.dead_letters import redrive, retrying
from chalicelib.errors import Unavailable, aws_errors
from chalicelib.orders import announce, changes, placing, replay, store
from chalicelib.orders.order import Order
from chalicelib.uploads import comparing, jobs
from chalicelib.uploads.ledger import Ledger
from chalicelib.uploads.records import Records
from chalicelib.uploads.upload import Upload

Original = Callable[..., Any]


def _overwrite(orders: list[Order], dynamodb: Any, table: str, _uncounted: set[str]) -> Any:
    reasons = {}
    for order in orders:
        try:
            with aws_errors():
                dynamodb.put_item(TableName=table, Item=store.stored_item(order))
        except Unavailable as error:
            reasons[order.order_id] = str(error)
    return {order.order_id for order in orders} - reasons.keys(), [], reasons


def _forget_failures(original: Original, *arguments: Any, **given: Any) -> Any:
    original(*arguments, **given)
    return {"batchItemFailures": []}


def _without_condition(original: Original, event: Any, *, dynamodb: Any, **given: Any) -> None:
    class Unconditional:
        exceptions = dynamodb.exceptions

        def put_item(self, ConditionExpression: str, **arguments: Any) -> None:  # noqa: N803 - botocore's name
            dynamodb.put_item(**arguments)

    original(event, dynamodb=Unconditional(), **given)


def _update_unconditionally(_original: Original, item: Any, sets: Any, entry: Any, dynamodb: Any, table: str) -> Any:
    class Unconditional:
        exceptions = dynamodb.exceptions

        def update_item(self, ConditionExpression: str, **arguments: Any) -> Any:  # noqa: N803 - botocore's name
            return dynamodb.update_item(**arguments)

    return _original(item, sets, entry, Unconditional(), table)


def _only_new(record: Any) -> str:
    return announce.PLACED if record["eventName"] == "INSERT" else ""


def _without_etag(_original: Original, upload: Upload, s3: Any, bucket: str) -> Any:
    with aws_errors():
        return s3.get_object(Bucket=bucket, Key=upload.key)["Body"]


def _announce_all_or_none(new: list[Any], publish: Any, set_aside: Any, *_: Any) -> Any:
    try:
        if new:
            publish(announce._announcement(new))
    except Unavailable as error:
        return new, str(error)
    except ClientError as error:
        return set_aside(new, error), str(error)
    return [], ""


def _delete_first(original: Original, self: Any, letters: list[Any], queue: Any) -> None:
    queue.delete([each.id for each in letters])
    with patch.object(queue, "delete", lambda _ids: set()):
        original(self, letters, queue)


def _forget_unsent(original: Original, self: Any, failure: Any, _waiting: list[Any]) -> Any:
    return original(self, failure, [])


def _publish_without_ledger(original: Original, self: Any, publish: Any) -> Any:
    """Publishes only notifications from this invocation, and not those that an earlier one left unpublished."""
    return original(self, publish if getattr(self, "written", False) else lambda _notification: None)


def _write_and_remember(original: Original, self: Any, *arguments: Any) -> None:
    self.written = True
    original(self, *arguments)


def _any_status(original: Original, self: Any, identifier: str, now: Any, _allowed: Any = None, **values: Any) -> bool:
    return bool(original(self, identifier, now, None, **values))


def _new_name(original: Original, request: Any, key: Any, *arguments: Any, **given: Any) -> Any:
    return original(request, f"{key}-{int(given['now'].timestamp() * 1000)}", *arguments, **given)


def _no_halves(messages: list[Any], store_all: Any) -> list[Any]:
    try:
        return list(store_all(messages))
    except Exception as error:  # noqa: BLE001 - as in the handler
        return [store.Failed(message, str(error), is_final=True) for message in messages]


def _keyed_by_message(original: Original, sns: Any, attributes: Any, *arguments: Any) -> Any:
    return original(sns, {**attributes, "key": ""}, *arguments)


def _never_passes(original: Original, *arguments: Any, **given: Any) -> Any:
    return replace(original(*arguments, **given), may_pass=False)


# An object, its attribute, and the replacement, which gets the original first if the last value is true.
MECHANISMS: dict[str, list[tuple[Any, str, Any, bool]]] = {
    "orders: the condition on the write": [(store, "_insert", _overwrite, False)],
    "orders: the list of failed messages": [(store, "store_orders", _forget_failures, True)],
    "orders: the digest of the content": [(Order, "is_stored_as", lambda _self, _digest: True, False)],
    "orders: the retry of what may pass": [(store, "is_final", lambda _error: True, False)],
    "orders: halving a batch with a bug": [(store, "_store_halves", _no_halves, False)],
    "orders: the history over redrives": [(store, "_history", lambda _message: {}, False)],
    "orders: the limit of 24 hours": [(store, "_age", lambda _message, _now: 0.0, False)],
    "orders: the dead letter with its reason": [
        (store, "_send_to_dead_letters", lambda failed, *_: {each.message["messageId"] for each in failed}, False)
    ],
    "changes: the condition on the version": [(changes, "_write", _update_unconditionally, True)],
    "changes: the recognition by key": [(changes, "_has", lambda *_: False, False)],
    "changes: the check of the status": [(changes, "_check", lambda *_: None, False)],
    "changes: the digest of the order as placed": [
        (changes, "_corrected", lambda original, *given: {**original(*given), "digest": {"S": "new"}}, True)
    ],
    "announcing: changed orders": [(announce, "announced_change", _only_new, False)],
    "announcing: no other changes": [
        (announce, "ANNOUNCED_CHANGES", ("READY", "SERVED", *announce.ANNOUNCED_CHANGES), False)
    ],
    "announcing: searching the inbox for changes": [(replay, "name_of_change", lambda *_: object(), False)],
    "announcing: the first failed record": [(announce, "announce_orders", _forget_failures, True)],
    "announcing: setting aside": [(announce, "set_aside_with", lambda *_: lambda *_: [], False)],
    "announcing: halving a refused batch": [(announce, "_announce", _announce_all_or_none, False)],
    "announcing: searching the inbox": [(replay, "find_announced", lambda *_: set(), False)],
    "inbox: the condition on the write": [(notifications, "record", _without_condition, True)],
    "inbox: the key of a notification": [(notifications, "_item", _keyed_by_message, True)],
    "uploads: the ledger of sequencers": [(Upload, "is_new", lambda *_: True, False)],
    "uploads: the ETag": [(jobs, "open_file", _without_etag, True)],
    "uploads: the notification in the ledger": [
        (Ledger, "lock", _publish_without_ledger, True),
        (Ledger, "write", _write_and_remember, True),
    ],
    "uploads: the condition on the status": [(Records, "_update", _any_status, True)],
    "uploads: the result of an overtaken import": [(jobs.Jobs, "_finish_earlier", lambda *_: None, False)],
    "uploads: the preview that is still current": [(comparing, "differences", lambda *_: [], False)],
    "requests: the claim of an Idempotency-Key": [(idempotency, "claim", lambda *_, **__: None, False)],
    "requests: the ids from an Idempotency-Key": [
        (placing, "_id_from_key", lambda key, _index: f"{key}-{random.randrange(10**9)}", False)
    ],
    "reports: the name of the execution": [(reports, "start", _new_name, True)],
    "dead letters: deleted only after they were sent": [(redrive._Run, "handle", _delete_first, True)],
    "retries: the retry of what may pass": [(retrying, "read_failure", _never_passes, True)],
    "retries: kept if it could not be sent": [(retrying._Run, "_send", _forget_unsent, True)],
    "retries: the limit of 24 hours": [(retrying.Failure, "age", lambda *_: 0.0, False)],
}


def without(name: str) -> ExitStack:
    """Takes a mechanism out until the ``with`` block ends."""
    hooks = ExitStack()
    for owner, attribute, replacement, is_around in MECHANISMS[name]:
        if is_around:
            function, original = replacement, getattr(owner, attribute)

            def wrapped(*arguments: Any, function: Any = function, original: Any = original, **given: Any) -> Any:
                return function(original, *arguments, **given)

            replacement = wrapped
        hooks.enter_context(patch.object(owner, attribute, replacement))
    return hooks
