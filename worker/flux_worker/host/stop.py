"""Being asked to stop, by a signal or by what EC2 says, and how long is left until then."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

_WAKE = signal.SIGUSR1  # sent by other threads of this process to get the main thread out of a system call


class Stopped(BaseException):
    """Asked to stop, or to receive no more, while idle; a BaseException so that no library swallows it."""


class StopRequest:
    """What asks this process to end (`ask`) or to receive no more jobs (`pause`), from any thread.

    The main thread hears of an `ask` by the exception `Stopped`, raised once, wherever it is: while the model
    loads, say. Inside `finish_first` nothing is raised: there, `asked`, `paused` and `remaining` tell; but a
    span inside that is `interruptible`, such as a long poll, is left for an `ask` and for a `pause`. Made in
    the main thread, where Python handles signals.
    """

    def __init__(self, drain_seconds: float = math.inf) -> None:
        self._drain_seconds = drain_seconds
        self._requests: list[tuple[float, str]] = []  # (when it must be over, why); only ever appended to
        self._pauses: list[str] = []
        self._raised: set[str] = set()
        self._raises_for: tuple[str, ...] = ("ask",)
        # A byte in the pipe ends every wait. No threading.Event: the handler of a signal runs in the main
        # thread, and would wait for ever for a lock that the interrupted code holds.
        self._heard, self._said = os.pipe()
        os.set_blocking(self._said, False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it, to outlive its terminal
            signal.signal(signal.SIGHUP, self._on_signal)
        signal.signal(_WAKE, lambda _number, _frame: self._raise_if_requested())

    @property
    def requested(self) -> bool:
        """Whether the process is to end."""
        return bool(self._requests)

    @property
    def paused(self) -> str | None:
        """Why nothing more is to be received, although the process stays; None while jobs are welcome."""
        return self._pauses[0] if self._pauses else None

    @property
    def why(self) -> str | None:
        """The first reason to end; None while nobody asked."""
        return self._requests[0][1] if self._requests else None

    def remaining(self) -> float:
        """Seconds until all must be over, never below 0; infinite while nobody asked."""
        if not self._requests:
            return math.inf
        return max(0.0, min(deadline for deadline, _ in self._requests) - time.monotonic())

    def has_time_for(self, seconds_needed: float) -> bool:
        """Whether this many seconds are left."""
        return self.remaining() >= seconds_needed

    def request(self, why: str, seconds: float) -> None:
        """The process is to end within `seconds`; of several requests the earliest end counts."""
        self._record(why, seconds)
        self._wake_main_thread()

    def pause(self, why: str) -> None:
        """Nothing more is to be received; the process stays."""
        self._pauses.append(why)
        self._wake_main_thread()

    def wait(self, seconds: float) -> bool:
        """Sleep, but only until the process is asked to end; gives back whether it is."""
        heard = select.poll()
        heard.register(self._heard, select.POLLIN)
        return bool(heard.poll(max(0.0, seconds) * 1000))

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Nothing is raised inside the block, nor afterwards for what came meanwhile. Blocks may nest."""
        before, self._raises_for = self._raises_for, ()
        try:
            yield
        finally:
            if self._requests:
                self._raised.add("ask")  # whoever leaves the block looks at `asked`
            self._raises_for = before

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """A span inside `finish_first` that `Stopped` leaves; at once, where the request came before it."""
        before, self._raises_for = self._raises_for, ("ask", "pause")
        try:
            self._raise_if_requested()
            yield
        finally:
            self._raises_for = before

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._record(signal.Signals(number).name, self._drain_seconds)
        self._raise_if_requested()

    def _record(self, why: str, seconds: float) -> None:
        self._requests.append((time.monotonic() + seconds, why))
        with contextlib.suppress(BlockingIOError):  # the pipe is full: it was written to often enough
            os.write(self._said, b"!")

    def _wake_main_thread(self) -> None:
        ident = threading.main_thread().ident
        if ident is not None:
            signal.pthread_kill(ident, _WAKE)

    def _raise_if_requested(self) -> None:
        """Raise Stopped where the main thread is to be told; once for requests to end, once for pauses."""
        came = {"ask": self._requests, "pause": self._pauses}
        news = {kind for kind in self._raises_for if came[kind]} - self._raised
        if news:
            self._raised |= news
            raise Stopped
