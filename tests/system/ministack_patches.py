"""Patches the AWS emulator MiniStack in ways that only the tests need.

``local/ministack/launcher.py`` loads this file by path.
"""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

# This timeout is longer than the TimeoutSeconds of every state machine task that a test waits for.
SECONDS = 960


def tasks_on_the_wire() -> None:
    """Makes state machines call Lambda and SNS over HTTP, which lets the proxy inject faults.

    Without the patch, MiniStack's state machines call the code of Lambda and SNS directly. The patch sends
    ``lambda:invoke`` and ``sns:publish`` with boto3, and uses the error names of Step Functions.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from ministack.services import stepfunctions

    failure = stepfunctions._ExecutionError

    def call_lambda(function: str, payload: Any) -> Any:
        try:
            answer = _client("lambda").invoke(FunctionName=function, Payload=json.dumps(payload))
            body = answer["Payload"].read().decode()
        except ClientError as error:
            raise failure(_error_name("Lambda", error, "AWSLambdaException"), str(error)) from error
        except BotoCoreError as error:
            raise failure("Lambda.SdkClientException", str(error)) from error
        if "FunctionError" in answer:
            raise failure(json.loads(body).get("errorType", "Lambda.Unknown"), body)
        return json.loads(body)

    def publish(_resource: str, request: dict[str, Any]) -> Any:
        sns = _client("sns")
        try:
            return {"MessageId": sns.publish(**request)["MessageId"]}
        except ClientError as error:
            raise failure(_error_name("SNS", error, "AmazonSNSException"), str(error)) from error
        except BotoCoreError as error:
            raise failure("SNS.SdkClientException", str(error)) from error

    stepfunctions._call_lambda = call_lambda
    stepfunctions._SERVICE_DISPATCH["arn:aws:states:::sns:publish"] = publish


def objects_in_memory() -> None:
    """Reads the S3 objects of a snapshot from disk once, and keeps them in memory.

    A stack without saved objects is creating a snapshot, so it still writes its objects to disk.
    """
    from ministack.services import s3

    if not Path(s3.DATA_DIR).is_dir():
        return
    for (_account, name), bucket in s3._buckets._data.items():
        for key, item in bucket["objects"].items():
            item["body"] = s3._read_body(name, key, item)
    s3.S3_PERSIST = False


@cache
def _client(service: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        service,
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        region_name=os.environ["MINISTACK_REGION"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(
            connect_timeout=5,
            read_timeout=SECONDS,
            retries={"total_max_attempts": 1},
            max_pool_connections=64,
            user_agent_extra="by-states",
        ),
    )


def _error_name(prefix: str, error: Any, default: str) -> str:
    """Returns the error's name from the service model, or ``default`` if the model does not define the error."""
    name = type(error).__name__
    return f"{prefix}.{name if name != 'ClientError' else default}"
