"""Runs tasks in a pool of threads until the Lambda function's time is nearly up."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.storage.measurement import Tally
from chalicelib.storage.refusals import describe

# The threads mostly wait for S3, so a function can run many threads. An AWS client has more connections than this.
WORKERS = 32
# These seconds are reserved for rendering and storing the page after the measurement.
RESERVE_SECONDS = 30

# A deadline is a function that returns how many seconds remain.
Deadline = Callable[[], float]


class Crew:
    """Runs tasks in up to ``WORKERS`` threads. Tasks can add other tasks."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="storage")
        self._changed = Condition()
        self._unfinished = 0
        self._ended = False
        self._faults: list[BaseException] = []

    def in_time(self) -> bool:
        return self._deadline() > RESERVE_SECONDS

    @property
    def is_idle(self) -> bool:
        """True if at least one thread is idle."""
        return self._unfinished < WORKERS

    def add(self, task: Callable[[], None], tallies: list[Tally]) -> None:
        """Queues a task. If the task fails with an AWS error, the error is recorded in ``tallies``."""
        with self._changed:
            # A task that is added after the time is up does not run, so its key range remains in ``Tally.left``.
            if not self._ended:
                self._unfinished += 1
                self._pool.submit(self._run, task, tallies).add_done_callback(self._finished)

    def finish(self) -> None:
        """Waits until all tasks are done or time is nearly up. Raises a task's error unless it is an AWS error."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unfinished, max(0.0, self._deadline() - RESERVE_SECONDS))
            self._ended = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for fault in self._faults:
            raise fault

    def _run(self, task: Callable[[], None], tallies: list[Tally]) -> None:
        if not self.in_time():
            return
        try:
            task()
        except (ClientError, BotoCoreError) as error:
            for tally in tallies:
                tally.error = describe(error)

    def _finished(self, future: Future[None]) -> None:
        if not future.cancelled() and (fault := future.exception()):
            self._faults.append(fault)
        with self._changed:
            self._unfinished -= 1
            self._changed.notify_all()
