"""Starts MiniStack 1.5.33, and first mends the few places where it differs from AWS in a way that matters here.

This file runs in MiniStack's own virtual environment, so it imports nothing of the project. Each patch is one
function: its docstring says what AWS does, what MiniStack does, and who needs it. The list:

- ``signed_tokens``            the tokens of a user pool are signed with its keys
- ``import_rest_api``          ImportRestApi and PutRestApi, by which Chalice deploys the REST API
- ``update_rest_api``          UpdateRestApi with the values that Chalice sends
- ``functions_at_once``        a new or updated function is ready at once
- ``exception_names``          a failed function's ``errorType`` is the exception's class name
- ``complete_logs``            an invocation's log has all that it wrote
- ``sns_to_lambda``            every field is always there, and a failing subscriber is tried again
- ``stream_failures``          partial failures, retry limit, halving and giving up on a DynamoDB stream
- ``start_twice``              StartExecution with the name and the input of a running execution
- ``execution_ends_once``      an aborted or timed-out execution stays so, and a failed one has no output
- ``machine_timeout``          ``TimeoutSeconds`` of a whole state machine
- ``scheduled_calls``          a schedule that calls StartExecution, with its own id in the input
- ``execution_history``        the events of the states within a Parallel or a Map, and what led to each event
- ``partiql_actions``          the IAM actions of PartiQL's statements
- ``partiql_inserts``          the stream records of PartiQL's INSERT, and its atomicity
- ``batch_actions``            the IAM actions of SQS's and SNS's batches
- ``published_attributes``     the message attributes of a state machine's ``sns:publish``
- ``stream_resources``         reading a DynamoDB stream asks for a right on that stream
- ``lambda_resources``         creating a function or a mapping asks for a right on that function
- ``table_tags``               reading a table's tags asks for a right on that table
- ``bucket_tags``              a bucket has the tags of its template
- ``imported_buckets``         a change set that takes over a bucket can be executed
- ``user_pool_tags``           a policy's conditions know the tags of a user pool
- ``simulated_conditions``     a simulation of a policy knows its request's ``ContextEntries``
- ``wildcards``                ``*`` and ``?`` in a policy stand for line ends too
- ``request_path``             a request's path as the client asked for it

The patches are for this one version. With another, this file refuses to start: try each again, drop what upstream
has mended, and then change ``VERSION`` and ``ministack-requirements.txt`` together.
"""

import contextlib
import contextvars
import json
import queue
import re
import sys
import threading
import time
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

VERSION = "1.5.33"


