"""``python -m benchmarks.stand_in`` stands in for S3: it lists made-up buckets, and answers each call after a delay.

The buckets all have the same objects. Objects have no content, and signatures are not checked. A delayed answer waits
in the event loop, so any number of calls can wait at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qsl, quote_plus, unquote, urlsplit
from urllib.request import urlopen
from xml.sax.saxutils import escape

from benchmarks.keyspaces import KEYSPACES
from local.cloud import REGION
from local.processes import Process, answers, basic_environment, free_ports

ROOT = Path(__file__).parent.parent
# A request for this path returns the number of calls. It cannot be a bucket, because their names begin with a letter.
CALLS = "/-/calls"
PAGE = 1_000
CREATED = "2026-11-21T03:14:15.000Z"
LAST_CHARACTER = "\U0010ffff"


def size(position: int) -> int:
    """Returns the size in bytes of the object with this position in the order of keys."""
    return position * 7_919 % 99_991


def _text(value: str) -> str:
    return escape(value, {'"': "&quot;", "\r": "&#13;"})


def _url(value: str) -> str:
    return quote_plus(value, safe="/*")


def _xml(root: str, *parts: bytes) -> bytes:
    start = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    return b"".join((start.encode(), *parts, f"</{root}>".encode()))


class Objects:
    """The objects of a bucket. The XML of each object is rendered only once, so that a page costs little time."""

    def __init__(self, keys: list[str]) -> None:
        self._keys = keys
        self._rendered = {
            encode: [
                f"<Contents><Key>{encode(key)}</Key><LastModified>{CREATED}</LastModified><ETag>&quot;{number:032x}"
                f"&quot;</ETag><Size>{size(number)}</Size><StorageClass>STANDARD</StorageClass></Contents>".encode()
                for number, key in enumerate(keys)
            ]
            for encode in (_text, _url)
        }

    def page(self, bucket: str, query: dict[str, str]) -> bytes:
        """Returns the answer to ListObjectsV2, or to ListObjects if ``query`` has no ``list-type``."""
        encode = _url if query.get("encoding-type") == "url" else _text
        prefix, delimiter, marker = query.get("prefix", ""), query.get("delimiter", ""), query.get("marker", "")
        limit = min(int(query.get("max-keys") or PAGE), PAGE)
        token = query.get("continuation-token", "")
        after = urlsafe_b64decode(token).decode() if token else query.get("start-after", marker)
        objects, groups, last = self._items(prefix, delimiter, after, limit)
        fields = {"Name": bucket, "Prefix": encode(prefix), "MaxKeys": limit, "Delimiter": encode(delimiter)}
        fields |= {"EncodingType": query.get("encoding-type", ""), "IsTruncated": "true" if last else "false"}
        if "list-type" in query:
            fields |= {"KeyCount": len(objects) + len(groups), "StartAfter": encode(query.get("start-after", ""))}
            fields |= {"ContinuationToken": token}
            fields |= {"NextContinuationToken": urlsafe_b64encode(last.encode()).decode()}
        else:
            fields |= {"Marker": encode(marker), "NextMarker": encode(last) if delimiter else ""}
        return _xml(
            "ListBucketResult",
            *(f"<{name}>{value}</{name}>".encode() for name, value in fields.items() if value != ""),
            *map(self._rendered[encode].__getitem__, objects),
            *(f"<CommonPrefixes><Prefix>{encode(each)}</Prefix></CommonPrefixes>".encode() for each in groups),
        )

    def _items(self, prefix: str, delimiter: str, after: str, limit: int) -> tuple[list[int], list[str], str]:
        """Returns the positions of objects, the common prefixes, and the last item if the page is truncated."""
        keys, objects, groups, last = self._keys, list[int](), list[str](), ""
        # If ``after`` is below a common prefix, all keys with this prefix are left out.
        if delimiter and after.startswith(prefix) and (cut := after.find(delimiter, len(prefix))) >= 0:
            after = after[: cut + len(delimiter)] + LAST_CHARACTER
        here = max(bisect_left(keys, prefix), bisect_right(keys, after) if after else 0)
        end = bisect_left(keys, prefix + LAST_CHARACTER)
        while here < end and len(objects) + len(groups) < limit:
            last = keys[here]
            cut = last.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                objects.append(here)
                here += 1
            else:
                last = last[: cut + len(delimiter)]
                groups.append(last)
                here = bisect_left(keys, last + LAST_CHARACTER, here)
        return objects, groups, last if here < end else ""


class StandIn:
    """Answers HTTP requests, and counts them in ``calls``."""

    def __init__(self, names: list[str], objects: Objects, delay: float) -> None:
        self.calls = 0
        self.delay = delay
        self._names = names
        self._objects = objects

    def answer(self, method: str, target: str) -> tuple[str, bytes]:
        """Returns the status and the body of the answer to a request."""
        url = urlsplit(target)
        bucket, _, key = unquote(url.path).strip("/").partition("/")
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        if method not in ("GET", "HEAD") or key:
            return "501 Not Implemented", _xml("Error", b"<Code>NotImplemented</Code>")
        if not bucket:
            region = f"<CreationDate>{CREATED}</CreationDate><BucketRegion>{REGION}</BucketRegion>"
            names = (f"<Bucket><Name>{name}</Name>{region}</Bucket>".encode() for name in self._names)
            return "200 OK", _xml("ListAllMyBucketsResult", b"<Buckets>", *names, b"</Buckets>")
        if bucket not in self._names:
            return "404 Not Found", _xml("Error", b"<Code>NoSuchBucket</Code>")
        if method == "HEAD":
            return "200 OK", b""
        if "location" in query:
            return "200 OK", _xml("LocationConstraint")
        return "200 OK", self._objects.page(bucket, query)


class Connection(asyncio.Protocol):
    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in
        self._received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        # The tools send no bodies with their requests.
        *heads, self._received = (self._received + data).split(b"\r\n\r\n")
        for head in heads:
            method, target, _ = head.decode().split(" ", 2)
            if target == CALLS:
                delay, status, body = 0.0, "200 OK", str(self._stand_in.calls).encode()
            else:
                self._stand_in.calls += 1
                delay, (status, body) = self._stand_in.delay, self._stand_in.answer(method, target)
            lines = f"HTTP/1.1 {status}\r\nx-amz-bucket-region: {REGION}\r\nContent-Type: application/xml\r\n"
            answer = f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + (body if method != "HEAD" else b"")
            asyncio.get_running_loop().call_later(delay, self._transport.write, answer)


def calls(endpoint: str) -> int:
    """Returns how many calls the stand-in at ``endpoint`` has received."""
    with urlopen(endpoint + CALLS, timeout=5) as answer:
        return int(answer.read())


@contextmanager
def running(keys: str, objects: int, *, buckets: int = 1, delay: int = 0) -> Iterator[str]:
    """Runs a stand-in as a separate process, and yields its endpoint.

    ``keys`` is a name in ``KEYSPACES``, ``objects`` is the number of objects in each bucket, and ``delay`` is in
    milliseconds.
    """
    [port] = free_ports(1)
    options = {"port": port, "delay": delay, "buckets": buckets, "objects": objects, "keys": keys}
    command = [sys.executable, "-m", "benchmarks.stand_in", *(f"--{name}={value}" for name, value in options.items())]
    with TemporaryDirectory() as folder:
        process = Process("stand_in", Path(folder))
        process.start(command, basic_environment() | {"PYTHONPATH": str(ROOT)}, "", port)
        try:
            process.wait(lambda: answers(f"http://127.0.0.1:{port}{CALLS}"))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stop()


async def _serve(stand_in: StandIn, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(stand_in), "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stand_in", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1; by default any free port")
    parser.add_argument("--delay", type=int, default=50, help="the milliseconds before each answer (%(default)s)")
    parser.add_argument("--buckets", type=int, default=1, help="the number of buckets (%(default)s)")
    parser.add_argument("--objects", type=int, default=200_000, help="the number of objects per bucket (%(default)s)")
    parser.add_argument("--keys", choices=KEYSPACES, default="flat", help="the distribution of keys (%(default)s)")
    options = parser.parse_args()
    names = [f"bench-{number:02}" for number in range(options.buckets)]
    serve = _serve(
        StandIn(names, Objects(KEYSPACES[options.keys](options.objects)), options.delay / 1_000), options.port
    )
    try:
        asyncio.run(serve)
    except KeyboardInterrupt:
        sys.exit()
