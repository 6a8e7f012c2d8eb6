"""Each check has the name of a patch for the AWS emulator MiniStack.

A check returns whether an emulator behaves like AWS.
"""

from __future__ import annotations

import base64
import json
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import jwt
import urllib3
from botocore.parsers import ResponseParserError

from local.cloud import REGION
from local.processes import StackError, free_ports
from tests.system import people
from tests.system.emulator import ACCOUNT, Emulator, is_allowed
from tests.system.events import records
from tests.system.system import wait_for


def signed_tokens(emulator: Emulator) -> bool:
    cognito, pool, page = _pool(emulator)
    answer = people.sign_in(cognito, page, "ana", people.add(cognito, pool, "ana"))
    token = answer["AuthenticationResult"]["IdToken"]
    with urllib.request.urlopen(f"{emulator.endpoint}/{pool}/.well-known/jwks.json", timeout=10) as answer:
        published = json.load(answer)
    emulator.function("unpackaged", "def handler(event, context):\n    import cryptography")
    assert emulator.invoke("unpackaged")["errorMessage"] == "No module named 'cryptography'"
    try:
        keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(published).keys}
        jwt.decode(token, keys[jwt.get_unverified_header(token)["kid"]], ["RS256"], options={"verify_aud": False})
    except jwt.PyJWTError:
        return False
    return True


def _pool(emulator: Emulator, **policy: Any) -> tuple[Any, str, str]:
    """Creates a user pool with a client. Returns a Cognito client, the pool's id and the pool client's id."""
    cognito = emulator.client("cognito-idp")
    policies = {"PasswordPolicy": policy or {"RequireSymbols": False}}
    pool = cognito.create_user_pool(PoolName="people", Policies=policies)["UserPool"]["Id"]
    flows = ["ALLOW_USER_PASSWORD_AUTH"]
    page = cognito.create_user_pool_client(UserPoolId=pool, ClientName="page", ExplicitAuthFlows=flows)
    return cognito, pool, page["UserPoolClient"]["ClientId"]


def password_policy(emulator: Emulator) -> bool:
    cognito, pool, page = _pool(emulator, MinimumLength=12, RequireUppercase=True, RequireNumbers=True)
    user, temporary = {"UserPoolId": pool, "Username": "ana"}, "Temporary123"
    refusals = []

    def attempt(work: Callable[..., Any], *values: Any, **given: Any) -> Any:
        try:
            return work(*values, **given)
        except cognito.exceptions.InvalidPasswordException as error:
            refusals.append(error.response["Error"]["Message"])

    attempt(cognito.admin_create_user, **user, TemporaryPassword="short")
    if not attempt(cognito.admin_create_user, **user, TemporaryPassword=temporary):
        return False
    attempt(cognito.admin_set_user_password, **user, Password="lowercase-123")
    session = people.sign_in(cognito, page, "ana", temporary)["Session"]
    attempt(people.choose, cognito, page, session, "ana", "NoDigitAtAllÀ")
    attempt(people.choose, cognito, page, session, "ana", "short")
    tokens = people.choose(cognito, page, session, "ana", f"{temporary}-mine")["AuthenticationResult"]
    previous = {"AccessToken": tokens["AccessToken"], "PreviousPassword": f"{temporary}-mine"}
    attempt(cognito.change_password, **previous, ProposedPassword="no-uppercase-À1")
    unmet = ("not long enough", *(f"must have {kind} characters" for kind in ("uppercase", "numeric")))
    return refusals == [f"Password did not conform with policy: Password {unmet[number]}" for number in (0, 1, 2, 0, 1)]


def disabled_users(emulator: Emulator) -> bool:
    cognito, pool, page = _pool(emulator)
    user, temporary = {"UserPoolId": pool, "Username": "ana"}, "Temporary123"
    cognito.admin_create_user(**user, TemporaryPassword=temporary)
    session = people.sign_in(cognito, page, "ana", temporary)["Session"]
    cognito.admin_disable_user(**user)
    own = f"{temporary}-mine"
    assert not is_allowed(lambda: people.sign_in(cognito, page, "ana", temporary), "NotAuthorized")
    return not is_allowed(lambda: people.choose(cognito, page, session, "ana", own), "NotAuthorized")


