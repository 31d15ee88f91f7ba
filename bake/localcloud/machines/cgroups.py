"""Control groups: one holds a machine's processes, one limits its memory to that of its instance type.

With version 2 alone both are the same group; on hosts where version 1 counts memory, the second is there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bake.errors import BakeError
from bake.localcloud.settings import Settings

_MOUNTS = Path("/proc/self/mountinfo")


class Cgroups:
    """The groups of one machine, or with an empty name those of a local cloud.

    `memory` is the folder of the group that counts it; None where no controller does.
    """

    def __init__(self, settings: Settings, name: str = "") -> None:
        tree = Path(f"bake-{settings.tag}") / name
        counted = _memory()
        self._processes = _unified() / tree
        # Where version 1 is mounted as well, nspawn makes its own groups there.
        self._traces = [place / tree for kind, place, options in _mounts() if "name=systemd" in options]
        self.memory = counted / tree if counted else None

    def make(self, memory: int) -> list[Path]:
        """Make the groups, with `memory` bytes and no swap; return the files to write a process's id to."""
        self._processes.mkdir(parents=True, exist_ok=True)
        if self.memory is None:  # nothing counts memory here, as in a container without that controller
            return [self._processes / "cgroup.procs"]
        if self.memory == self._processes:
            _hand_down(self.memory.parent)
            limit, swap, most = "memory.max", "memory.swap.max", 0
        else:
            self.memory.mkdir(parents=True, exist_ok=True)
            # memsw counts memory and swap together.
            limit, swap, most = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", memory
        (self.memory / limit).write_text(str(memory))
        if (self.memory / swap).exists():  # only where the kernel counts swap
            (self.memory / swap).write_text(str(most))
        return [folder / "cgroup.procs" for folder in dict.fromkeys((self._processes, self.memory))]

    def kill(self) -> None:
        """Kill all processes of the groups, and wait until they are gone."""
        # A process that waits for a slow disk dies only when the disk has answered.
        deadline = time.monotonic() + 30
        # The machine's own thread may remove the group at any moment: it is empty then.
        with suppress(OSError):
            (self._processes / "cgroup.kill").write_text("1")
            while "populated 1" in (self._processes / "cgroup.events").read_text():
                if time.monotonic() > deadline:
                    return
                time.sleep(0.02)

    def remove(self) -> None:
        """Remove the empty groups with all groups below them."""
        for folder in self.left():
            _remove(folder)

    def left(self) -> list[Path]:
        """The groups that exist."""
        every = dict.fromkeys((self._processes, self.memory, *self._traces))
        return [folder for folder in every if folder is not None and folder.exists()]


def limits_memory() -> bool:
    """Whether this host can limit a machine's memory."""
    return _memory() is not None


def _remove(folder: Path) -> None:
    with suppress(OSError):
        for below in folder.iterdir():
            if below.is_dir():
                _remove(below)
        folder.rmdir()


def _unified() -> Path:
    """Where version 2 is mounted; without it, machines would share a group and mix up their services."""
    for kind, place, _ in _mounts():
        if kind == "cgroup2":
            return place
    raise BakeError("no cgroup version 2 is mounted", hint="mount -t cgroup2 none /sys/fs/cgroup/unified")


def _memory() -> Path | None:
    """The hierarchy that counts memory, or None."""
    for kind, place, options in _mounts():
        if kind == "cgroup" and "memory" in options:
            return place
        if kind == "cgroup2" and _hand_down(place):
            return place
    return None


def _hand_down(group: Path) -> bool:
    """Let the groups right below this one count memory; False if that is not allowed here."""
    try:
        (group / "cgroup.subtree_control").write_text("+memory")
    except OSError:
        return False
    return True


def _mounts() -> Iterator[tuple[str, Path, list[str]]]:
    """Type, place and options of each mount."""
    for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        yield kind, Path(left.split()[4]), options.split(",")
