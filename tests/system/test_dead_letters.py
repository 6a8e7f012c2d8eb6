"""What failed for good: listed with its reason, put back once, and kept where that fails."""

import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.system.system import System, wait_for


def new_id() -> str:
    return f"d-{secrets.token_hex(4)}"


def letters(system: System, about: str) -> list[dict[str, Any]]:
    found = system.get("/dead-letters?limit=100")["deadLetters"]
    return [each for each in found if about in each["what"] + each["why"]]


def letter(system: System, about: str) -> dict[str, Any]:
    return wait_for(lambda: letters(system, about), f"a dead letter about {about}", seconds=120)[0]


def redrive(system: System, *ids: str) -> dict[str, Any]:
    answer = system.request("POST", "/dead-letters/redrive", {"ids": list(ids)} if ids else {})
    assert answer.status == 200, answer.text
    return dict(answer.json)


def put(system: System, queue: str, body: Any) -> str:
    text = body if isinstance(body, str) else json.dumps(body)
    answer = system.aws("sqs").send_message(QueueUrl=system.env[queue], MessageBody=text)
    return str(answer["MessageId"])


def order(order_id: str) -> dict[str, Any]:
    """The message of an order."""
    items = [{"item": "Mocha", "quantity": 1}]
    return {
        "orderID": order_id,
        "customerID": "Zoë",
        "items": items,
        "note": "a secret",
        "placedAt": "2026-11-21T08:00:00.000000Z",
    }


def logged(system: System, function: str, message: str, **fields: Any) -> int:
    """How often the function said so."""
    pages = (
        system.aws("logs").get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/cafe-dev-{function}")
    )
    count = 0
    for page in pages:
        for event in page["events"]:
            for line in event["message"].splitlines():
                if line.startswith("{") and message in line:
                    record = json.loads(line)
                    count += record["message"] == message and fields.items() <= record.items()
    return count


def test_a_poison_order_is_listed_with_its_reason_and_comes_back_when_it_is_redriven(system: System) -> None:
    text = "{poison"
    put(system, "ORDERS_QUEUE_URL", text)
    first = letter(system, "Expecting property name")
    assert (first["kind"], first["what"], first["tries"]) == ("order", "a message that is no order", 5)
    assert redrive(system, first["id"])["redriven"] == 1
    again = letter(system, "Expecting property name")
    assert again["id"] != first["id"]
    sqs, url = system.aws("sqs"), system.env["ORDERS_DEAD_LETTER_URL"]
    found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)["Messages"]
    assert text in [each["Body"] for each in found]


def test_a_dead_order_is_stored_once_it_is_put_back(system: System) -> None:
    order_id = new_id()
    dead = put(system, "ORDERS_DEAD_LETTER_URL", order(order_id))
    found = letter(system, order_id)
    assert (found["id"], found["kind"], found["what"]) == (dead, "order", f"order {order_id} of customer Zoë")
    assert "secret" not in json.dumps(found)
    assert redrive(system, dead)["redriven"] == 1
    wait_for(lambda: system.request("GET", f"/orders/{order_id}").status == 200, "the order")
    assert letters(system, order_id) == []


def test_an_order_that_cannot_be_announced_is_put_by_and_announced_once_it_is_put_back(system: System) -> None:
    order_id, neighbour = new_id(), new_id()
    with system.without("announce_orders", "sns:Publish"):
        system.post("/orders", {"orderID": order_id, "customerID": "Zoë", "item": "Mocha"})
        found = letter(system, order_id)
    assert found["kind"] == "announcement"
    assert found["what"] == f"announcement of order {order_id} of customer Zoë"
    assert "AuthorizationError" in found["why"]
    assert "(a link)" not in found["why"]
    system.post("/orders", {"orderID": neighbour, "customerID": "c", "item": "Mocha"})
    system.notification(neighbour, "order")
    assert system.notifications(order_id, "order") == []

    assert redrive(system, found["id"])["redriven"] == 1
    assert f"order {order_id} of customer Zoë" in system.notification(order_id, "order")["message"]
    assert letters(system, order_id) == []


