"""Kernel settings that local clouds need. The last cloud of this machine to go down restores them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from bake.localcloud.settings import RUN

# Setting -> the least value that it must have. A machine's services take a dozen inotify instances, and those
# of all machines count as root's, who has 128.
NEEDED = {"net/ipv4/ip_forward": 1, "fs/inotify/max_user_instances": 1024}
_SETTINGS = Path("/proc/sys")
_USERS = RUN / "kernel"
_BEFORE = RUN / "kernel-before.json"


def prepare(tag: str) -> None:
    """Raise the settings that are too low, for the cloud with this tag, while it is up."""
    with _lock():
        if not any(_USERS.iterdir()):
            _BEFORE.write_text(json.dumps({name: (_SETTINGS / name).read_text() for name in NEEDED}))
        (_USERS / tag).touch()
        for name, least in NEEDED.items():
            if int((_SETTINGS / name).read_text()) < least:
                (_SETTINGS / name).write_text(f"{least}\n")


def restore(tag: str) -> None:
    """Restore the settings unless another cloud is up; does nothing for a cloud that never raised them."""
    with _lock():
        if not (_USERS / tag).exists():
            return
        (_USERS / tag).unlink()
        if not any(_USERS.iterdir()):
            with suppress(FileNotFoundError):
                for name, value in json.loads(_BEFORE.read_text()).items():
                    (_SETTINGS / name).write_text(value)
                _BEFORE.unlink()


def _lock() -> FileLock:
    """One cloud of this machine at a time changes the settings and the list of clouds that need them."""
    _USERS.mkdir(parents=True, exist_ok=True)
    return FileLock(RUN / "lock")
