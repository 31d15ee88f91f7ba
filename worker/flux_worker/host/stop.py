"""Requests to stop, from signals and EC2, and the time that is left."""

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

_WAKE = signal.SIGUSR1  # other threads send it to interrupt a system call of the main thread


class Stopped(BaseException):
    """Asked to stop, or to receive no more; a BaseException so that no library swallows it."""


class StopRequest:
    """Requests, from any thread, to stop this process (`request`) or to receive no more jobs (`pause`).

    A pause ends by itself or by `resume`; a request to stop stays. A request raises `Stopped` once in the
    main thread, wherever it is, such as loading the model. Inside `deferred` nothing is raised; check
    `requested`, `paused` and `remaining` there. Inside `interruptible`, used for long polls within
    `deferred`, requests and pauses raise it. Create it in the main thread, where Python handles signals.
    """

    def __init__(self, drain_seconds: float = math.inf) -> None:
        self._drain_seconds = drain_seconds
        self._requests: list[tuple[float, str]] = []  # (deadline, reason); only appended to
        self._pauses: dict[str, float] = {}  # when each reason ends; replaced as a whole, never changed
        self._raised: set[str] = set()
        self._raises_for: tuple[str, ...] = ("ask",)
        # A byte in the pipe ends every wait. Not a threading.Event: a signal handler runs in the main thread
        # and could deadlock on the event's lock, held by the code it interrupts.
        self._heard, self._said = os.pipe()
        os.set_blocking(self._said, False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup sets it to be ignored
            signal.signal(signal.SIGHUP, self._on_signal)
        signal.signal(_WAKE, lambda _number, _frame: self._raise_if_requested())

    @property
    def requested(self) -> bool:
        """Whether the process must stop."""
        return bool(self._requests)

    @property
    def paused(self) -> str | None:
        """Why the worker must receive no more jobs although it keeps running; None if it may."""
        now = time.monotonic()
        return next((why for why, until in self._pauses.items() if until > now), None)

    @property
    def why(self) -> str | None:
        """The first reason to stop; None without a request."""
        return self._requests[0][1] if self._requests else None

    def remaining(self) -> float:
        """Seconds until the earliest deadline, never below 0; infinite without a request."""
        if not self._requests:
            return math.inf
        return max(0.0, min(deadline for deadline, _ in self._requests) - time.monotonic())

    def has_time_for(self, seconds_needed: float) -> bool:
        """Whether this many seconds are left."""
        return self.remaining() >= seconds_needed

    def request(self, why: str, seconds: float) -> None:
        """Request to stop within `seconds`; of several requests the earliest deadline counts."""
        self._record(why, seconds)
        self._wake_main_thread()

    def pause(self, why: str, seconds: float = math.inf) -> None:
        """Request to receive no more jobs for so long; the process keeps running."""
        if not self.paused:
            self._raised.discard("pause")  # for an earlier pause, which is over
        self._pauses = {**self._pauses, why: time.monotonic() + seconds}
        self._wake_main_thread()

    def resume(self, why: str) -> None:
        """End the pause with this reason; others stay. Without effect if there is none."""
        self._pauses = {other: until for other, until in self._pauses.items() if other != why}

    def wait(self, seconds: float) -> bool:
        """Sleep, at most until a request to stop; returns whether there is one."""
        heard = select.poll()
        heard.register(self._heard, select.POLLIN)
        return bool(heard.poll(max(0.0, seconds) * 1000))

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Raise nothing inside the block, nor later for requests made meanwhile. Blocks may nest."""
        before, self._raises_for = self._raises_for, ()
        try:
            yield
        finally:
            if self._requests:
                self._raised.add("ask")  # the code after the block checks `requested`
            self._raises_for = before

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise `Stopped` for requests inside the block, within `deferred`; at once for earlier ones."""
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
        with contextlib.suppress(BlockingIOError):  # a full pipe ends waits just as well
            os.write(self._said, b"!")

    def _wake_main_thread(self) -> None:
        ident = threading.main_thread().ident
        if ident is not None:
            signal.pthread_kill(ident, _WAKE)

    def _raise_if_requested(self) -> None:
        """Raise Stopped if it may be raised now: once for requests to stop, once for pauses."""
        came = {"ask": self.requested, "pause": self.paused is not None}
        news = {kind for kind in self._raises_for if came[kind]} - self._raised
        if news:
            self._raised |= news
            raise Stopped
