"""Patches for Lambda."""

import contextlib
import hashlib
import os
import queue
import sys
import tempfile
import threading
import time
import types
import zipfile
from functools import wraps
from pathlib import Path
from typing import Any


def functions_active_at_once() -> None:
    """AWS keeps a new function in the state Pending for a short time.

    On MiniStack, a new function is Pending for half a second. Chalice checks the state immediately and then only every
    five seconds, so each new function would delay a deploy by five seconds.
    """
    from ministack.services import lambda_svc

    schedule = lambda_svc._schedule_state_transition

    @wraps(schedule)
    def activate_at_once(name: str, delay: float) -> None:
        lambda_svc._functions[name]["config"].update(State="Active", LastUpdateStatus="Successful")
        schedule(name, delay)  # The original function also clears StateReason and activates published versions.

    lambda_svc._schedule_state_transition = activate_at_once


def exception_names() -> None:
    """AWS sets the ``errorType`` of a failed invocation to the exception's class name.
    ``Runtime.ExitError`` means that the process ended.

    MiniStack always sets ``errorType`` to ``Runtime.HandlerError``. The project's state machines retry and catch errors
    by the name of the error.
    """
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    _edit_worker('"error": str(e), "trace"', '"error": str(e), "type": type(e).__name__, "trace"')

    # One thread handles both results, so a thread-local variable can pass the exception's name on.
    latest = threading.local()
    invoke, execute = lambda_runtime.Worker.invoke, lambda_svc._execute_function_warm

    @wraps(invoke)
    def invoke_and_keep_name(*arguments: Any, **options: Any) -> Any:
        result = invoke(*arguments, **options)
        latest.exception_name = result.get("type")
        return result

    @wraps(execute)
    def execute_with_name(*arguments: Any) -> Any:
        latest.exception_name = None
        result = execute(*arguments)
        if latest.exception_name and result.get("error"):
            result["body"]["errorType"] = latest.exception_name
        elif result.get("error") and result["body"].get("errorType") == "Runtime.HandlerError":
            # The handler raised nothing, so the process ended.
            result["body"]["errorType"] = "Runtime.ExitError"
        return result

    lambda_runtime.Worker.invoke = invoke_and_keep_name
    lambda_svc._execute_function_warm = execute_with_name


def complete_logs() -> None:
    """AWS logs all of a function's output under the invocation that wrote it.

    After an invocation, MiniStack waits 50 ms for the first log line and 5 ms for each further line. On a busy machine,
    a line that arrives later is logged under the next invocation, or is lost. With this patch, the worker process marks
    the end of each invocation's output. MiniStack therefore never waits too long.
    """
    from ministack.core import lambda_runtime

    end = "\x00"
    _edit_worker(
        "            result = handler_fn(event, context)\n",
        "            try:\n"
        "                result = handler_fn(event, context)\n"
        "            finally:\n"
        f"                print({end!r}, file=sys.stderr, flush=True)\n",
    )

    def read_until_end(worker: Any) -> str:
        lines = []
        # A worker process that has died writes no end marker.
        with contextlib.suppress(queue.Empty):
            while (line := worker._stderr_queue.get(timeout=1)) != end:
                lines.append(line)
        return "\n".join(lines)

    lambda_runtime.Worker._drain_stderr_bounded = read_until_end


def shared_code() -> None:
    """AWS quickly unpacks a function's package for each process.

    For each process, MiniStack spends half a second of processor time on unpacking and compiling the package. With this
    patch, a function's processes share one unpacked package, because functions never change their own code. A new
    package reuses the unchanged files of the previous one, and their compiled files.
    """
    from ministack.core import lambda_runtime

    class SharedZipFile(zipfile.ZipFile):
        def extractall(self, path: Any = None, *_arguments: Any) -> None:
            digest = hashlib.sha256(Path(str(self.filename)).read_bytes()).hexdigest()[:16]
            shared = Path(os.environ["CODE_DIR"]) / digest
            if not shared.exists():
                shared.parent.mkdir(exist_ok=True)
                earlier = max(shared.parent.glob("*/"), key=lambda folder: folder.stat().st_mtime, default=None)
                unpacked = Path(tempfile.mkdtemp(dir=shared.parent))
                # Python uses a compiled file if its source has the same size and time. The time depends on the content.
                for each in self.infolist():
                    if not (earlier and _link_same_file(earlier / each.filename, unpacked / each.filename, each)):
                        self.extract(each, unpacked)
                        os.utime(unpacked / each.filename, (each.CRC >> 1, each.CRC >> 1))
                if earlier:
                    _link_compiled_files(earlier, unpacked)
                # Another process may have unpacked the package first.
                with contextlib.suppress(OSError):
                    unpacked.rename(shared)
            Path(str(path)).rmdir()
            Path(str(path)).symlink_to(shared)

    lambda_runtime.zipfile = types.SimpleNamespace(**{**vars(zipfile), "ZipFile": SharedZipFile})


