"""Tests that the benchmarks' stand-in for S3 lists objects as the local cloud does."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.handlers import set_list_objects_encoding_type_url

from benchmarks import stand_in
from benchmarks.keyspaces import KEYSPACES
from local.cloud import CREDENTIALS, REGION
from tests.system.system import System, new_id

OBJECTS = 40
OPERATIONS = ("list_objects_v2", "list_objects")


def client(endpoint: str, *, encoded: bool = True) -> Any:
    credentials = {name.lower(): value for name, value in CREDENTIALS.items()}
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name=REGION, config=config, **credentials)
    for operation in () if encoded else ("ListObjects", "ListObjectsV2"):
        s3.meta.events.unregister(f"before-parameter-build.s3.{operation}", set_list_objects_encoding_type_url)
    return s3


@pytest.fixture(params=["any_script", "words", "dates"])
def listed(system: System, request: pytest.FixtureRequest) -> Iterator[tuple[str, list[str], str]]:
    """Yields a bucket in the local cloud, its keys, and the endpoint of a stand-in with the same objects."""
    s3, name, keys = system.aws("s3"), new_id("listed"), KEYSPACES[request.param](OBJECTS)
    s3.create_bucket(Bucket=name)
    try:
        for number, key in enumerate(keys):
            s3.put_object(Bucket=name, Key=key, Body=b"x" * stand_in.size(number))
        with stand_in.running(keys=request.param, objects=OBJECTS, delay=0) as endpoint:
            yield name, keys, endpoint
    finally:
        for key in keys:
            s3.delete_object(Bucket=name, Key=key)
        s3.delete_bucket(Bucket=name)


def pages(s3: Any, operation: str, **query: Any) -> list[Any]:
    """Returns the keys, sizes, common prefixes and truncation of each page."""
    return [
        (
            [(each["Key"], each["Size"]) for each in page.get("Contents", [])],
            [each["Prefix"] for each in page.get("CommonPrefixes", [])],
            page["IsTruncated"],
        )
        for page in s3.get_paginator(operation).paginate(**query)
    ]


def test_it_answers_every_query_like_the_local_cloud(system: System, listed: tuple[str, list[str], str]) -> None:
    name, keys, endpoint = listed
    key, folder = keys[20], keys[20].rpartition("/")[0] + "/"
    starts = ("", key, key[:-3], folder, "\U0001f980", "zzz")
    shapes: list[dict[str, Any]] = [{}, {"Delimiter": "/"}, {"Prefix": folder}, {"Prefix": key[:9], "Delimiter": "/"}]
    shapes += [{"Prefix": "nothing"}, {"Delimiter": "-"}, {"MaxKeys": 7}, {"MaxKeys": 3, "Delimiter": "/"}]
    for encoded in (True, False):
        theirs, ours = client(system.endpoint, encoded=encoded), client(endpoint, encoded=encoded)
        for operation, shape, start in product(OPERATIONS, shapes, starts):
            query = shape | {"StartAfter" if operation == "list_objects_v2" else "Marker": start}
            expected = pages(theirs, operation, Bucket=name, **query)
            assert pages(ours, operation, Bucket="bench-00", **query) == expected, (operation, encoded, query)


def test_a_missing_bucket_is_an_error_and_calls_are_counted() -> None:
    with stand_in.running(buckets=2, objects=1, delay=0) as endpoint:
        s3 = client(endpoint)
        assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == ["bench-00", "bench-01"]
        assert s3.head_bucket(Bucket="bench-01")["BucketRegion"] == REGION
        assert s3.get_bucket_location(Bucket="bench-01").get("LocationConstraint") is None
        with pytest.raises(s3.exceptions.NoSuchBucket):
            s3.list_objects_v2(Bucket="missing")
        with pytest.raises(ClientError, match="NotImplemented"):
            s3.get_object(Bucket="bench-00", Key="receipts/000000000.pdf")
        assert stand_in.calls(endpoint) == 5
