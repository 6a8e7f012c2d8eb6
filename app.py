"""The café's back office: every trigger of the system, flow by flow. The logic is in ``chalicelib``.

Each handler imports its own flow. All functions start with this file, and none waits for what only others need.
"""

import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

from chalice.app import AuthRequest, AuthResponse, BaseLambdaEvent, Chalice, DynamoDBEvent, Request, Response, SQSEvent

from chalicelib import clients, correlation, rest
from chalicelib.errors import CafeError, MissingSettings
from chalicelib.logs import logger
from chalicelib.settings import VERSION, Settings, cognito_endpoint, database_admin_secret, database_secret

try:
    settings = Settings.read()
except MissingSettings as error:
    # Not as sys.exit's message: `chalice local` loads the app in a thread, where nobody would see it.
    print(f"cafe: {error}", file=sys.stderr)
    sys.exit(1)

log = logger("app")
# By this name CloudWatch's metrics tell the APIs of two stages apart. A function's is that of .chalice/config.json.
app = Chalice(app_name=f"cafe-{settings.cafe_stage}", configure_logs=False)
# Chalice's own would write text.
app.log = log

CHALICELIB = Path(__file__).parent / "chalicelib"
MACHINES = {"inventory": settings.inventory_report_arn, "storage": settings.storage_report_arn}


class RawEvent(BaseLambdaEvent):
    """An event as it came. Chalice's S3Event fails on s3:TestEvent, and reads one record of several; its SNSEvent
    fails on a message without a subject."""

    def _extract_attributes(self, event_dict: dict[str, Any]) -> None:
        pass


def now() -> datetime:
    return datetime.now(UTC)


def by_hand(context: Any) -> str:
    """The reportId of a function that was invoked by itself, outside of any state machine."""
    return f"by-hand-{context.aws_request_id}"


def request() -> Request:
    """The request under way: a view is called only while there is one."""
    return cast(Request, app.current_request)


def claim(route: str, key: str | None, content: Any) -> None:
    """Takes the request's Idempotency-Key, if it has one, or stops the view where it was used for something else."""
    if key is None:
        return
    from chalicelib import idempotency

    dynamodb = clients.aws("dynamodb")
    idempotency.claim(route, key, content, dynamodb=dynamodb, table=settings.requests_table, now=now())


@app.middleware("all")
def in_time(event: Any, get_response: Callable[[Any], Any]) -> Any:
    """Every handler ends before Lambda would cut it off."""
    # A request's ``context`` is the gateway's.
    context = event.lambda_context if isinstance(event, Request) else event.context
    with clients.time_limit(context.get_remaining_time_in_millis() / 1000 if context else 0):
        return get_response(event)


@app.middleware("http")
def correlated(request: Request, get_response: Callable[[Any], Response]) -> Response:
    """Every request has an id: its answer has it, and so have all that is logged of it and all that comes of it."""
    correlation_id = correlation.of_request(request)
    with correlation.about(correlation_id):
        response = get_response(request)
        # The route and not the path, whose ids may be of things that it only asks for.
        route = f"{request.method} {request.context['resourcePath']}"
        # The access log knows the request by the gateway's id alone.
        given = {"requestId": request.context["requestId"]} if "requestId" in request.context else {}
        log.info("request answered", extra={"route": route, "status": response.status_code, **given})
    response.headers[correlation.HEADER] = correlation_id
    return response


@app.middleware("http")
def answered_errors(request: Request, get_response: Callable[[Any], Response]) -> Response:
    """An error of the café becomes its own answer."""
    try:
        return get_response(request)
    except CafeError as error:
        return Response(error.answer(), status_code=error.STATUS_CODE)


@app.middleware("pure_lambda")
def correlated_state(event: Any, get_response: Callable[[Any], Any]) -> Any:
    """The log records of a state machine's functions have the id of the request that started it."""
    with correlation.about(correlation.of_execution(event.event)):
        return get_response(event)


# --- Sign-in: a token -> the routes that its bearer may call ----------------------------------------------------------


