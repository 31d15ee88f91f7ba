"""The kernel's settings that local clouds need; the last of this machine to leave puts them back."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bake.localcloud.settings import RUN

# Setting -> the least that it must be. A machine's services take a dozen inotify instances, and all machines'
# count as root's, who has 128.
NEEDED = {"net/ipv4/ip_forward": 1, "fs/inotify/max_user_instances": 1024}
_SETTINGS = Path("/proc/sys")
_USERS = RUN / "kernel"
_BEFORE = RUN / "kernel-before.json"


def prepare(tag: str) -> None:
    """Raise what is too low, for the cloud with this tag and as long as it is up."""
    with _lock():
        if not any(_USERS.iterdir()):
            _BEFORE.write_text(json.dumps({name: (_SETTINGS / name).read_text() for name in NEEDED}))
        (_USERS / tag).touch()
        for name, least in NEEDED.items():
            if int((_SETTINGS / name).read_text()) < least:
                (_SETTINGS / name).write_text(f"{least}\n")


def restore(tag: str) -> None:
    """Put them back as they were, unless another cloud is up; does nothing for one that never was."""
    with _lock():
        if not (_USERS / tag).exists():
            return
        (_USERS / tag).unlink()
        if not any(_USERS.iterdir()):
            with suppress(FileNotFoundError):
                for name, value in json.loads(_BEFORE.read_text()).items():
                    (_SETTINGS / name).write_text(value)
                _BEFORE.unlink()


@contextmanager
def _lock() -> Iterator[None]:
    _USERS.mkdir(parents=True, exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
