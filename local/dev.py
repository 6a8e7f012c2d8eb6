"""Implements ``make dev``. Within a second after a file is saved, every trigger runs the edited code without a deploy.

After each save, the code is copied into a new folder. The functions run the new copy as soon as the API has imported it
without errors. Until the import succeeds, the API and the functions keep running the previous code.
``local/ministack/functions.py`` makes the functions run the copy.
"""

from __future__ import annotations

import json
import select
import shutil
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import debugpy
import watchfiles

from local import live_api, live_debugger, logs
from local.processes import StackError, exclusive_lock, free_ports, run_quietly
from local.stack import ROOT, Stack

CODE = ("app.py", "chalicelib")
# A change to these files requires a deploy.
DEPLOYED = ("infra", "requirements.txt", ".chalice")
# When an editor saves a file, it may write the file several times within this many milliseconds.
QUIET_MILLISECONDS = 30
# This many versions of the code are kept, because a process may still run an earlier version.
VERSIONS = 3


def run(stack: Stack, function: str | None, port: int, root: Path = ROOT) -> None:
    """Runs the code in ``root`` until Ctrl-C is pressed. A debugger can attach to ``function`` on ``port``."""
    with exclusive_lock(stack.folder / "dev.lock", already_runs):
        stack.start()
        session = Session(stack, root)
        # SIGTERM ends the session in the same way as Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            session.begin(function, port)
            session.watch()
        except KeyboardInterrupt:
            print()
        finally:
            session.end()


def already_runs() -> None:
    raise StackError("`make dev` is already running in another terminal")


class Session:
    """A session of ``make dev``. ``triggers`` describes the triggers of the running code."""

    def __init__(self, stack: Stack, root: Path) -> None:
        self.stack = stack
        self.root = root
        self.folder = stack.cloud.live
        self.control = 0
        self.version = 0
        self.triggers = ""
        # Log output pauses while a breakpoint uses the terminal.
        self.terminal = threading.Lock()

    def begin(self, function: str | None, port: int) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._prepare_debugger(function, port)
        self._start_api()
        self._load()
        threading.Thread(target=self._follow_logs, daemon=True).start()
        say("ready: save app.py or a file in chalicelib/, or press Ctrl-C to stop")
        if function:
            say(f"a debugger can attach to {function} on 127.0.0.1:{port}")
        say("breakpoint() opens pdb in this terminal")

    def watch(self) -> None:
        paths = [self.root / name for name in (*CODE, *DEPLOYED)]
        for changes in watchfiles.watch(*paths, step=QUIET_MILLISECONDS, debounce=400):
            files = {str(Path(path).relative_to(self.root)) for _, path in changes}
            # Deleted files are ignored if other files changed too, because editors create and delete temporary files.
            self.saved(sorted(each for each in files if (self.root / each).exists()) or sorted(files))

    def saved(self, files: list[str]) -> None:
        """Makes the API and the functions run the saved code. Deploys the code if necessary."""
        began = time.monotonic()
        what = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        try:
            if any(file.startswith(DEPLOYED) for file in files):
                self._deploy(f"{what} needs a deploy", "requirements.txt" in files)
            else:
                before = self.triggers
                if not self._load():
                    return
                if self.triggers != before:
                    self._deploy(f"{what} changes a trigger and needs a deploy")
        except StackError as error:
            say(f"error: {error}. The previous code keeps running. Save the file again to retry")
            return
        say(f"{what}: live after {time.monotonic() - began:.2f} s")

    def end(self) -> None:
        """Deploys the edits, and leaves the stack in the same state as ``make run`` does."""
        say("stopping, and deploying the edits")
        (self.folder / "code").unlink(missing_ok=True)
        self.stack.start()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_api(self) -> None:
        [self.control] = free_ports(1)
        self.stack.start_live_api(self.control)

    def _load(self) -> bool:
        """Makes the stack run the current code if it can be imported. Returns whether the import succeeded."""
        self.version += 1
        folder = self.folder / str(self.version)
        folder.mkdir()
        for name in CODE:
            if (self.root / name).is_dir():
                shutil.copytree(self.root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(self.root / name, folder / name)
        for name in (".chalice", "vendor"):
            (folder / name).symlink_to(self.stack.project / name)
        answer = live_api.ask(self.control, folder)
        if "error" in answer:
            say(
                f"the code cannot be imported, so the previous code keeps running\n{_own_part(answer['error'], folder)}"
            )
            return False
        self.triggers = answer["triggers"]
        # Renaming the new link atomically replaces the previous link.
        new = self.folder / "code.new"
        new.symlink_to(folder)
        new.replace(self.folder / "code")
        shutil.rmtree(self.folder / str(self.version - VERSIONS), ignore_errors=True)
        return True

    def _deploy(self, why: str, requirements: bool = False) -> None:
        say(f"{why}: deploying")
        if requirements:
            run_quietly("make", "-C", str(ROOT), ".venv/dev")
        self.stack.deploy(lambda line: say(line.strip()))
        if requirements:
            self._start_api()
        self._load()

    def _follow_logs(self) -> None:
        try:
            logs.follow(self.stack, last=0, pause=self.terminal)
        except StackError as error:
            say(f"error: {error}")

    def _prepare_debugger(self, function: str | None, port: int) -> None:
        folder = self.folder / "debugger"
        folder.mkdir(parents=True)
        (folder / "live_debugger.py").symlink_to(live_debugger.__file__)
        (folder / "debugpy").symlink_to(Path(debugpy.__file__).parent)
        listener = socket.create_server(("127.0.0.1", 0))
        settings = {"terminal": listener.getsockname()[1], "function": function, "port": port, "root": str(self.root)}
        (self.folder / live_debugger.SETTINGS.name).write_text(json.dumps(settings))
        threading.Thread(target=self._serve_terminal, args=(listener,), daemon=True).start()

    def _serve_terminal(self, listener: socket.socket) -> None:
        """Connects the terminal to one breakpoint at a time."""
        while True:
            connection, _ = listener.accept()
            with self.terminal, connection:
                threading.Thread(target=_send_lines, args=(connection,), daemon=True).start()
                while text := connection.recv(65536):
                    print(text.decode(errors="replace"), end="", flush=True)
                say("the function continues")


def _send_lines(connection: socket.socket) -> None:
    """Sends lines typed in the terminal to the debugger until the connection is closed."""
    with suppress(OSError, ValueError):
        while connection.fileno() >= 0:
            if select.select([sys.stdin], [], [], 0.2)[0]:
                connection.sendall(sys.stdin.readline().encode())


def _own_part(text: str, folder: Path) -> str:
    """Returns a traceback from the project's first frame to the end, with paths relative to the checkout."""
    lines = text.replace(f"{folder}/", "").splitlines()
    first = next(
        (number for number, line in enumerate(lines) if '  File "app.py"' in line or '"chalicelib/' in line), 0
    )
    return "\n".join(lines[first:])


def say(line: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S.%f}"[:12] + f"  make dev              {line}", flush=True)