# API Gateway keeps an answer for a token this long: by so much an expired one may be let in too late.
@app.authorizer(ttl_seconds=60)
def authorize(request: AuthRequest) -> AuthResponse:
    """Lets a route's caller in, or not, by the table in chalicelib/sign_in.py."""
    from chalicelib import sign_in

    endpoint = cognito_endpoint(settings)
    return sign_in.authorize(request, endpoint=endpoint, issuer=settings.issuer, client_id=settings.user_pool_client_id)


# --- Reports: REST -> state machine -> MySQL, S3, SNS -----------------------------------------------------------------


@app.route("/create_report", methods=["POST"], authorizer=authorize)
def create_report() -> Response:
    """Starts the state machine of an inventory or a storage report."""
    from chalicelib import reports

    wanted = reports.parse(rest.body(request(), nothing={}))
    key = request().headers.get("idempotency-key")
    claim("POST /create_report", key, wanted)
    name = rest.caller(request()).name
    report = reports.start(wanted, key, name, sfn=clients.aws("stepfunctions"), machines=MACHINES, now=now())
    return Response(report, {"Location": rest.base_url(request()) + report["href"]}, status_code=202)


@app.route("/reports", authorizer=authorize)
def list_reports() -> dict[str, Any]:
    """The reports of the last 90 days, newest first."""
    from chalicelib import reports

    page = rest.page(request(), "kind")
    return reports.newest(page, sfn=clients.aws("stepfunctions"), machines=MACHINES)


@app.route("/reports/{report_id}", authorizer=authorize)
def get_report(report_id: str) -> dict[str, Any]:
    """One report, with a fresh link once it has succeeded."""
    from chalicelib import reports

    sfn, s3 = clients.aws("stepfunctions"), clients.aws("s3")
    return reports.get(report_id, sfn=sfn, machines=MACHINES, s3=s3, bucket=settings.reports_bucket, now=now())


@app.route("/reports/{report_id}/history", authorizer=authorize)
def get_report_history(report_id: str) -> dict[str, Any]:
    """The report's state machine as a picture, and how far the execution has come in it."""
    from chalicelib.reports import history

    return history.report_history(report_id, sfn=clients.aws("stepfunctions"), machines=MACHINES)


