"""Patches for the processes that run Lambda functions."""

import multiprocessing
import os
import subprocess
import sys
import threading
import types
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

# Modules of Lambda's runtime that botocore otherwise imports when a function creates its first client.
RUNTIME_MODULES = ["boto3", "botocore.client", "botocore.handlers", "botocore.httpsession", "botocore.signers"]


def forked_processes() -> None:
    """AWS starts a function's process from an image in which Python is ready.

    MiniStack starts Python and imports boto3 for each process, which takes 0.4 s of processor time. This patch forks
    each process from a server that has imported boto3. A function that packages its own botocore gets a new Python.
    """
    from ministack.core import lambda_runtime

    # The main module contains `run_worker`. Without this entry, every process would load the main module again.
    multiprocessing.set_forkserver_preload(["__main__", *RUNTIME_MODULES])
    forkserver.ensure_running()

    def fork_or_start(command: list[str], *, cwd: str, env: dict[str, str], **options: Any) -> Any:
        if command[0] == sys.executable and not Path(cwd, "botocore").exists():
            return _ForkedProcess(command[1], cwd, env)
        return subprocess.Popen(command, cwd=cwd, env=env, **options)

    lambda_runtime.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": fork_or_start})


class _ForkedProcess:
    """A forked process, with the part of the interface of ``subprocess.Popen`` that MiniStack uses."""

    # multiprocessing checks all of its processes whenever it starts one, and is not safe for several threads.
    _lock = threading.Lock()

    def __init__(self, script: str, folder: str, variables: dict[str, str]) -> None:
        pipes = [multiprocessing.Pipe(duplex=False) for _ in range(3)]
        (child_stdin, stdin), (stdout, child_stdout), (stderr, child_stderr) = pipes
        self.stdin = os.fdopen(os.dup(stdin.fileno()), "w", buffering=1, encoding="utf-8")
        self.stdout = os.fdopen(os.dup(stdout.fileno()), encoding="utf-8", errors="replace")
        self.stderr = os.fdopen(os.dup(stderr.fileno()), encoding="utf-8", errors="replace")
        arguments = (script, folder, variables, child_stdin, child_stdout, child_stderr)
        run_worker = sys.modules["__main__"].run_worker
        self._process = multiprocessing.get_context("forkserver").Process(target=run_worker, args=arguments)
        with self._lock:
            self._process.start()
        for pipe in (*pipes[0], *pipes[1], *pipes[2]):
            pipe.close()

    def poll(self) -> int | None:
        with self._lock:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        connection.wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(self._process.pid), timeout or 0)
        return code

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()
