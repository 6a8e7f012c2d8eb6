"""Runs the steps of a start, and prints the time that each step took."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from local.processes import StackError

Say = Callable[[str], None]


def say(line: str) -> None:
    """Prints the line in a single write, because several threads print."""
    print(f"{line}\n", end="", flush=True)


def timed(say: Say, label: str, work: Callable[[], object]) -> None:
    began = time.monotonic()
    work()
    say(f"  {label:<40} {time.monotonic() - began:5.1f} s")


def run_in_parallel(*works: Callable[[], object]) -> None:
    """Runs the functions in ``works`` in parallel, waits for all of them, and raises the first error."""
    with ThreadPoolExecutor() as pool:
        futures: list[Future[object]] = [pool.submit(work) for work in works]
    for future in futures:
        future.result()


def run_deploy(command: list[str], variables: Mapping[str, str], folder: Path, say: Say) -> None:
    """Runs the deploy in ``folder``, and prints its output as it arrives."""
    with subprocess.Popen(
        command, env=variables, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            say(f"    {line.rstrip()}")
    if process.returncode:
        raise StackError("the deploy failed: fix the problem reported above, and run `make run` again")
