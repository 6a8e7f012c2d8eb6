"""A proxy between the local AWS emulator and its clients that can inject faults.

The proxy streams bytes in both directions, and keeps the headers that the client signed.
"""

from __future__ import annotations

import json
import random
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPConnection, HTTPException, parse_headers
from socketserver import StreamRequestHandler, TCPServer, ThreadingMixIn
from typing import Any, BinaryIO

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.cloud import CREDENTIALS, REGION
from tests.system.calls import Call, operation_name, service_of
from tests.system.waiting import wait_for

CHUNK = 65_536
SECONDS = 120


@dataclass
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: Iterable[bytes]
    close: Callable[[], None] = lambda: None


class Cut(Exception):
    """Raised to end a connection without a response."""


class Exchange:
    """An AWS call that the proxy is handling.

    A fault decides whether the call reaches AWS, and which response the client gets.
    """

    def __init__(self, call: Call, send: Callable[[], Reply], send_changed: Callable[[bytes], bytes]) -> None:
        self.call = call
        self._send = send
        self._send_changed = send_changed

    def forward(self) -> Reply:
        """Sends the call to AWS, and returns the response as a stream."""
        return self._send()

    def forward_whole(self) -> tuple[Reply, bytes]:
        """Sends the call to AWS, and returns the response with its complete body."""
        reply = self.forward()
        body = b"".join(reply.body)
        reply.close()
        return reply, body

    def forward_changed(self, body: Any) -> bytes:
        """Sends the call to AWS with a different body, and returns the body of the response.

        The caller's signature does not match the new body, so the proxy signs the call as an administrator.
        """
        return self._send_changed(json.dumps(body).encode())


Fault = Callable[[Exchange], Reply]


@dataclass
class Rule:
    """A rule applies a fault to the calls whose name matches the regular expression ``operation``.

    A rule can apply to the ``first`` calls only, to one in ``every`` calls, or to a random ``share`` of the calls.
    ``seen`` counts all matching calls, and ``met`` counts the calls to which the fault was applied.
    """

    operation: str
    fault: Fault
    first: int | None = None
    every: int = 1
    share: float | None = None
    caller: str | None = None
    when: Callable[[Call], bool] = lambda _call: True
    seed: int = 1
    met: int = field(default=0, init=False)
    seen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()

    def meets(self, call: Call) -> bool:
        """Returns whether the fault applies to this call, and counts the call."""
        if not re.fullmatch(self.operation, call.name) or self.caller not in (None, call.caller) or not self.when(call):
            return False
        with self._lock:
            self.seen += 1
            if self.first is not None and self.met >= self.first:
                return False
            if self.seen % self.every or (self.share is not None and self._random.random() >= self.share):
                return False
            self.met += 1
            return True


class Wire(ThreadingMixIn, TCPServer):
    """The proxy server on 127.0.0.1.

    ``callers`` maps each access key to the name of the caller that uses it.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self, port: int, target_port: int) -> None:
        self.target_port = target_port
        self.callers: dict[str, str] = {}
        self.rules: list[Rule] = []
        self.errors: list[BaseException | None] = []
        super().__init__(("127.0.0.1", port), _Connection)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Records errors in test code, but ignores connection errors, because clients may disconnect at any time."""
        error = sys.exception()
        if not isinstance(error, (Cut, ConnectionError, TimeoutError, HTTPException)):
            self.errors.append(error)

    @contextmanager
    def fault(self, operation: str, fault: Fault, **options: Any) -> Iterator[Rule]:
        """Applies a fault to calls while the ``with`` block runs. ``options`` are fields of ``Rule``.

        When the ``with`` block ends, the method waits until the fault has been applied to enough calls. A test whose
        fault never occurs would prove nothing.
        """
        rule = Rule(operation, fault, **options)
        self.rules.append(rule)
        try:
            yield rule
            wait_for(lambda: rule.met >= (rule.first or 1), f"enough calls of {operation} for the fault")
        finally:
            self.rules.remove(rule)
        errors, self.errors = self.errors, []
        assert not errors, errors