def import_rest_api() -> None:
    """AWS has ImportRestApi and PutRestApi, which make a whole API from a Swagger document.

    MiniStack reads such documents for CloudFormation only: the first call gives an empty API, the second an error.
    ``chalice deploy`` uses the first to create the API and the second, with ``mode=overwrite``, to update it.
    """
    from ministack.services import apigateway_v1 as gateway

    handle_request = gateway.handle_request

    def fill(api_id: str, document: dict[str, Any]) -> None:
        """Make the API exactly what ``document`` says: what it lacks goes."""
        api, resources = gateway._rest_apis[api_id], gateway._resources[api_id]
        api["name"] = document["info"]["title"]
        api["version"] = document["info"]["version"]
        api["binaryMediaTypes"] = document.get("x-amazon-apigateway-binary-media-types", [])
        api["policy"] = document.get("x-amazon-apigateway-policy")
        for resource in list(resources.values()):
            if resource["path"] == "/":
                resource["resourceMethods"] = {}
            else:
                del resources[resource["id"]]
        gateway._authorizers_v1[api_id] = {}
        authorizers = gateway._import_security_schemes(api_id, document)
        for path, methods in document["paths"].items():
            gateway._import_path_item(api_id, path, methods, authorizers, document.get("security"))

    @wraps(handle_request)
    async def handle(method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
        parts = path.strip("/").split("/")
        mode = gateway._qp(query, "mode")
        if parts == ["restapis"] and method == "POST" and mode == "import":
            endpoint = gateway._qp(query, "endpointConfigurationTypes") or "EDGE"
            created = gateway._create_rest_api({"endpointConfiguration": {"types": [endpoint]}})
            api_id = json.loads(created[2])["id"]
            fill(api_id, json.loads(body))
            return gateway._v1_response(gateway._rest_api_view(gateway._rest_apis[api_id]), 201)
        if parts[0] == "restapis" and len(parts) == 2 and method == "PUT":
            if parts[1] not in gateway._rest_apis:
                return gateway._v1_error("NotFoundException", "Invalid API identifier specified", 404)
            if mode != "overwrite":
                return gateway._v1_error("BadRequestException", "Only mode=overwrite is emulated", 400)
            fill(parts[1], json.loads(body))
            return gateway._get_rest_api(parts[1])
        return await handle_request(method, path, headers, body, query)

    gateway.handle_request = handle


def update_rest_api() -> None:
    """AWS reads an empty ``/minimumCompressionSize`` as none, keeps the value as a number, and takes
    ``/endpointConfiguration/types/<old>`` as the replacement of the one type.

    MiniStack stores the text, on which botocore fails when it reads the API, and turns the types into a mapping.
    ``chalice deploy`` sends both, the second from the second deploy on.
    """
    from ministack.services import apigateway_v1 as gateway

    apply_patch = gateway._apply_patch

    @wraps(apply_patch)
    def apply(target: dict[str, Any], operations: list[dict[str, Any]]) -> Any:
        rest = []
        for operation in operations:
            path, value = operation["path"], operation.get("value")
            if path == "/minimumCompressionSize":
                target["minimumCompressionSize"] = int(value) if value else None
            elif path.startswith("/endpointConfiguration/types/"):
                target["endpointConfiguration"]["types"] = [value]
            else:
                rest.append(operation)
        return apply_patch(target, rest)

    gateway._apply_patch = apply


def functions_at_once() -> None:
    """On AWS a new function is Pending for a while, and so it is here, for half a second.

    Chalice's waiter looks once and then every five seconds, so a deploy slept for five seconds per function.
    """
    from ministack.services import lambda_svc

    schedule = lambda_svc._schedule_state_transition

    @wraps(schedule)
    def at_once(name: str, delay: float) -> None:
        lambda_svc._functions[name]["config"].update(State="Active", LastUpdateStatus="Successful")
        schedule(name, delay)  # clears the reasons, and does the same for published versions

    lambda_svc._schedule_state_transition = at_once


def exception_names() -> None:
    """On AWS the ``errorType`` of a failed invocation is the exception's class name.

    MiniStack says ``Runtime.HandlerError`` for all, so a state machine's Retry and Catch by class never match.
    The worker is made to send the name beside the message.
    """
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    _edit_worker('"error": str(e), "trace"', '"error": str(e), "type": type(e).__name__, "trace"')

    # The name travels from the worker's answer to the invocation's, which one thread handles one after the other.
    raised = threading.local()
    invoke, execute = lambda_runtime.Worker.invoke, lambda_svc._execute_function_warm

    @wraps(invoke)
    def invoke_and_note(*arguments: Any, **options: Any) -> Any:
        result = invoke(*arguments, **options)
        raised.name = result.get("type")
        return result

    @wraps(execute)
    def execute_with_name(*arguments: Any) -> Any:
        raised.name = None
        result = execute(*arguments)
        if raised.name and result.get("error"):
            result["body"]["errorType"] = raised.name
        return result

    lambda_runtime.Worker.invoke = invoke_and_note
    lambda_svc._execute_function_warm = execute_with_name


def complete_logs() -> None:
    """On AWS all that a function writes is in the log of that invocation.

    MiniStack waits 50 ms for the first line and then 5 ms for each other; on a busy machine a line comes too late, and
    is logged with the next invocation or never. The worker is made to say when it is done, which is quicker, too.
    """
    from ministack.core import lambda_runtime

    end = "\x00"
    _edit_worker(
        "            result = handler_fn(event, context)\n",
        "            try:\n"
        "                result = handler_fn(event, context)\n"
        "            finally:\n"
        f"                print({end!r}, file=sys.stderr, flush=True)\n",
    )

    def drain(worker: Any) -> str:
        lines = []
        # A worker that has died says nothing more.
        with contextlib.suppress(queue.Empty):
            while (line := worker._stderr_queue.get(timeout=1)) != end:
                lines.append(line)
        return "\n".join(lines)

    lambda_runtime.Worker._drain_stderr_bounded = drain


def _edit_worker(old: str, new: str) -> None:
    """Change the script that runs a function's handler."""
    from ministack.core import lambda_runtime

    if old not in lambda_runtime._PYTHON_WORKER_SCRIPT:
        sys.exit(f"MiniStack's worker script has no {old!r}")
    lambda_runtime._PYTHON_WORKER_SCRIPT = lambda_runtime._PYTHON_WORKER_SCRIPT.replace(old, new)


def sns_to_lambda() -> None:
    """AWS sends ``Subject`` (null if there is none) and ``MessageAttributes`` with every message, and invokes the
    function asynchronously: two retries, then the function's own failure destination.

    MiniStack leaves both out where they are empty, and Chalice's SNS event needs them; and it tries once, where
    ``record_notification`` must lose nothing. It has the asynchronous invocation, and only does not use it here.
    """
    from ministack.services import lambda_svc, sns

    def deliver(endpoint: str, envelope: str, _topic_arn: str, subscription_arn: str, *_parts: Any) -> None:
        function, config, _name = lambda_svc._get_func_record_for_ref(endpoint)
        if not function or not config:
            return
        record = {
            "EventVersion": "1.0",
            "EventSubscriptionArn": subscription_arn,
            "EventSource": "aws:sns",
            "Sns": {"Subject": None, "MessageAttributes": {}, **json.loads(envelope)},
        }
        lambda_svc.invoke_async_with_retry(
            lambda_svc._execution_record_for_config(function, config), {"Records": [record]}
        )

    sns._deliver_to_lambda = deliver


def stream_failures() -> None:
    """On AWS a mapping of a DynamoDB stream goes on after the records that a reply reports as done, halves a failing
    batch where it is told to, and gives a batch up, to the failure destination, when its retries are used up.

    MiniStack takes a reply with failed items for a success, so they are lost; knows neither retry limit nor halving;
    and gives up by age the whole batch, with what was done of it. ``announce_orders`` must lose nothing, nor announce
    twice what it has announced.
    """
    from ministack.services import lambda_svc

    execute, poll_streams = lambda_svc._execute_function, lambda_svc._poll_dynamodb_streams
    polling = threading.local()
    progress: dict[str, dict[str, int]] = {}

    def deliver(mapping: dict[str, Any], function: Any, records: list[dict[str, Any]]) -> Any:
        """Work through ``records``. An error as the answer makes the poller come again, with the same first record."""
        first = f"{mapping['UUID']} {records[0]['eventID']}"
        # How many records are done, how many to send at once, and how often the next one has been retried.
        state = progress.setdefault(first, {"done": 0, "size": len(records), "retries": 0})
        while batch := records[state["done"] :][: state["size"]]:
            result = execute(function, {"Records": batch})
            succeeded = _succeeded(mapping, batch, result)
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
            elif 0 <= limit <= state["retries"] or 0 <= age < time.time() - _written(batch[0]):
                used_up = "RetryAttemptsExhausted" if 0 <= limit <= state["retries"] else "MaxRecordAgeExceeded"
                lambda_svc._send_ddb_stream_failure_record(
                    mapping, function, batch, mapping["EventSourceArn"], result, used_up
                )
                state.update(done=state["done"] + len(batch), size=len(records), retries=0)
            else:
                state["retries"] += 1
                return {"error": True, "body": result.get("body"), "log": result.get("log", "")}
        del progress[first]
        return {"body": None}

    @wraps(execute)
    def execute_function(function: Any, event: Any, *arguments: Any, **options: Any) -> Any:
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
    def poll() -> Any:
        polling.streams = True
        try:
            return poll_streams()
        finally:
            polling.streams = False

    lambda_svc._execute_function = execute_function
    lambda_svc._poll_dynamodb_streams = poll


def _written(record: dict[str, Any]) -> float:
    return float(record["dynamodb"]["ApproximateCreationDateTime"])


def _succeeded(mapping: dict[str, Any], batch: list[dict[str, Any]], result: dict[str, Any]) -> int:
    """How many records at the batch's beginning are done, by the function's answer."""
    if result.get("error"):
        return 0
    body = result.get("body")
    if "ReportBatchItemFailures" in mapping["FunctionResponseTypes"] and isinstance(body, dict):
        failed = {failure.get("itemIdentifier") for failure in body.get("batchItemFailures") or []}
        numbers = [record["dynamodb"]["SequenceNumber"] for record in batch]
        return next((place for place, number in enumerate(numbers) if number in failed), 0 if failed else len(batch))
    return len(batch)


def start_twice() -> None:
    """AWS answers StartExecution with the name and the input of a running execution by that execution.

    MiniStack says ExecutionAlreadyExists, as AWS does for one that has ended or has another input.
    A report's Idempotency-Key is its execution's name, so a repeated request depends on it.
    """
    from ministack.services import stepfunctions

    start_execution = stepfunctions._start_execution

    @wraps(start_execution)
    def start(request: dict[str, Any]) -> Any:
        arn = stepfunctions._resolve_state_machine_arn(request.get("stateMachineArn", ""))
        for execution in list(stepfunctions._executions.values()):
            if (
                execution["stateMachineArn"] == arn
                and execution["name"] == request.get("name")
                and execution["status"] == "RUNNING"
                and execution["input"] == request.get("input", "{}")
            ):
                return stepfunctions.json_response(
                    {"executionArn": execution["executionArn"], "startDate": execution["startDate"]}
                )
        return start_execution(request)

    stepfunctions._start_execution = start


def execution_ends_once() -> None:
    """On AWS an execution ends once, and one that did not succeed has no output.

    In MiniStack a task that fails after StopExecution turns ABORTED into FAILED, and FAILED carries an output.
    """
    from ministack.services import stepfunctions

    fail_execution = stepfunctions._fail_execution

    @wraps(fail_execution)
    def fail(execution: dict[str, Any], error: str, cause: str) -> None:
        if execution["status"] == "RUNNING":
            fail_execution(execution, error, cause)
            execution["output"] = None

    stepfunctions._fail_execution = fail


def machine_timeout() -> None:
    """AWS ends an execution as TIMED_OUT when the machine's own ``TimeoutSeconds`` are over, and runs no Catch.

    MiniStack ignores the field. The rule that reports such executions is tested with it.
    """
    from ministack.services import stepfunctions

    run_execution = stepfunctions._run_execution

    def time_out(execution: dict[str, Any]) -> None:
        if execution["status"] == "RUNNING":
            execution.update(status="TIMED_OUT", stopDate=stepfunctions.now_iso())
            stepfunctions._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {}})
            stepfunctions._emit_execution_status_event(execution)

    @wraps(run_execution)
    def run(arn: str) -> Any:
        execution = stepfunctions._executions[arn]
        definition = json.loads(stepfunctions._state_machines[execution["stateMachineArn"]]["definition"])
        if "TimeoutSeconds" not in definition:
            return run_execution(arn)
        # The account and the region of the request are context variables, which a new thread does not inherit.
        context = contextvars.copy_context()
        timer = threading.Timer(definition["TimeoutSeconds"], context.run, (time_out, execution))
        timer.daemon = True
        timer.start()
        try:
            return run_execution(arn)
        finally:
            timer.cancel()

    stepfunctions._run_execution = run


