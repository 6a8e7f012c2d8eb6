"""Patches for DynamoDB tables and streams."""

import threading
import time
from functools import wraps
from typing import Any


def partiql_inserts() -> None:
    """AWS adds a PartiQL INSERT to the table's stream, and rejects the second of two simultaneous INSERTs with the same
    key.

    MiniStack writes no stream record for an INSERT, and two simultaneous INSERTs with the same key can both succeed.
    The function ``store_orders`` inserts orders with PartiQL, and ``announce_orders`` reads them from the table's
    stream.
    """
    from ministack.services import dynamodb

    insert = dynamodb._partiql_insert
    one_at_a_time = threading.Lock()

    @wraps(insert)
    def insert_with_record(table: dict[str, Any], parsed: dict[str, Any]) -> Any:
        with one_at_a_time:
            answer = insert(table, parsed)
            if answer[0] == 200:
                item = parsed["item"]
                dynamodb._emit_stream_event(parsed["table"], "INSERT", None, item.get("M", item))
        return answer

    dynamodb._partiql_insert = insert_with_record


def stream_failures() -> None:
    """AWS retries only the stream records that a function has not processed. After the last retry, AWS sends the batch
    to the failure destination. If the event source mapping requests it, AWS also splits a failing batch in half.

    MiniStack ignores the failed items in a function's response, so the failed records are lost. MiniStack also has no
    retry limit, does not split batches, and discards a whole batch at the maximum record age. The function
    ``announce_orders`` must announce every order exactly once.
    """
    from ministack.services import lambda_svc

    execute, poll_streams = lambda_svc._execute_function, lambda_svc._poll_dynamodb_streams
    polling = threading.local()
    progress: dict[str, dict[str, int]] = {}

    def deliver(mapping: dict[str, Any], function: Any, records: list[dict[str, Any]]) -> Any:
        """Processes the records.

        After an error, MiniStack's poller calls ``deliver`` again with the same first record.
        """
        first = f"{mapping['UUID']} {records[0]['eventID']}"
        # Contains the number of processed records, and the size and the retry count of the next batch.
        state = progress.setdefault(first, {"done": 0, "size": len(records), "retries": 0})
        while batch := records[state["done"] :][: state["size"]]:
            result = execute(function, {"Records": batch})
            succeeded = _count_succeeded(mapping, batch, result)
            state["done"] += succeeded
            if succeeded == len(batch):
                state.update(size=len(records), retries=0)
                continue
            if succeeded:
                state["retries"] = 0
                continue
            limit, age = mapping.get("MaximumRetryAttempts", -1), mapping.get("MaximumRecordAgeInSeconds", -1)
            if mapping.get("BisectBatchOnFunctionError") and len(batch) > 1:
                state["size"] = len(batch) // 2
            elif 0 <= limit <= state["retries"] or 0 <= age < time.time() - _creation_time(batch[0]):
                condition = "RetryAttemptsExhausted" if 0 <= limit <= state["retries"] else "MaxRecordAgeExceeded"
                lambda_svc._send_ddb_stream_failure_record(
                    mapping, function, batch, mapping["EventSourceArn"], result, condition
                )
                state.update(done=state["done"] + len(batch), size=len(records), retries=0)
            else:
                state["retries"] += 1
                return {"error": True, "body": result.get("body"), "log": result.get("log", "")}
        del progress[first]
        return {"body": None}

    @wraps(execute)
    def execute_or_deliver(function: Any, event: Any, *arguments: Any, **options: Any) -> Any:
        if getattr(polling, "streams", False):
            records, name = event["Records"], function["config"]["FunctionName"]
            for _account, _region, mapping in lambda_svc._iter_all_esms():
                if mapping["FunctionName"] == name and mapping["EventSourceArn"] == records[0]["eventSourceARN"]:
                    polling.streams = False
                    try:
                        return deliver(mapping, function, records)
                    finally:
                        polling.streams = True
        return execute(function, event, *arguments, **options)

    @wraps(poll_streams)
    def poll_and_mark() -> Any:
        polling.streams = True
        try:
            return poll_streams()
        finally:
            polling.streams = False

    lambda_svc._execute_function = execute_or_deliver
    lambda_svc._poll_dynamodb_streams = poll_and_mark


def _creation_time(record: dict[str, Any]) -> float:
    return float(record["dynamodb"]["ApproximateCreationDateTime"])


def _count_succeeded(mapping: dict[str, Any], batch: list[dict[str, Any]], result: dict[str, Any]) -> int:
    """Returns how many records at the start of the batch were processed, according to the function's response."""
    if result.get("error"):
        return 0
    body = result.get("body")
    if "ReportBatchItemFailures" in mapping["FunctionResponseTypes"] and isinstance(body, dict):
        failed = {failure.get("itemIdentifier") for failure in body.get("batchItemFailures") or []}
        numbers = [record["dynamodb"]["SequenceNumber"] for record in batch]
        return next((index for index, number in enumerate(numbers) if number in failed), 0 if failed else len(batch))
    return len(batch)
