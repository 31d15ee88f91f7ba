"""`bake local down` under a bake that uses the cloud: asked first, or forced."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bake.localcloud.lifecycle import cloud as localcloud
from bake.localcloud.lifecycle.users import User
from bake.localcloud.settings import Settings

from ..bake.commands import terminal

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
DOWN = [sys.executable, "-m", "bake.cli", "local", "down"]
# As long as its stdin is open it uses the cloud, like a bake of that profile.
BAKES = """
import sys
from bake.localcloud.lifecycle import cloud

with cloud.running():
    print("on", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def bake(own: Settings) -> Iterator[subprocess.Popen[str]]:
    """A process that uses the test's own cloud."""
    process = subprocess.Popen(
        [sys.executable, "-c", BAKES, "--profile", "g6e-ubuntu", "--rehearse"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    yield process
    process.communicate(timeout=300)


def down(*words: str) -> tuple[int, str]:
    """Without a terminal."""
    done = subprocess.run(
        [*DOWN, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def asked(answer: str) -> tuple[int, str]:
    return terminal.run(DOWN, ROOT, {**os.environ, "PYTHONPATH": str(ROOT)}, answer)


def test_without_a_terminal_it_is_refused_and_forced(bake: subprocess.Popen[str]) -> None:
    code, said = down()
    assert code == 2
    assert f"A bake (pid {bake.pid}, profile g6e-ubuntu) is using the local cloud; nothing was taken" in said
    assert "bake local down --force" in said
    assert localcloud.current() is not None
    code, said = down("--force")
    assert (code, said) == (0, "the local cloud is down\n")
    assert localcloud.current() is None


def test_on_a_terminal_it_asks(bake: subprocess.Popen[str]) -> None:
    code, said = asked("n\n")
    question = f"A bake (pid {bake.pid}, profile g6e-ubuntu) is using the local cloud: take it down under it?"
    assert question in said
    assert (code, localcloud.current() is not None) == (2, True)
    code, said = asked("y\n")
    assert (code, "the local cloud is down" in said) == (0, True)
    assert localcloud.current() is None


def test_two_are_named_both(bake: subprocess.Popen[str], own: Settings) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    localcloud.up(owner_pid=other.pid)
    try:
        code, said = down()
    finally:
        other.communicate(timeout=60)
    assert code == 2
    assert f"A bake (pid {other.pid})" in said
    assert f"A bake (pid {bake.pid}, profile g6e-ubuntu)" in said
    assert "are using the local cloud" in said


def test_who_is_gone_is_not_asked_for(own: Settings) -> None:
    """Kept by hand, with a bake that was: its end is heard of a moment later."""
    localcloud.up()
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    localcloud.up(owner_pid=owner.pid)
    watched = os.pidfd_open(owner.pid)
    owner.kill()
    select.select([watched], [], [])
    os.close(watched)
    owner.wait()
    assert down() == (0, "the local cloud is down\n")


def test_a_program_that_uses_the_library_is_not_asked(bake: subprocess.Popen[str]) -> None:
    localcloud.down()
    assert localcloud.users() == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["bake", "--profile", "g6e", "--rehearse"], "g6e"),
        (["bake", "plan", "--profile=g6e"], "g6e"),
        (["bake", "--profile"], None),
        (["pytest"], None),
    ],
)
def test_the_profile_is_read_off_the_command_line(words: list[str], expected: str | None) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()", *words], stdin=subprocess.PIPE)
    try:
        while b"input" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            pass  # between fork and exec
        assert User.of(process.pid).profile == expected
    finally:
        process.communicate(b"\n", timeout=60)
    assert User.of(process.pid) == User(process.pid)
