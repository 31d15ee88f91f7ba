"""Finish one job in a thread of its own while the main thread draws the next."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable

from .host.monitor import Monitor

_LOOK_EVERY_SECONDS = 5.0


class Background:
    """Runs one task at a time; `submit` and `wait` belong to the main thread.

    It is also what a `RetryPolicy` reports to, from both threads. A sign of life of the task counts as the
    worker's only while the main thread waits for it: a hung GPU must show although an upload goes on.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._thread: threading.Thread | None = None
        self._job = ""
        self._doing = ""
        self._error: BaseException | None = None
        self.failure: BaseException | None = None
        """What `wait` raised: an error of the background, not of what the main thread does."""
        self._signs = 0
        self._retrying = False

    @property
    def retrying(self) -> bool:
        """Whether a call of the task failed and is tried again."""
        return self._retrying and self.busy

    @property
    def job(self) -> str | None:
        """The id of the job that is being finished."""
        return self._job if self.busy else None

    @property
    def busy(self) -> bool:
        """Whether a task runs."""
        return self._thread is not None and self._thread.is_alive()

    def submit(self, job_id: str, act: Callable[[], None]) -> None:
        """Run `act` for this job in the background, after what was submitted before; raises its error."""
        self.wait()
        self._job, self._doing, self._retrying = job_id, f"Delivering {job_id}", False
        self._monitor.delivering(self._doing)
        context = contextvars.copy_context()  # carries the job's id into the log lines
        self._thread = threading.Thread(target=context.run, args=(self._run, act), name="deliver")
        self._thread.start()

    def _run(self, act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:  # the main thread raises it
            self._error = error
        finally:
            self._monitor.delivering(None)

    def wait(self) -> None:
        """Wait until nothing runs any more. Raises the error that ended the task, once."""
        if self._thread is None or self._is_current():
            return
        seen = None
        while self._thread.is_alive():
            if seen != self._signs:
                seen = self._signs
                self._monitor.doing(self._doing, job=self._job)
            self._thread.join(self._monitor.limit_wait(_LOOK_EVERY_SECONDS))
        self._thread = None
        if self._error:
            self.failure, self._error = self._error, None
            raise self.failure

    def _is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def doing(self, text: str) -> None:
        """Report what the calling thread does, in words: a sign of life. A task does so while it retries."""
        if not self._is_current():
            self._monitor.doing(text)
            return
        self._doing, self._retrying = text, True
        self._monitor.delivering(text)
        self._signs += 1

    def ping(self) -> None:
        """Give a sign of life of the calling thread."""
        if self._is_current():
            self._signs += 1
        else:
            self._monitor.ping()

    def limit_wait(self, seconds: float) -> float:
        """The part of `seconds` that may pass before the next sign of life."""
        return self._monitor.limit_wait(seconds)
