"""Files in the reports bucket, written and read as streams: no file is ever in memory as a whole."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from chalicelib.errors import Unavailable, aws_errors

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# S3 takes at most 10,000 parts: so 80 GB.
PART_BYTES = 8 * 1024 * 1024


@aws_errors()
def write(s3: Any, bucket: str, key: str, chunks: Iterable[bytes], **headers: str) -> None:
    """Puts ``chunks`` into S3 as one object: in parts if they are many, and then all of them or nothing.

    ``headers`` are S3's own, such as ``ContentType``. Raises ``Unavailable``, and whatever ``chunks`` raises.
    """
    from boto3.s3.transfer import TransferConfig

    # One part at a time, because each is in memory until it is sent.
    config = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, use_threads=False)
    s3.upload_fileobj(io.BufferedReader(_Stream(chunks)), bucket, key, ExtraArgs=headers, Config=config)


@contextmanager
def open_text(s3: Any, bucket: str, key: str) -> Iterator[tuple[io.TextIOWrapper, int]]:
    """The UTF-8 text of an object, with or without a BOM and its line ends as they are, and its size in bytes.

    Raises ``Unavailable``.
    """
    from botocore.exceptions import IncompleteReadError

    with aws_errors():
        found = s3.get_object(Bucket=bucket, Key=key)
        body = io.BufferedReader(found["Body"], 1024 * 1024)
        try:
            with io.TextIOWrapper(body, encoding="utf-8-sig", newline="") as text:
                yield text, found["ContentLength"]
        except IncompleteReadError as error:
            raise Unavailable(f"S3 broke off in the middle of {key}: try again in a moment") from error


class _Stream(io.RawIOBase):
    """Chunks of bytes as a file to read from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer)
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
