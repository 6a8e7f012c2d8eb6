"""Runs ``make dev`` on a separate stack with an editable copy of the code.

Tests read the command's output and type into its terminal.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from local import dev
from tests.system.stack import PORTS, WiredStack, copied
from tests.system.system import ROOT, System
from tests.system.waiting import wait_for

SOURCES = ("app.py", "chalicelib", "infra", "requirements.txt", ".chalice")


class Terminal:
    """A running ``make dev`` process. ``code`` is the folder that ``make dev`` watches for saved edits."""

    def __init__(self, stack: WiredStack, code: Path, function: str, debug_port: int) -> None:
        ports = [str(getattr(stack, name)) for name in PORTS]
        command = [sys.executable, "-m", "tests.system.dev", str(stack.folder), *ports, str(code), function]
        self.code = code
        self.system = System(stack, stack.variables())
        self._process = subprocess.Popen(
            [*command, str(debug_port)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        while part := os.read(self._process.stdout.fileno(), 65536):
            self._text += part.decode()

    def edit(self, file: str, old: str, new: str, then: str = "live after") -> str:
        """Replaces ``old`` with ``new`` in a file.

        Waits until the output matches ``then``, and returns the output since the edit.
        """
        start = len(self._text)
        path = self.code / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old} is not once in {file}"
        path.write_text(text.replace(old, new))
        return self.shows(then, start)

    def shows(self, pattern: str, start: int = 0) -> str:
        """Waits until the output after position ``start`` matches ``pattern``, and returns that part of the output."""
        # If the wait times out, the assertion below shows the whole output.
        with suppress(AssertionError):
            wait_for(lambda: re.search(pattern, self._text[start:]) or self._process.poll() is not None, pattern)
        assert re.search(pattern, self._text[start:]), f"no {pattern} in {self._text[start:]}"
        return self._text[start:]

    @property
    def length(self) -> int:
        return len(self._text)

    def type(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def end(self) -> int:
        """Interrupts the process as Ctrl-C does, and returns the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(60)

    def kill(self) -> None:
        """Kills the process if it is still running."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()


class Debugger:
    """A client of the Debug Adapter Protocol that sets one breakpoint, as an editor does."""

    def __init__(self, port: int, file: Path, line: int) -> None:
        with socket.create_connection(("127.0.0.1", port), 60) as connection:
            self._stream = connection.makefile("rwb")
        self._ask("initialize", adapterID="tests")
        self._ask("attach", justMyCode=True)
        self._wait("initialized")
        self._ask("setBreakpoints", source={"path": str(file)}, breakpoints=[{"line": line}])
        self._ask("configurationDone")

    def stopped(self) -> None:
        """Waits until the function stops at the breakpoint."""
        self._thread = self._wait("stopped")["threadId"]

    def go_on(self) -> None:
        self._ask("continue", threadId=self._thread)
        self._wait("continued")

    def close(self) -> None:
        self._stream.close()

    def _ask(self, command: str, **arguments: Any) -> None:
        request = json.dumps({"seq": 1, "type": "request", "command": command, "arguments": arguments}).encode()
        self._stream.write(b"Content-Length: %d\r\n\r\n%s" % (len(request), request))
        self._stream.flush()

    def _wait(self, event: str) -> dict[str, Any]:
        while True:
            [length] = re.findall(rb"\d+", self._stream.readline() + self._stream.readline())
            message = json.loads(self._stream.read(int(length)))
            if message.get("event") == event:
                return dict(message.get("body") or {})


@contextmanager
def terminal(folder: Path, function: str, debug_port: int) -> Iterator[Terminal]:
    """Starts a stack and ``make dev`` in ``folder``, and stops both at the end."""
    code = folder / "code"
    code.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, code / name)
    stack = copied(folder / "stack", wired=False)
    try:
        stack.resume()
        session = Terminal(stack, code, function, debug_port)
        try:
            session.shows("breakpoint\\(\\) opens pdb")
            yield session
        finally:
            session.kill()
    finally:
        stack.stop(lambda _: None)


if __name__ == "__main__":
    # A shell starts programs in the background with SIGINT ignored, and so perhaps the whole test run.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder, *ports, code, function, debug_port = sys.argv[1:]
    stack = WiredStack(Path(folder), **dict(zip(PORTS, map(int, ports), strict=True)))
    dev.run(stack, function, int(debug_port), Path(code))