def scheduled_calls() -> None:
    """On AWS a schedule may call any operation of a service, and has the id of its own execution put into the input.

    MiniStack's schedules know resources as targets, which are started under names that nobody chose, and put in no id.
    The scheduled reports need StartExecution with a name, so that one is added. It also looks once in ten seconds what
    is due, for which a test would have to wait.
    """
    from ministack.services import eventbridge, scheduler, stepfunctions

    invoke_target = eventbridge._invoke_target

    @wraps(invoke_target)
    def invoke(target: dict[str, Any], event: dict[str, Any], rule: dict[str, Any], view: Any = None) -> None:
        if not target["Arn"].endswith(":aws-sdk:sfn:startExecution"):
            invoke_target(target, event, rule, view)
            return
        execution_id = event["EventId"].replace("-", "")[:16]
        given = json.loads(target["Input"].replace("<aws.scheduler.execution-id>", execution_id))
        stepfunctions._start_execution(
            {"stateMachineArn": given["StateMachineArn"], "name": given["Name"], "input": given["Input"]}
        )

    eventbridge._invoke_target = invoke
    scheduler._SCHEDULE_TICK_INTERVAL = 1


def execution_history() -> None:
    """On AWS the states within a Parallel or a Map have the same events as all others, each event names the one that
    led to it, and none comes after the execution's end.

    MiniStack has of those states only the tasks' tries, which do not tell whose they are; names what led to an event
    nowhere; and what still runs when an execution is stopped goes on telling. The console draws an execution by its
    events.
    """
    from ministack.services import stepfunctions

    add_event, run_sub_machine = stepfunctions._add_event, stepfunctions._run_sub_machine
    one_at_a_time = threading.Lock()
    # Each branch and each item has a thread with a copy of these.
    latest: contextvars.ContextVar[int] = contextvars.ContextVar("latest", default=0)
    within: contextvars.ContextVar[tuple[Any, dict[int, str]]] = contextvars.ContextVar("within", default=(None, {}))
    mapped: contextvars.ContextVar[str] = contextvars.ContextVar("mapped", default="")

    @wraps(add_event)
    def add(execution: dict[str, Any], kind: str, details: dict[str, Any] | None = None) -> None:
        if execution["status"] != "RUNNING" and not kind.startswith("Execution"):
            return
        with one_at_a_time:
            event = add_event(execution, kind, details)
        event["previousEventId"] = latest.get()
        latest.set(event["id"])

    def tell(execute: Any) -> Any:
        @wraps(execute)
        def told(state: dict[str, Any], given: Any, *more: Any) -> Any:
            execution, names = within.get()
            name = names.get(id(state))
            if name is None:
                return execute(state, given, *more)
            entered = {"name": name, "input": json.dumps(given)}
            add(execution, f"{state['Type']}StateEntered", {"stateEnteredEventDetails": entered})
            result, following = execute(state, given, *more)
            exited = {"name": name, "output": json.dumps(result)}
            add(execution, f"{state['Type']}StateExited", {"stateExitedEventDetails": exited})
            return result, following

        return told

    def tell_try(run: Any) -> Any:
        @wraps(run)
        def told(state: dict[str, Any], given: Any, execution: dict[str, Any], context: dict[str, Any]) -> Any:
            kind = state["Type"]
            add(execution, f"{kind}StateStarted")
            names = within.get()[1]
            mapped.set(names.get(id(state), context["State"]["Name"]) if kind == "Map" else "")
            try:
                result = run(state, given, execution, context)
            except stepfunctions._ExecutionError:
                add(execution, f"{kind}StateFailed")
                raise
            add(execution, f"{kind}StateSucceeded")
            return result

        return told

    @wraps(run_sub_machine)
    def run(states: Any, start: str, given: Any, execution: dict[str, Any], context: dict[str, Any]) -> Any:
        within.set((execution, {id(state): name for name, state in states.items()}))
        item = {"name": mapped.get(), "index": context["Map"]["Item"]["Index"]} if mapped.get() else {}

        def tell_item(end: str) -> None:
            if item:
                add(execution, f"MapIteration{end}", {f"mapIteration{end}EventDetails": item})

        tell_item("Started")
        try:
            result = run_sub_machine(states, start, given, execution, context)
        except stepfunctions._ExecutionError:
            tell_item("Failed")
            raise
        tell_item("Succeeded")
        return result

    stepfunctions._add_event = add
    stepfunctions._run_sub_machine = run
    for kind in ("pass", "task", "choice", "wait", "parallel", "map"):
        setattr(stepfunctions, f"_execute_{kind}", tell(getattr(stepfunctions, f"_execute_{kind}")))
    for name in ("_run_parallel_branches", "_run_map_items"):
        setattr(stepfunctions, name, tell_try(getattr(stepfunctions, name)))