def test_an_order_that_is_redriven_too_early_is_put_by_again(system: System) -> None:
    order_id = new_id()
    with system.without("announce_orders", "sns:Publish"):
        system.post("/orders", {"orderID": order_id, "customerID": "c", "item": "Mocha"})
        first = letter(system, order_id)
        assert redrive(system, first["id"])["redriven"] == 1
        assert letter(system, order_id)["id"] != first["id"]
    assert redrive(system, letter(system, order_id)["id"])["redriven"] == 1
    system.notification(order_id, "order")


def test_an_order_that_can_be_neither_announced_nor_put_by_stays_on_the_stream(system: System) -> None:
    order_id = new_id()
    with system.without("announce_orders", "sns:Publish"), system.without("announce_orders", "sqs:SendMessage"):
        system.post("/orders", {"orderID": order_id, "customerID": "c", "item": "Mocha"})
        wait_for(lambda: logged(system, "announce_orders", "failures queue refuses"), "the refusal")
    system.notification(order_id, "order")


def test_an_upload_that_failed_for_good_is_imported_once_it_is_put_back(system: System) -> None:
    name, key = f"Supplier {secrets.token_hex(4)}", f"inventory/{secrets.token_hex(4)}.csv"
    header = "supplier_name,type,product_name,price,description,quantity\n"
    with system.without("receive_upload", "s3:GetObject"):
        system.upload(key, f"{header}{name},x,y,1,,5\n")
        found = letter(system, key)
    assert (found["kind"], found["what"], found["tries"]) == ("upload", f"upload {key}", 3)
    assert "AccessDenied" in found["why"]
    assert redrive(system, found["id"])["redriven"] == 1
    assert "1 row imported" in system.notification(key, "upload")["message"]
    assert system.sql("SELECT COUNT(*) FROM suppliers WHERE name = %s", name) == [(1,)]


def test_a_notification_that_was_not_kept_is_in_the_inbox_once_it_is_put_back(system: System) -> None:
    key = f"photos/{secrets.token_hex(4)}.jpg"
    with system.without("record_notification", "dynamodb:PutItem"):
        system.upload(key, b"x")
        found = letter(system, key)
    assert (found["kind"], found["tries"]) == ("notification", 3)
    assert system.notifications(key) == []
    assert redrive(system, found["id"])["redriven"] == 1
    system.notification(key, "upload")


def envelope(system: System, key: str) -> dict[str, Any]:
    """What AWS's SNS puts into the failures queue of a subscription. MiniStack's does not, so the tests do."""
    return {
        "Type": "Notification",
        "MessageId": secrets.token_hex(8),
        "TopicArn": system.env["TOPIC_ARN"],
        "Subject": f"Report {key} ready",
        "Message": f"It opens for an hour: https://example.com/{key}?X-Amz-Signature=secret",
        "Timestamp": "2026-11-21T08:00:00.000Z",
        "SignatureVersion": "1",
        "MessageAttributes": {
            "kind": {"Type": "String", "Value": "report"},
            "key": {"Type": "String", "Value": f"report/{key}"},
        },
    }


def test_what_sns_could_not_hand_over_is_in_the_inbox_once_however_often_it_is_put_back(system: System) -> None:
    key = new_id()
    for _ in range(2):
        dead = put(system, "FAILURES_QUEUE_URL", envelope(system, key))
        found = letter(system, key)
        assert found["what"] == f"notification 'Report {key} ready'"
        assert "secret" not in json.dumps(found)
        assert redrive(system, dead)["redriven"] == 1
        told = system.notification(key, "report")
        assert "X-Amz-Signature=secret" in told["message"]
    assert logged(system, "record_notification", "notification kept", notificationID=f"report/{key}") == 1
    wait_for(
        lambda: logged(system, "record_notification", "notification kept already", notificationID=f"report/{key}"),
        "the second one",
    )
    assert len(system.notifications(key)) == 1


