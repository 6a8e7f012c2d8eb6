"""Starts the local MiniStack with its patches, and with three more, for the tests.

On AWS a task of a state machine is a call on the wire. In MiniStack it is a call inside of the process, which no
fault on the wire could meet. Here each ``lambda:invoke`` and ``sns:publish`` of a state machine goes out by boto3, and
its failures come back under the names that Step Functions gives them.

It runs in MiniStack's own virtual environment, so it imports nothing of the project but the launcher, by its path.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import tempfile
import types
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

LAUNCHER = Path(__file__).parents[2] / "local" / "ministack_launcher.py"
# Beyond every TimeoutSeconds of the machines' tasks that a test waits for.
SECONDS = 960


@cache
def client(service: str) -> Any:
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


def tasks_on_the_wire() -> None:
    from botocore.exceptions import BotoCoreError, ClientError
    from ministack.services import stepfunctions

    failure = stepfunctions._ExecutionError

    def call_lambda(function: str, payload: Any) -> Any:
        try:
            answer = client("lambda").invoke(FunctionName=function, Payload=json.dumps(payload))
            body = answer["Payload"].read().decode()
        except ClientError as error:
            raise failure(_named("Lambda", error, "AWSLambdaException"), str(error)) from error
        except BotoCoreError as error:
            raise failure("Lambda.SdkClientException", str(error)) from error
        if "FunctionError" in answer:
            raise failure(json.loads(body).get("errorType", "Lambda.Unknown"), body)
        return json.loads(body)

    def publish(_resource: str, request: dict[str, Any]) -> Any:
        sns = client("sns")
        try:
            return {"MessageId": sns.publish(**request)["MessageId"]}
        except ClientError as error:
            raise failure(_named("SNS", error, "AmazonSNSException"), str(error)) from error
        except BotoCoreError as error:
            raise failure("SNS.SdkClientException", str(error)) from error

    stepfunctions._call_lambda = call_lambda
    stepfunctions._SERVICE_DISPATCH["arn:aws:states:::sns:publish"] = publish


def objects_in_memory() -> None:
    """A stack that starts from a snapshot reads its objects from the disk once, and then keeps them in memory as usual.

    A snapshot itself starts with no folder of objects, and has to write them.
    """
    from ministack.services import s3

    if not Path(s3.DATA_DIR).is_dir():
        return
    for (_account, name), bucket in s3._buckets._data.items():
        for key, item in bucket["objects"].items():
            item["body"] = s3._read_body(name, key, item)
    s3.S3_PERSIST = False


def shared_code() -> None:
    """A package is unpacked and compiled once, and not by each of a function's workers.

    On AWS no function can write to its code, so all of its workers see the same.
    """
    from ministack.core import lambda_runtime

    class Shared(zipfile.ZipFile):
        def extractall(self, path: Any = None, *arguments: Any) -> None:
            digest = hashlib.sha256(Path(str(self.filename)).read_bytes()).hexdigest()[:16]
            shared = Path(os.environ["CODE_DIR"]) / digest
            if not shared.exists():
                shared.parent.mkdir(exist_ok=True)
                made = tempfile.mkdtemp(dir=shared.parent)
                super().extractall(made, *arguments)
                # Another worker can have been faster.
                with contextlib.suppress(OSError):
                    Path(made).rename(shared)
            Path(str(path)).rmdir()
            Path(str(path)).symlink_to(shared)

    lambda_runtime.zipfile = types.SimpleNamespace(**{**vars(zipfile), "ZipFile": Shared})


def _named(prefix: str, error: Any, other: str) -> str:
    """As Step Functions names it: the exception in the service's model, or ``other`` for what it has none for."""
    name = type(error).__name__
    return f"{prefix}.{name if name != 'ClientError' else other}"


def main() -> None:
    spec = importlib.util.spec_from_file_location("ministack_launcher", LAUNCHER)
    assert spec
    assert spec.loader
    launcher = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launcher)
    launcher.PATCHES = (*launcher.PATCHES, tasks_on_the_wire, objects_in_memory, shared_code)
    launcher.main()


if __name__ == "__main__":
    main()
