"""The cloud around the handlers: it delivers messages, events and records at least once, in any order."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from chalicelib.timeline import timestamp
from infra.functions import BY_NAME
from tests.simulation import fakes
from tests.simulation.handlers import MACHINES, PREFIX, SETTINGS, Handlers
from tests.simulation.world import Done, Fault, Killed, Process, World

# Lambda tries an asynchronous event again after these pauses.
PAUSES = (60, 120)


class Cloud(Handlers):
    """``heard`` contains the messages that an e-mail subscriber received."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        world.after_call = self.deliver
        self.heard: list[dict[str, Any]] = []
        # The number of the first record of the stream that was not announced yet, and the batches that failed since.
        self.position = self.failed_batches = 0
        self.mapping, self.reading = object(), False
        # The time of each queue's next delivery.
        self.polls: dict[str, float] = {}
        self.started: set[str] = set()

    # --- Deliveries ---------------------------------------------------------------------------------------------------

    def deliver(self, service: str, operation: str) -> None:
        """Schedules what AWS delivers after a call."""
        if service == "sqs":
            self.poll(SETTINGS.orders_queue_url)
            self.poll(SETTINGS.retries_queue_url)
        elif operation in ("BatchExecuteStatement", "PutItem", "UpdateItem"):
            self.world.soon(self.read_stream)
        elif operation == "Publish":
            self.deliver_published()
        elif operation == "PutObject":
            while self.s3.events:
                self.event("receive_upload", {"Records": [self.s3.events.pop(0)]})
        elif operation == "Invoke":
            while self.functions.invocations:
                name, payload = self.functions.invocations.pop(0)
                self.event(name.removeprefix("cafe-test-"), payload)
        elif operation == "StartExecution":
            for arn in self.sfn.executions.keys() - self.started:
                self.started.add(arn)
                name = f"machine {self.sfn.executions[arn]['name']}"
                self.world.start(name, 0, partial(self.make_report, arn), ignore, True)

    def invoke(self, name: str, event: dict[str, Any], done: Done) -> None:
        self.world.start(name, BY_NAME[name].timeout, partial(getattr(self, name), event), done)

    def poll(self, url: str) -> None:
        """Schedules the next delivery of a queue's messages to its function."""
        if messages := self.sqs.queues[url].messages.values():
            moment = max(self.world.time, min(each.visible_at for each in messages)) + self.world.random.random()
            if not self.world.time < self.polls.get(url, 0) <= moment:
                self.polls[url] = moment
                self.world.later(moment - self.world.time, partial(self.take, url, moment))

    def take(self, url: str, moment: float) -> None:
        if self.polls.get(url) != moment:
            return
        self.polls[url] = 0
        name = "store_orders" if url == SETTINGS.orders_queue_url else "retry_failures"
        queue = self.sqs.queues[url]
        mixed = list(queue.messages.items())
        self.world.random.shuffle(mixed)
        queue.messages = dict(mixed)
        batch = self.sqs.take(url, self.world.random.randint(1, 10))
        if batch:
            event = {"Records": [each.lambda_record() for each in batch]}
            fault = self.world.strike(name)
            done = partial(self.settle, url, batch, fault)
            if fault and fault.kind == "throttled invocation":
                done(None, None)
            else:
                self.invoke(name, event, done)
        self.poll(url)

    def settle(self, url: str, batch: list[fakes.Message], fault: Fault | None, result: Any, _error: Any) -> None:
        """Deletes the messages that the function did not report as failed. SQS may deliver a deleted message again."""
        queue = self.sqs.queues[url]
        if result is not None:
            failed = {each["itemIdentifier"] for each in result["batchItemFailures"]}
            for message in batch:
                if message.id in failed or message.id not in queue.messages:
                    continue
                if fault:
                    message.visible_at = self.world.time + self.world.random.random() * 20
                else:
                    del queue.messages[message.id]
        self.poll(url)

    def read_stream(self) -> None:
        """Delivers the next records of the stream, in order. One batch is under way at a time."""
        if self.reading or self.position >= len(self.stream):
            return
        self.reading, mapping = True, self.mapping
        first, end = self.position, min(len(self.stream), self.position + self.world.random.randint(1, 10))
        event = {"Records": self.stream[first:end]}
        fault = self.world.strike("announce_orders")

        def done(result: Any, failure: Any) -> None:
            if mapping is not self.mapping:
                return
            self.reading = False
            left = [] if failure is not None else result["batchItemFailures"]
            if failure is None and not left and not fault:
                self.position, self.failed_batches = end, 0
            elif left and int(left[0]["itemIdentifier"]) - 1 > first:
                self.position, self.failed_batches = int(left[0]["itemIdentifier"]) - 1, 0
            else:
                self.failed_batches += 1
            self.world.later(min(60, 2**self.failed_batches) * self.world.random.uniform(0.5, 1), self.read_stream)

        self.invoke("announce_orders", event, done)

    def deliver_published(self) -> None:
        while self.sns.published:
            message = self.sns.published.pop(0)
            fault = self.world.strike("sns delivery")
            self.world.soon(partial(self.heard.append, message))
            if fault and fault.kind == "failed delivery":
                self.fail(json.dumps(message))
                continue
            for _ in range(2 if fault else 1):
                self.event("record_notification", {"Records": [{"Sns": message}]})

    def event(self, name: str, payload: dict[str, Any], tries: int = 0) -> None:
        """Invokes a function asynchronously: at least once, in any order, and twice more if it fails."""
        fault = self.world.strike(name) if not tries else None
        delay = fault.seconds if fault and fault.kind == "late delivery" else 0
        for _ in range(2 if fault and fault.kind == "repeated delivery" else 1):
            start = partial(self.invoke, name, payload, partial(self.finish, name, payload, tries))
            self.world.later(delay + self.world.random.random(), start)

    def finish(
        self, name: str, payload: dict[str, Any], tries: int, _result: Any, failure: BaseException | None
    ) -> None:
        if failure is None:
            return
        if tries < len(PAUSES):
            pause = PAUSES[tries] * self.world.random.uniform(0.8, 1.2)
            self.world.later(pause, partial(self.event, name, payload, tries + 1))
            return
        kind, text = type(failure).__name__, str(failure)
        if isinstance(failure, Killed):
            kind = "Sandbox.Timedout" if text == "timed out" else "Runtime.ExitError"
            text = f"Error: {'Task timed out after 60.00 seconds' if text == 'timed out' else 'Runtime exited'}"
        context = {"functionArn": f"{PREFIX % 'lambda'}function:cafe-test-{name}", "condition": "RetriesExhausted"}
        context |= {"requestId": f"event-{next(self.world.numbers)}", "approximateInvokeCount": tries + 1}
        record = {
            **{"version": "1.0", "timestamp": timestamp(self.world.now())},
            "requestContext": context,
            "requestPayload": payload,
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "responsePayload": {"errorType": kind, "errorMessage": text},
        }
        self.fail(json.dumps(record))

    def fail(self, record: str, attributes: dict[str, Any] | None = None) -> None:
        """Sends a failed event to the failure destination."""
        self.sqs.put(SETTINGS.retries_queue_url, record, attributes)
        self.deliver("sqs", "SendMessage")

    def schedule_report(self, name: str, scheduler: Process) -> None:
        """Starts a report as EventBridge Scheduler does, which gives up after some tries."""
        machine, content = MACHINES["inventory"], json.dumps({"scheduled": True})
        for _ in range(2):
            try:
                self.sfn.start_execution(stateMachineArn=machine, name=name, input=content)
            except Exception as error:  # noqa: BLE001 - as Scheduler does
                failure = str(error)
                self.world.sleep(self.world.random.random() * 5)
            else:
                return
        texts = {"ERROR_MESSAGE": failure, "EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts", "RETRY_ATTEMPTS": "1"}
        attributes = {each: {"DataType": "String", "StringValue": text} for each, text in texts.items()}
        self.fail(json.dumps({"StateMachineArn": machine, "Name": name, "Input": content}), attributes)

    def redeploy(self) -> None:
        """Kills the functions. The stream's new mapping begins at the start of the stream."""
        self.world.say("*** redeploy")
        self.world.kill()
        self.mapping, self.reading, self.position = object(), False, 0
        self.world.soon(self.read_stream, 10)


def ignore(_result: Any, _failure: BaseException | None) -> None:
    pass