def partiql_actions() -> None:
    """AWS authorizes each statement of BatchExecuteStatement as what it does, such as PartiQLInsert, on its table.

    MiniStack asks for ``dynamodb:BatchExecuteStatement``, which is no action on AWS, on every resource.
    ``store_orders`` writes by it, and its role has the same policy here as there.
    """
    from ministack.core import iam_actions

    transaction_checks = iam_actions.dynamodb_transaction_checks
    verbs = {"INSERT": "Insert", "SELECT": "Select", "UPDATE": "Update", "DELETE": "Delete"}

    @wraps(transaction_checks)
    def checks(action: str, body: bytes, region: str, account: str) -> Any:
        if action not in ("dynamodb:BatchExecuteStatement", "dynamodb:ExecuteStatement"):
            return transaction_checks(action, body, region, account)
        request = json.loads(body)
        found = []
        for each in request.get("Statements", [request]):
            statement = re.match(r'\s*(\w+)\b(?:.*?\b(?:INTO|FROM)\b)?\s*"?([\w.-]+)', each["Statement"], re.I | re.S)
            if statement and statement[1].upper() in verbs:
                arn = iam_actions._dynamodb_table_arn(statement[2], region, account)
                found.append((f"dynamodb:PartiQL{verbs[statement[1].upper()]}", arn))
        return found

    iam_actions.dynamodb_transaction_checks = checks


