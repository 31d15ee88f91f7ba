"""Start the worker once, and follow which of the watched files it reads."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tracing.ranges import Range
from tracing.residency import Residency

SHORTEST = 0.1
"""Seconds between two looks, at least."""
SHARE = 0.2
"""Of one CPU, for looking: a slow look is followed by a longer pause."""
TAIL = 2000  # characters of what a failed start said
_NO_FILES = ("/dev/", "/memfd:", "/proc/", "/run/", "/sys/")


class Failed(Exception):
    """The start did not get to its end."""


@dataclass(frozen=True)
class Command:
    """What is started, as whom, with which environment, and for how many seconds at most."""

    argv: Sequence[str]
    user: str | None
    environment: Mapping[str, str]
    limit: float


@dataclass
class Seen:
    """What was seen of a start: parts of watched files in their order, and files that it mapped."""

    ranges: list[Range] = field(default_factory=list)
    mapped: dict[str, None] = field(default_factory=dict)
    looks: int = 0
    seconds: float = 0.0


def follow(command: Command, watched: Residency) -> Seen:
    """Run the command to its end and look meanwhile; raises Failed if it fails or takes too long."""
    seen, began = Seen(), time.monotonic()
    with tempfile.TemporaryFile(dir=command.environment.get("HOME")) as said:
        with _started(command, said) as process:
            while True:
                ended = process.poll() is not None
                cost = _look(process.pid, watched, seen)
                seen.seconds = time.monotonic() - began
                if ended:
                    break
                if seen.seconds > command.limit:
                    raise Failed(f"the start took more than {command.limit:.0f} s")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(SHORTEST, cost / SHARE))
        if process.returncode != 0:
            said.seek(0)
            told = said.read().decode(errors="replace").strip()[-TAIL:]
            raise Failed(f"the start ended with exit code {process.returncode}: {told or 'it said nothing'}")
    return seen


def _look(pid: int, watched: Residency, seen: Seen) -> float:
    """Look once; return the seconds that it took."""
    began = time.monotonic()
    for member in family(pid):
        seen.mapped.update(dict.fromkeys(mapped(member)))
    seen.ranges += watched.look()
    seen.looks += 1
    return time.monotonic() - began


def family(pid: int) -> Iterator[int]:
    """The process and those that it started."""
    yield pid
    with contextlib.suppress(OSError):  # it ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text(encoding="ascii").split():
                yield from family(int(child))


def mapped(pid: int) -> Iterator[str]:
    """The files that a process maps; none where it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            fields = line.split(maxsplit=5)
            path = fields[5] if len(fields) == 6 else ""
            if path.startswith("/") and not path.startswith(_NO_FILES) and not path.endswith("(deleted)"):
                yield path


@contextlib.contextmanager
def _started(command: Command, said: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    """Start it in a session of its own; nothing of it is left after the block."""
    process = subprocess.Popen(
        command.argv,
        env=dict(command.environment),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        start_new_session=True,
        umask=0o022,
        **_identity(command.user),
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _identity(user: str | None) -> dict[str, Any]:
    if user is None:
        return {}
    found = pwd.getpwnam(user)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": os.getgrouplist(user, found.pw_gid)}
