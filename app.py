"""Defines the API routes and the Lambda functions, grouped by flow. The business logic is in ``chalicelib``.

Each handler imports the modules of its flow when it runs. A function therefore never loads the modules of another flow.

``infra/functions.py`` lists the functions, ``infra/resources.yaml`` contains their permissions and triggers, and
``infra/*.asl.json`` defines the state machines. ``tests/unit/`` tests the modules, and ``tests/system/`` tests the
flows.
"""

import gc
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

from chalice.app import AuthRequest, AuthResponse, BaseLambdaEvent, Chalice, DynamoDBEvent, Request, Response, SQSEvent

from chalicelib import clients, correlation, rest
from chalicelib.errors import CafeError, MissingSettings
from chalicelib.logs import logger
from chalicelib.settings import (
    GARBAGE_THRESHOLD,
    VERSION,
    Settings,
    cognito_endpoint,
    database_admin_secret,
    database_secret,
)

try:
    settings = Settings.read()
except MissingSettings as error:
    # The error is printed, because `chalice local` imports the app in a thread, where a sys.exit message would be lost.
    print(f"cafe: {error}", file=sys.stderr)
    sys.exit(1)

gc.set_threshold(GARBAGE_THRESHOLD)
log = logger("app")
# CloudWatch groups API metrics by the app name, so the name includes the stage.
app = Chalice(app_name=f"cafe-{settings.cafe_stage}", configure_logs=False)
# This logger replaces the Chalice logger, because Chalice writes plain text.
app.log = log

CHALICELIB = Path(__file__).parent / "chalicelib"
MACHINES = {"inventory": settings.inventory_report_arn, "storage": settings.storage_report_arn}


class RawEvent(BaseLambdaEvent):
    """An event exactly as Lambda delivers it.

    Chalice's S3Event fails on s3:TestEvent and reads only one record. Chalice's SNSEvent fails on a message without
    a subject.
    """

    def _extract_attributes(self, event_dict: dict[str, Any]) -> None:
        pass


def now() -> datetime:
    return datetime.now(UTC)


def request() -> Request:
    """Returns the current request. Only route handlers call this function, so a request always exists."""
    return cast(Request, app.current_request)


def publisher() -> Callable[[Any], None]:
    """Returns the function that publishes a notification to the notifications topic."""
    from chalicelib import notifications

    return notifications.publisher(clients.aws("sns"), settings.topic_arn)


@app.middleware("all")
def in_time(event: Any, get_response: Callable[[Any], Any]) -> Any:
    """Limits the duration of AWS calls. Every handler can therefore finish before its Lambda time-out."""
    # ``Request.context`` is API Gateway's request context, not Lambda's context.
    context = event.lambda_context if isinstance(event, Request) else event.context
    with clients.time_limit(context.get_remaining_time_in_millis() / 1000 if context else 0):
        return get_response(event)


@app.middleware("http")
def correlated(request: Request, get_response: Callable[[Any], Response]) -> Response:
    """Assigns a correlation id to every request, and adds it to the response and the log records."""
    correlation_id, began = correlation.of_request(request), time.perf_counter()
    with correlation.about(correlation_id):
        response = get_response(request)
        # The access log contains only the request id from API Gateway, so this log record includes that id too.
        ids = {"requestId": request.context["requestId"]} if "requestId" in request.context else {}
        facts = {"status": response.status_code, "milliseconds": round((time.perf_counter() - began) * 1000)}
        log.info("request answered", extra={"route": rest.route(request), **facts, **ids})
    response.headers[correlation.HEADER] = correlation_id
    if "authorizer" in request.context:
        response.headers["Cache-Control"] = "no-store"
    return response


@app.middleware("http")
def answered_errors(request: Request, get_response: Callable[[Any], Response]) -> Response:
    """Turns a ``CafeError`` into an HTTP response."""
    try:
        return get_response(request)
    except CafeError as error:
        return Response(error.answer(), status_code=error.STATUS_CODE)


