"""A request to stop, by a signal or another thread, ends an idle worker at once and a busy one in time."""

from __future__ import annotations

import math
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import flux_worker.serve
from flux_worker.host.monitor import Monitor
from flux_worker.host.stop import Stopped, StopRequest
from flux_worker.settings import ServeSettings

POLLING = """
import contextlib, sys, boto3
from flux_worker.jobs.queue import JobQueue
from flux_worker.host.stop import Stopped, StopRequest
stop = StopRequest()
queue = JobQueue(boto3.client("sqs"), sys.argv[1], visibility_seconds=30)
with contextlib.suppress(Stopped):
    print("polling", flush=True)
    queue.receive(20)
    print("answered")
print("asked", stop.requested, flush=True)
"""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    """A request of this process; its signals are given back afterwards."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield StopRequest(drain_seconds=90)
    # What asks `later` may be heard before it sends its signal, which ends a process without a handler.
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()
    for number, handler in before.items():
        signal.signal(number, handler)


def later(seconds: float, act: Any, *arguments: Any) -> None:
    threading.Timer(seconds, act, arguments).start()


def test_a_long_poll_is_left_at_once(aws: Any, environment: dict[str, str]) -> None:
    extra = {"AWS_DEFAULT_REGION": environment["AWS_REGION"]}
    with subprocess.Popen(
        [sys.executable, "-c", POLLING, aws.jobs], env=environment | extra, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "polling\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stdout.read() == "asked True\n"


WAITING = """
from flux_worker.host.stop import Stopped, StopRequest
stop = StopRequest()
try:
    print("waiting", flush=True)
    while True:
        stop.wait(600)
except Stopped:
    print("asked by", stop.why, flush=True)
"""


def test_the_end_of_the_terminal_asks_to_stop() -> None:
    """The terminal goes, and the kernel sends SIGHUP to whom it belonged."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-c", WAITING], stdin=theirs, stdout=subprocess.PIPE, text=True
    ) as process:
        os.close(theirs)
        assert process.stdout
        assert process.stdout.readline() == "waiting\n"
        os.close(ours)
        assert process.stdout.read() == "asked by SIGHUP\n"
        assert process.wait(60) == 0


def test_nohup_is_heeded() -> None:
    with subprocess.Popen(
        ["nohup", sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "asked by SIGTERM\n"
        assert process.wait(60) == 0


def test_nobody_asked(stop: StopRequest) -> None:
    assert (stop.requested, stop.paused, stop.why, stop.remaining()) == (False, None, None, math.inf)
    assert stop.has_time_for(1e9)
    assert not stop.wait(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda one: one.name)
def test_a_signal_leaves_the_time_to_drain(stop: StopRequest, number: signal.Signals) -> None:
    with pytest.raises(Stopped):
        os.kill(os.getpid(), number)
    assert stop.requested
    assert stop.why == number.name
    assert 60 < stop.remaining() <= 90
    assert stop.has_time_for(30) and not stop.has_time_for(91)


def test_it_is_raised_once(stop: StopRequest) -> None:
    with pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # while it cleans up
    with stop.deferred(), stop.interruptible():
        stop.request("spot", 20)


def test_a_thread_gets_the_main_thread_out_of_a_wait(stop: StopRequest) -> None:
    answer: Any = threading.Semaphore(0)  # as a future's result, or a lock
    with pytest.raises(Stopped):
        later(0.1, stop.request, "spot terminate", 20)
        answer.acquire(timeout=60)
    assert stop.why == "spot terminate"


def test_a_busy_main_thread_is_not_disturbed(stop: StopRequest) -> None:
    with stop.deferred():
        with stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
        stop.request("spot", 5)
        assert stop.requested
    assert stop.why == "SIGTERM"
    os.kill(os.getpid(), signal.SIGTERM)  # while it cleans up


def test_the_earliest_end_counts(stop: StopRequest) -> None:
    with stop.deferred():
        stop.request("Auto Scaling", 50)
        stop.request("spot", 20)
        stop.request("SIGTERM", 90)
    assert 5 < stop.remaining() <= 20
    assert stop.why == "Auto Scaling"


def test_time_runs_out_at_zero(stop: StopRequest) -> None:
    with stop.deferred():
        stop.request("spot", -3)
    assert stop.remaining() == 0
    assert not stop.has_time_for(0.1)


def test_an_interruptible_span_is_left_even_for_an_older_request(stop: StopRequest) -> None:
    with stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped), stop.interruptible():
            pytest.fail("the span was entered")
        os.kill(os.getpid(), signal.SIGTERM)  # busy again: nothing is raised


def test_a_pause_leaves_a_poll_and_nothing_else(stop: StopRequest) -> None:
    stop.pause("rebalance recommendation")
    with stop.deferred():
        with pytest.raises(Stopped), stop.interruptible():
            pytest.fail("the span was entered")
        assert not stop.requested
        assert stop.paused == "rebalance recommendation"
        assert not stop.wait(0.01)
        later(0.1, stop.request, "spot", 20)
        with pytest.raises(Stopped), stop.interruptible():
            time.sleep(60)


def test_a_wait_ends_when_asked(stop: StopRequest) -> None:
    later(0.1, stop.request, "spot", 20)
    with stop.deferred():
        started = time.monotonic()
        assert stop.wait(600)
        assert stop.wait(600)
        assert time.monotonic() - started < 300


def test_a_storm_of_signals_loses_nothing(stop: StopRequest) -> None:
    """The handler takes no lock that the interrupted code may hold, and the pipe never blocks it."""
    with stop.deferred():
        scenario = threading.Thread(target=lambda: [stop.request("again", 60) for _ in range(70_000)])
        scenario.start()
        while scenario.is_alive():
            stop.wait(0)
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(1)


@pytest.mark.usefixtures("stop")
def test_what_python_dropped_is_heeded_once_the_model_is_loaded(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A destructor may run at any moment of the loading, and what is raised in it reaches nobody."""
    dropped: list[Any] = []
    begun: list[str] = []

    class Falling:
        def __del__(self) -> None:
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    class Worker:
        def run(self) -> None:
            begun.append("serving")

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: dropped.append(raised.exc_type))
    monkeypatch.setattr(flux_worker.serve, "_load", lambda *_: Falling() and None)
    monkeypatch.setattr(flux_worker.serve, "_worker", lambda *_: Worker())
    monkeypatch.setattr(Monitor, "ready", lambda _: begun.append("ready"))
    flux_worker.serve.serve(ServeSettings.from_environment(environment))
    assert dropped == [Stopped]
    assert begun == []


def test_a_pause_ends_by_itself_or_by_a_resume_and_a_later_one_is_heard_again(stop: StopRequest) -> None:
    def heard() -> bool:
        try:
            with stop.interruptible():
                return False
        except Stopped:
            return True

    with stop.deferred():
        stop.pause("rebalance", 600)
        stop.pause("reboot")
        assert heard()
        assert not heard(), "the loop looks at `paused` by itself"
        stop.resume("rebalance")
        assert stop.paused == "reboot"
        stop.resume("reboot")
        stop.resume("never asked for")
        assert stop.paused is None
        assert not heard()
        stop.pause("rebalance", 600)
        assert heard()
        stop.resume("rebalance")
        stop.pause("for no time", 0)
        assert stop.paused is None
        assert not heard()
        assert not stop.requested
