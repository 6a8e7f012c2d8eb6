"""Streams files to and from the reports bucket. Memory use does not depend on the size of a file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from chalicelib.errors import aws_errors

# To save memory, parts have the smallest size that S3 accepts. S3 accepts 10,000 parts per file, so a file can be up to
# 50 GB.
PART_BYTES = 5 * 1024 * 1024
BLOCK_BYTES = 256 * 1024


@aws_errors()
def write(s3: Any, bucket: str, key: str, chunks: Iterable[bytes], **headers: str) -> None:
    """Stores ``chunks`` as one S3 object. If an error occurs, S3 stores nothing.

    A large object is uploaded in parts. ``headers`` are additional arguments for S3, such as ``ContentType``. Raises
    ``Unavailable`` if S3 is unavailable. Also raises any error that occurs while reading ``chunks``. Unlike boto3's
    ``upload_fileobj``, the function stops reading ``chunks`` after an error.
    """
    parts = _parts(chunks)
    part = next(parts, b"")
    if len(part) < PART_BYTES:
        s3.put_object(Bucket=bucket, Key=key, Body=part, **headers)
        return
    # The import is inside the function because most files are small.
    from concurrent.futures import ThreadPoolExecutor

    started = s3.create_multipart_upload(Bucket=bucket, Key=key, ChecksumAlgorithm="CRC32", **headers)
    upload = {"Bucket": bucket, "Key": key, "UploadId": started["UploadId"]}
    try:
        stored: list[dict[str, Any]] = []
        # While one part is uploaded, the next part is read.
        with ThreadPoolExecutor(1) as uploads:
            while part:
                number = len(stored) + 1
                send = partial(s3.upload_part, **upload, PartNumber=number, Body=part, ChecksumAlgorithm="CRC32")
                sending = uploads.submit(copy_context().run, send)
                part = next(parts, b"")
                answer = sending.result()
                stored.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": answer["ChecksumCRC32"]})
        s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": stored})
    except BaseException:
        # An error while aborting is ignored, because the bucket's lifecycle rules also delete the parts of unfinished
        # uploads.
        with suppress(Exception):
            s3.abort_multipart_upload(**upload)
        raise


def _parts(chunks: Iterable[bytes]) -> Iterator[bytearray]:
    """Yields parts from two alternating buffers, because new buffers would fragment memory.

    A part is only valid until the second part after it is requested.
    """
    part, other, size = bytearray(), bytearray(), 0
    for chunk in chunks:
        part[size : size + len(chunk)] = chunk
        size += len(chunk)
        if size >= PART_BYTES:
            del part[size:]
            yield part
            part, other, size = other, part, 0
    if size:
        del part[size:]
        yield part


class _Blocks(io.BufferedReader):
    """Reads large blocks for TextIOWrapper, which asks for only 8 KB. Each read from S3 takes many function calls."""

    def read1(self, size: int = -1) -> bytes:  # noqa: ARG002 - the base class's signature
        return self.read(BLOCK_BYTES)


@contextmanager
def open_text(s3: Any, bucket: str, key: str) -> Iterator[tuple[io.TextIOWrapper, int]]:
    """Opens an S3 object as UTF-8 text, without its byte order mark but with its original line endings.

    Yields the text and the object's size in bytes. Raises ``Unavailable`` if S3 is unavailable.
    """
    with aws_errors():
        answer = s3.get_object(Bucket=bucket, Key=key)
        body = _Blocks(answer["Body"], BLOCK_BYTES)
        with io.TextIOWrapper(body, encoding="utf-8-sig", newline="") as text:
            yield text, answer["ContentLength"]
