"""The wire between everybody and the local AWS: a proxy that knows each call, and does to it what a test asks.

It hands bytes on as they come, both ways, with the headers as the client signed them. Of each call it knows the
operation, such as ``sns:Publish``, and the caller: a function by its name, ``states`` for a state machine, or ``api``.
"""

from __future__ import annotations

import json
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPConnection, HTTPException, parse_headers
from socketserver import StreamRequestHandler, TCPServer, ThreadingMixIn
from typing import Any, BinaryIO
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.cloud import CREDENTIALS, REGION
from tests.system.waiting import wait_for

CHUNK = 65_536
SECONDS = 120


@dataclass(frozen=True)
class Call:
    """One request. ``body`` is empty for S3, whose bodies stream; ``port`` is the client's own, and says who it is.

    ``attempt`` is 1 for the first one of a call of boto3's, and 2 where it tries again.
    """

    name: str
    caller: str
    path: str
    body: bytes
    port: int
    attempt: int = 1

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __contains__(self, text: str) -> bool:
        """Whether ``text`` is in the path or the body."""
        return text in self.path or text.encode() in self.body


@dataclass
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: Iterable[bytes]
    close: Callable[[], None] = lambda: None


class Cut(Exception):
    """The connection ends here, without another word."""


class Exchange:
    """A call under way: what a fault may do with it."""

    def __init__(self, call: Call, send: Callable[[], Reply], send_changed: Callable[[bytes], bytes]) -> None:
        self.call = call
        self._send = send
        self._send_changed = send_changed

    def forward(self) -> Reply:
        """Let it take effect, and see what AWS answers."""
        return self._send()

    def forward_whole(self) -> tuple[Reply, bytes]:
        """The same, with all of the answer's body."""
        reply = self.forward()
        body = b"".join(reply.body)
        reply.close()
        return reply, body

    def forward_changed(self, body: Any) -> bytes:
        """Let another body take effect in its place, and return the answer's.

        The caller's signature is not for it, so it is signed by the engineer's own identity.
        """
        return self._send_changed(json.dumps(body).encode())


Fault = Callable[[Exchange], Reply]


@dataclass
class Rule:
    """``fault`` meets the calls of ``operation``: all, or the ``first`` ones, every ``every``th, a ``share`` of them.

    ``met`` counts the calls that it met, and ``seen`` those that it might have.
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
    """The proxy, on 127.0.0.1. ``callers`` maps access keys to the names of those who sign with them."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self, port: int, behind: int) -> None:
        self.behind = behind
        self.callers: dict[str, str] = {}
        self.rules: list[Rule] = []
        self.mistakes: list[BaseException | None] = []
        self.calls: Counter[tuple[str, str]] = Counter()
        self._counting = threading.Lock()
        super().__init__(("127.0.0.1", port), _Connection)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is daily weather, and anything else a test's own mistake."""
        error = sys.exception()
        if not isinstance(error, (Cut, ConnectionError, TimeoutError, HTTPException)):
            self.mistakes.append(error)

    @contextmanager
    def fault(self, operation: str, fault: Fault, **how: Any) -> Iterator[Rule]:
        """For a while ``fault`` meets the calls of ``operation``, a regular expression; ``how`` is of ``Rule``.

        At the end it waits until the fault has met what it should, for one that met nothing has shown nothing.
        """
        rule = Rule(operation, fault, **how)
        self.rules.append(rule)
        try:
            yield rule
            wait_for(lambda: rule.met >= (rule.first or 1), f"enough calls of {operation} for the fault to meet")
        finally:
            self.rules.remove(rule)
        mistakes, self.mistakes = self.mistakes, []
        assert not mistakes, mistakes

    def count(self, call: Call) -> None:
        with self._counting:
            self.calls[call.name, call.caller] += 1

    def attempts(self, operation: str, caller: str | None = None) -> int:
        """How many calls of ``operation`` have come, from ``caller`` or from all."""
        with self._counting:
            return sum(n for (name, who), n in self.calls.items() if name == operation and caller in (None, who))


