"""Contains minimal Chalice routes with the AWS calls and the authorizer of the system, but no checks or retries."""

import json
import os
import secrets
from typing import Any

import boto3
from chalice.app import AuthRequest, AuthResponse, Chalice, Response

from chalicelib import sign_in
from chalicelib.settings import Settings, cognito_endpoint

settings = Settings.read()
app = Chalice(app_name="minimal")
dynamodb: Any = boto3.client("dynamodb")
sqs: Any = boto3.client("sqs")
sfn: Any = boto3.client("stepfunctions")


@app.authorizer()
def authorize(request: AuthRequest) -> AuthResponse:
    endpoint, client_id = cognito_endpoint(settings), settings.user_pool_client_id
    return sign_in.authorize(request, endpoint=endpoint, issuer=settings.issuer, client_id=client_id)


@app.route("/orders/{order_id}", authorizer=authorize)
def get_order(order_id: str) -> Any:
    return dynamodb.get_item(
        TableName=os.environ["ORDERS_TABLE"], Key={"orderID": {"S": order_id}}, ConsistentRead=True
    )["Item"]


@app.route("/orders", methods=["POST"], authorizer=authorize)
def place_order() -> Response:
    request: Any = app.current_request
    order_id = secrets.token_urlsafe(16)
    keys = {"Keys": [{"orderID": {"S": order_id}}], "ConsistentRead": True}
    dynamodb.batch_get_item(RequestItems={os.environ["ORDERS_TABLE"]: keys})
    entries = [{"Id": "0", "MessageBody": json.dumps(request.json_body)}]
    sqs.send_message_batch(QueueUrl=os.environ["ORDERS_QUEUE_URL"], Entries=entries)
    return Response({"orderID": order_id}, status_code=202)


@app.route("/create_report", methods=["POST"], authorizer=authorize)
def create_report() -> Response:
    report_id = secrets.token_hex(8)
    sfn.start_execution(stateMachineArn=os.environ["INVENTORY_REPORT_ARN"], name=report_id, input="{}")
    return Response({"reportId": report_id}, status_code=202)


@app.route("/health")
def health() -> dict[str, str]:
    return {}
