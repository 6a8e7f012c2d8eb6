"""Contains a minimal version of each function that makes only the AWS calls, with no retries or other guarantees.

Each function imports its modules when it is called, as if the function were in a separate file.
"""

from __future__ import annotations

import json
import os
from typing import Any


def api_handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Handles ``GET /orders/{order_id}``."""
    import boto3

    key = {"orderID": {"S": event["pathParameters"]["order_id"]}}
    item = boto3.client("dynamodb").get_item(TableName=os.environ["ORDERS_TABLE"], Key=key)["Item"]
    return {"statusCode": 200, "body": json.dumps({"orderID": item["orderID"]["S"]})}


def authorize(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    import jwt

    keys = jwt.PyJWKClient(f"{os.environ['AWS_ENDPOINT_URL']}/{os.environ['USER_POOL_ID']}/.well-known/jwks.json")
    token = event["authorizationToken"]
    key, client = keys.get_signing_key_from_jwt(token), os.environ["USER_POOL_CLIENT_ID"]
    claims = jwt.decode(token, key, algorithms=["RS256"], audience=client)
    allowed = {"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": event["methodArn"]}
    return {"principalId": claims["cognito:username"], "policyDocument": {"Statement": [allowed]}}


def store_orders(event: dict[str, Any], _context: Any) -> None:
    import boto3

    dynamodb = boto3.client("dynamodb")
    for record in event["Records"]:
        order = json.loads(record["body"])
        dynamodb.put_item(
            TableName=os.environ["ORDERS_TABLE"],
            Item={"orderID": {"S": order["orderID"]}, "order": {"S": record["body"]}},
            ConditionExpression="attribute_not_exists(orderID)",
        )


def announce_orders(event: dict[str, Any], _context: Any) -> None:
    import boto3

    names = [record["dynamodb"]["Keys"]["orderID"]["S"] for record in event["Records"]]
    boto3.client("sns").publish(TopicArn=os.environ["TOPIC_ARN"], Subject="New orders", Message="\n".join(names))


def record_notification(event: dict[str, Any], _context: Any) -> None:
    import boto3

    dynamodb = boto3.client("dynamodb")
    for record in event["Records"]:
        dynamodb.put_item(
            TableName=os.environ["NOTIFICATIONS_TABLE"],
            Item={
                "notificationID": {"S": record["Sns"]["MessageId"]},
                "message": {"S": record["Sns"]["Message"]},
            },
        )


record_alarm = record_notification


def retry_failures(event: dict[str, Any], _context: Any) -> None:
    """Moves failures that no retry can help to the failures queue."""
    import boto3

    sqs = boto3.client("sqs")
    for record in event["Records"]:
        sqs.send_message(QueueUrl=os.environ["FAILURES_QUEUE_URL"], MessageBody=record["body"])


def receive_upload(event: dict[str, Any], _context: Any) -> None:
    import csv
    from urllib.parse import unquote_plus

    import boto3

    for record in event["Records"]:
        key = unquote_plus(record["s3"]["object"]["key"])
        stored = boto3.client("s3").get_object(Bucket=os.environ["UPLOADS_BUCKET"], Key=key)
        rows = list(csv.DictReader(stored["Body"].read().decode().splitlines()))
        with _mysql() as connection, connection.cursor() as cursor:
            for row in rows:
                cursor.execute(
                    "UPDATE beans SET quantity = %s WHERE type = %s AND product_name = %s",
                    (row["quantity"], row["type"], row["product_name"]),
                )
            connection.commit()
        boto3.client("sns").publish(TopicArn=os.environ["TOPIC_ARN"], Subject="Upload", Message=key)


def read_inventory(event: dict[str, Any], _context: Any) -> None:
    import csv
    import io

    import boto3

    with _mysql() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM beans LEFT JOIN suppliers ON suppliers.id = beans.supplier_id")
        rows = cursor.fetchall()
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    key = f"inventory/{event['reportId']}/inventory.csv"
    boto3.client("s3").put_object(Bucket=os.environ["REPORTS_BUCKET"], Key=key, Body=text.getvalue().encode())


def render_report(event: dict[str, Any], _context: Any) -> None:
    import csv

    import boto3
    from jinja2 import Template

    s3, bucket = boto3.client("s3"), os.environ["REPORTS_BUCKET"]
    text = s3.get_object(Bucket=bucket, Key=event["csvKey"])["Body"].read().decode("utf-8-sig")
    page = "<table>{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}"
    html = Template(page, autoescape=True).render(rows=csv.reader(text.splitlines()))
    s3.put_object(Bucket=bucket, Key=f"inventory/{event['reportId']}/report.html", Body=html.encode())


def presign_report(event: dict[str, Any], _context: Any) -> dict[str, str]:
    import boto3
    from botocore.config import Config

    s3 = boto3.client("s3", config=Config(signature_version="s3v4"))
    target = {"Bucket": os.environ["REPORTS_BUCKET"], "Key": f"inventory/{event['reportId']}/report.html"}
    return {"url": s3.generate_presigned_url("get_object", Params=target)}


def measure_buckets(_event: dict[str, Any], _context: Any) -> None:
    import boto3
    from jinja2 import Template

    s3 = boto3.client("s3")
    sizes: dict[str, int] = {}
    for bucket in s3.list_buckets()["Buckets"]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"])
        sizes[bucket["Name"]] = sum(each["Size"] for page in pages for each in page.get("Contents", []))
    page = "<ul>{% for name, size in sizes.items() %}<li>{{ name }}: {{ size }}</li>{% endfor %}</ul>"
    html = Template(page, autoescape=True).render(sizes=sizes)
    s3.put_object(Bucket=os.environ["REPORTS_BUCKET"], Key="storage/minimal/report.html", Body=html.encode())


def migrate(_event: dict[str, Any], _context: Any) -> None:
    with _mysql() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM cafe_migrations")


def rotate_password(event: dict[str, Any], _context: Any) -> None:
    """Performs the step ``testSecret``."""
    _mysql(VersionId=event["ClientRequestToken"], VersionStage="AWSPENDING").close()


def _mysql(**version: str) -> Any:
    import boto3
    import pymysql

    manager = boto3.client("secretsmanager")
    secret = json.loads(manager.get_secret_value(SecretId=os.environ["DB_SECRET_ARN"], **version)["SecretString"])
    return pymysql.connect(
        host=secret["host"],
        port=int(secret["port"]),
        user=secret["username"],
        password=secret["password"],
        database=secret["dbname"],
    )