class _Connection(StreamRequestHandler):
    """One client's connection, with one request after the other."""

    server: Wire
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while self._one():
            pass

    def _one(self) -> bool:
        line = self.rfile.readline(CHUNK)
        if not line:
            return False
        method, path, _version = line.decode("latin-1").split()
        headers = parse_headers(self.rfile)
        if headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body: Iterable[bytes] = _body(self.rfile, headers)
        service = _service(headers, path)
        known = b""
        if service != "s3":
            known = b"".join(body)
            body = [known]
        name = _operation(service, method, path, headers, known)
        attempt = re.search(r"attempt=(\d+)", headers.get("amz-sdk-request", ""))
        call = Call(name, self._caller(headers), path, known, self.client_address[1], int(attempt[1]) if attempt else 1)
        self.server.count(call)
        sent = False

        def send() -> Reply:
            nonlocal sent
            sent = True
            return _forward(self.server.behind, method, path, headers, body)

        def send_changed(body: bytes) -> bytes:
            changed = _signed(self.server.behind, path, headers, service, body)
            reply = _forward(self.server.behind, method, path, changed, [body])
            try:
                return b"".join(reply.body)
            finally:
                reply.close()

        rule = next((rule for rule in self.server.rules if rule.meets(call)), None)
        reply = rule.fault(Exchange(call, send, send_changed)) if rule else send()
        if not sent:
            for _ in body:  # the client is not heard before it has said all
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
    """The bytes of a request's body, part by part."""
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
        sent = answer.getheaders()
        if {name.lower() for name, _ in sent} & {"content-length", "transfer-encoding"}:
            return Reply(answer.status, sent, iter(lambda: answer.read(CHUNK), b""), connection.close)
        whole = answer.read()
    except BaseException:
        connection.close()
        raise
    connection.close()
    return Reply(answer.status, [*sent, ("Content-Length", str(len(whole)))], [whole])


def _signed(port: int, path: str, headers: Message, service: str, body: bytes) -> Message:
    kept = {name: headers[name] for name in ("Content-Type", "X-Amz-Target")}
    request = AWSRequest("POST", f"http://127.0.0.1:{port}{path}", data=body, headers=kept)
    SigV4Auth(Credentials(*CREDENTIALS.values()), service, REGION).add_auth(request)
    signed = Message()
    for name, value in {**request.headers, "Host": f"127.0.0.1:{port}", "Content-Length": str(len(body))}.items():
        signed[name] = value
    return signed


# --- what a call is ---------------------------------------------------------------------------------------------------


def _service(headers: Message, path: str) -> str:
    """As in the scope that the client signed for; nobody's request is one for an object, or for the tokens' keys."""
    if path.endswith("/.well-known/jwks.json"):
        return "cognito-idp"
    scope = headers.get("Authorization", "") + unquote(urlsplit(path).query)
    found = re.search(r"(?:Credential=[^/]+)/\d{8}/[^/]+/([a-z0-9-]+)/aws4_request", scope)
    service = found[1] if found else "s3"
    return {"monitoring": "cloudwatch"}.get(service, service)


def _operation(service: str, method: str, path: str, headers: Message, body: bytes) -> str:
    if target := headers.get("X-Amz-Target"):
        return f"{service}:{target.rpartition('.')[2]}"
    if rpc := re.search(r"/operation/(\w+)$", path):
        return f"{service}:{rpc[1]}"
    if service == "lambda":
        return "lambda:Invoke" if path.split("?")[0].endswith("/invocations") else f"lambda:{method}"
    if service == "s3":
        return f"s3:{_s3(method, path)}"
    action = parse_qs(body.decode("latin-1")).get("Action", [""])[0]
    return f"{service}:{action or method}"