class _Connection(StreamRequestHandler):
    """A client connection that can carry several requests."""

    server: Wire
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while self._handle_request():
            pass

    def _handle_request(self) -> bool:
        line = self.rfile.readline(CHUNK)
        if not line:
            return False
        method, path, _version = line.decode("latin-1").split()
        headers = parse_headers(self.rfile)
        if headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body: Iterable[bytes] = _body(self.rfile, headers)
        service = service_of(headers, path)
        content = b""
        if service != "s3":
            content = b"".join(body)
            body = [content]
        name = operation_name(service, method, path, headers, content)
        attempt = re.search(r"attempt=(\d+)", headers.get("amz-sdk-request", ""))
        port = self.client_address[1]
        call = Call(name, self._caller(headers), path, content, port, int(attempt[1]) if attempt else 1)
        sent = False

        def send() -> Reply:
            nonlocal sent
            sent = True
            return _forward(self.server.target_port, method, path, headers, body)

        def send_changed(body: bytes) -> bytes:
            changed = _signed_headers(self.server.target_port, path, headers, service, body)
            reply = _forward(self.server.target_port, method, path, changed, [body])
            try:
                return b"".join(reply.body)
            finally:
                reply.close()

        rule = next((rule for rule in self.server.rules if rule.meets(call)), None)
        reply = rule.fault(Exchange(call, send, send_changed)) if rule else send()
        if not sent:
            # A client does not read the response until it has sent the whole request.
            for _ in body:
                pass
        try:
            self._answer(method, reply)
        finally:
            reply.close()
        return headers.get("Connection", "").lower() != "close"

    def _caller(self, headers: Message) -> str:
        if "by-states" in headers.get("User-Agent", ""):
            return "states"
        key = re.search(r"Credential=([^/]+)/", headers.get("Authorization", ""))
        return self.server.callers.get(key[1], "api") if key else "nobody"

    def _answer(self, method: str, reply: Reply) -> None:
        lines = [f"{name}: {value}" for name, value in reply.headers if name.lower() != "connection"]
        head = f"HTTP/1.1 {reply.status} \r\n" + "".join(f"{each}\r\n" for each in lines) + "\r\n"
        self.wfile.write(head.encode("latin-1"))
        chunked = any(name.lower() == "transfer-encoding" for name, _ in reply.headers)
        if method == "HEAD" or reply.status in (204, 304):
            return
        for part in reply.body:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")


def _body(file: BinaryIO, headers: Message) -> Iterator[bytes]:
    """Yields the body of a request in parts."""
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        while size := int(file.readline().split(b";")[0], 16):
            yield file.read(size)
            file.readline()
        while file.readline().strip():
            pass
        return
    left = int(headers.get("Content-Length", 0))
    while left:
        part = file.read(min(left, CHUNK))
        if not part:
            raise Cut
        left -= len(part)
        yield part


def _forward(port: int, method: str, path: str, headers: Message, body: Iterable[bytes]) -> Reply:
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        chunked = headers.get("Transfer-Encoding", "").lower() == "chunked"
        for name, value in headers.items():
            if name.lower() not in ("expect", "connection"):
                connection.putheader(name, value)
        connection.endheaders()
        for part in body:
            if part:
                connection.send(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
        if chunked:
            connection.send(b"0\r\n\r\n")
        answer = connection.getresponse()
        received = answer.getheaders()
        if {name.lower() for name, _ in received} & {"content-length", "transfer-encoding"}:
            return Reply(answer.status, received, iter(lambda: answer.read(CHUNK), b""), connection.close)
        whole = answer.read()
    except BaseException:
        connection.close()
        raise
    connection.close()
    return Reply(answer.status, [*received, ("Content-Length", str(len(whole)))], [whole])


def _signed_headers(port: int, path: str, headers: Message, service: str, body: bytes) -> Message:
    kept = {name: headers[name] for name in ("Content-Type", "X-Amz-Target")}
    request = AWSRequest("POST", f"http://127.0.0.1:{port}{path}", data=body, headers=kept)
    SigV4Auth(Credentials(*CREDENTIALS.values()), service, REGION).add_auth(request)
    signed = Message()
    for name, value in {**request.headers, "Host": f"127.0.0.1:{port}", "Content-Length": str(len(body))}.items():
        signed[name] = value
    return signed
