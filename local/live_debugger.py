"""Makes breakpoints in functions work under ``make dev``. Each function's process imports this file as
``live_debugger``.

While a debugger holds a function's process, a file in the folder ``held`` makes MiniStack suspend time-outs. The code
that suspends time-outs is in ``local/ministack/functions.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import pdb
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("LIVE_FOLDER", ""))
# This file contains the port of the terminal, the function that a debugger can attach to, and the debugger's port.
SETTINGS = FOLDER / "debugger.json"
# A function may run for a day, because the time spent at a breakpoint counts toward its time limit.
SECONDS = 24 * 3600
LISTEN_TRIES = 20


def prepare(function: str) -> None:
    """Extends the deadline of ``function``, and lets a debugger attach if the settings name ``function``."""
    os.environ["_LAMBDA_TIMEOUT"] = str(SECONDS)
    settings = _settings()
    if settings.get("function") and function.endswith(f"-{settings['function']}"):
        # debugpy reads this environment variable on import. Breakpoints in the checkout then apply to the running
        # copies of the code.
        os.environ["PATHS_FROM_ECLIPSE_TO_PYTHON"] = json.dumps([[settings["root"], os.environ["LIVE_CODE"]]])
        os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
        import debugpy

        # The function's previous process may still use the port for a moment.
        for _ in range(LISTEN_TRIES):
            try:
                debugpy.listen(("127.0.0.1", settings["port"]))
            except RuntimeError:
                time.sleep(0.1)
            else:
                threading.Thread(target=_hold_while_attached, daemon=True).start()
                break


def hold(*_arguments: Any, **_options: Any) -> None:
    """Opens pdb in the terminal of ``make dev``. If ``make dev`` is not running, the function continues."""
    frame = sys._getframe(1)
    try:
        connection = socket.create_connection(("127.0.0.1", _settings()["terminal"]), timeout=5)
    except (OSError, KeyError):
        print("breakpoint() did nothing, because `make dev` is not running", file=sys.stderr)
        return
    connection.settimeout(None)
    RemotePdb(connection).set_trace(frame)


class RemotePdb(pdb.Pdb):
    """A pdb session over a socket. The socket is closed when the function continues and no breakpoints are left."""

    def __init__(self, connection: socket.socket) -> None:
        stream = connection.makefile("rw")
        super().__init__(stdin=stream, stdout=stream, nosigint=True)
        self.use_rawinput = False
        self._held = contextlib.ExitStack()
        self._held.enter_context(held())
        self._held.enter_context(connection)
        self._held.enter_context(contextlib.closing(stream))

    def set_continue(self) -> None:
        super().set_continue()
        if not self.breaks:
            self._held.close()

    def set_quit(self) -> None:
        super().set_quit()
        self._held.close()

    def do_EOF(self, argument: str) -> bool | None:  # noqa: N802 - pdb's own name
        """Lets the function continue after `make dev` has ended."""
        return self.do_continue(argument)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Suspends time-outs while a debugger holds this process."""
    file = FOLDER / "held" / str(os.getpid())
    file.parent.mkdir(exist_ok=True)
    file.touch()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _hold_while_attached() -> None:
    """Suspends time-outs while a debugger is attached. The attached debugger also handles ``breakpoint()``."""
    import debugpy

    hook, sys.breakpointhook = sys.breakpointhook, hold
    while True:
        debugpy.wait_for_client()
        with held():
            sys.breakpointhook = hook
            while debugpy.is_client_connected():
                time.sleep(0.2)
            sys.breakpointhook = hold


def _settings() -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads(SETTINGS.read_text())
    except FileNotFoundError:
        return {}
    return settings
