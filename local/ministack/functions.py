"""Patches for Lambda."""

import contextlib
import queue
import sys
import threading
from functools import wraps
from typing import Any


def functions_active_at_once() -> None:
    """AWS keeps a new function in the state Pending for a while.

    MiniStack does the same for half a second. Chalice's waiter checks immediately and then every five seconds, so a
    deploy would wait five seconds for each function.
    """
    from ministack.services import lambda_svc

    schedule = lambda_svc._schedule_state_transition

    @wraps(schedule)
    def activate_at_once(name: str, delay: float) -> None:
        lambda_svc._functions[name]["config"].update(State="Active", LastUpdateStatus="Successful")
        schedule(name, delay)  # also clears StateReason, and sets published versions to Active

    lambda_svc._schedule_state_transition = activate_at_once


def exception_names() -> None:
    """AWS sets the ``errorType`` of a failed invocation to the exception's class name.

    MiniStack always sets it to ``Runtime.HandlerError``. State machines retry and catch errors by class name.
    """
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    _edit_worker('"error": str(e), "trace"', '"error": str(e), "type": type(e).__name__, "trace"')

    # The same thread handles the worker's result and the invocation's, so a thread-local can pass the name on.
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
        return result

    lambda_runtime.Worker.invoke = invoke_and_keep_name
    lambda_svc._execute_function_warm = execute_with_name


def complete_logs() -> None:
    """AWS logs everything that a function writes, under the invocation that wrote it.

    MiniStack waits 50 ms for the first line and 5 ms for each further line. On a busy machine, a late line is logged
    under the next invocation or never. This patch makes the worker mark the end of its output, which is also faster.
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
        # A worker that has died writes no end marker.
        with contextlib.suppress(queue.Empty):
            while (line := worker._stderr_queue.get(timeout=1)) != end:
                lines.append(line)
        return "\n".join(lines)

    lambda_runtime.Worker._drain_stderr_bounded = read_until_end


def _edit_worker(old: str, new: str) -> None:
    """Replaces code in the script that runs a function's handler."""
    from ministack.core import lambda_runtime

    if old not in lambda_runtime._PYTHON_WORKER_SCRIPT:
        sys.exit(f"MiniStack's worker script does not contain {old.strip()}: adapt the patch in {__file__}")
    lambda_runtime._PYTHON_WORKER_SCRIPT = lambda_runtime._PYTHON_WORKER_SCRIPT.replace(old, new)