def batch_actions() -> None:
    """AWS authorizes SendMessageBatch as ``sqs:SendMessage``, and so on: a batch has no action of its own.

    MiniStack asks for ``sqs:SendMessageBatch``, which no policy on AWS can name.
    """
    from ministack.core import iam_actions

    extract_iam_action = iam_actions.extract_iam_action

    @wraps(extract_iam_action)
    def extract(service: str, *arguments: Any, **named: Any) -> Any:
        action = extract_iam_action(service, *arguments, **named)
        return action.removesuffix("Batch") if action and service in ("sqs", "sns") else action

    iam_actions.extract_iam_action = extract


def published_attributes() -> None:
    """On AWS a state machine's ``sns:publish`` sends its MessageAttributes along, by which subscribers filter.

    MiniStack hands the state's JSON to a parser of form fields, which finds none.
    """
    from ministack.services import stepfunctions

    publish = stepfunctions._invoke_sns_publish

    @wraps(publish)
    def with_attributes(resource: str, request: dict[str, Any]) -> Any:
        fields = dict(request)
        for number, (name, value) in enumerate(fields.pop("MessageAttributes", {}).items(), 1):
            fields[f"MessageAttributes.entry.{number}.Name"] = name
            for field, content in value.items():
                fields[f"MessageAttributes.entry.{number}.Value.{field}"] = content
        return publish(resource, fields)

    for table in vars(stepfunctions).values():
        if isinstance(table, dict) and table.get("arn:aws:states:::sns:publish") is publish:
            table["arn:aws:states:::sns:publish"] = with_attributes


