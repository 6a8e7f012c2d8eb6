"""A proxy in front of MySQL that can refuse, delay or cut connections."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.system.waiting import wait_for

CHUNK = 16_384


@dataclass
class Trap:
    """A trap cuts a connection after the client has sent ``sent`` bytes, sent ``word``, or received ``got`` bytes.

    The trap cuts at most ``times`` connections, and calls ``work`` before each cut. If ``answered`` is true, the trap
    first waits for the response from MySQL and drops it.
    """

    sent: float = math.inf
    word: bytes | None = None
    got: float = math.inf
    times: int = 1
    work: Callable[[], object] = lambda: None
    answered: bool = False
    sprung: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def springs(self) -> bool:
        """Returns whether to cut the connection, and counts each cut."""
        with self._lock:
            if self.sprung >= self.times:
                return False
            self.sprung += 1
            return True


class Gate:
    """Listens on ``port`` of 127.0.0.1, and forwards all connections to ``target_port``."""

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self.target_port = target_port
        self.traps: list[Trap] = []
        self.delay = 0.0
        self.accepted = 0
        self.refused = 0
        self._refusing: float = 0
        self._pairs: set[_Pair] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cuts every open connection."""
        for each in list(self._pairs):
            each.end()

    @contextmanager
    def shut(self, times: float = math.inf) -> Iterator[None]:
        """Cuts all connections. Refuses up to ``times`` new connections while the ``with`` block runs."""
        expected = self.refused + (1 if times == math.inf else times)
        self._refusing = times
        self.cut()
        try:
            yield
            wait_for(lambda: self.refused >= expected, "enough refused connections")
        finally:
            self._refusing = 0

    @contextmanager
    def slowed(self, seconds: float) -> Iterator[None]:
        """Delays each part of a response by ``seconds`` while the ``with`` block runs."""
        before, self.delay = self.accepted, seconds
        try:
            yield
            wait_for(lambda: self.accepted > before, "a slow connection")
        finally:
            self.delay = 0.0

    @contextmanager
    def trap(self, trap: Trap) -> Iterator[Trap]:
        """Keeps a trap active while the ``with`` block runs.

        At the end, the method waits until the trap has cut ``times`` connections.
        """
        self.traps.append(trap)
        try:
            yield trap
            wait_for(lambda: trap.sprung >= trap.times, "enough connections for the trap")
        finally:
            self.traps.remove(trap)

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing > 0:
                self._refusing -= 1
                self.refused += 1
                _reset(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
            except OSError:
                _reset(client)
                continue
            self.accepted += 1
            pair = _Pair(self, client, server)
            self._pairs.add(pair)
            threading.Thread(target=self._serve, args=(pair,), daemon=True).start()

    def _serve(self, pair: _Pair) -> None:
        pair.run()
        self._pairs.discard(pair)


class _Pair:
    """A client's connection and the matching connection to MySQL."""

    def __init__(self, gate: Gate, client: socket.socket, server: socket.socket) -> None:
        self.gate = gate
        self.client = client
        self.server = server
        self.dropping = threading.Event()
        self.answered = threading.Event()
        for each in (client, server):
            each.settimeout(None)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self) -> None:
        down = threading.Thread(target=self._copy_down, daemon=True)
        down.start()
        with suppress(OSError):
            self._copy_up()
        self.end()
        down.join()
        self.client.close()
        self.server.close()

    def end(self) -> None:
        for each in (self.client, self.server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _copy_up(self) -> None:
        """Copies data from the client to MySQL."""
        sent, tail = 0, b""
        while part := self.client.recv(CHUNK):
            sent += len(part)
            tail = tail[-64:] + part
            for trap in self.gate.traps:
                if (sent >= trap.sent or (trap.word and trap.word in tail)) and trap.springs():
                    if trap.answered:
                        self.dropping.set()
                        self.server.sendall(part)
                        self.answered.wait(10)
                    trap.work()
                    return
            self.server.sendall(part)

    def _copy_down(self) -> None:
        """Copies data from MySQL to the client."""
        got = 0
        with suppress(OSError):
            while part := self.server.recv(CHUNK):
                if self.dropping.is_set():
                    self.answered.set()
                    continue
                if self.gate.delay:
                    time.sleep(self.gate.delay)
                got += len(part)
                for trap in self.gate.traps:
                    if got >= trap.got and trap.springs():
                        self.client.sendall(part[: len(part) // 2])
                        trap.work()
                        return self.end()
                self.client.sendall(part)
        return self.end()


def _reset(connection: socket.socket) -> None:
    """Resets the connection, which makes the port look closed to the client."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
