"""Signals sent to real processes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration
PROGRAM = """
import os, signal, sys, time
from bake import interrupt
from bake.undo import Undo
mode = sys.argv[1]
if mode == "nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
interrupt.install()
def slow():
    print("removing", flush=True)
    sys.stdin.readline()
    print("removed", flush=True)
def quick():
    print("removed", flush=True)
try:
    with Undo() as undo:
        undo.add("thing", quick if mode in ("plain", "nohup") else slow, by_hand="rm")
        if mode == "now":
            undo.now()  # the signal comes while it removes
            print("not reached", flush=True)
        print("ready", flush=True)
        if mode == "nohup":
            print(sys.stdin.readline().strip(), flush=True)
        else:
            time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


def start(mode: str, first: str = "ready") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"{first}\n"
    return process


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_undoes_and_ends_with_130(name: str) -> None:
    process = start("plain")
    process.send_signal(signal.Signals[name])
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("removed\ninterrupted\n", 130)


def test_under_nohup_a_hang_up_is_ignored() -> None:
    process = start("nohup")
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate("still here\n", timeout=60)
    assert (out, process.returncode) == ("still here\nremoved\n", 0)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_signal_does_not_stop_the_clean_up(name: str) -> None:
    process = start("slow")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "removing\n"
    process.send_signal(signal.Signals[name])
    out, err = process.communicate("\n", timeout=60)
    assert (out, process.returncode) == ("removed\ninterrupted\n", 130)
    assert "still removing" in err


def test_a_signal_during_a_removal_waits_until_it_is_finished() -> None:
    process = start("now", first="removing")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate("\n", timeout=60)
    assert (out, process.returncode) == ("removed\ninterrupted\n", 130)
    assert "still removing" in err
