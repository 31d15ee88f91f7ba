"""Signals, sent to real processes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, time
from bake import interrupt
from bake.undo import Undo
interrupt.install()
mode = sys.argv[1]
try:
    with Undo() as undo:
        if mode == "creating":
            with undo.creating():
                print("ready", flush=True)
                sys.stdin.readline()  # the signal has come by then
                undo.add("thing", lambda: print("removed", flush=True), by_hand="rm")
            print("not reached", flush=True)
        def slow():
            if mode == "slow":
                print("removing", flush=True)
                sys.stdin.readline()
            print("removed", flush=True)
        undo.add("thing", slow, by_hand="rm")
        print("ready", flush=True)
        time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


def start(mode: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_undoes_and_ends_with_130(number: signal.Signals) -> None:
    process = start("plain")
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("removed\ninterrupted\n", 130)


def test_a_signal_between_creation_and_registration_leaks_nothing() -> None:
    process = start("creating")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate("\n", timeout=60)
    assert (out, process.returncode) == ("removed\ninterrupted\n", 130)


def test_a_second_signal_does_not_stop_the_clean_up() -> None:
    process = start("slow")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "removing\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate("\n", timeout=60)
    assert (out, process.returncode) == ("removed\ninterrupted\n", 130)
    assert "still removing" in err
