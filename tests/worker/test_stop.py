"""SIGTERM while nothing is being drawn ends a long poll at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Any

POLLING = """
import contextlib, sys, boto3
from flux_worker.sqs import JobQueue
from flux_worker.stop import Stopped, StopRequest
stop = StopRequest()
queue = JobQueue(boto3.client("sqs"), sys.argv[1], visibility_seconds=30)
with contextlib.suppress(Stopped):
    print("polling", flush=True)
    queue.receive(20)
print("asked", stop.asked, flush=True)
"""


def test_a_long_poll_is_left_at_once(aws: Any, environment: dict[str, str]) -> None:
    extra = {"AWS_DEFAULT_REGION": environment["AWS_REGION"]}
    with subprocess.Popen(
        [sys.executable, "-c", POLLING, aws.jobs], env=environment | extra, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "polling\n"
        time.sleep(0.5)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - started < 2
        assert process.stdout.read() == "asked True\n"