def partiql_inserts() -> None:
    """On AWS a PartiQL INSERT is on the table's stream like any other write, and of two at once one is a duplicate.

    MiniStack writes no stream record for it, and looks and writes in two steps that another thread may come between.
    ``store_orders`` inserts by PartiQL, and ``announce_orders`` reads the stream.
    """
    from ministack.services import dynamodb

    insert = dynamodb._partiql_insert
    one_at_a_time = threading.Lock()

    @wraps(insert)
    def with_record(table: dict[str, Any], parsed: dict[str, Any]) -> Any:
        with one_at_a_time:
            answer = insert(table, parsed)
            if answer[0] == 200:
                item = parsed["item"]
                dynamodb._emit_stream_event(parsed["table"], "INSERT", None, item.get("M", item))
        return answer

    dynamodb._partiql_insert = with_record


def stream_resources() -> None:
    """AWS authorizes reading a DynamoDB stream on that stream, whose ARN is in the request or behind its iterator.

    MiniStack asks for a right on every resource. The API's role may read the orders' stream, and no other.
    """
    from ministack.core import iam_actions
    from ministack.services import dynamodb_streams

    extract_resource_arn = iam_actions.extract_resource_arn

    @wraps(extract_resource_arn)
    def extract(service: str, method: str, path: str, headers: Any, body: bytes, *arguments: Any) -> Any:
        if service == "dynamodbstreams":
            request = json.loads(body or b"{}")
            iterator = dynamodb_streams._decode_iterator(request.get("ShardIterator") or "")
            if stream := (iterator or {}).get("arn") or request.get("StreamArn"):
                return stream
        return extract_resource_arn(service, method, path, headers, body, *arguments)

    iam_actions.extract_resource_arn = extract


