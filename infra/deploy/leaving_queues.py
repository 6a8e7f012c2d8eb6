"""Keeps the queues that a restored template lacks, until their messages are in the failures queue.

Deleting a queue deletes its messages. Hidden messages, such as failures that wait for a retry, cannot be moved yet.
"""

from __future__ import annotations

import time
from typing import Any

from infra.deploy import stacks
from infra.deploy.context import Context
from infra.deploy.target import DeployError
from infra.template import parse, text

# `retry_failures` hides a failure for at most six minutes.
MOVE_SECONDS = 480
COUNTS = ("", "NotVisible", "Delayed")


def find(context: Context, stack: str, body: str) -> dict[str, Any]:
    """Returns the queues and queue policies that a stack has and the template ``body`` lacks, by logical id."""
    cfn = context.clients("cloudformation")
    existing = stacks.ready_for_a_change(cfn, stack, context.say)
    if existing is None or existing["StackStatus"] == "REVIEW_IN_PROGRESS":
        return {}
    current = parse(cfn.get_template(StackName=stack, TemplateStage="Original")["TemplateBody"])["Resources"]
    wanted = parse(body)["Resources"]
    return {key: each for key, each in current.items() if "AWS::SQS::" in each["Type"] and key not in wanted}


def added_to(body: str, leaving: dict[str, Any]) -> str:
    document = parse(body)
    return text({**document, "Resources": document["Resources"] | leaving})


def empty(context: Context, stack: str, leaving: dict[str, Any]) -> None:
    """Moves the messages of all leaving queues to the failures queue, or raises ``DeployError`` after eight minutes."""
    failures = stacks.outputs(context.clients("cloudformation"), stack)["FAILURES_QUEUE_URL"]
    for resource in leaving.values():
        if resource["Type"] == "AWS::SQS::Queue":
            name = stacks.spelled_out(resource["Properties"]["QueueName"], {"Stage": context.target.stage})
            context.say(f"{name}: moving its messages to the failures queue, which may take six minutes")
            _move(context.clients("sqs"), name, failures)


def _move(sqs: Any, name: str, to: str) -> None:
    queue, end = sqs.get_queue_url(QueueName=name)["QueueUrl"], time.monotonic() + MOVE_SECONDS
    attributes = [f"ApproximateNumberOfMessages{each}" for each in COUNTS]
    while True:
        asked = {"MaxNumberOfMessages": 10, "WaitTimeSeconds": 20, "MessageAttributeNames": ["All"]}
        received = sqs.receive_message(QueueUrl=queue, **asked).get("Messages", [])
        for each in received:
            sent = {"MessageBody": each["Body"], "MessageAttributes": each.get("MessageAttributes", {})}
            sqs.send_message(QueueUrl=to, **sent)
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=each["ReceiptHandle"])
        left = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=attributes)["Attributes"]
        count = sum(map(int, left.values()))
        if not received and not count:
            return
        if time.monotonic() > end:
            raise DeployError(f"{name}: messages that could not be moved to the failures queue yet: {count}")
