"""Patches for IAM that correct the permissions checked for each call and the evaluation of policies."""

import contextvars
import json
import re
from functools import lru_cache, wraps
from typing import Any
from urllib.parse import parse_qs


def partiql_permissions() -> None:
    """AWS requires a PartiQL permission for each statement, such as ``dynamodb:PartiQLInsert`` on the statement's
    table.

    MiniStack requires the action ``dynamodb:BatchExecuteStatement`` on ``*``, but IAM on AWS has no such action. The
    function ``store_orders`` calls BatchExecuteStatement, and the function's role has the same policy on MiniStack as
    on AWS.
    """
    from ministack.core import iam_actions

    transaction_checks = iam_actions.dynamodb_transaction_checks
    verbs = {"INSERT": "Insert", "SELECT": "Select", "UPDATE": "Update", "DELETE": "Delete"}

    @wraps(transaction_checks)
    def check_statements(action: str, body: bytes, region: str, account: str) -> Any:
        if action not in ("dynamodb:BatchExecuteStatement", "dynamodb:ExecuteStatement"):
            return transaction_checks(action, body, region, account)
        request = json.loads(body)
        checks = []
        for each in request.get("Statements", [request]):
            statement = re.match(r'\s*(\w+)\b(?:.*?\b(?:INTO|FROM)\b)?\s*"?([\w.-]+)', each["Statement"], re.I | re.S)
            if statement and statement[1].upper() in verbs:
                arn = iam_actions._dynamodb_table_arn(statement[2], region, account)
                checks.append((f"dynamodb:PartiQL{verbs[statement[1].upper()]}", arn))
        return checks

    iam_actions.dynamodb_transaction_checks = check_statements


def batch_permissions() -> None:
    """For a batch of SQS or SNS messages, AWS requires the permission for a single message, such as
    ``sqs:SendMessage``.

    MiniStack requires actions such as ``sqs:SendMessageBatch``, which IAM on AWS does not have. The project's functions
    send SQS messages in batches.
    """
    from ministack.core import iam_actions

    extract_iam_action = iam_actions.extract_iam_action

    @wraps(extract_iam_action)
    def extract_single_action(service: str, *arguments: Any, **options: Any) -> Any:
        action = extract_iam_action(service, *arguments, **options)
        return action.removesuffix("Batch") if action and service in ("sqs", "sns") else action

    iam_actions.extract_iam_action = extract_single_action


def directory_bucket_permissions() -> None:
    """AWS requires ``s3express:ListAllMyDirectoryBuckets`` to list directory buckets, not ``s3:ListAllMyBuckets``.

    Without this patch, MiniStack also stops for seconds to look for a service with the name ``s3express``.
    """
    from ministack import app
    from ministack.core import iam_actions, router

    def unless_express(answer: str, call: Any, headers: int) -> Any:
        return lambda *given: answer if "/s3express/" in given[headers].get("authorization", "") else call(*given)

    # The app has its own reference to the function.
    app.detect_service = router.detect_service = unless_express("s3", router.detect_service, 2)
    action = "s3express:ListAllMyDirectoryBuckets"
    iam_actions.extract_iam_action = unless_express(action, iam_actions.extract_iam_action, 3)


def stream_permissions() -> None:
    """AWS requires permission on a DynamoDB stream's ARN to read the stream.

    To read a stream, MiniStack requires permission on ``*``. The role of the project's API allows reading only the
    stream of the orders table.
    """
    from ministack.core import iam_actions
    from ministack.services import dynamodb_streams

    extract_resource_arn = iam_actions.extract_resource_arn

    @wraps(extract_resource_arn)
    def extract_stream_arn(service: str, method: str, path: str, headers: Any, body: bytes, *arguments: Any) -> Any:
        if service == "dynamodbstreams":
            request = json.loads(body or b"{}")
            iterator = dynamodb_streams._decode_iterator(request.get("ShardIterator") or "")
            if stream := (iterator or {}).get("arn") or request.get("StreamArn"):
                return stream
        return extract_resource_arn(service, method, path, headers, body, *arguments)

    iam_actions.extract_resource_arn = extract_stream_arn


def function_permissions() -> None:
    """For CreateFunction, AWS requires permission on the new function's ARN. For event source mappings, AWS supports
    the condition ``lambda:FunctionArn``.

    For CreateFunction, MiniStack requires permission on ``*``. MiniStack does not support the condition
    ``lambda:FunctionArn``. The deployer's policy allows changes only to the project's functions.
    """
    from ministack.core import iam_actions, iam_evaluator
    from ministack.core.responses import get_account_id, get_region
    from ministack.services import lambda_svc

    extract_resource_arn = iam_actions.extract_resource_arn
    request_tag_context, enforce = iam_actions.request_tag_context, iam_evaluator.enforce

    def function_arn(body: bytes) -> str:
        name: str = json.loads(body)["FunctionName"]
        return name if name.startswith("arn:") else f"arn:aws:lambda:{get_region()}:{get_account_id()}:function:{name}"

    @wraps(extract_resource_arn)
    def extract_function_arn(service: str, method: str, path: str, headers: Any, body: bytes, *arguments: Any) -> Any:
        if (service, method, path.rpartition("/")[2]) == ("lambda", "POST", "functions"):
            return function_arn(body)
        return extract_resource_arn(service, method, path, headers, body, *arguments)

    @wraps(request_tag_context)
    def add_function_of_new_mapping(service: str, action: str, body: bytes, parameters: Any) -> Any:
        context = request_tag_context(service, action, body, parameters)
        if action == "lambda:CreateEventSourceMapping":
            context = {**context, "lambda:FunctionArn": function_arn(body)}
        return context

    @wraps(enforce)
    def add_function_of_mapping(key: str, action: str, *arguments: Any, **options: Any) -> Any:
        if action in ("lambda:UpdateEventSourceMapping", "lambda:DeleteEventSourceMapping"):
            mapping = lambda_svc._esms.get(options["resource_arn"].rpartition(":")[2])
            if mapping:
                function = {"lambda:FunctionArn": mapping["FunctionArn"]}
                options["service_context"] = {**options["service_context"], **function}
        return enforce(key, action, *arguments, **options)

    iam_actions.extract_resource_arn = extract_function_arn
    iam_actions.request_tag_context = add_function_of_new_mapping
    iam_evaluator.enforce = add_function_of_mapping