def import_rest_api(emulator: Emulator) -> bool:
    gateway = emulator.client("apigateway")

    def document(path: str) -> bytes:
        info = {"title": "an API", "version": "1"}
        return json.dumps({"swagger": "2.0", "info": info, "paths": {path: {"get": {"responses": {}}}}}).encode()

    def paths() -> set[str]:
        return {each["path"] for each in gateway.get_resources(restApiId=api)["items"]}

    api = gateway.import_rest_api(body=document("/first"))["id"]
    if paths() != {"/", "/first"}:
        return False
    gateway.put_rest_api(restApiId=api, mode="overwrite", body=document("/second"))
    return paths() == {"/", "/second"}


def update_rest_api(emulator: Emulator) -> bool:
    gateway = emulator.client("apigateway")
    api = gateway.create_rest_api(name="an API", endpointConfiguration={"types": ["EDGE"]})["id"]
    values = {"/endpointConfiguration/types/EDGE": "REGIONAL", "/minimumCompressionSize": ""}
    operations = [{"op": "replace", "path": path, "value": value} for path, value in values.items()]
    try:
        gateway.update_rest_api(restApiId=api, patchOperations=operations)
        updated = gateway.get_rest_api(restApiId=api)
    except (ResponseParserError, ValueError):  # botocore raises these errors for a non-numeric value.
        return False
    return updated["endpointConfiguration"]["types"] == ["REGIONAL"] and "minimumCompressionSize" not in updated


def request_path(emulator: Emulator) -> bool:
    code = 'def handler(event, context): return {"statusCode": 200, "body": event["requestContext"]["path"]}'
    arn, gateway = emulator.function("echo-path", code), emulator.client("apigateway")
    api = gateway.create_rest_api(name="paths")["id"]
    [root] = gateway.get_resources(restApiId=api)["items"]
    method = {"restApiId": api, "resourceId": root["id"], "httpMethod": "GET"}
    gateway.put_method(**method, authorizationType="NONE")
    uri = f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{arn}/invocations"
    gateway.put_integration(**method, type="AWS_PROXY", integrationHttpMethod="POST", uri=uri)
    gateway.create_deployment(restApiId=api, stageName="api")
    path = f"/_aws/execute-api/{api}/api/"
    return urllib3.request("GET", emulator.endpoint + path).data.decode() == path


def functions_active_at_once(emulator: Emulator) -> bool:
    emulator.function("updated", "")
    configuration = emulator.client("lambda").update_function_configuration(FunctionName="updated", Timeout=10)
    return bool(configuration["LastUpdateStatus"] == "Successful")


def exception_names(emulator: Emulator) -> bool:
    emulator.function("raises", "def handler(event, context): raise LookupError('nothing here')")
    return bool(emulator.invoke("raises")["errorType"] == "LookupError")


def complete_logs(emulator: Emulator) -> bool:
    # Reading this many lines takes longer than the quarter of a second that MiniStack waits for logs.
    emulator.function("writes", "def handler(event, context): print('x\\n' * 500_000 + 'the end')")
    answer = emulator.client("lambda").invoke(FunctionName="writes", LogType="Tail")
    return b"the end" in base64.b64decode(answer["LogResult"])


def shared_code(emulator: Emulator) -> bool:
    code = "import os\ndef handler(event, context): return os.path.realpath(__file__)"
    for name in ("shares", "shares-too"):
        emulator.function(name, code)
    return bool(emulator.invoke("shares") == emulator.invoke("shares-too"))


def forked_processes(emulator: Emulator) -> bool:
    code = "import sys\ndef handler(event, context): return [name in sys.modules for name in ('boto3', 'cryptography')]"
    emulator.function("prepared", code)
    own = "import botocore\ndef handler(event, context): return botocore.own"
    emulator.function("packages-botocore", own, {"botocore/__init__.py": "own = True"})
    return (emulator.invoke("prepared"), emulator.invoke("packages-botocore")) == ([True, False], True)