def test_what_the_functions_subscriptions_cannot_hand_over_has_a_queue(system: System) -> None:
    sns = system.aws("sns")
    for topic in ("TOPIC_ARN", "ALARMS_TOPIC_ARN"):
        subscriptions = sns.list_subscriptions_by_topic(TopicArn=system.env[topic])["Subscriptions"]
        # Those of people are the template's, and other tests subscribe as well.
        [function] = [each for each in subscriptions if each["Protocol"] == "lambda"]
        attributes = sns.get_subscription_attributes(SubscriptionArn=function["SubscriptionArn"])["Attributes"]
        assert json.loads(attributes["RedrivePolicy"]) == {"deadLetterTargetArn": system.env["FAILURES_QUEUE_ARN"]}


def test_a_batch_of_which_only_the_position_is_known_is_read_from_the_stream(system: System) -> None:
    order_id = new_id()
    system.post("/orders", {"orderID": order_id, "customerID": "c", "item": "Mocha"})
    system.notification(order_id, "order")
    streams, stream = system.aws("dynamodbstreams"), system.env["ORDERS_STREAM_ARN"]
    [shard] = streams.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]
    iterator = streams.get_shard_iterator(StreamArn=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")[
        "ShardIterator"
    ]
    numbers: dict[str, str] = {}
    while iterator:
        answer = streams.get_records(ShardIterator=iterator)
        if not answer["Records"]:
            break
        changes = [each["dynamodb"] for each in answer["Records"]]
        numbers |= {each["Keys"]["orderID"]["S"]: each["SequenceNumber"] for each in changes}
        iterator = answer.get("NextShardIterator")
    info = {
        "shardId": shard["ShardId"],
        "startSequenceNumber": numbers[order_id],
        "endSequenceNumber": numbers[order_id],
        "approximateArrivalOfFirstRecord": "2026-11-21T08:00:00Z",
        "approximateArrivalOfLastRecord": "2026-11-21T08:00:00Z",
        "batchSize": 1,
        "streamArn": stream,
    }
    context = {"condition": "RetryAttemptsExhausted", "approximateInvokeCount": 101, "functionArn": "arn"}
    dead = put(system, "FAILURES_QUEUE_URL", {"requestContext": context, "DDBStreamBatchInfo": info, "version": "1.0"})
    gone = put(
        system,
        "FAILURES_QUEUE_URL",
        {
            "requestContext": context,
            "DDBStreamBatchInfo": {**info, "startSequenceNumber": "1".zfill(21)},
            "version": "1.0",
        },
    )
    broken = put(
        system,
        "FAILURES_QUEUE_URL",
        {"requestContext": context, "DDBStreamBatchInfo": {**info, "startSequenceNumber": "1"}, "version": "1.0"},
    )
    result = redrive(system, dead, gone, broken)
    assert result["redriven"] == 1, result
    kept = {each["id"]: each["why"] for each in result["kept"]}
    assert kept.keys() == {gone, broken}
    assert "24 hours" in kept[gone]
    assert "no content that AWS takes" in kept[broken]
    wait_for(lambda: logged(system, "announce_orders", "order announced", orderID=order_id) == 2, "the second time")