def table_tag_permissions() -> None:
    """To list the tags of a DynamoDB table, AWS requires permission on the table's ARN.

    To list a table's tags, MiniStack requires permission on ``*``. The deploy imports an existing table only if the
    table has the stage's tags.
    """
    from ministack.core import iam_actions

    extract_resource_arn = iam_actions.extract_resource_arn

    @wraps(extract_resource_arn)
    def extract_table_arn(service: str, method: str, path: str, headers: Any, body: bytes, *arguments: Any) -> Any:
        if service == "dynamodb" and headers.get("x-amz-target", "").endswith(".ListTagsOfResource"):
            return json.loads(body)["ResourceArn"]
        return extract_resource_arn(service, method, path, headers, body, *arguments)

    iam_actions.extract_resource_arn = extract_table_arn


def association_permissions() -> None:
    """AWS requires permission on a subscription's topic, and on a web ACL or on the API that it protects.

    MiniStack requires permission on ``*``. The deployer's policy allows changes only to the project's topics and web
    ACLs.
    """
    from ministack.core import iam_actions

    extract_resource_arn = iam_actions.extract_resource_arn

    @wraps(extract_resource_arn)
    def extract_associated_arn(service: str, method: str, path: str, headers: Any, body: bytes, *arguments: Any) -> Any:
        if service == "sns" and (subscription := parse_qs(body.decode()).get("SubscriptionArn")):
            return subscription[0].rpartition(":")[0]
        if service == "wafv2" and headers.get("x-amz-target", "").endswith("ssociateWebACL"):
            return json.loads(body).get("WebACLArn") or json.loads(body)["ResourceArn"]
        return extract_resource_arn(service, method, path, headers, body, *arguments)

    iam_actions.extract_resource_arn = extract_associated_arn


def user_pool_tags() -> None:
    """AWS supports the condition ``aws:ResourceTag`` for Cognito user pools.

    MiniStack supports ``aws:ResourceTag`` for several services, but not for Cognito. The deployer's policy allows
    changes only to the project's user pools.
    """
    from ministack.services import tagging

    tagging._RESOURCE_TAG_COLLECTORS["cognito-idp"] = tagging._collect_cognito


def simulation_context() -> None:
    """AWS uses the ``ContextEntries`` in the request when it simulates a policy.

    MiniStack ignores ``ContextEntries``, so its simulation never allows an action that depends on a condition. The
    deploy begins with a policy simulation to check that no permission is missing.
    """
    from ministack.core import iam_evaluator
    from ministack.services import iam

    simulate, evaluate = iam._simulate_principal_policy, iam_evaluator.evaluate
    entries: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("entries", default=None)

    @wraps(simulate)
    def simulate_with_entries(parameters: dict[str, Any]) -> Any:
        context, number = {}, 1
        while name := iam._p(parameters, f"ContextEntries.member.{number}.ContextKeyName"):
            value = f"ContextEntries.member.{number}.ContextKeyValues.member.1"
            context[name.lower()] = iam._p(parameters, value)
            number += 1
        token = entries.set(context)
        try:
            return simulate(parameters)
        finally:
            entries.reset(token)

    @wraps(evaluate)
    def evaluate_with_entries(context: Any, *arguments: Any) -> Any:
        context.service_context.update(entries.get() or {})
        return evaluate(context, *arguments)

    iam_evaluator.evaluate = evaluate_with_entries
    for table in vars(iam).values():
        if isinstance(table, dict) and table.get("SimulatePrincipalPolicy") is simulate:
            table["SimulatePrincipalPolicy"] = simulate_with_entries


def policy_wildcards() -> None:
    """AWS's policy wildcards ``*`` and ``?`` match every character, including line breaks.

    MiniStack's wildcards do not match line breaks. The S3 key of an uploaded file can contain a line break, and the
    importing function's role must still allow reading the file.
    """
    from ministack.core import iam_evaluator

    compile_pattern = iam_evaluator._fnmatch_compile

    @lru_cache(4096)
    @wraps(compile_pattern)
    def compile_with_line_breaks(pattern: str, ignore_case: bool) -> re.Pattern[str]:
        compiled = compile_pattern(pattern, ignore_case)
        return re.compile(compiled.pattern, compiled.flags | re.DOTALL)

    iam_evaluator._fnmatch_compile = compile_with_line_breaks
