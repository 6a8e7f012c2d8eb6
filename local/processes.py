"""Background processes that outlive the command which started them, and are never mistaken for others."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
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


class StackError(Exception):
    """Something that the person at the terminal can mend: the message says how."""


@dataclass(frozen=True)
class Process:
    """One background process: ``<folder>/<name>.json`` says which it is, ``<folder>/<name>.log`` what it says.

    A process id comes back for another process one day. So the record keeps the start time beside the id, and a
    process that does not have both is not ours: it is never signalled, and counts as gone.
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
        """The process's id while it lives."""
        record = self._read()
        if record and record["started"] and _started(int(record["pid"])) == record["started"]:
            return int(record["pid"])
        return None

    def runs(self, fingerprint: str) -> bool:
        """Whether it lives and was started with just this ``fingerprint``."""
        return self.pid() is not None and self._read()["fingerprint"] == fingerprint

    def port(self) -> int | None:
        """The port that it was started for, while it lives."""
        return int(self._read()["port"]) if self.pid() else None

    def start(self, command: Sequence[str], environment: Mapping[str, str], fingerprint: str, port: int) -> None:
        """Start ``command`` in a session of its own, with nothing but ``environment``, output to the log file."""
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
        # It is to outlive this command, so Popen need not warn that it still runs.
        process.returncode = 0
        record = {"pid": process.pid, "started": _started(process.pid), "fingerprint": fingerprint, "port": port}
        self._record.write_text(json.dumps({name: str(value) for name, value in record.items()}))

    def wait(self, ready: Callable[[], bool], seconds: float = 180) -> None:
        """Return when ``ready()``. Raises ``StackError`` with the log's tail when the process ends or time is over."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.pid() is None:
                raise StackError(f"{self.name} ended while starting. {self._tail()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} is not ready after {seconds:.0f} s. {self._tail()}")
            time.sleep(0.05)

    def stop(self, seconds: float = 10) -> bool:
        """Ask it to end, make it after ``seconds``, and take the children that it left behind along.

        False if there was nothing to stop.
        """
        pid = self.pid()
        if pid:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + seconds
            while self.pid() and time.monotonic() < deadline:
                _reap(pid)
                time.sleep(0.02)
            # It leads its own session, so its process group has its id and holds it and its children only.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _reap(pid)
        self._record.unlink(missing_ok=True)
        return pid is not None

    def _tail(self, lines: int = 20) -> str:
        if not self.log.exists():
            return "It left no log."
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n  ".join([f"The end of {self.log}:", *text])


def fingerprint(*parts: object) -> str:
    """A short digest of ``parts``; a path stands for the content of the file, or of every Python file below it."""
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
def only_one(lock: Path, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """One command at a time comes past here; the others call ``wait``, and do. A lock goes with its process."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_quietly(*command: str) -> None:
    """Run ``command`` to its end. Raises ``StackError`` with all that it said where it fails."""
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode:
        raise StackError(f"`{' '.join(command)}` failed:\n{result.stdout}")


# In both spellings, for curl reads the one and others read the other.
NO_PROXY = {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}


def basic_environment() -> dict[str, str]:
    """What any process needs of the shell's environment, and no more."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


def answers(url: str) -> bool:
    """Whether ``url`` answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - http, on 127.0.0.1  # nosec B310
            return bool(response.status == 200)
    except OSError:
        return False


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def require_free(port: int, variable: str) -> None:
    """Raises ``StackError`` where something listens on ``port`` already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise StackError(f"port {port} is in use: set {variable} to another") from None


def _started(pid: int) -> str:
    """When the process started, in whatever unit the system has; empty if there is none, or only its remains."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        try:
            # The second field, the name in brackets, may hold spaces. After it: the state first, the start 20th.
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if fields[0] == "Z" else fields[19]
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    state, _, started = answer.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()


def _reap(pid: int) -> None:
    """Collect the process if it is a child of this very command; a child of an earlier one is not ours to collect."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