@app.middleware("pure_lambda")
def correlated_state(event: Any, get_response: Callable[[Any], Any]) -> Any:
    """Adds the correlation id of a state machine execution to the log records of its functions."""
    with correlation.about(correlation.of_execution(event.event)):
        return get_response(event)


# --- Sign-in: a token -> the routes that its user may call ------------------------------------------------------------


# A removed user's token works until it expires, and a minute longer, because API Gateway caches the response.
@app.authorizer(ttl_seconds=60)
def authorize(request: AuthRequest) -> AuthResponse:
    """Allows the routes that ``chalicelib/sign_in.py`` lists for the groups of the caller."""
    from chalicelib import sign_in

    endpoint = cognito_endpoint(settings)
    return sign_in.authorize(request, endpoint=endpoint, issuer=settings.issuer, client_id=settings.user_pool_client_id)


# --- Reports: REST -> state machine -> MySQL, S3, SNS -----------------------------------------------------------------


@app.route("/create_report", methods=["POST"], authorizer=authorize)
def create_report() -> Response:
    """Starts the state machine for an inventory report or a storage report."""
    from chalicelib import idempotency, reports

    content, key = reports.parse(rest.body(request(), nothing={})), rest.idempotency_key(request())
    dynamodb, table = clients.aws("dynamodb"), settings.requests_table
    idempotency.claim(rest.route(request()), key, content, dynamodb=dynamodb, table=table, now=now())
    name = rest.caller(request()).name
    report = reports.start(content, key, name, sfn=clients.aws("stepfunctions"), machines=MACHINES, now=now())
    return Response(report, {"Location": rest.base_url(request()) + report["href"]}, status_code=202)


@app.route("/reports", authorizer=authorize)
def list_reports() -> dict[str, Any]:
    """Lists the reports from the last 90 days, newest first."""
    from chalicelib import reports

    page = rest.page(request(), "kind")
    return reports.newest(page, sfn=clients.aws("stepfunctions"), machines=MACHINES)


@app.route("/reports/{report_id}", authorizer=authorize)
def get_report(report_id: str) -> dict[str, Any]:
    """Returns one report. If the report succeeded, the response contains a new link to the report page."""
    from chalicelib import reports

    sfn, s3 = clients.aws("stepfunctions"), clients.aws("s3")
    return reports.get(report_id, sfn=sfn, machines=MACHINES, s3=s3, bucket=settings.reports_bucket, now=now())


@app.route("/reports/{report_id}/history", authorizer=authorize)
def get_report_history(report_id: str) -> dict[str, Any]:
    """Returns the state machine of a report, and the progress of the execution."""
    from chalicelib.reports import history

    return history.report_history(report_id, sfn=clients.aws("stepfunctions"), machines=MACHINES)


