"""Forks the processes that run Lambda functions. All of them share one import of boto3, and what it has read.

``forked_processes`` in ``local/ministack/processes.py`` starts this server. It sends five pipes for each process: the
request, standard input, output and error, and a pipe that stays open until the process ends. The server responds with
the process id.
"""

import contextlib
import functools
import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path

# The modules that Lambda's runtime provides. Without this, botocore imports them for a function's first client.
import boto3
import botocore.client
import botocore.handlers
import botocore.httpsession
import botocore.loaders
import botocore.signers

PIPES = 5
# Most functions use these services.
SERVICES = ("dynamodb", "s3", "sns", "sqs", "stepfunctions")


def read_once() -> None:
    """Reads botocore's descriptions of ``SERVICES``. Forked processes share them."""
    # The server must not read the user's configuration or credentials. Each forked process gets its own environment.
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    loader = botocore.loaders.JSONFileLoader
    load = functools.cache(functools.partial(loader.load_file, loader()))
    loader.load_file = lambda _, path: load(path)  # type: ignore[assignment, method-assign]
    # The keys stop botocore from looking for credentials. Forked processes must not inherit a default session.
    session = boto3.Session("-", "-", region_name="us-east-1")
    for service in SERVICES:
        session.client(service)  # type: ignore[call-overload]


def main(connection: socket.socket) -> None:
    read_once()
    # The kernel removes processes that have ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while pipes := socket.recv_fds(connection, 1, PIPES)[1]:
        process = os.fork()
        if not process:
            connection.close()
            run(*pipes)
            return
        for pipe in pipes:
            os.close(pipe)
        connection.sendall(process.to_bytes(4, "big"))


def run(request: int, stdin: int, stdout: int, stderr: int, _sentinel: int) -> None:
    """Runs the script that the request names, like a new Python in the request's folder and environment."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with os.fdopen(request, encoding="utf-8") as file:
        script, folder, variables = json.load(file)
    for descriptor, pipe in enumerate((stdin, stdout, stderr)):
        os.dup2(pipe, descriptor)
        os.close(pipe)
    sys.stdin, sys.stdout = os.fdopen(0, encoding="utf-8"), os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    # Linux shows this name in process lists.
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(variables["AWS_LAMBDA_FUNCTION_NAME"].rpartition("-")[2])
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