def saved_code() -> None:
    """AWS runs only deployed packages. Under ``make dev``, functions run the code saved in the checkout, with the
    requirements from their packages.

    ``local/dev.py`` copies saved code to the folder named by the variable LIVE_FOLDER. A function's process that runs
    older code is replaced before its next invocation.
    """
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    acquire, spawn = lambda_runtime.acquire_worker, lambda_runtime.Worker._spawn

    @wraps(spawn)
    def spawn_with_saved_code(worker: Any) -> None:
        worker.code = _saved_code()
        if worker.code:
            variables = worker.config.get("Environment", {}).get("Variables", {})
            live = {"LIVE_CODE": worker.code, "PYTHONBREAKPOINT": "live_debugger.hold"}
            worker.config = {**worker.config, "Environment": {"Variables": {**variables, **live}}}
        spawn(worker)

    @wraps(acquire)
    def acquire_current(*arguments: Any, **options: Any) -> Any:
        current, stale = _saved_code(), []
        with lambda_runtime._lock:
            for workers in lambda_runtime._workers.values():
                old = [each for each in workers if not each.in_use and getattr(each, "code", current) != current]
                workers[:] = [each for each in workers if each not in old]
                stale += old
        if stale:
            # The invocation does not wait for the outdated processes to end.
            threading.Thread(target=lambda_runtime.kill_workers, args=(stale,)).start()
        return acquire(*arguments, **options)

    _edit_worker(
        "    sys.path.insert(0, code_dir)\n",
        "    sys.path.insert(0, code_dir)\n"
        '    if "LIVE_CODE" in os.environ:\n'
        '        sys.path[:0] = [os.environ["LIVE_CODE"], os.environ["LIVE_FOLDER"] + "/debugger"]\n'
        "        import live_debugger\n"
        '        live_debugger.prepare(init["function_name"])\n',
    )
    lambda_runtime.Worker._spawn = spawn_with_saved_code
    lambda_runtime.acquire_worker = lambda_svc.acquire_worker = acquire_current


def time_stops_for_a_debugger() -> None:
    """AWS never suspends a time-out.

    Under ``make dev``, function time-outs and visibility time-outs of messages are suspended while a debugger holds a
    function.
    """
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    run_batch, seconds = lambda_svc._run_sqs_batch, 1.0

    class PatientThread(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            super().join(timeout)
            while timeout and self.is_alive() and _is_held():
                super().join(max(timeout, seconds))

    @wraps(run_batch)
    def run_batch_in_time(esm: Any, function: Any, event: Any, batch: list[dict[str, Any]], *arguments: Any) -> None:
        ended = threading.Event()

        def keep_invisible() -> None:
            while not ended.wait(seconds):
                if _is_held():
                    for message in batch:
                        message["visible_at"] = max(message["visible_at"], time.time() + 30)

        if _saved_code():
            threading.Thread(target=keep_invisible, daemon=True).start()
        try:
            run_batch(esm, function, event, batch, *arguments)
        finally:
            ended.set()

    lambda_runtime.threading = types.SimpleNamespace(**{**vars(threading), "Thread": PatientThread})
    lambda_svc._run_sqs_batch = run_batch_in_time


def _link_same_file(earlier: Path, new: Path, entry: zipfile.ZipInfo) -> bool:
    """Links a file of an earlier package into a new one if both are equal. Returns whether the link was made."""
    # Another process may remove the earlier package, or a file of it may be a folder in the new one.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        existing = earlier.stat()
        if (existing.st_size, int(existing.st_mtime)) == (entry.file_size, entry.CRC >> 1):
            new.parent.mkdir(parents=True, exist_ok=True)
            new.hardlink_to(earlier)
            return True
    return False


def _link_compiled_files(earlier: Path, unpacked: Path) -> None:
    """Links the compiled files of an unpacked package into a new one. Python replaces those that are outdated."""
    for compiled in earlier.rglob("__pycache__/*.pyc"):
        link = unpacked / compiled.relative_to(earlier)
        if link.parent.parent.is_dir():
            link.parent.mkdir(exist_ok=True)
            # Another process may remove the earlier package, or write a compiled file that Chalice then packages.
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                link.hardlink_to(compiled)


def _saved_code() -> str | None:
    """Returns the folder with the saved code. The folder exists only under ``make dev``."""
    link = Path(os.environ["LIVE_FOLDER"]) / "code"
    return str(link.resolve()) if link.exists() else None


def _is_held() -> bool:
    """Returns whether a debugger holds a function's process.

    Each held process has a file named after its process id.
    """
    for file in Path(os.environ["LIVE_FOLDER"]).glob("held/*"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(file.name), 0)
            return True
    return False


def _edit_worker(old: str, new: str) -> None:
    """Replaces code in MiniStack's worker script. This script runs the handler of a function."""
    from ministack.core import lambda_runtime

    if old not in lambda_runtime._PYTHON_WORKER_SCRIPT:
        sys.exit(f"MiniStack's worker script does not contain {old.strip()}: adapt the patch in {__file__}")
    lambda_runtime._PYTHON_WORKER_SCRIPT = lambda_runtime._PYTHON_WORKER_SCRIPT.replace(old, new)
