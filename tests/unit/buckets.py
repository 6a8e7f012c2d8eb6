"""Provides a mocked AWS account with buckets for tests of the storage report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from operator import itemgetter
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError

from chalicelib.storage import crew, measure, report
from chalicelib.storage.measurement import Measurement

# All tests share one boto3 session, because loading botocore's service models is slow.
SESSION = boto3.Session(aws_access_key_id="testing", aws_secret_access_key="testing")
NOW = datetime(2026, 11, 21, 3, 30, tzinfo=UTC)


class Account:
    """Creates one AWS client per service and region, and fills the account with data."""

    def __init__(self) -> None:
        self.clients: dict[tuple[str, str], Any] = {}
        self.seconds_left = 900.0

    def client(self, service: str, region: str = "us-east-1") -> Any:
        if (service, region) not in self.clients:
            config = Config(signature_version="s3v4") if service == "s3" else None
            self.clients[service, region] = SESSION.client(service, region_name=region, config=config)
        return self.clients[service, region]

    @property
    def s3(self) -> Any:
        return self.client("s3")

    def bucket(self, name: str, *sizes: int, region: str = "us-east-1") -> None:
        s3 = self.client("s3", region)
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=name, **where)
        for number, size in enumerate(sizes):
            s3.put_object(Bucket=name, Key=f"{number:05}", Body=b"x" * size)

    def figure(self, bucket: str, storage_type: str, day: datetime, size: int, region: str = "us-east-1") -> None:
        """Publishes a bucket's size on one day as a CloudWatch metric."""
        names = {"BucketName": bucket, "StorageType": storage_type}
        datum = {
            "MetricName": "BucketSizeBytes",
            "Dimensions": [{"Name": name, "Value": value} for name, value in names.items()],
            "Timestamp": day,
            "Value": size,
            "Unit": "Bytes",
        }
        self.client("cloudwatch", region).put_metric_data(Namespace="AWS/S3", MetricData=[datum])

    @property
    def collaborators(self) -> dict[str, Any]:
        return {
            "s3": self.s3,
            "s3_in": lambda region: self.client("s3", region),
            "cloudwatch_in": lambda region: self.client("cloudwatch", region),
            "deadline": lambda: self.seconds_left,
            "now": NOW,
        }

    def measure(self, mode: str = "listing", versions: bool = False, **collaborators: Any) -> Measurement:
        return measure.measure_buckets(mode, versions, **{**self.collaborators, **collaborators})

    def report(self, payload: dict[str, Any], spread: dict[str, Any] | None = None) -> dict[str, Any]:
        return report.report(payload, spread, bucket="reports", **self.collaborators)

    def in_rounds(self, seconds: float, **payload: Any) -> tuple[dict[str, Any], int]:
        """Calls functions like the state machine, each with this much time. Returns the last result and the rounds."""

        def call(spread: dict[str, Any]) -> dict[str, Any]:
            self.seconds_left = seconds
            return self.report({"reportId": "r-1", **payload}, spread)

        answer, rounds = call({"round": 0}), 0
        while answer["spread"]["shares"]:
            rounds += 1
            assert all(call({**answer["spread"], "share": number}) == {} for number in answer["spread"]["shares"])
            answer = call(answer["spread"])
        return answer, rounds

    def in_pages_of(self, keys: int) -> None:
        """Makes S3 list at most ``keys`` keys per page."""
        self.s3.meta.events.register(
            "provide-client-params.s3.ListObjectsV2", lambda params, **_: params | {"MaxKeys": keys}
        )

    def out_of_time_after(self, service: str, operation: str) -> None:
        """Makes the function run out of time whenever ``operation`` returns."""

        def run_out(**_: Any) -> None:
            self.seconds_left = crew.RESERVE_SECONDS

        self.client(service).meta.events.register(f"after-call.{service}.{operation}", run_out)

    def answer_listings(self, status: int, body: str, s3: Any = None, bucket: str = "") -> None:
        """Makes S3 send this response to every listing whose URL contains ``bucket``."""
        answered = answer(status, body)
        (s3 or self.s3).meta.events.register_first(
            "before-send.s3.ListObjectsV2", lambda request, **_: answered(request) if bucket in request.url else None
        )

    def refuse(self, bucket: str) -> None:
        """Makes S3 deny the listing of this bucket."""
        self.answer_listings(
            403,
            '<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>User: cafe is not '
            "authorized</Message><RequestId>4442587FB7D0A2F9</RequestId><HostId>x</HostId></Error>",
            bucket=bucket,
        )


class Body(BytesIO):
    """Holds a response body in the form that botocore reads."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def failure(code: str, status: int, message: str = "no") -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "ListBuckets")


def answer(status: int, body: str) -> Callable[..., AWSResponse]:
    return lambda request, **_: AWSResponse(request.url, status, {}, Body(body.encode()))


class Versions:
    """Answers like S3 for the versions and unfinished uploads in the bucket ``beans``. Moto ignores some markers.

    ``versions`` lists key, id, size and storage class, newest first for each key. A delete marker has the size None.
    ``uploads`` lists key, id, sizes of parts and storage class. A page has up to ``page`` entries.
    """

    def __init__(self, s3: Any, versions: list[Any], uploads: list[Any], page: int = 3) -> None:
        self.s3, self.page, self.ended, self.listed = s3, page, set[str](), lambda: None
        self.versions, self.uploads = sorted(versions, key=itemgetter(0)), sorted(uploads, key=itemgetter(0))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.s3, name)

    def list_object_versions(self, **given: Any) -> dict[str, Any]:
        listed, answer = self._page("Version", given, self.versions)
        newest = {key: identity for key, identity, *_ in reversed(self.versions)}
        entries = [
            {"Key": key, "VersionId": identity, "IsLatest": newest[key] == identity, "Size": size, "StorageClass": name}
            for key, identity, size, name in listed
        ]
        kinds = {"Versions": [each for each in entries if each["Size"] is not None]}
        return answer | kinds | {"DeleteMarkers": [each for each in entries if each["Size"] is None]}

    def list_multipart_uploads(self, **given: Any) -> dict[str, Any]:
        listed, answer = self._page("Upload", given, self.uploads)
        names = ("Key", "UploadId", "StorageClass", "Initiated")
        return answer | {"Uploads": [dict(zip(names, (*each[:2], each[3], NOW), strict=True)) for each in listed]}

    def get_paginator(self, name: str) -> Any:
        return self if name == "list_parts" else self.s3.get_paginator(name)

    def paginate(self, **given: Any) -> Iterator[dict[str, Any]]:
        if given["UploadId"] in self.ended:
            raise self.s3.exceptions.NoSuchUpload({"Error": {"Code": "NoSuchUpload"}}, "ListParts")
        [sizes] = [sizes for _, identity, sizes, _ in self.uploads if identity == given["UploadId"]]
        yield from ({"Parts": [{"Size": size}]} for size in sizes)

    def _page(self, what: str, given: dict[str, Any], entries: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        self.listed()
        entries = entries if given["Bucket"] == "beans" else []
        start = sum(key <= given.get("KeyMarker", "") for key, *_ in entries)
        if marker := given.get(f"{what}IdMarker"):
            start = [identity for _, identity, *_ in entries].index(marker) + 1
        page = entries[start : start + self.page]
        if start + len(page) == len(entries):
            return page, {"IsTruncated": False}
        return page, {"IsTruncated": True, "NextKeyMarker": page[-1][0], f"Next{what}IdMarker": page[-1][1]}
