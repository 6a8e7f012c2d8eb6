"""``python -m benchmarks.stand_in`` stands in for S3: it lists made-up buckets, and answers each call after a delay.

The buckets all have the same objects. Objects have no content, and signatures are not checked. A delayed answer waits
in the event loop, so any number of calls can wait at the same time. ``GET /-/calls`` returns the number of calls.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import parse_qsl, quote_plus, unquote_plus, urlsplit
from urllib.request import urlopen
from xml.sax.saxutils import escape

from benchmarks.keyspaces import KEYSPACES
from local.cloud import REGION

# This path cannot be a bucket, because the name of a bucket does not begin with a hyphen.
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


class StandIn:
    """Answers HTTP requests, and counts them in ``calls``."""

    def __init__(self, buckets: int, keys: list[str], delay: float) -> None:
        self.calls = 0
        self.delay = delay
        self._buckets = [f"bench-{number:02}" for number in range(buckets)]
        self._keys = keys
        # The XML of each object is rendered only once, so that a page costs little time.
        self._rendered = {
            encode: [
                f"<Contents><Key>{encode(key)}</Key><LastModified>{CREATED}</LastModified><ETag>&quot;{number:032x}"
                f"&quot;</ETag><Size>{size(number)}</Size><StorageClass>STANDARD</StorageClass></Contents>".encode()
                for number, key in enumerate(keys)
            ]
            for encode in (_text, _url)
        }

    def answer(self, method: str, target: str) -> tuple[str, bytes]:
        """Returns the status and the body of the answer to a request, which has no body."""
        if target == CALLS:
            return "200 OK", str(self.calls).encode()
        self.calls += 1
        url = urlsplit(target)
        bucket, _, key = url.path.strip("/").partition("/")
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        if method not in ("GET", "HEAD") or key:
            return "501 Not Implemented", b"<Error><Code>NotImplemented</Code></Error>"
        if not bucket:
            about = f"<CreationDate>{CREATED}</CreationDate><BucketRegion>{REGION}</BucketRegion>"
            buckets = (f"<Bucket><Name>{name}</Name>{about}</Bucket>".encode() for name in self._buckets)
            return "200 OK", _xml("ListAllMyBucketsResult", b"<Buckets>", *buckets, b"</Buckets>")
        if bucket not in self._buckets:
            return "404 Not Found", b"<Error><Code>NoSuchBucket</Code></Error>"
        return "200 OK", _xml("LocationConstraint") if "location" in query else self._page(bucket, query)

    def _page(self, bucket: str, query: dict[str, str]) -> bytes:
        """Returns the answer to ListObjectsV2, or to ListObjects if ``query`` has no ``list-type``."""
        encode = _url if query.get("encoding-type") == "url" else _text
        prefix, delimiter, token = (query.get(name, "") for name in ("prefix", "delimiter", "continuation-token"))
        after = unquote_plus(token) or query.get("start-after") or query.get("marker", "")
        objects, groups, last = self._items(prefix, delimiter, after, min(int(query.get("max-keys") or PAGE), PAGE))
        fields = {"Name": bucket, "IsTruncated": "true" if last else "false", "KeyCount": len(objects) + len(groups)}
        fields |= {"EncodingType": query.get("encoding-type", ""), "NextContinuationToken": _url(last)}
        fields |= {"NextMarker": encode(last) if delimiter else ""}
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
        here = max(bisect_left(keys, prefix), bisect_right(keys, after))
        end = bisect_left(keys, prefix + LAST_CHARACTER)
        while here < end and len(objects) + len(groups) < limit:
            last = keys[here]
            cut = last.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                objects.append(here)
                here += 1
            else:
                groups.append(last := last[: cut + len(delimiter)])
                here = bisect_left(keys, last + LAST_CHARACTER, here)
        return objects, groups, last if here < end else ""


def calls(endpoint: str) -> int:
    with urlopen(endpoint + CALLS, timeout=5) as answer:
        return int(answer.read())


@contextmanager
def running(**options: object) -> Iterator[str]:
    """Runs a stand-in with these command line options as a separate process, and yields its endpoint."""
    command = [sys.executable, "-m", "benchmarks.stand_in", *(f"--{name}={value}" for name, value in options.items())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            # The stand-in prints its endpoint as soon as it accepts connections.
            yield next(iter(process.stdout or ())).strip()
        finally:
            process.terminate()


async def _serve(stand_in: StandIn, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The client closes the connection.
        with suppress(asyncio.IncompleteReadError, ConnectionError), closing(writer):
            while True:
                method, target, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ", 2)
                status, body = stand_in.answer(method, target)
                await asyncio.sleep(stand_in.delay)
                fields = f"x-amz-bucket-region: {REGION}\r\nContent-Type: application/xml"
                head = f"HTTP/1.1 {status}\r\n{fields}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                writer.write(head + body if method != "HEAD" else head)
                await writer.drain()

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stand_in", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1; by default any free port")
    parser.add_argument("--delay", type=int, default=50, help="the milliseconds before each answer (%(default)s)")
    parser.add_argument("--buckets", type=int, default=1, help="the number of buckets (%(default)s)")
    parser.add_argument("--objects", type=int, default=200_000, help="the number of objects per bucket (%(default)s)")
    parser.add_argument("--keys", choices=KEYSPACES, default="flat", help="the distribution of keys (%(default)s)")
    given = parser.parse_args()
    stand_in = StandIn(given.buckets, KEYSPACES[given.keys](given.objects), given.delay / 1_000)
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(stand_in, given.port))