def saved_code(emulator: Emulator) -> bool:
    emulator.function("edited", "def handler(event, context): return 'deployed'")
    live = emulator.cloud.live
    for file, text in {
        "1/app.py": "def handler(event, context): return 'saved'",
        "debugger/live_debugger.py": "def prepare(function): pass",
    }.items():
        (live / file).parent.mkdir(parents=True)
        (live / file).write_text(text)
    before = emulator.invoke("edited")
    (live / "code").symlink_to(live / "1")
    after = emulator.invoke("edited")
    shutil.rmtree(live)
    return (before, after, emulator.invoke("edited")) == ("deployed", "saved", "deployed")


def time_stops_for_a_debugger(emulator: Emulator) -> bool:
    code = (
        "import os, pathlib, time\n"
        "def handler(event, context):\n"
        "    held = pathlib.Path(os.environ['LIVE_FOLDER'], 'held')\n"
        "    held.mkdir(parents=True)\n"
        "    (held / str(os.getpid())).touch()\n"
        "    time.sleep(2)\n"
        "    return 'ended'"
    )
    emulator.function("held", code)
    emulator.client("lambda").update_function_configuration(FunctionName="held", Timeout=1)
    answer = emulator.invoke("held")
    shutil.rmtree(emulator.cloud.live)
    return bool(answer == "ended")


def saved_state(emulator: Emulator) -> bool:
    [port] = free_ports(1)
    cloud = type(emulator.cloud)(emulator.cloud.folder / "saved-state", port)
    try:
        cloud.start("one")
        cloud.deployer_credentials()
        own = Emulator(cloud)
        own.function("kept", "def handler(event, context): return 'kept'")
        own.client("s3").create_bucket(Bucket="kept")
        own.client("s3").put_object(Bucket="kept", Key="a/b", Body=b"bytes")
        # Without the patch, the signal to save the state ends the MiniStack process.
        with suppress(StackError):
            cloud.save("one")
            cloud.stop()
            cloud.start("one")
            kept = own.client("s3").get_object(Bucket="kept", Key="a/b")["Body"].read(), own.invoke("kept")
            own.client("s3").create_bucket(Bucket="later")
            cloud.save("one")
            cloud.stop()
            cloud.start("one")
            kept += (len(own.client("s3").list_buckets()["Buckets"]),)
            cloud.stop()
            cloud.start("two")
            return (*kept, own.client("s3").list_buckets()["Buckets"]) == (b"bytes", "kept", 2, [])
        return False
    finally:
        cloud.stop()


def lambda_subscribers(emulator: Emulator) -> bool:
    code = "import json\ndef handler(event, context):\n    print('event', json.dumps(event))\n    raise LookupError"
    arn, sns = emulator.function("subscriber", code), emulator.client("sns")
    topic = sns.create_topic(Name="to-lambda")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=arn)
    sns.publish(TopicArn=topic, Message="without a subject")
    event = wait_for(lambda: emulator.printed("subscriber"), "the delivery")[0]
    if event["Records"][0]["Sns"].get("Subject", "") is not None:
        return False
    return wait_for(lambda: len(emulator.printed("subscriber")) == 3, "two retries")


def queue_metrics(emulator: Emulator) -> bool:
    sqs = emulator.client("sqs")
    for name in ("waiting", "tried"):
        url, dimensions = emulator.queue(name)[0], [{"Name": "QueueName", "Value": name}]
        _put_alarm(emulator, name, "AWS/SQS", "ApproximateAgeOfOldestMessage", Dimensions=dimensions)
        sqs.send_message(QueueUrl=url, MessageBody="x")
    # AWS leaves a message that was received four times out of the queue's age.
    for _ in range(4):
        sqs.receive_message(QueueUrl=url, VisibilityTimeout=0)
    with suppress(AssertionError):
        wait_for(lambda: _alarm_state(emulator, "waiting") == "ALARM", "an alarm", seconds=15)
        return _alarm_state(emulator, "tried") == "OK"
    return False


def alarm_evaluation(emulator: Emulator) -> bool:
    queues = [[{"Name": "Queue", "Value": name}] for name in ("watched", "another")]
    _put_alarm(emulator, "watched", "Own", "Waiting", Dimensions=queues[0])
    states = [_alarm_state(emulator, "watched")]
    for dimensions in reversed(queues):
        point = {"MetricName": "Waiting", "Value": 1, "Dimensions": dimensions}
        emulator.client("cloudwatch").put_metric_data(Namespace="Own", MetricData=[point])
        states.append(_alarm_state(emulator, "watched"))
    return states == ["OK", "OK", "ALARM"]