def lambda_resources() -> None:
    """AWS authorizes CreateFunction on the function that is to be, and tells by ``lambda:FunctionArn`` of which
    function an event source mapping is.

    MiniStack asks for both on every resource, and has no such condition. Who deploys has these rights on the project's
    own functions, and on no others.
    """
    from ministack.core import iam_actions, iam_evaluator
    from ministack.core.responses import get_account_id, get_region
    from ministack.services import lambda_svc

    extract_resource_arn = iam_actions.extract_resource_arn
    request_tag_context, enforce = iam_actions.request_tag_context, iam_evaluator.enforce

    def arn(body: bytes) -> str:
        name: str = json.loads(body)["FunctionName"]
        return name if name.startswith("arn:") else f"arn:aws:lambda:{get_region()}:{get_account_id()}:function:{name}"

    @wraps(extract_resource_arn)
    def extract(service: str, method: str, path: str, headers: Any, body: bytes, *arguments: Any) -> Any:
        if (service, method, path.rpartition("/")[2]) == ("lambda", "POST", "functions"):
            return arn(body)
        return extract_resource_arn(service, method, path, headers, body, *arguments)

    @wraps(request_tag_context)
    def with_function(service: str, action: str, body: bytes, parameters: Any) -> Any:
        context = request_tag_context(service, action, body, parameters)
        return {**context, "lambda:FunctionArn": arn(body)} if action == "lambda:CreateEventSourceMapping" else context

    @wraps(enforce)
    def enforce_with_function(key: str, action: str, *arguments: Any, **named: Any) -> Any:
        if action in ("lambda:UpdateEventSourceMapping", "lambda:DeleteEventSourceMapping"):
            mapping = lambda_svc._esms.get(named["resource_arn"].rpartition(":")[2])
            if mapping:
                named["service_context"] = {**named["service_context"], "lambda:FunctionArn": mapping["FunctionArn"]}
        return enforce(key, action, *arguments, **named)

    iam_actions.extract_resource_arn = extract
    iam_actions.request_tag_context = with_function
    iam_evaluator.enforce = enforce_with_function


def table_tags() -> None:
    """AWS authorizes reading a table's tags on that table, whose ARN is in the request.

    MiniStack asks for a right on every resource. The deploy takes over a table only where it has the stage's tags.
    """
    from ministack.core import iam_actions

    extract_resource_arn = iam_actions.extract_resource_arn

    @wraps(extract_resource_arn)
    def extract(service: str, method: str, path: str, headers: Any, body: bytes, *arguments: Any) -> Any:
        if service == "dynamodb" and headers.get("x-amz-target", "").endswith(".ListTagsOfResource"):
            return json.loads(body)["ResourceArn"]
        return extract_resource_arn(service, method, path, headers, body, *arguments)

    iam_actions.extract_resource_arn = extract


def bucket_tags() -> None:
    """On AWS a bucket has the tags that its template gives it.

    MiniStack's CloudFormation leaves them out. By them the deploy knows a bucket that an earlier stage has left.
    """
    from ministack.services import s3
    from ministack.services.cloudformation import provisioners

    apply_configurations = provisioners._s3_apply_configurations

    @wraps(apply_configurations)
    def with_tags(name: str, properties: dict[str, Any], *arguments: Any) -> None:
        apply_configurations(name, properties, *arguments)
        s3._bucket_tags[name] = {each["Key"]: each["Value"] for each in properties.get("Tags", [])}

    provisioners._s3_apply_configurations = with_tags


def imported_buckets() -> None:
    """AWS takes over a bucket that is there, where the change set says so.

    MiniStack's change set says so too, and then its check of names refuses the bucket because it is there. A stage
    whose data was kept takes it over when it is deployed again.
    """
    from ministack.services.cloudformation import changesets, stacks

    deploy, validation_errors = stacks._deploy_stack_async, stacks._validation_errors
    imported: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("imported", default=frozenset())

    @wraps(deploy)
    async def with_imports(*arguments: Any, **named: Any) -> None:
        identifiers = (named.get("imports") or {}).values()
        imported.set(frozenset(each["BucketName"] for each in identifiers if "BucketName" in each))
        await deploy(*arguments, **named)

    @wraps(validation_errors)
    def but_imported(*arguments: Any) -> Any:
        return validation_errors(*arguments[:7], arguments[7] | imported.get())

    changesets._deploy_stack_async = with_imports
    stacks._validation_errors = but_imported


def user_pool_tags() -> None:
    """On AWS the condition ``aws:ResourceTag`` knows the tags of a user pool.

    MiniStack looks for them at some services, and Cognito is none of them. Who deploys has rights on the project's own
    pools, and on no others.
    """
    from ministack.services import tagging

    tagging._RESOURCE_TAG_COLLECTORS["cognito-idp"] = tagging._collect_cognito