def _s3(method: str, path: str) -> str:
    parts = urlsplit(path)
    bucket, _, key = parts.path.strip("/").partition("/")
    query = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if not bucket:
        return "ListBuckets"
    if key:
        if "uploads" in query:
            return "CreateMultipartUpload"
        if "uploadId" in query:
            multipart = {"PUT": "UploadPart", "POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload"}
            return multipart.get(method, "ListParts")
        return f"{method.title()}Object"
    if method == "GET" and "list-type" in query:
        return "ListObjectsV2"
    return f"{method.title()}Bucket"


# --- what may happen to it --------------------------------------------------------------------------------------------

# What each service says when it throttles, by its own model: status and code.
THROTTLED = {
    "dynamodb": (400, "ThrottlingException"),
    "sqs": (400, "RequestThrottled"),
    "sns": (429, "Throttled"),
    "states": (400, "ThrottlingException"),
    "cloudwatch": (400, "ThrottlingException"),
    "lambda": (429, "TooManyRequestsException"),
    "s3": (503, "SlowDown"),
    "secretsmanager": (400, "ThrottlingException"),
}
FAILED = {
    "dynamodb": "InternalServerError",
    "lambda": "ServiceException",
    "sqs": "InternalFailure",
    "states": "InternalFailure",
}


def throttled(exchange: Exchange) -> Reply:
    status, code = THROTTLED[_of(exchange)]
    return error(exchange.call, status, code, "Rate exceeded")


def failed(exchange: Exchange) -> Reply:
    """A 500 before anything was done."""
    return error(exchange.call, 500, FAILED.get(_of(exchange), "InternalError"), "We encountered an internal error")


def unavailable(exchange: Exchange) -> Reply:
    return error(exchange.call, 503, "ServiceUnavailable", "Service is temporarily unavailable")


def denied(exchange: Exchange) -> Reply:
    """What no retry helps against."""
    return error(exchange.call, 403, "AccessDenied", "Access Denied")


def invalid(exchange: Exchange) -> Reply:
    """What AWS says to a request that it will never take."""
    return error(exchange.call, 400, "InvalidParameter", "Invalid parameter: Message")


def cut_before(exchange: Exchange) -> Reply:
    """The connection goes away before AWS has heard anything."""
    raise Cut


def cut_after(exchange: Exchange) -> Reply:
    """AWS does it, and the answer never arrives."""
    exchange.forward_whole()
    raise Cut


def failed_after(exchange: Exchange) -> Reply:
    """AWS does it, and says that it did not."""
    exchange.forward_whole()
    return failed(exchange)


