"""Flow 2: every accepted order is stored once and announced at least once."""

from tests.faults import counting
from tests.faults.conftest import Tell
from tests.faults.counting import count_orders, order
from tests.faults.harness import Faulty
from tests.faults.weather import Weather, cases, wire
from tests.faults.wire import (
    cut_after,
    cut_before,
    failed,
    failed_after,
    refusing,
    throttled,
    unavailable,
)

WRITE = "dynamodb:BatchExecuteStatement"
ANNOUNCE = {"operation": "sns:Publish", "caller": "announce_orders"}

# More than the two tries of one call: the function itself has to bear some of them.
SOME = 5


@cases(
    {
        "SQS throttles the API": wire("sqs:SendMessageBatch", throttled, first=SOME),
        "SQS answers 500 to the API": wire("sqs:SendMessageBatch", failed, first=SOME),
        "SQS takes the messages and the answer is lost": wire("sqs:SendMessageBatch", cut_after, first=SOME),
        "SQS refuses half of each batch": wire("sqs:SendMessageBatch", refusing(), first=3),
        "DynamoDB throttles the API's look at what is stored": wire("dynamodb:BatchGetItem", throttled, first=SOME),
        "DynamoDB holds back some of what the API looks for": wire("dynamodb:BatchGetItem", refusing(), first=3),
        "DynamoDB throttles the writes": wire(WRITE, throttled, first=SOME),
        "DynamoDB answers 500 to the writes": wire(WRITE, failed, first=SOME),
        "the connection is cut before the write": wire(WRITE, cut_before, first=SOME),
        "the orders are written and the answer is lost": wire(WRITE, cut_after, first=SOME),
        "the orders are written and the answer is 500": wire(WRITE, failed_after, first=SOME),
        "DynamoDB throttles some items of each batch": wire(WRITE, refusing(), first=3),
        "SNS throttles the announcement": wire(**ANNOUNCE, fault=throttled, first=SOME),
        "SNS answers 503 to the announcement": wire(**ANNOUNCE, fault=unavailable, first=SOME),
        "SNS takes the announcement and says 500": wire(**ANNOUNCE, fault=failed_after, first=3),
        "SNS takes the announcement and the answer is lost": wire(**ANNOUNCE, fault=cut_after, first=3),
        "one of five calls fails": wire("(dynamodb|sns|sqs):.*", failed, share=0.2),
    },
    in_short=[
        "SQS takes the messages and the answer is lost",
        "DynamoDB throttles some items of each batch",
        "the orders are written and the answer is lost",
        "SNS takes the announcement and the answer is lost",
    ],
)
def test_orders_placed_in_this_weather(system: Faulty, weather: Weather, tell: Tell) -> None:
    with weather(system):
        accepted = counting.place(system, [order("a list") for _ in range(40)])
        for _ in range(3):
            accepted += counting.place(system, [order("single")])
    tell(count_orders(system, accepted))