def simulated_conditions() -> None:
    """AWS's SimulatePrincipalPolicy knows of a request what its ``ContextEntries`` say.

    MiniStack ignores them, so that no right with a condition is ever there. The deploy asks beforehand whether it has
    the rights that it needs.
    """
    from ministack.core import iam_evaluator
    from ministack.services import iam

    simulate, evaluate = iam._simulate_principal_policy, iam_evaluator.evaluate
    entries: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("entries", default=None)

    @wraps(simulate)
    def with_entries(parameters: dict[str, Any]) -> Any:
        given, number = {}, 1
        while name := iam._p(parameters, f"ContextEntries.member.{number}.ContextKeyName"):
            value = f"ContextEntries.member.{number}.ContextKeyValues.member.1"
            given[name.lower()] = iam._p(parameters, value)
            number += 1
        token = entries.set(given)
        try:
            return simulate(parameters)
        finally:
            entries.reset(token)

    @wraps(evaluate)
    def in_context(context: Any, *arguments: Any) -> Any:
        context.service_context.update(entries.get() or {})
        return evaluate(context, *arguments)

    iam_evaluator.evaluate = in_context
    for table in vars(iam).values():
        if isinstance(table, dict) and table.get("SimulatePrincipalPolicy") is simulate:
            table["SimulatePrincipalPolicy"] = with_entries


def wildcards() -> None:
    """In a policy of AWS ``*`` and ``?`` stand for any characters, in MiniStack for any but the end of a line.

    The key of an upload may have one, and the function's role must let it read that upload too.
    """
    from ministack.core import iam_evaluator

    compile_pattern = iam_evaluator._fnmatch_compile

    @wraps(compile_pattern)
    def over_lines(pattern: str, ignore_case: bool) -> re.Pattern[str]:
        compiled = compile_pattern(pattern, ignore_case)
        return re.compile(compiled.pattern, compiled.flags | re.DOTALL)

    iam_evaluator._fnmatch_compile = over_lines


def signed_tokens() -> None:
    """AWS signs the tokens of a user pool with RSA, and publishes the keys.

    MiniStack does so where it finds the package `cryptography`. Else it makes up the signatures, and the authorizer
    would let nobody in. It is in a folder of its own, where MiniStack finds it and a function's process, which has
    the same Python, does not: a function that needs it has to package it, as on AWS.
    """
    sys.path.append(str(Path(sys.prefix) / "own"))


def request_path() -> None:
    """On AWS the context of a request to a REST API has the path that the client asked for.

    MiniStack leaves out what its own addresses begin with, ``/_aws/execute-api/<id>``. From this path the API tells
    where it is itself: in a ``Location``, and to the console.
    """
    from ministack import app
    from ministack.services import apigateway_v1 as gateway

    handle_request, build_event = app._handle_execute_api_request, gateway._build_lambda_event_v1
    asked_for: contextvars.ContextVar[str] = contextvars.ContextVar("asked_for")

    @wraps(handle_request)
    async def handle(host: str, path: str, *arguments: Any, **named: Any) -> Any:
        asked_for.set(path)
        return await handle_request(host, path, *arguments, **named)

    @wraps(build_event)
    def build(*arguments: Any, **named: Any) -> Any:
        event = build_event(*arguments, **named)
        event["requestContext"]["path"] = asked_for.get()
        return event

    app._handle_execute_api_request = handle
    gateway._build_lambda_event_v1 = build


PATCHES = (
    # Before any other has MiniStack look for the package.
    signed_tokens,
    import_rest_api,
    update_rest_api,
    functions_at_once,
    exception_names,
    complete_logs,
    sns_to_lambda,
    stream_failures,
    start_twice,
    execution_ends_once,
    machine_timeout,
    scheduled_calls,
    execution_history,
    partiql_actions,
    partiql_inserts,
    batch_actions,
    published_attributes,
    stream_resources,
    lambda_resources,
    table_tags,
    bucket_tags,
    imported_buckets,
    user_pool_tags,
    simulated_conditions,
    wildcards,
    request_path,
)


def main() -> None:
    installed = version("ministack")
    if installed != VERSION:
        sys.exit(f"these patches are for MiniStack {VERSION}, and {installed} is installed: see {__file__}")
    for patch in PATCHES:
        patch()

    from ministack.app import main as serve

    serve()


if __name__ == "__main__":
    main()