def alarm_messages(emulator: Emulator) -> bool:
    sns, (url, queue) = emulator.client("sns"), emulator.queue("alarmed")
    topic = sns.create_topic(Name="alarmed")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    for name in ("allowed", "refused"):
        _put_alarm(emulator, name, "Own", "Nothing", AlarmActions=[topic])
        emulator.client("cloudwatch").set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")
        sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue='{"Statement": []}')
    messages = [json.loads(each["Message"]) for each in emulator.received(url)]
    return [(each["AlarmName"], each.get("AlarmActions")) for each in messages] == [("allowed", [topic])]


def _put_alarm(emulator: Emulator, name: str, namespace: str, metric: str, **more: Any) -> None:
    settings = {"Statistic": "Maximum", "Period": 60, "EvaluationPeriods": 1, "Threshold": 0, **more}
    settings |= {"ComparisonOperator": "GreaterThanThreshold", "TreatMissingData": "notBreaching"}
    emulator.client("cloudwatch").put_metric_alarm(AlarmName=name, Namespace=namespace, MetricName=metric, **settings)


def _alarm_state(emulator: Emulator, name: str) -> str:
    return str(emulator.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"])


def embedded_metrics(emulator: Emulator) -> bool:
    directive = {"Namespace": "Embedded", "Dimensions": [["stage"]], "Metrics": [{"Name": "Beans", "Unit": "Count"}]}
    metadata = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    line = json.dumps({"_aws": metadata, "stage": "dev", "Beans": 3})
    emulator.function("measures", f"def handler(event, context): print({line!r})")
    emulator.invoke("measures")
    return bool(emulator.client("cloudwatch").list_metrics(Namespace="Embedded")["Metrics"])


def stream_failures(emulator: Emulator) -> bool:
    code = (
        "import json\n"
        "def handler(event, context):\n"
        "    ids = {r['dynamodb']['Keys']['id']['S']: r['dynamodb']['SequenceNumber'] for r in event['Records']}\n"
        "    print('event', json.dumps(list(ids)))\n"
        "    return {'batchItemFailures': [{'itemIdentifier': ids['bad']}] if 'bad' in ids else []}\n"
    )
    emulator.function("reader", code)
    stream, (failures, destination) = emulator.table("streamed"), emulator.queue("failures")
    emulator.client("lambda").create_event_source_mapping(
        FunctionName="reader",
        EventSourceArn=stream,
        StartingPosition="TRIM_HORIZON",
        FunctionResponseTypes=["ReportBatchItemFailures"],
        BisectBatchOnFunctionError=True,
        MaximumRetryAttempts=1,
        DestinationConfig={"OnFailure": {"Destination": destination}},
    )
    _put(emulator, "good", "bad")
    wait_for(lambda: any("bad" in call for call in emulator.printed("reader")), "the bad record")
    _put(emulator, "last")
    wait_for(lambda: emulator.printed("reader")[-1] == ["last"], "the last record")
    calls = emulator.printed("reader")
    # At this point, the bad record has been retried alone, abandoned and reported.
    given_up = [each["requestContext"]["condition"] for each in emulator.received(failures)]
    if given_up != ["RetryAttemptsExhausted"]:
        return False
    return calls.count(["bad"]) >= 2 and sum("good" in call for call in calls) == 1


def _put(emulator: Emulator, *ids: str) -> None:
    for each in ids:
        emulator.client("dynamodb").put_item(TableName="streamed", Item={"id": {"S": each}})


def partiql_inserts(emulator: Emulator) -> bool:
    stream = emulator.table("inserted")
    emulator.client("dynamodb").execute_statement(Statement="""INSERT INTO "inserted" VALUE {'id': 'one'}""")
    found = [each for _, each in records(emulator.client("dynamodbstreams"), stream)]
    return [(each["eventName"], each["dynamodb"]["Keys"]) for each in found] == [("INSERT", {"id": {"S": "one"}})]


def repeated_starts(emulator: Emulator) -> bool:
    machines = emulator.client("stepfunctions")
    execution = {"stateMachineArn": emulator.machine("waits", {"Type": "Wait", "Seconds": 60}), "name": "same"}
    first = machines.start_execution(**execution, input='{"a": 1}')["executionArn"]
    try:
        return bool(machines.start_execution(**execution, input='{"a": 1}')["executionArn"] == first)
    except machines.exceptions.ExecutionAlreadyExists:
        return False
    finally:
        machines.stop_execution(executionArn=first)


def final_status(emulator: Emulator) -> bool:
    state = {"Type": "Fail", "Error": "Wrong", "Cause": "a test"}
    return "output" not in emulator.execute(emulator.machine("fails", state))


def machine_timeout(emulator: Emulator) -> bool:
    arn = emulator.machine("late", {"Type": "Wait", "Seconds": 3}, TimeoutSeconds=1)
    return bool(emulator.execute(arn)["status"] == "TIMED_OUT")


def message_attributes(emulator: Emulator) -> bool:
    sns, (url, arn) = emulator.client("sns"), emulator.queue("published")
    topic = sns.create_topic(Name="published")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    attributes = {"kind": {"DataType": "String", "StringValue": "report"}}
    parameters = {"TopicArn": topic, "Message": "hello", "MessageAttributes": attributes}
    state = {"Type": "Task", "Resource": "arn:aws:states:::sns:publish", "Parameters": parameters}
    assert emulator.execute(emulator.machine("publishes", state))["status"] == "SUCCEEDED"
    [envelope] = wait_for(lambda: emulator.received(url), "the message")
    return bool(envelope.get("MessageAttributes") == {"kind": {"Type": "String", "Value": "report"}})


def execution_history(emulator: Emulator) -> bool:
    """Checks the history of an execution with two branches, one of which is a Map state with two items."""
    one = {"StartAt": "One", "States": {"One": {"Type": "Pass", "End": True}}}
    each = {"StartAt": "Each", "States": {"Each": {"Type": "Pass", "End": True}}}
    items = {"Type": "Map", "ItemsPath": "$.items", "ItemProcessor": each, "End": True}
    both = {"Type": "Parallel", "Branches": [one, {"StartAt": "Items", "States": {"Items": items}}]}
    arn = emulator.execute(emulator.machine("branches", both), '{"items": [1, 2]}')["executionArn"]
    history = emulator.client("stepfunctions").get_execution_history(executionArn=arn)["events"]
    events = {event["id"]: event for event in history}

    def chain(event: dict[str, Any]) -> Iterator[str]:
        """Yields the type of the event and the types of all events that led to it."""
        while event:
            yield event["type"]
            event = events.get(event.get("previousEventId", 0), {})

    entered = {
        details["name"]: list(chain(event))
        for event in events.values()
        if (details := event.get("stateEnteredEventDetails"))
    }
    parallel = ["ParallelStateStarted", "ParallelStateEntered"]
    return (
        entered
        == {
            "Only": ["ParallelStateEntered"],
            "One": ["PassStateEntered", *parallel],
            "Items": ["MapStateEntered", *parallel],
            "Each": ["PassStateEntered", "MapIterationStarted", "MapStateStarted", "MapStateEntered", *parallel],
        }
        and [event["type"] for event in events.values()].count("MapIterationSucceeded") == 2
    )


def scheduled_api_calls(emulator: Emulator) -> bool:
    scheduler, arn = emulator.client("scheduler"), emulator.machine("scheduled", {"Type": "Pass"})
    request = {"StateMachineArn": arn, "Name": "by-<aws.scheduler.execution-id>", "Input": "{}"}
    target = {"Arn": "arn:aws:scheduler:::aws-sdk:sfn:startExecution", "RoleArn": emulator.admin_role}
    scheduler.create_schedule(
        Name="once",
        ScheduleExpression="at(2026-11-21T00:00:00)",
        ActionAfterCompletion="DELETE",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={**target, "Input": json.dumps(request)},
    )
    wait_for(lambda: not scheduler.list_schedules()["Schedules"], "the schedule's end")
    started = emulator.client("stepfunctions").list_executions(stateMachineArn=arn)["executions"]
    return [each["name"][:3] for each in started] == ["by-"] and "<" not in started[0]["name"]


def bucket_tags(emulator: Emulator) -> bool:
    properties = {"BucketName": "tagged", "Tags": [{"Key": "app", "Value": "cafe"}]}
    template = {"Resources": {"Tagged": {"Type": "AWS::S3::Bucket", "Properties": properties}}}
    cfn = emulator.client("cloudformation")
    cfn.create_stack(StackName="tagged", TemplateBody=json.dumps(template))
    assert _stack_status(cfn, "tagged") == "CREATE_COMPLETE"
    return is_allowed(lambda: emulator.client("s3").get_bucket_tagging(Bucket="tagged"), "NoSuchTagSet")


def role_boundaries(emulator: Emulator) -> bool:
    boundary = "arn:aws:iam::aws:policy/ReadOnlyAccess"
    properties = {"RoleName": "limited", "PermissionsBoundary": boundary, "AssumeRolePolicyDocument": {}}
    template = json.dumps({"Resources": {"Limited": {"Type": "AWS::IAM::Role", "Properties": properties}}})
    cfn = emulator.client("cloudformation")
    cfn.create_stack(StackName="limited", TemplateBody=template, Capabilities=["CAPABILITY_NAMED_IAM"])
    assert _stack_status(cfn, "limited") == "CREATE_COMPLETE"
    role = emulator.client("iam").get_role(RoleName="limited")["Role"]
    return bool(role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn") == boundary)


def bucket_imports(emulator: Emulator) -> bool:
    emulator.client("s3").create_bucket(Bucket="kept")
    bucket = {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain", "Properties": {"BucketName": "kept"}}
    template = json.dumps({"Resources": {"Kept": bucket}})
    cfn, change = emulator.client("cloudformation"), {"StackName": "imports", "ChangeSetName": "import"}
    cfn.create_change_set(**change, ChangeSetType="CREATE", ImportExistingResources=True, TemplateBody=template)
    wait_for(lambda: cfn.describe_change_set(**change)["Status"] == "CREATE_COMPLETE", "the change set")
    cfn.execute_change_set(**change)
    return _stack_status(cfn, "imports") == "CREATE_COMPLETE"


def protected_user_pools(emulator: Emulator) -> bool:
    cognito, cfn = emulator.client("cognito-idp"), emulator.client("cloudformation")
    pool = cognito.create_user_pool(PoolName="protected", DeletionProtection="ACTIVE")["UserPool"]["Id"]
    pools = {"Pool": {"Type": "AWS::Cognito::UserPool", "Properties": {"DeletionProtection": "ACTIVE"}}}
    stack = cfn.create_stack(StackName="protected", TemplateBody=json.dumps({"Resources": pools}))["StackId"]
    assert _stack_status(cfn, stack) == "CREATE_COMPLETE"
    cfn.delete_stack(StackName="protected")
    is_kept = not is_allowed(lambda: cognito.delete_user_pool(UserPoolId=pool), "InvalidParameterException")
    return is_kept and _stack_status(cfn, stack) == "DELETE_FAILED"


def _stack_status(cfn: Any, name: str) -> str:
    """Waits until the CloudFormation stack's operation ends, and returns the stack's status."""

    def status() -> str | None:
        current = str(cfn.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])
        return None if current.endswith("_IN_PROGRESS") else current

    return str(wait_for(status, f"the end of the stack {name}"))


def partiql_permissions(emulator: Emulator) -> bool:
    emulator.table("allowed")
    dynamodb = emulator.restricted_client("dynamodb", "dynamodb:PartiQLInsert")
    statement = {"Statement": """INSERT INTO "allowed" VALUE {'id': 'one'}"""}
    return is_allowed(lambda: dynamodb.batch_execute_statement(Statements=[statement]))


def batch_permissions(emulator: Emulator) -> bool:
    url, sqs = emulator.queue("batches")[0], emulator.restricted_client("sqs", "sqs:SendMessage")
    return is_allowed(lambda: sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": "x"}]))


def directory_bucket_permissions(emulator: Emulator) -> bool:
    return is_allowed(emulator.restricted_client("s3", "s3express:ListAllMyDirectoryBuckets").list_directory_buckets)


def stream_permissions(emulator: Emulator) -> bool:
    stream, streams = emulator.table("read"), emulator.client("dynamodbstreams")
    [shard] = streams.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]
    position = {"StreamArn": stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
    iterator = streams.get_shard_iterator(**position)["ShardIterator"]
    starter, reader = (
        emulator.restricted_client("dynamodbstreams", f"dynamodb:{action}", stream)
        for action in ("GetShardIterator", "GetRecords")
    )
    return is_allowed(lambda: starter.get_shard_iterator(**position)) and is_allowed(
        lambda: reader.get_records(ShardIterator=iterator)
    )


def function_permissions(emulator: Emulator) -> bool:
    arn, (_, source) = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:named", emulator.queue("mapped")
    condition = {"ArnEquals": {"lambda:FunctionArn": arn}}
    creator = emulator.restricted_client("lambda", "lambda:CreateFunction", arn)
    if not is_allowed(lambda: creator.create_function(**emulator.function_parameters("named", ""))):
        return False
    mapper = emulator.restricted_client("lambda", "lambda:CreateEventSourceMapping", "*", condition)
    if not is_allowed(lambda: mapper.create_event_source_mapping(FunctionName="named", EventSourceArn=source)):
        return False
    [mapping] = emulator.client("lambda").list_event_source_mappings(FunctionName="named")["EventSourceMappings"]
    remover = emulator.restricted_client("lambda", "lambda:DeleteEventSourceMapping", "*", condition)
    return is_allowed(lambda: remover.delete_event_source_mapping(UUID=mapping["UUID"]))


def table_tag_permissions(emulator: Emulator) -> bool:
    arn = emulator.table("tagged").partition("/stream/")[0]
    reader = emulator.restricted_client("dynamodb", "dynamodb:ListTagsOfResource", arn)
    return is_allowed(lambda: reader.list_tags_of_resource(ResourceArn=arn))


def association_permissions(emulator: Emulator) -> bool:
    sns, (_, queue) = emulator.client("sns"), emulator.queue("follower")
    topic = sns.create_topic(Name="followed")["TopicArn"]
    subscription = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)["SubscriptionArn"]
    reader = emulator.restricted_client("sns", "sns:GetSubscriptionAttributes", topic)
    if not is_allowed(lambda: reader.get_subscription_attributes(SubscriptionArn=subscription), "AuthorizationError"):
        return False
    stage = f"arn:aws:apigateway:{REGION}::/restapis/1/stages/api"
    remover = emulator.restricted_client("wafv2", "wafv2:DisassociateWebACL", stage)
    return is_allowed(lambda: remover.disassociate_web_acl(ResourceArn=stage))


def user_pool_tags(emulator: Emulator) -> bool:
    tags, cognito = {"app": "cafe"}, emulator.client("cognito-idp")
    pool = cognito.create_user_pool(PoolName="tagged", UserPoolTags=tags)["UserPool"]
    condition = {"StringEquals": {"aws:ResourceTag/app": "cafe"}}
    reader = emulator.restricted_client("cognito-idp", "cognito-idp:DescribeUserPool", "*", condition)
    return is_allowed(lambda: reader.describe_user_pool(UserPoolId=pool["Id"]))


def simulation_context(emulator: Emulator) -> bool:
    key, value = "iam:PassedToService", "lambda.amazonaws.com"
    answer = emulator.client("iam").simulate_principal_policy(
        PolicySourceArn=emulator.role("passes", "iam:PassRole", "*", {"StringEquals": {key: value}}),
        ActionNames=["iam:PassRole"],
        ContextEntries=[{"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}],
    )
    return bool(answer["EvaluationResults"][0]["EvalDecision"] == "allowed")


def policy_wildcards(emulator: Emulator) -> bool:
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket="lines")
    s3.put_object(Bucket="lines", Key="two\nlines", Body=b"x")
    reader = emulator.restricted_client("s3", "s3:GetObject", "arn:aws:s3:::lines/*")
    return is_allowed(lambda: reader.get_object(Bucket="lines", Key="two\nlines"))
