"""Files in the reports bucket, written and read as streams: no file is ever in memory as a whole."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from chalicelib.errors import aws_errors

# The least that S3 takes, for the sake of memory. It takes 10,000 of them: so 50 GB.
PART_BYTES = 5 * 1024 * 1024


@aws_errors()
def write(s3: Any, bucket: str, key: str, chunks: Iterable[bytes], **headers: str) -> None:
    """Puts ``chunks`` into S3 as one object: in parts if they are many, and then all of them or nothing.

    ``headers`` are S3's own, such as ``ContentType``. Raises ``Unavailable``, and whatever ``chunks`` raises. In both
    cases it takes no further chunk; boto3's own ``upload_fileobj`` would go on to the end.
    """
    parts = _parts(chunks)
    part = next(parts, b"")
    if len(part) < PART_BYTES:
        s3.put_object(Bucket=bucket, Key=key, Body=part, **headers)
        return
    started = s3.create_multipart_upload(Bucket=bucket, Key=key, ChecksumAlgorithm="CRC32", **headers)
    upload = {"Bucket": bucket, "Key": key, "UploadId": started["UploadId"]}
    try:
        stored: list[dict[str, Any]] = []
        while part:
            number = len(stored) + 1
            answer = s3.upload_part(**upload, PartNumber=number, Body=part, ChecksumAlgorithm="CRC32")
            stored.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": answer["ChecksumCRC32"]})
            # This one is let go before the next is made, so there is one in memory at a time, and botocore's copy.
            part = b""
            part = next(parts, b"")
        s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": stored})
    except BaseException:
        # The first error is the one to tell. Should this fail too, the bucket's lifecycle removes the parts.
        with suppress(Exception):
            s3.abort_multipart_upload(**upload)
        raise


def _parts(chunks: Iterable[bytes]) -> Iterator[bytearray]:
    part = bytearray()
    for chunk in chunks:
        part += chunk
        if len(part) >= PART_BYTES:
            yield part
            part = bytearray()
    if part:
        yield part


@contextmanager
def open_text(s3: Any, bucket: str, key: str) -> Iterator[tuple[io.TextIOWrapper, int]]:
    """The UTF-8 text of an object, with or without a BOM and its line ends as they are, and its size in bytes.

    Raises ``Unavailable``.
    """
    with aws_errors():
        found = s3.get_object(Bucket=bucket, Key=key)
        body = io.BufferedReader(found["Body"], 1024 * 1024)
        with io.TextIOWrapper(body, encoding="utf-8-sig", newline="") as text:
            yield text, found["ContentLength"]