def test_ten_redrives_at_the_same_moment_put_each_back_once(system: System) -> None:
    before = redrive(system)
    ids = [new_id() for _ in range(30)]
    for each in ids:
        put(system, "ORDERS_DEAD_LETTER_URL", order(each))
    keys = [f"photos/{new_id()}.jpg" for _ in range(15)]
    arn = f"arn:aws:lambda:us-east-1:{system.env['ORDERS_QUEUE_ARN'].split(':')[4]}:function:cafe-dev-receive_upload"
    for each in keys:
        event = system.s3_event(each, etag='"0"')
        put(system, "FAILURES_QUEUE_URL", {"requestContext": {"functionArn": arn}, "requestPayload": event})

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: redrive(system), range(10)))
    assert sum(each["redriven"] for each in answers) >= 45
    wait_for(lambda: all(logged(system, "receive_upload", "upload received", key=each) for each in keys), "the uploads")
    wait_for(lambda: all(system.request("GET", f"/orders/{each}").status == 200 for each in ids), "the orders")
    assert [logged(system, "receive_upload", "upload received", key=each) for each in keys] == [1] * 15
    assert [logged(system, "store_orders", "order stored", orderID=each) for each in ids] == [1] * 30
    assert sum(logged(system, "store_orders", "order stored already", orderID=each) for each in ids) == 0
    assert before["left"] == len(before["kept"])


def test_a_letter_is_kept_where_putting_back_fails_and_goes_back_later(system: System) -> None:
    key = f"photos/{new_id()}.jpg"
    arn = f"arn:aws:lambda:us-east-1:{system.env['ORDERS_QUEUE_ARN'].split(':')[4]}:function:cafe-dev-receive_upload"
    event = system.s3_event(key, etag='"0"')
    upload = put(system, "FAILURES_QUEUE_URL", {"requestContext": {"functionArn": arn}, "requestPayload": event})
    order_id, told = new_id(), new_id()
    dead = put(system, "ORDERS_DEAD_LETTER_URL", order(order_id))
    message = put(system, "FAILURES_QUEUE_URL", envelope(system, told))
    unknown = put(system, "FAILURES_QUEUE_URL", "what is this?")
    with (
        system.without("api", "lambda:InvokeFunction"),
        system.without("api", "sqs:SendMessage"),
        system.without("api", "sns:Publish"),
    ):
        result = redrive(system, upload, dead, message, unknown)
    assert (result["redriven"], result["left"] >= 4) == (0, True)
    why = {each["id"]: each["why"] for each in result["kept"]}
    assert why.pop(unknown) == "nobody knows where it came from"
    assert why.keys() == {upload, dead, message}
    assert all("was refused: A" in each for each in why.values()), why

    assert redrive(system, upload, dead, message, unknown)["redriven"] == 3
    system.notification(key, "upload")
    system.notification(told, "report")
    wait_for(lambda: system.request("GET", f"/orders/{order_id}").status == 200, "the order")
    system.aws("sqs").purge_queue(QueueUrl=system.env["FAILURES_QUEUE_URL"])


def test_the_commands_list_and_put_back(system: System) -> None:
    listing, command = ("python", "-m", "local", "dead-letters"), ("python", "-m", "local", "redrive")

    def nothing_waits() -> bool:
        # What failed in an earlier test may still be on its way here.
        for queue in ("ORDERS_DEAD_LETTER_URL", "FAILURES_QUEUE_URL"):
            system.aws("sqs").purge_queue(QueueUrl=system.env[queue])
        done = [system.run(*each) for each in (listing, command)]
        return [(each.returncode, each.stdout) for each in done] == [(0, "nothing waits\n")] * 2

    assert wait_for(nothing_waits, "both commands to say so")

    order_id = new_id()
    put(system, "ORDERS_DEAD_LETTER_URL", order(order_id))
    put(system, "FAILURES_QUEUE_URL", "what is this?")
    head, *lines = system.run(*listing).stdout.splitlines()
    assert head.split() == ["since", "kind", "tries", "what", "why"]
    assert [line[head.index("kind") :].split()[0] for line in lines] == ["order", "unknown"]
    assert f"order {order_id} of customer Zoë" in lines[0]
    done = system.run(*command)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "  1 put back, 1 left",
        "  kept: a message of no known shape: nobody knows where it came from",
    ]
    wait_for(lambda: system.request("GET", f"/orders/{order_id}").status == 200, "the order")
    system.aws("sqs").purge_queue(QueueUrl=system.env["FAILURES_QUEUE_URL"])
