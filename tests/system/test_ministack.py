"""Each patch of local/ministack_launcher.py is still needed, and does what it says.

Each patch has a check of the same name, which says whether a MiniStack behaves as the patch's docstring promises. Where
a new version of MiniStack does so without the patch, the first test fails for that patch, and the patch can go.
"""

import base64
import io
import json
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import jwt
import pytest
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from local import ministack_launcher
from local.cloud import CREDENTIALS, PYTHON, REGION, Cloud
from local.processes import basic_environment, free_ports
from tests.system.system import wait_for

# `make verify-deploy` runs them, because a deploy relies on the patches.
pytestmark = pytest.mark.long

# The role of all the functions and machines here.
ROLE = "arn:aws:iam::000000000000:role/everything"
# The program of MiniStack's own command.
RAW = "from ministack.app import main; main()"


def client(cloud: Cloud, service: str, **credentials: str) -> Any:
    keys = {name.lower(): value for name, value in CREDENTIALS.items()}
    return boto3.client(
        service,
        endpoint_url=cloud.endpoint,
        region_name=REGION,
        config=Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 1}),
        **(credentials or keys),
    )


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    Cloud(Path(), 0).install()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The same MiniStack, started in the same way, but without the patches."""
    [port] = free_ports(1)
    cloud = Cloud(tmp_path_factory.mktemp("raw"), port)
    cloud._temporary.mkdir()
    cloud.process.start([str(PYTHON), "-c", RAW], {**basic_environment(), **cloud._variables}, "raw", port)
    try:
        cloud.process.wait(cloud._answers)
        assert role(cloud, "everything", "*") == ROLE
        yield cloud
    finally:
        cloud.stop()


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    [port] = free_ports(1)
    cloud = Cloud(tmp_path_factory.mktemp("launched"), port)
    try:
        cloud.start()
        assert role(cloud, "everything", "*") == ROLE
        yield cloud
    finally:
        cloud.stop()


def function(cloud: Cloud, name: str, code: str) -> str:
    """A function whose ``handler(event, context)`` is in ``code``. Returns its ARN."""
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("app.py", code)
    lambda_ = client(cloud, "lambda")
    arn = lambda_.create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role=ROLE,
        Handler="app.handler",
        Timeout=30,
        Code={"ZipFile": package.getvalue()},
    )["FunctionArn"]
    wait_for(lambda: lambda_.get_function_configuration(FunctionName=name)["State"] == "Active", name)
    return str(arn)


def written(cloud: Cloud, name: str, start: str = "event ") -> list[Any]:
    """The lines that the function has printed after ``start``, as JSON."""
    try:
        events = client(cloud, "logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    except ClientError:
        return []  # it has not run yet
    return [json.loads(e["message"].removeprefix(start)) for e in events if e["message"].startswith(start)]


def machine(cloud: Cloud, name: str, state: dict[str, Any], **more: Any) -> str:
    """A state machine of one state. Returns its ARN."""
    definition = {"StartAt": "Only", "States": {"Only": {"End": True, **state}}, **more}
    if state["Type"] == "Fail":
        del definition["States"]["Only"]["End"]
    arn = client(cloud, "stepfunctions").create_state_machine(
        name=name, definition=json.dumps(definition), roleArn=ROLE
    )["stateMachineArn"]
    return str(arn)


def run(cloud: Cloud, machine_arn: str) -> dict[str, Any]:
    """Starts an execution and waits for its end."""
    machines = client(cloud, "stepfunctions")
    arn = machines.start_execution(stateMachineArn=machine_arn)["executionArn"]
    wait_for(lambda: machines.describe_execution(executionArn=arn)["status"] != "RUNNING", "the execution's end")
    return dict(machines.describe_execution(executionArn=arn))


def role(cloud: Cloud, name: str, action: str, resource: str = "*", condition: Any = None) -> str:
    """A role that anybody may assume, and that may do this one ``action``. Returns its ARN."""
    iam = client(cloud, "iam")
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}
    rights = {"Effect": "Allow", "Action": action, "Resource": resource, "Condition": condition or {}}
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="one", PolicyDocument=json.dumps({"Statement": [rights]}))
    return str(arn)


def allowed(call: Callable[[], Any], refusal: str = "AccessDenied") -> bool:
    """Whether the call passes without this refusal. Any other refusal is an error."""
    try:
        call()
    except ClientError as error:
        if not error.response["Error"]["Code"].startswith(refusal):
            raise
        return False
    return True


def assumed(cloud: Cloud, service: str, action: str, resource: str = "*", condition: Any = None) -> Any:
    """A client with the rights of a role that may do this one ``action``."""
    arn = role(cloud, action.replace(":", "-"), action, resource, condition)
    keys = client(cloud, "sts").assume_role(RoleArn=arn, RoleSessionName="one")["Credentials"]
    return client(
        cloud,
        service,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )


def table(cloud: Cloud, name: str) -> str:
    """A table with a stream. Returns the stream's ARN."""
    description = client(cloud, "dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )["TableDescription"]
    return str(description["LatestStreamArn"])


def queue(cloud: Cloud, name: str) -> tuple[str, str]:
    """A queue that anybody may write to: its URL and its ARN."""
    sqs = client(cloud, "sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    anybody = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps({"Statement": [anybody]})})
    return url, arn


def received(cloud: Cloud, url: str) -> list[dict[str, Any]]:
    messages = client(cloud, "sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(each["Body"]) for each in messages]


# --- the checks


def import_rest_api(cloud: Cloud) -> bool:
    gateway = client(cloud, "apigateway")

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


def update_rest_api(cloud: Cloud) -> bool:
    gateway = client(cloud, "apigateway")
    api = gateway.create_rest_api(name="an API", endpointConfiguration={"types": ["EDGE"]})["id"]
    values = {"/endpointConfiguration/types/EDGE": "REGIONAL", "/minimumCompressionSize": ""}
    operations = [{"op": "replace", "path": path, "value": value} for path, value in values.items()]
    try:
        gateway.update_rest_api(restApiId=api, patchOperations=operations)
        found = gateway.get_rest_api(restApiId=api)
    except (ResponseParserError, ValueError):  # botocore's error for a text in place of a number
        return False
    return found["endpointConfiguration"]["types"] == ["REGIONAL"] and "minimumCompressionSize" not in found


def functions_at_once(cloud: Cloud) -> bool:
    function(cloud, "updated", "")
    configuration = client(cloud, "lambda").update_function_configuration(FunctionName="updated", Timeout=10)
    return bool(configuration["LastUpdateStatus"] == "Successful")


def exception_names(cloud: Cloud) -> bool:
    function(cloud, "raises", "def handler(event, context): raise LookupError('nothing here')")
    answer = client(cloud, "lambda").invoke(FunctionName="raises")
    return bool(json.loads(answer["Payload"].read())["errorType"] == "LookupError")


def complete_logs(cloud: Cloud) -> bool:
    # More lines than any machine reads in the quarter of a second that MiniStack allows.
    function(cloud, "writes", "def handler(event, context): print('x\\n' * 2_500_000 + 'the end')")
    answer = client(cloud, "lambda").invoke(FunctionName="writes", LogType="Tail")
    return b"the end" in base64.b64decode(answer["LogResult"])


def sns_to_lambda(cloud: Cloud) -> bool:
    code = "import json\ndef handler(event, context):\n    print('event', json.dumps(event))\n    raise LookupError"
    arn, sns = function(cloud, "subscriber", code), client(cloud, "sns")
    topic = sns.create_topic(Name="to-lambda")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=arn)
    sns.publish(TopicArn=topic, Message="without a subject")
    event = wait_for(lambda: written(cloud, "subscriber"), "the delivery")[0]
    if event["Records"][0]["Sns"].get("Subject", "") is not None:
        return False
    return wait_for(lambda: len(written(cloud, "subscriber")) == 3, "two more tries")


def stream_failures(cloud: Cloud) -> bool:
    code = (
        "import json\n"
        "def handler(event, context):\n"
        "    ids = {r['dynamodb']['Keys']['id']['S']: r['dynamodb']['SequenceNumber'] for r in event['Records']}\n"
        "    print('event', json.dumps(list(ids)))\n"
        "    return {'batchItemFailures': [{'itemIdentifier': ids['bad']}] if 'bad' in ids else []}\n"
    )
    function(cloud, "reader", code)
    stream, (failures, destination) = table(cloud, "streamed"), queue(cloud, "failures")
    client(cloud, "lambda").create_event_source_mapping(
        FunctionName="reader",
        EventSourceArn=stream,
        StartingPosition="TRIM_HORIZON",
        FunctionResponseTypes=["ReportBatchItemFailures"],
        BisectBatchOnFunctionError=True,
        MaximumRetryAttempts=1,
        DestinationConfig={"OnFailure": {"Destination": destination}},
    )
    for each in ("good", "bad", "last"):
        client(cloud, "dynamodb").put_item(TableName="streamed", Item={"id": {"S": each}})
    calls = wait_for(lambda: [c for c in [written(cloud, "reader")] if c and c[-1][-1] == "last"], "the last record")[0]
    # By now the bad record was tried again alone, given up, and reported.
    given_up = [each["requestContext"]["condition"] for each in received(cloud, failures)]
    if given_up != ["RetryAttemptsExhausted"]:
        return False
    return calls.count(["bad"]) >= 2 and sum("good" in call for call in calls) == 1


def start_twice(cloud: Cloud) -> bool:
    machines = client(cloud, "stepfunctions")
    arn = machine(cloud, "waits", {"Type": "Wait", "Seconds": 60})
    first = machines.start_execution(stateMachineArn=arn, name="same", input='{"a": 1}')["executionArn"]
    try:
        return bool(
            machines.start_execution(stateMachineArn=arn, name="same", input='{"a": 1}')["executionArn"] == first
        )
    except machines.exceptions.ExecutionAlreadyExists:
        return False
    finally:
        machines.stop_execution(executionArn=first)


def execution_ends_once(cloud: Cloud) -> bool:
    return "output" not in run(cloud, machine(cloud, "fails", {"Type": "Fail", "Error": "Wrong", "Cause": "a test"}))


def machine_timeout(cloud: Cloud) -> bool:
    arn = machine(cloud, "late", {"Type": "Wait", "Seconds": 3}, TimeoutSeconds=1)
    return bool(run(cloud, arn)["status"] == "TIMED_OUT")


def scheduled_calls(cloud: Cloud) -> bool:
    scheduler, states = client(cloud, "scheduler"), client(cloud, "stepfunctions")
    arn = machine(cloud, "scheduled", {"Type": "Pass"})
    given = {"StateMachineArn": arn, "Name": "by-<aws.scheduler.execution-id>", "Input": "{}"}
    scheduler.create_schedule(
        Name="once",
        ScheduleExpression="at(2026-11-21T00:00:00)",
        ActionAfterCompletion="DELETE",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={
            "Arn": "arn:aws:scheduler:::aws-sdk:sfn:startExecution",
            "RoleArn": ROLE,
            "Input": json.dumps(given),
        },
    )
    wait_for(lambda: not scheduler.list_schedules()["Schedules"], "the schedule's end")
    started = states.list_executions(stateMachineArn=arn)["executions"]
    return [each["name"][:3] for each in started] == ["by-"] and "<" not in started[0]["name"]


def execution_history(cloud: Cloud) -> bool:
    """Checks an execution of two branches, one of which is a Map of two items."""
    states = client(cloud, "stepfunctions")
    one = {"StartAt": "One", "States": {"One": {"Type": "Pass", "End": True}}}
    each = {"StartAt": "Each", "States": {"Each": {"Type": "Pass", "End": True}}}
    items = {"Type": "Map", "ItemsPath": "$.items", "ItemProcessor": each, "End": True}
    both = {"Type": "Parallel", "Branches": [one, {"StartAt": "Items", "States": {"Items": items}}]}
    arn = machine(cloud, "telling", both)
    execution = states.start_execution(stateMachineArn=arn, input='{"items": [1, 2]}')["executionArn"]
    wait_for(lambda: states.describe_execution(executionArn=execution)["status"] != "RUNNING", "the execution's end")
    events = {event["id"]: event for event in states.get_execution_history(executionArn=execution)["events"]}

    def led_to(event: dict[str, Any]) -> Iterator[str]:
        while event:
            yield event["type"]
            event = events.get(event.get("previousEventId", 0), {})

    entered = {
        details["name"]: list(led_to(event))
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


def partiql_actions(cloud: Cloud) -> bool:
    table(cloud, "allowed")
    dynamodb = assumed(cloud, "dynamodb", "dynamodb:PartiQLInsert")
    statement = {"Statement": """INSERT INTO "allowed" VALUE {'id': 'one'}"""}
    return allowed(lambda: dynamodb.batch_execute_statement(Statements=[statement]))


def partiql_inserts(cloud: Cloud) -> bool:
    stream = table(cloud, "inserted")
    client(cloud, "dynamodb").execute_statement(Statement="""INSERT INTO "inserted" VALUE {'id': 'one'}""")
    streams = client(cloud, "dynamodbstreams")
    records = []
    for shard in streams.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]:
        iterator = streams.get_shard_iterator(
            StreamArn=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records += streams.get_records(ShardIterator=iterator)["Records"]
    return [(each["eventName"], each["dynamodb"]["Keys"]) for each in records] == [("INSERT", {"id": {"S": "one"}})]


def batch_actions(cloud: Cloud) -> bool:
    url = client(cloud, "sqs").create_queue(QueueName="batches")["QueueUrl"]
    sqs = assumed(cloud, "sqs", "sqs:SendMessage")
    return allowed(lambda: sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": "x"}]))


def published_attributes(cloud: Cloud) -> bool:
    sns, (url, arn) = client(cloud, "sns"), queue(cloud, "published")
    topic = sns.create_topic(Name="published")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    attributes = {"kind": {"DataType": "String", "StringValue": "report"}}
    parameters = {"TopicArn": topic, "Message": "hello", "MessageAttributes": attributes}
    state = {"Type": "Task", "Resource": "arn:aws:states:::sns:publish", "Parameters": parameters}
    assert run(cloud, machine(cloud, "publishes", state))["status"] == "SUCCEEDED"
    [envelope] = wait_for(lambda: received(cloud, url), "the message")
    return bool(envelope.get("MessageAttributes") == {"kind": {"Type": "String", "Value": "report"}})


def stream_resources(cloud: Cloud) -> bool:
    stream = table(cloud, "read")
    [shard] = client(cloud, "dynamodbstreams").describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]
    wanted = {"StreamArn": stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
    iterator = client(cloud, "dynamodbstreams").get_shard_iterator(**wanted)["ShardIterator"]
    asking = assumed(cloud, "dynamodbstreams", "dynamodb:GetShardIterator", stream)
    reading = assumed(cloud, "dynamodbstreams", "dynamodb:GetRecords", stream)
    return allowed(lambda: asking.get_shard_iterator(**wanted)) and allowed(
        lambda: reading.get_records(ShardIterator=iterator)
    )


def lambda_resources(cloud: Cloud) -> bool:
    arn, (_, source) = f"arn:aws:lambda:{REGION}:000000000000:function:named", queue(cloud, "mapped")
    condition = {"ArnEquals": {"lambda:FunctionArn": arn}}
    made = {"FunctionName": "named", "Runtime": "python3.11", "Role": ROLE, "Handler": "app.handler"}
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("app.py", "")
    maker = assumed(cloud, "lambda", "lambda:CreateFunction", arn)
    if not allowed(lambda: maker.create_function(**made, Code={"ZipFile": package.getvalue()})):
        return False
    mapper = assumed(cloud, "lambda", "lambda:CreateEventSourceMapping", "*", condition)
    if not allowed(lambda: mapper.create_event_source_mapping(FunctionName="named", EventSourceArn=source)):
        return False
    [mapping] = client(cloud, "lambda").list_event_source_mappings(FunctionName="named")["EventSourceMappings"]
    remover = assumed(cloud, "lambda", "lambda:DeleteEventSourceMapping", "*", condition)
    return allowed(lambda: remover.delete_event_source_mapping(UUID=mapping["UUID"]))


def table_tags(cloud: Cloud) -> bool:
    arn = table(cloud, "tagged").partition("/stream/")[0]
    reader = assumed(cloud, "dynamodb", "dynamodb:ListTagsOfResource", arn)
    return allowed(lambda: reader.list_tags_of_resource(ResourceArn=arn))


def bucket_tags(cloud: Cloud) -> bool:
    properties = {"BucketName": "tagged", "Tags": [{"Key": "app", "Value": "cafe"}]}
    template = {"Resources": {"Tagged": {"Type": "AWS::S3::Bucket", "Properties": properties}}}
    cfn, s3 = client(cloud, "cloudformation"), client(cloud, "s3")
    cfn.create_stack(StackName="tagged", TemplateBody=json.dumps(template))
    wait_for(lambda: cfn.describe_stacks(StackName="tagged")["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE", "tagged")
    return allowed(lambda: s3.get_bucket_tagging(Bucket="tagged"), "NoSuchTagSet")


def imported_buckets(cloud: Cloud) -> bool:
    client(cloud, "s3").create_bucket(Bucket="kept")
    bucket = {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain", "Properties": {"BucketName": "kept"}}
    cfn, change = client(cloud, "cloudformation"), {"StackName": "imports", "ChangeSetName": "import"}
    cfn.create_change_set(
        **change,
        ChangeSetType="CREATE",
        ImportExistingResources=True,
        TemplateBody=json.dumps({"Resources": {"Kept": bucket}}),
    )
    wait_for(lambda: cfn.describe_change_set(**change)["Status"] == "CREATE_COMPLETE", "the change set")
    cfn.execute_change_set(**change)

    def status() -> str | None:
        found = str(cfn.describe_stacks(StackName="imports")["Stacks"][0]["StackStatus"])
        return None if found.endswith("_IN_PROGRESS") else found

    return wait_for(status, "the stack") == "CREATE_COMPLETE"


def user_pool_tags(cloud: Cloud) -> bool:
    pool = client(cloud, "cognito-idp").create_user_pool(PoolName="tagged", UserPoolTags={"app": "cafe"})["UserPool"]
    condition = {"StringEquals": {"aws:ResourceTag/app": "cafe"}}
    cognito = assumed(cloud, "cognito-idp", "cognito-idp:DescribeUserPool", "*", condition)
    return allowed(lambda: cognito.describe_user_pool(UserPoolId=pool["Id"]))


def simulated_conditions(cloud: Cloud) -> bool:
    condition = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    context = {"ContextKeyName": "iam:PassedToService", "ContextKeyValues": ["lambda.amazonaws.com"]}
    answer = client(cloud, "iam").simulate_principal_policy(
        PolicySourceArn=role(cloud, "passes", "iam:PassRole", "*", condition),
        ActionNames=["iam:PassRole"],
        ContextEntries=[{**context, "ContextKeyType": "string"}],
    )
    return bool(answer["EvaluationResults"][0]["EvalDecision"] == "allowed")


def wildcards(cloud: Cloud) -> bool:
    s3 = client(cloud, "s3")
    s3.create_bucket(Bucket="lines")
    s3.put_object(Bucket="lines", Key="two\nlines", Body=b"x")
    reader = assumed(cloud, "s3", "s3:GetObject", "arn:aws:s3:::lines/*")
    return allowed(lambda: reader.get_object(Bucket="lines", Key="two\nlines"))


def signed_tokens(cloud: Cloud) -> bool:
    cognito = client(cloud, "cognito-idp")
    pool = cognito.create_user_pool(PoolName="people")["UserPool"]["Id"]
    flows = ["ALLOW_USER_PASSWORD_AUTH"]
    page = cognito.create_user_pool_client(UserPoolId=pool, ClientName="page", ExplicitAuthFlows=flows)
    cognito.admin_create_user(UserPoolId=pool, Username="ana")
    cognito.admin_set_user_password(UserPoolId=pool, Username="ana", Password="Pass-w0rd", Permanent=True)
    token = cognito.initiate_auth(
        ClientId=page["UserPoolClient"]["ClientId"],
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": "ana", "PASSWORD": "Pass-w0rd"},
    )["AuthenticationResult"]["IdToken"]
    with urllib.request.urlopen(f"{cloud.endpoint}/{pool}/.well-known/jwks.json", timeout=10) as answer:
        published = json.load(answer)
    code = "def handler(event, context):\n    import cryptography"
    function(cloud, "has_not_packaged_it", code)
    called = client(cloud, "lambda").invoke(FunctionName="has_not_packaged_it")
    assert json.loads(called["Payload"].read())["errorMessage"] == "No module named 'cryptography'"
    try:
        keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(published).keys}
        jwt.decode(token, keys[jwt.get_unverified_header(token)["kid"]], ["RS256"], options={"verify_aud": False})
    except jwt.PyJWTError:
        return False
    return True


def request_path(cloud: Cloud) -> bool:
    code = """
def handler(event, context):
    return {"statusCode": 200, "headers": {}, "body": event["requestContext"]["path"]}
"""
    arn = function(cloud, "echo-path", code)
    gateway = client(cloud, "apigateway")
    api = gateway.create_rest_api(name="paths")["id"]
    [root] = gateway.get_resources(restApiId=api)["items"]
    method = {"restApiId": api, "resourceId": root["id"], "httpMethod": "GET"}
    gateway.put_method(**method, authorizationType="NONE")
    gateway.put_integration(
        **method,
        type="AWS_PROXY",
        integrationHttpMethod="POST",
        uri=f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{arn}/invocations",
    )
    gateway.create_deployment(restApiId=api, stageName="api")
    path = f"/_aws/execute-api/{api}/api/"
    return urllib3.request("GET", cloud.endpoint + path).data.decode() == path


CHECKS = (
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
NAMES = [check.__name__ for check in CHECKS]


def test_every_patch_has_its_check_and_its_line_in_the_list() -> None:
    assert [patch.__name__ for patch in ministack_launcher.PATCHES] == NAMES
    listed = ministack_launcher.__doc__ or ""
    assert [name for name in NAMES if f"- ``{name}`` " not in listed] == []


@pytest.mark.parametrize("works", CHECKS, ids=NAMES)
def test_without_its_patch_ministack_still_differs_from_what_is_needed(
    raw: Cloud, works: Callable[[Cloud], bool]
) -> None:
    assert not works(raw), "MiniStack does this itself now: the patch can go"


@pytest.mark.parametrize("works", CHECKS, ids=NAMES)
def test_with_its_patch_it_does_what_is_needed(launched: Cloud, works: Callable[[Cloud], bool]) -> None:
    assert works(launched)


def test_another_version_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ministack_launcher, "version", lambda name: "1.6.0")
    # The refusal comes before any patch, because patches import MiniStack, which the tests' environment lacks.
    with pytest.raises(SystemExit, match=r"for MiniStack 1\.5\.33, and 1\.6\.0 is installed: see \S+\.py$") as refusal:
        ministack_launcher.main()
    assert "\n" not in str(refusal.value)
