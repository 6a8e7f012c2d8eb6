"""Patches for the processes that run Lambda functions."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

FORK_SERVER = Path(__file__).parent / "runtime" / "fork_server.py"


def forked_processes() -> None:
    """AWS starts a function's process from an image in which Python is ready.

    MiniStack starts Python and imports boto3 for each process, which takes 0.4 s of processor time. This patch forks
    each process from a server that has imported boto3 and read its descriptions of the most used services. A function
    that packages its own botocore gets a new Python.
    """
    from ministack.core import lambda_runtime

    connection, theirs = socket.socketpair()
    command = [sys.executable, "-P", str(FORK_SERVER), str(theirs.fileno())]
    subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    lock = threading.Lock()

    def fork_or_start(command: list[str], *, cwd: str, env: dict[str, str], **options: Any) -> Any:
        if command[0] == sys.executable and not Path(cwd, "botocore").exists():
            return _ForkedProcess(connection, lock, [command[1], cwd, env])
        return subprocess.Popen(command, cwd=cwd, env=env, **options)

    lambda_runtime.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": fork_or_start})


class _ForkedProcess:
    """A process of the fork server, with the part of the interface of ``subprocess.Popen`` that MiniStack uses."""

    def __init__(self, connection: socket.socket, lock: threading.Lock, request: list[Any]) -> None:
        (request_in, request_out), (stdin_in, stdin_out) = os.pipe(), os.pipe()
        (stdout_in, stdout_out), (stderr_in, stderr_out), (self._sentinel, sentinel) = (os.pipe() for _ in range(3))
        theirs = [request_in, stdin_in, stdout_out, stderr_out, sentinel]
        with lock:
            socket.send_fds(connection, [b"x"], theirs)
            self.pid = int.from_bytes(connection.recv(4), "big")
        for pipe in theirs:
            os.close(pipe)
        with os.fdopen(request_out, "w", encoding="utf-8") as file:
            json.dump(request, file)
        self.stdin = os.fdopen(stdin_out, "w", buffering=1, encoding="utf-8")
        self.stdout = os.fdopen(stdout_in, encoding="utf-8", errors="replace")
        self.stderr = os.fdopen(stderr_in, encoding="utf-8", errors="replace")

    def __del__(self) -> None:
        os.close(self._sentinel)

    def poll(self) -> int | None:
        """Returns None while the process runs. Afterwards it returns 0, because MiniStack ignores the exit code."""
        return 0 if self._ends_within(0) else None

    def wait(self, timeout: float = 60) -> int:
        if not self._ends_within(timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return 0

    def _ends_within(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._sentinel)
        return bool(poll.poll(seconds * 1000))

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.poll() is None:
            # The process may end at this moment.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
