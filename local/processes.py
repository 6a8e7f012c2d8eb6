"""Manages background processes that outlive the command that started them, and provides locks and free ports."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

# Both spellings are needed, because curl reads only the lower-case name and some programs only the upper-case name.
NO_PROXY = {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}


class StackError(Exception):
    """Reports a problem that the user can solve. The error message says how to solve the problem."""


@dataclass(frozen=True)
class Process:
    """A background process, identified by ``<folder>/<name>.json``. The process's output goes to
    ``<folder>/<name>.log``.

    The operating system reuses process ids, so the JSON file also records the process's start time. If the process with
    this id has a different start time, the recorded process has ended. An unrelated process with a reused id is never
    signaled.
    """

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def _record(self) -> Path:
        return self.folder / f"{self.name}.json"

    def _read(self) -> dict[str, str]:
        try:
            record: dict[str, str] = json.loads(self._record.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return record

    def pid(self) -> int | None:
        """Returns the process id, or None if the process has ended."""
        record = self._read()
        if record and record["started"] and _start_time(int(record["pid"])) == record["started"]:
            return int(record["pid"])
        return None

    def runs(self, fingerprint: str) -> bool:
        """Returns whether the process is running and was started with this ``fingerprint``."""
        return self.pid() is not None and self._read()["fingerprint"] == fingerprint

    def port(self) -> int | None:
        """Returns the process's port, or None if the process has ended."""
        return int(self._read()["port"]) if self.pid() else None

    def start(self, command: Sequence[str], environment: Mapping[str, str], fingerprint: str, port: int) -> None:
        """Starts ``command`` in its own session, with only this ``environment``.

        The command's output goes to the log file.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Without a return code, Popen would warn about a process that is intentionally still running.
        process.returncode = 0
        record = {"pid": process.pid, "started": _start_time(process.pid), "fingerprint": fingerprint, "port": port}
        self._record.write_text(json.dumps({name: str(value) for name, value in record.items()}))

    def wait(self, ready: Callable[[], bool], seconds: float = 180) -> None:
        """Waits until ``ready()`` is true.

        Raises ``StackError`` with the end of the log if the process ends or ``seconds`` have passed.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if self.pid() is None:
                raise StackError(f"{self.name} ended while starting. {self._log_end()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} is not ready after {seconds:.0f} s. {self._log_end()}")
            time.sleep(0.05)

    def stop(self, seconds: float = 10) -> bool:
        """Terminates the process, and kills it if it still runs after ``seconds``. Also kills the process's remaining
        child processes.

        Returns whether the process was running.
        """
        pid = self.pid()
        if pid:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + seconds
            while self.pid() and time.monotonic() < deadline:
                _reap(pid)
                time.sleep(0.02)
            # The process leads its own session, so its process group contains only itself and its children.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _reap(pid)
        self._record.unlink(missing_ok=True)
        return pid is not None

    def _log_end(self, lines: int = 20) -> str:
        if not self.log.exists():
            return "It wrote no log."
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n  ".join([f"The end of {self.log}:", *text])


def fingerprint(*parts: object) -> str:
    """Returns a short digest of ``parts``.

    For a path, the digest covers the content of its files, except compiled Python files.
    """
    digest = sha256()
    for part in parts:
        if isinstance(part, Path):
            files = sorted(file for file in part.rglob("*") if file.suffix != ".pyc") if part.is_dir() else [part]
            for file in files:
                if file.is_file():
                    digest.update(file.read_bytes())
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()[:16]


@contextmanager
def exclusive_lock(file: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Ensures that only one command at a time runs the ``with`` block. A command that must wait calls ``on_wait``
    before it waits.

    If a process ends without releasing the lock, the operating system releases it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_quietly(*command: str) -> None:
    """Runs ``command``. If the command fails, raises ``StackError`` with its output."""
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode:
        raise StackError(f"`{' '.join(command)}` failed:\n{result.stdout}")


def basic_environment() -> dict[str, str]:
    """Returns the few environment variables that every process needs."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


def answers(url: str) -> bool:
    """Returns whether a request to ``url`` returns status 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - http, on 127.0.0.1  # nosec B310
            return bool(response.status == 200)
    except OSError:
        return False


def accepts(port: int) -> bool:
    """Returns whether a server on this machine accepts connections on ``port``."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


def free_ports(number: int) -> list[int]:
    """Returns ``number`` different unused ports.

    The ports are below the range of outgoing connections. Otherwise, a connection could take a port before its server
    starts.
    """
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(ports) < number:
            port = random.SystemRandom().randrange(10_000, 32_768)
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
    return ports


def require_free_port(port: int, variable: str) -> None:
    """Raises ``StackError`` if ``port`` is already in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise StackError(f"port {port} is in use: set {variable} to another port") from None


def _start_time(pid: int) -> str:
    """Returns the start time of the process in the system's own format, or an empty string if the process has ended."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        try:
            # The process name may contain spaces, so fields are counted after the name. Field 0 is the state, and field
            # 19 is the start time.
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if fields[0] == "Z" else fields[19]
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    state, _, started = answer.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()


def _reap(pid: int) -> None:
    """Reaps the process if the current command started it. The init process reaps the children of earlier commands."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
