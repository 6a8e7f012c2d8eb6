"""Serves the REST API for ``make dev`` on a port that stays open while the code changes.

``python -m local.live_api`` imports the requirements once and opens the port. For each version of the code, a forked
process imports the code and serves requests. The previous version's process finishes its requests and exits.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from chalice.cli.factory import CLIFactory
from chalice.local import ThreadedHTTPServer, create_local_server

from infra.deploy import triggers
from local.trace_pages import Handler

# The requirements are imported once, before any process is forked.
REQUIREMENTS = ("boto3", "humanize", "jinja2", "jwt", "pymysql", "pythonjsonlogger.json")
# This time limit in seconds for open requests is longer than any request takes.
DRAIN_SECONDS = 30
ASK_SECONDS = 60


def ask(port: int, folder: Path) -> dict[str, str]:
    """Asks the API process that listens on the control port ``port`` to serve the code in ``folder``.

    Returns a mapping with either ``triggers``, a description of the triggers, or ``error``, the traceback of the
    import.
    """
    with socket.create_connection(("127.0.0.1", port), ASK_SECONDS) as connection, connection.makefile("rw") as stream:
        stream.write(f"{folder}\n")
        stream.flush()
        answer: dict[str, str] = json.loads(stream.readline())
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.live_api", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stage", required=True)
    parser.add_argument("--control", type=int, required=True, help="the port that receives the paths of code folders")
    arguments = parser.parse_args()
    for name in REQUIREMENTS:
        importlib.import_module(name)
    serving = None
    listener, control = (socket.create_server(("127.0.0.1", port)) for port in (arguments.port, arguments.control))
    # If two versions wait for the same connection, only one can accept it. The other must stop waiting.
    listener.settimeout(1)
    while True:
        connection, _ = control.accept()
        with connection, connection.makefile("rw") as stream:
            answer, process = _fork(stream.readline().strip(), arguments.stage, listener)
            if "error" not in answer:
                if serving:
                    os.kill(serving, signal.SIGTERM)
                serving = process
            stream.write(json.dumps(answer) + "\n")
        # Reaps the processes of earlier versions that have exited.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _fork(folder: str, stage: str, listener: socket.socket) -> tuple[dict[str, str], int]:
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        os.close(reader)
        _serve(folder, stage, listener, writer)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer: dict[str, str] = json.loads(stream.read() or '{"error": "the process ended while importing the code"}')
    return answer, process


class _Server(ThreadedHTTPServer):
    """A server on a port that all versions of the code share.

    The server can finish open requests before its process exits.
    """

    def __init__(self, listener: socket.socket, app: Any, config: Any) -> None:
        handler = functools.partial(Handler, app_object=app, config=config)
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.server_close()
        self.socket: socket.socket = listener
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._connections.discard(request)

    def drain(self) -> None:
        """Waits until all open requests are finished, and closes idle connections."""
        deadline = time.monotonic() + DRAIN_SECONDS
        for each in list(self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RD)
        while self._connections and time.monotonic() < deadline:
            time.sleep(0.02)


def _serve(folder: str, stage: str, listener: socket.socket, writer: int) -> NoReturn:
    """Imports the code, writes the result to the pipe, serves requests until SIGTERM, and exits."""
    answer, server = {}, None
    # As on AWS, the code must not be able to import other packages of the checkout, such as `infra`.
    sys.path[:] = [each for each in sys.path if each != os.environ["PYTHONPATH"]]
    try:
        factory = CLIFactory(folder, environ=os.environ)
        config = factory.create_config_obj(stage)
        app = factory.load_chalice_app(config.environment_variables)
        # Handlers import modules only when they are called, so importing app.py alone would not reveal all import
        # errors.
        for module in pkgutil.walk_packages([f"{folder}/chalicelib"], "chalicelib."):
            importlib.import_module(module.name)
        answer["triggers"] = triggers.describe(app)
        # Creating a local server also prepares the app for serving several requests at once.
        create_local_server(app, config, "127.0.0.1", 0).server.server_close()
        server = _Server(listener, app, config)
    except BaseException:  # noqa: BLE001
        # No exception may leave this function, not even SystemExit. Otherwise, the forked process would run the
        # parent's code.
        answer["error"] = traceback.format_exc()
    with os.fdopen(writer, "w") as stream:
        json.dump(answer, stream)
    if server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever(poll_interval=0.02)
        server.drain()
    os._exit(0)


if __name__ == "__main__":
    main()