def truncated(exchange: Exchange) -> Reply:
    """The first half of the answer arrives."""
    reply, body = exchange.forward_whole()

    def half() -> Iterator[bytes]:
        yield body[: len(body) // 2]
        raise Cut

    return Reply(reply.status, reply.headers, half())


def slow(seconds: float) -> Fault:
    def fault(exchange: Exchange) -> Reply:
        time.sleep(seconds)
        return exchange.forward()

    return fault


def late(seconds: float) -> Fault:
    """It takes effect, and the answer does not come before nobody waits for it any more."""

    def fault(exchange: Exchange) -> Reply:
        exchange.forward_whole()
        time.sleep(seconds)
        raise Cut

    return fault


def first_of(work: Callable[[Call], None], then: Fault = Exchange.forward) -> Fault:
    """``work``, such as a killing, and ``then`` what comes of the call."""

    def fault(exchange: Exchange) -> Reply:
        work(exchange.call)
        return then(exchange)

    return fault


def after(work: Callable[[Call], None]) -> Fault:
    """The call takes effect, then comes ``work``, and no answer."""

    def fault(exchange: Exchange) -> Reply:
        exchange.forward_whole()
        work(exchange.call)
        raise Cut

    return fault


def refusing(which: Callable[[int, Any], bool] = lambda index, _item: index % 2 == 0) -> Fault:
    """Of a batch some items are refused, the others go through, and AWS's answer, a 200, says which is which.

    ``which`` gets an item's place and content.
    """

    def fault(exchange: Exchange) -> Reply:
        return PARTIAL[exchange.call.name](exchange, which)

    return fault


Which = Callable[[int, Any], bool]


def _some_statements(exchange: Exchange, which: Which) -> Reply:
    statements = exchange.call.json["Statements"]
    answers = _answers(exchange, "Statements", statements, which, {"Responses": []})["Responses"]
    refused = {"Error": {"Code": "ThrottlingError", "Message": "Throughput exceeds the current capacity"}}
    left = iter(answers)
    return _json({"Responses": [refused if which(*each) else next(left) for each in enumerate(statements)]})


def _some_keys(exchange: Exchange, which: Which) -> Reply:
    [(table, wanted)] = exchange.call.json["RequestItems"].items()
    keys = wanted["Keys"]
    held = [key for index, key in enumerate(keys) if which(index, key)]
    given = [key for index, key in enumerate(keys) if not which(index, key)]
    answer: dict[str, Any] = {"Responses": {table: []}}
    if given:
        answer = json.loads(exchange.forward_changed({"RequestItems": {table: {**wanted, "Keys": given}}}))
    return _json({**answer, "UnprocessedKeys": {table: {**wanted, "Keys": held}} if held else {}})


def _some_entries(exchange: Exchange, which: Which) -> Reply:
    entries = exchange.call.json["Entries"]
    answer = _answers(exchange, "Entries", entries, which, {"Successful": []})
    failed = [
        {"Id": entry["Id"], "SenderFault": False, "Code": "InternalError", "Message": "try again"}
        for index, entry in enumerate(entries)
        if which(index, entry)
    ]
    return _json({**answer, "Failed": answer.get("Failed", []) + failed})


def _answers(exchange: Exchange, name: str, items: list[Any], which: Which, nothing: dict[str, Any]) -> dict[str, Any]:
    """What AWS says to those of the batch's ``items`` that go through."""
    given = [item for index, item in enumerate(items) if not which(index, item)]
    return json.loads(exchange.forward_changed({**exchange.call.json, name: given})) if given else nothing


PARTIAL = {
    "dynamodb:BatchExecuteStatement": _some_statements,
    "dynamodb:BatchGetItem": _some_keys,
    "sqs:SendMessageBatch": _some_entries,
    "sqs:ChangeMessageVisibilityBatch": _some_entries,
}


def error(call: Call, status: int, code: str, message: str) -> Reply:
    """An error in the shape of the call's service."""
    service = call.name.partition(":")[0]
    if "/operation/" in call.path:
        body = _cbor({"__type": code, "message": message})
        headers = [("Content-Type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")]
    elif service in ("s3", "sns", "sts", "iam"):
        inner = f"<Code>{code}</Code><Message>{message}</Message>"
        if service != "s3":
            inner = f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error><RequestId>1</RequestId></ErrorResponse>"
        body = (inner if service != "s3" else f"<Error>{inner}<RequestId>1</RequestId></Error>").encode()
        headers = [("Content-Type", "application/xml")]
    else:
        body = json.dumps({"__type": code, "message": message}).encode()
        headers = [("Content-Type", "application/x-amz-json-1.0"), ("x-amzn-ErrorType", code)]
    return Reply(status, [*headers, ("Content-Length", str(len(body)))], [body])


def _json(content: Any) -> Reply:
    body = json.dumps(content).encode()
    return Reply(200, [("Content-Type", "application/x-amz-json-1.0"), ("Content-Length", str(len(body)))], [body])


def _of(exchange: Exchange) -> str:
    return exchange.call.name.partition(":")[0]


def _cbor(texts: dict[str, str]) -> bytes:
    """A map of short texts in CBOR."""

    def text(value: str) -> bytes:
        encoded = value.encode()
        return bytes([0x78, len(encoded)]) + encoded

    return bytes([0xA0 | len(texts)]) + b"".join(text(name) + text(value) for name, value in texts.items())