@app.lambda_function()
def read_inventory(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """State 1: MySQL's rows into a CSV in the reports bucket."""
    from chalicelib.reports import inventory

    report_id = event.get("reportId") or by_hand(context)
    with clients.mysql_of_secret(database_secret()) as connection:
        return inventory.read_inventory(connection, clients.aws("s3"), settings.reports_bucket, report_id, now())


@app.lambda_function()
def render_report(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """State 2a: the CSV into an HTML page beside it."""
    from chalicelib import reports
    from chalicelib.reports import render

    return render.render_report(
        clients.aws("s3"),
        settings.reports_bucket,
        event["reportId"],
        event["csvKey"],
        event["generatedAt"],
        source="the suppliers' inventory in MySQL",
        link_seconds=reports.LINK_SECONDS,
    )


@app.lambda_function()
def presign_report(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """State 2b: the link that will open that page for an hour."""
    from chalicelib import reports

    key = reports.report_key("inventory", event["reportId"])
    return reports.presign(clients.aws("s3"), settings.reports_bucket, key, now())


# --- Orders: REST -> SQS -> DynamoDB -> stream -> SNS -----------------------------------------------------------------


@app.route("/orders", methods=["POST"], authorizer=authorize)
def place_orders() -> Response:
    """Validates one order or a list, and puts it on the queue."""
    from chalicelib.orders import placing

    body = rest.body(request())
    key = request().headers.get("idempotency-key")
    with placing.count_rejections(body):
        orders = placing.parse(body, now(), key, rest.caller(request()).name)
        claim("POST /orders", key, [[order.order_id, order.digest()] for order in orders])
        placing.enqueue(
            orders,
            sqs=clients.aws("sqs"),
            queue_url=settings.orders_queue_url,
            dynamodb=clients.aws("dynamodb"),
            table=settings.orders_table,
        )
    receipts = [placing.receipt(order) for order in orders]
    return Response({"orders": receipts} if isinstance(body, list) else receipts[0], status_code=202)


@app.route("/orders", authorizer=authorize)
def list_orders() -> dict[str, Any]:
    """The stored orders, newest first, of all customers or of one."""
    from chalicelib.orders import listing

    page = rest.page(request(), "customerID")
    since = date.fromisoformat(settings.orders_since)
    return listing.newest(page, since, dynamodb=clients.aws("dynamodb"), table=settings.orders_table)


@app.route("/orders/{order_id}", authorizer=authorize)
def get_order(order_id: str) -> dict[str, Any]:
    """One stored order."""
    from chalicelib.orders import listing

    return listing.get(order_id, dynamodb=clients.aws("dynamodb"), table=settings.orders_table)


@app.on_sqs_message(
    queue_arn=settings.orders_queue_arn, batch_size=100, maximum_batching_window_in_seconds=1, maximum_concurrency=10
)
def store_orders(event: SQSEvent) -> dict[str, Any]:
    """Stores a batch of the queue's orders, each once; the messages that failed go back to the queue."""
    from chalicelib import notifications
    from chalicelib.orders import store

    return store.store_orders(
        event.to_dict(),
        dynamodb=clients.aws("dynamodb"),
        table=settings.orders_table,
        sqs=clients.aws("sqs"),
        queue_url=settings.orders_queue_url,
        dead_letter_url=settings.orders_dead_letter_url,
        publish=notifications.publisher(clients.aws("sns"), settings.topic_arn),
    )


@app.on_dynamodb_record(stream_arn=settings.orders_stream_arn, batch_size=100, starting_position="TRIM_HORIZON")
def announce_orders(event: DynamoDBEvent) -> dict[str, Any]:
    """Announces a batch of newly stored orders in one notification; what cannot be announced is set aside."""
    from chalicelib import notifications
    from chalicelib.orders import announce

    moment, context = now(), cast(Any, event.context)
    return announce.announce_orders(
        event.to_dict(),
        publish=notifications.publisher(clients.aws("sns"), settings.topic_arn),
        set_aside=announce.set_aside_with(clients.aws("sqs"), settings.failures_queue_url, context, moment),
        now=moment,
        seconds_left=lambda: context.get_remaining_time_in_millis() / 1000,
    )


# --- Uploads: REST -> a link -> S3 -> CloudWatch Logs, MySQL, SNS -----------------------------------------------------


@app.route("/uploads", methods=["POST"], authorizer=authorize)
def offer_upload() -> Response:
    """A link by which a browser puts one inventory into the bucket."""
    from chalicelib.uploads import links

    filename = links.parse(rest.body(request()))
    link = links.offer(filename, s3=clients.aws("s3"), bucket=settings.uploads_bucket, now=now())
    return Response(link, status_code=201)


@app.on_s3_event(bucket=settings.uploads_bucket, events=["s3:ObjectCreated:*"])
def receive_upload(event: RawEvent) -> None:
    """Logs an uploaded file, imports it if it is an inventory, and tells what came of it."""
    from chalicelib import notifications
    from chalicelib.uploads import receiving

    receiving.receive(
        event.to_dict(),
        s3=clients.aws("s3"),
        connect=lambda: clients.mysql_of_secret(database_secret()),
        publish=notifications.publisher(clients.aws("sns"), settings.topic_arn),
        bucket=settings.uploads_bucket,
    )


# --- Storage: state machine -> S3 or CloudWatch -> SNS ----------------------------------------------------------------


@app.lambda_function()
def measure_buckets(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The total size of all buckets, by listing them or from CloudWatch's metrics; in shares where there are many."""
    from chalicelib import storage

    given = event.get("request", event)
    return storage.report(
        {**(given if isinstance(given, dict) else {}), "reportId": event.get("reportId") or by_hand(context)},
        event.get("spread") if "request" in event else None,
        s3=clients.aws("s3"),
        s3_in=lambda region: clients.aws("s3", region),
        cloudwatch_in=lambda region: clients.aws("cloudwatch", region),
        deadline=lambda: context.get_remaining_time_in_millis() / 1000,
        bucket=settings.reports_bucket,
        now=now(),
    )


# --- MySQL itself: the deploy, Secrets Manager -> tables and users ----------------------------------------------------


@app.lambda_function()
def migrate(_event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Brings MySQL's tables up to this code, and lets the functions in; the deploy waits for it."""
    from chalicelib import database

    return database.bring_up_to_date(database_secret(), database_admin_secret())


@app.lambda_function()
def rotate_password(event: dict[str, Any], _context: Any) -> None:
    """One step of a rotation of the functions' password, for Secrets Manager."""
    from chalicelib.database import rotation

    rotation.rotate(event, clients.aws("secretsmanager"), database_secret(), database_admin_secret() or "")


# --- Notifications: SNS -> DynamoDB -> REST ---------------------------------------------------------------------------


@app.on_sns_message(topic=settings.topic_arn)
def record_notification(event: RawEvent) -> None:
    """Keeps each notification once, for the inbox."""
    from chalicelib import notifications

    notifications.record(event.to_dict(), dynamodb=clients.aws("dynamodb"), table=settings.notifications_table)


@app.on_sns_message(topic=settings.alarms_topic_arn)
def record_alarm(event: RawEvent) -> None:
    """Keeps each alarm in the same inbox; an alarm's message has no attribute that tells its kind."""
    from chalicelib import notifications

    notifications.record(
        event.to_dict(), dynamodb=clients.aws("dynamodb"), table=settings.notifications_table, default_kind="alarm"
    )


@app.route("/notifications", authorizer=authorize)
def list_notifications() -> dict[str, Any]:
    """The notifications of the last 30 days, newest first, all or of one kind; for staff without the reports' links."""
    from chalicelib import notifications

    page, links = rest.page(request(), "kind"), rest.caller(request()).is_manager
    table = settings.notifications_table
    return notifications.inbox(page, links=links, dynamodb=clients.aws("dynamodb"), table=table)


# --- Today: what all flows did, counted -> REST -----------------------------------------------------------------------


@app.route("/today", authorizer=authorize)
def show_today() -> dict[str, Any]:
    """What happened since midnight, or since another moment, in numbers."""
    from chalicelib import today

    moment = now()
    since = today.since(rest.parameters(request(), "since").get("since"), moment)
    return today.overview(since, aws=clients.aws, settings=settings, machines=MACHINES, now=moment)


# --- Dead letters: what failed for good -> REST -> back to where it came from -----------------------------------------


@app.route("/dead-letters", authorizer=authorize)
def list_dead_letters() -> dict[str, Any]:
    """What failed for good and waits for a person, oldest first."""
    from chalicelib import dead_letters

    places = dead_letters.Places.of(settings)
    return dead_letters.waiting(rest.limit(request()), places=places, aws=clients.aws)


@app.route("/dead-letters/redrive", methods=["POST"], authorizer=authorize)
def redrive_dead_letters() -> dict[str, Any]:
    """Puts all of it, or what is asked for, back to where it came from."""
    from chalicelib import dead_letters

    wanted = dead_letters.parse(rest.body(request(), nothing={}))
    return dead_letters.redrive(wanted, places=dead_letters.Places.of(settings), aws=clients.aws)


# --- The API itself ---------------------------------------------------------------------------------------------------


@app.route("/health")
def health() -> dict[str, str]:
    """Says that the API is up, in which stage and version."""
    return {"status": "ok", "stage": settings.cafe_stage, "version": VERSION}


@app.route("/openapi.json")
def openapi() -> Response:
    """The OpenAPI description of all these routes."""
    return Response((CHALICELIB / "openapi.json").read_text(), {"Content-Type": "application/json"})


# --- The console ------------------------------------------------------------------------------------------------------


@app.route("/")
def show_console() -> Response:
    """The console, a web page."""
    from chalicelib import console

    return console.page(request(), settings)


@app.route("/console/{file}")
def get_console_file(file: str) -> Response:
    """One of the files that the page loads."""
    from chalicelib import console

    return console.file(request(), settings, file)


for handler in (receive_upload, record_notification, record_alarm):
    handler.event_class = RawEvent