@app.lambda_function()
def read_inventory(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """State 1: exports the inventory from MySQL to a CSV file in the reports bucket."""
    from chalicelib import reports
    from chalicelib.reports import inventory

    report_id = reports.id_of_event(event, context)
    with clients.mysql_of_secret(database_secret()) as connection:
        return inventory.read_inventory(connection, clients.aws("s3"), settings.reports_bucket, report_id, now())


@app.lambda_function()
def render_report(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """State 2a: renders the CSV file as an HTML page and saves it in the reports bucket."""
    from chalicelib.reports import render
    from chalicelib.settings import currency, low_stock

    s3, bucket = clients.aws("s3"), settings.reports_bucket
    return render.render_report(event, s3=s3, bucket=bucket, currency=currency(), low_stock=low_stock())


@app.lambda_function()
def presign_report(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """State 2b: creates a link that opens the page for one hour."""
    from chalicelib import reports

    key = reports.report_key("inventory", event["reportId"])
    return reports.presign(clients.aws("s3"), settings.reports_bucket, key, now())


# --- Orders: REST -> SQS -> DynamoDB -> stream -> SNS -----------------------------------------------------------------


@app.route("/orders", methods=["POST"], authorizer=authorize)
def place_orders() -> Response:
    """Validates one order or a list of orders, and sends them to the queue."""
    from chalicelib.orders import placing

    receipts = placing.place(request(), aws=clients.aws, settings=settings, now=now())
    return Response(receipts, status_code=202)


@app.route("/orders", authorizer=authorize)
def list_orders() -> dict[str, Any]:
    """Lists stored orders, newest first, optionally filtered by customer, status or time."""
    from chalicelib.orders import listing

    page = rest.page(request(), *listing.FILTERS)
    since = date.fromisoformat(settings.orders_since)
    return listing.newest(page, since, dynamodb=clients.aws("dynamodb"), table=settings.orders_table)


@app.route("/orders.csv", authorizer=authorize)
def export_orders() -> Response:
    """Returns stored orders as CSV, newest first."""
    from chalicelib.orders import export

    given, since = rest.parameters(request(), *export.PARAMETERS), date.fromisoformat(settings.orders_since)
    return export.page(given, since, dynamodb=clients.aws("dynamodb"), table=settings.orders_table, now=now())


@app.route("/orders/{order_id}", authorizer=authorize)
def get_order(order_id: str) -> dict[str, Any]:
    """Returns one stored order."""
    from chalicelib.orders import listing

    return listing.get(order_id, dynamodb=clients.aws("dynamodb"), table=settings.orders_table)


@app.route("/orders/{order_id}", methods=["PATCH"], authorizer=authorize)
def change_order(order_id: str) -> dict[str, Any]:
    """Changes the status of a stored order, or corrects its items or note."""
    from chalicelib.orders import changes

    dynamodb, orders, requests = clients.aws("dynamodb"), settings.orders_table, settings.requests_table
    return changes.patch(request(), order_id, dynamodb=dynamodb, orders=orders, requests=requests, now=now())


@app.on_sqs_message(
    queue_arn=settings.orders_queue_arn, batch_size=100, maximum_batching_window_in_seconds=1, maximum_concurrency=10
)
def store_orders(event: SQSEvent) -> dict[str, Any]:
    """Stores each order in a batch exactly once. Failed messages return to the queue."""
    from chalicelib.orders import store

    return store.store_orders(
        event.to_dict(),
        dynamodb=clients.aws("dynamodb"),
        table=settings.orders_table,
        sqs=clients.aws("sqs"),
        queue_url=settings.orders_queue_url,
        dead_letter_url=settings.orders_dead_letter_url,
        publish=publisher(),
    )


@app.on_dynamodb_record(stream_arn=settings.orders_stream_arn, batch_size=100, starting_position="TRIM_HORIZON")
def announce_orders(event: DynamoDBEvent) -> dict[str, Any]:
    """Announces new, corrected and cancelled orders in one notification. Sets aside what cannot be announced."""
    from chalicelib.orders import announce, replay

    moment, context, given, url = now(), cast(Any, event.context), event.to_dict(), settings.retries_queue_url
    return announce.announce_orders(
        given,
        publish=publisher(),
        set_aside=announce.set_aside_with(clients.aws("sqs"), url, context, moment, given),
        find_announced=partial(replay.find_announced, clients.aws("dynamodb"), settings.notifications_table, moment),
        now=moment,
        seconds_left=lambda: context.get_remaining_time_in_millis() / 1000,
    )


# --- Uploads: REST -> a link -> S3 -> CloudWatch Logs, MySQL, SNS -----------------------------------------------------


def uploads_table() -> Any:
    from chalicelib.uploads.records import Records

    return Records(clients.aws("dynamodb"), settings.uploads_table)


@app.route("/uploads", methods=["POST"], authorizer=authorize)
def offer_upload() -> Response:
    """Returns a link that lets a browser upload one inventory file to the bucket."""
    from chalicelib.uploads import links

    wish, user = links.parse(rest.body(request())), rest.caller(request()).name
    s3, bucket = clients.aws("s3"), settings.uploads_bucket
    link = links.offer(wish, user, s3=s3, bucket=bucket, records=uploads_table(), now=now())
    return Response(link, status_code=201)


@app.route("/uploads", authorizer=authorize)
def list_uploads() -> dict[str, Any]:
    """Lists the uploads from the last 90 days, newest first."""
    return cast(dict[str, Any], uploads_table().newest(rest.page(request()), now()))


@app.route("/uploads/{upload_id}", authorizer=authorize)
def get_upload(upload_id: str) -> dict[str, Any]:
    """Returns an upload's state and result, and a page of one kind of changes."""
    from chalicelib.uploads import actions

    page, s3 = rest.page(request(), "change"), clients.aws("s3")
    return actions.show(upload_id, page, uploads_table(), s3, settings.reports_bucket)


def start_action(name: str, upload_id: str, *fields: str) -> Response:
    """Starts an action on an upload, which the function ``receive_upload`` then carries out."""
    from chalicelib.uploads import actions

    encoding = actions.parse(rest.body(request(), nothing={}), *fields)
    function, user = f"cafe-{settings.cafe_stage}-receive_upload", rest.caller(request()).name
    table = uploads_table()
    upload = actions.start(
        name, upload_id, encoding, user, records=table, aws=clients.aws, function=function, now=now()
    )
    return Response(upload, status_code=202)


@app.route("/uploads/{upload_id}/preview", methods=["POST"], authorizer=authorize)
def preview_upload(upload_id: str) -> Response:
    """Compares an uploaded file with the stock again, in another encoding if the request names one."""
    return start_action("preview", upload_id, "encoding")


@app.route("/uploads/{upload_id}/apply", methods=["POST"], authorizer=authorize)
def apply_upload(upload_id: str) -> Response:
    """Imports a previewed file, unless the stock has changed since the preview."""
    return start_action("apply", upload_id)


@app.route("/uploads/{upload_id}/undo", methods=["POST"], authorizer=authorize)
def undo_upload(upload_id: str) -> Response:
    """Undoes an import, except for beans that someone has changed since."""
    return start_action("undo", upload_id)


@app.on_s3_event(bucket=settings.uploads_bucket, events=["s3:ObjectCreated:*"])
def receive_upload(event: RawEvent) -> None:
    """Imports or previews an uploaded file, or carries out an action on an upload, and announces the result."""
    from chalicelib.uploads import jobs, receiving, stock

    s3, buckets = clients.aws("s3"), (settings.uploads_bucket, settings.reports_bucket)
    open_stock = partial(stock.open_stock, lambda: clients.mysql_of_secret(database_secret()))
    receiving.receive(event.to_dict(), jobs.Jobs(s3, open_stock, publisher(), uploads_table(), *buckets, now))


# --- Storage: state machine -> S3 or CloudWatch -> SNS ----------------------------------------------------------------


@app.lambda_function()
def measure_buckets(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Measures all buckets by listing objects or reading CloudWatch metrics. Long measurements run in parallel."""
    from chalicelib.storage import report

    return report.run_step(event, context, aws=clients.aws, bucket=settings.reports_bucket, now=now())


# --- MySQL itself: the deploy, Secrets Manager -> tables and users ----------------------------------------------------


@app.lambda_function()
def migrate(_event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Updates the MySQL tables and the database user of the Lambda functions. Each deploy waits for the result."""
    from chalicelib import database

    return database.bring_up_to_date(database_secret(), database_admin_secret())


@app.lambda_function()
def rotate_password(event: dict[str, Any], _context: Any) -> None:
    """Performs one step of the database password rotation in Secrets Manager."""
    from chalicelib.database import rotation

    rotation.rotate(event, clients.aws("secretsmanager"), database_secret(), database_admin_secret() or "")


# --- Notifications: SNS -> DynamoDB -> REST ---------------------------------------------------------------------------


@app.on_sns_message(topic=settings.topic_arn)
def record_notification(event: RawEvent) -> None:
    """Adds each notification to the inbox exactly once."""
    from chalicelib import notifications

    notifications.record(event.to_dict(), dynamodb=clients.aws("dynamodb"), table=settings.notifications_table)


@app.on_sns_message(topic=settings.alarms_topic_arn)
def record_alarm(event: RawEvent) -> None:
    """Adds each alarm to the inbox. CloudWatch messages contain no kind, so the handler sets the kind to ``alarm``."""
    from chalicelib import notifications

    dynamodb, table = clients.aws("dynamodb"), settings.notifications_table
    notifications.record(event.to_dict(), dynamodb=dynamodb, table=table, default_kind="alarm")


@app.route("/notifications", authorizer=authorize)
def list_notifications() -> dict[str, Any]:
    """Lists the notifications from the last 30 days, newest first. Only managers see links to reports."""
    from chalicelib import notifications

    page, links = rest.page(request(), "kind"), rest.caller(request()).is_manager
    table = settings.notifications_table
    return notifications.inbox(page, links=links, dynamodb=clients.aws("dynamodb"), table=table)


# --- Today: counts of all flows -> REST -------------------------------------------------------------------------------


@app.route("/today", authorizer=authorize)
def show_today() -> dict[str, Any]:
    """Returns the numbers of orders, reports, uploads and failures since midnight or since a given time."""
    from chalicelib import today

    moment = now()
    since = today.since(rest.parameters(request(), "since").get("since"), moment)
    return today.overview(since, aws=clients.aws, settings=settings, machines=MACHINES, now=moment)


# --- Retries: SQS -> the function that failed, or the dead letters ----------------------------------------------------


@app.on_sqs_message(queue_arn=settings.retries_queue_arn, batch_size=10, maximum_concurrency=2)
def retry_failures(event: SQSEvent) -> dict[str, Any]:
    """Sends failed work again after a pause if its reason may pass. All other failures wait for a person."""
    from chalicelib.dead_letters import retrying

    return retrying.retry(event.to_dict(), settings=settings, aws=clients.aws, now=now())


# --- Dead letters: permanently failed messages -> REST -> back to where they came from --------------------------------


@app.route("/dead-letters", authorizer=authorize)
def list_dead_letters() -> dict[str, Any]:
    """Lists the messages that failed permanently, oldest first."""
    from chalicelib.dead_letters import listing

    return listing.oldest(rest.limit(request()), settings=settings, aws=clients.aws, now=now())


@app.route("/dead-letters/redrive", methods=["POST"], authorizer=authorize)
def redrive_dead_letters() -> dict[str, Any]:
    """Sends all dead letters, or only those with the given ids or kind, back to where they came from."""
    return _handle_dead_letters("redriven")


@app.route("/dead-letters/discard", methods=["POST"], authorizer=authorize)
def discard_dead_letters() -> dict[str, Any]:
    """Removes the dead letters with the given ids or kind, and keeps a copy of each for 30 days."""
    return _handle_dead_letters("discarded")


def _handle_dead_letters(action: Any) -> dict[str, Any]:
    from chalicelib.dead_letters import redrive

    selection, name = redrive.parse(rest.body(request(), nothing={}), action), rest.caller(request()).name
    return redrive.handle(action, selection, by=name, settings=settings, aws=clients.aws, now=now())


# --- The API itself ---------------------------------------------------------------------------------------------------


@app.route("/health", methods=["GET", "HEAD"])
def health() -> dict[str, str] | Response:
    """Confirms that the API is up, and returns its stage and version, or only the status for a HEAD request."""
    shown = {"status": "ok", "stage": settings.cafe_stage, "version": VERSION}
    # Unlike API Gateway, `chalice local` would send the body.
    return Response("") if request().method == "HEAD" else shown


@app.route("/openapi.json")
def openapi() -> Response:
    """Returns the OpenAPI description of all routes."""
    return Response((CHALICELIB / "openapi.json").read_text(), {"Content-Type": "application/json"})


# --- The console ------------------------------------------------------------------------------------------------------


@app.route("/")
def show_console() -> Response:
    """Returns the console's web page."""
    from chalicelib import console

    return console.page(request(), settings)


@app.route("/console/{file}")
def get_console_file(file: str) -> Response:
    """Returns one of the files that the console page loads."""
    from chalicelib import console

    return console.file(request(), settings, file)


for handler in (receive_upload, record_notification, record_alarm):
    handler.event_class = RawEvent
