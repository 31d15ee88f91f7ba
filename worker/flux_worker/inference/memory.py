"""Host memory as the kernel counts it: what is available, and what this process holds; what tells of none."""

from __future__ import annotations

import re
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2^63 where there is no limit
# CUDA, cuBLAS and cuDNN, and the C library, where torch has no error of its own kind for it.
_RAN_OUT = re.compile(r"out of memory|ALLOC_FAILED|can(no|')t allocate memory|not enough memory", re.I)


def ran_out(error: Exception) -> bool:
    """Whether the device or the host had no memory left."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_RAN_OUT.search(str(error)))


def available_ram(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Bytes to be had without swapping or being killed: the machine's, or less where a cgroup says so."""
    machine = _kibibytes(proc / "meminfo", "MemAvailable")
    return min(
        [machine, *(left for folder in _memory_cgroups(proc, cgroups) if (left := _left(folder)) is not None)]
    )


def anonymous_ram(proc: Path = _PROC) -> int:
    """Bytes of this process that belong to no file: what the OOM killer counts and cannot reclaim."""
    return _kibibytes(proc / "self" / "status", "RssAnon")


def _kibibytes(file: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", file.read_text(), re.M)
    assert found, f"{file} names no {name}"
    return int(found[1]) * 1024


def _memory_cgroups(proc: Path, cgroups: Path) -> list[Path]:
    """This process's cgroup for memory and those above it; v2's, or v1's where the controller is there."""
    folders = []
    for line in (proc / "self" / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = cgroups / "memory" if controllers else cgroups
        inside = root / path.lstrip("/")
        folders += [inside, *(parent for parent in inside.parents if parent.is_relative_to(root))]
    return folders


def _left(folder: Path) -> int | None:
    """What a cgroup still allows, page cache not counted since it is given up first; None without a limit."""
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        try:
            allowed = (folder / limit).read_text().strip()
            held = int((folder / used).read_text())
            cached = _page_cache((folder / "memory.stat").read_text())
        except OSError:
            continue
        if allowed == "max" or int(allowed) >= _UNLIMITED:
            return None
        return max(0, int(allowed) - max(0, held - cached))
    return None


def _page_cache(stat: str) -> int:
    found = dict(line.split() for line in stat.splitlines())
    names = ("inactive_file", "active_file")
    # v1 counts the groups below under names of their own, as its limit does.
    return sum(int(found.get(f"total_{name}", found.get(name, 0))) for name in names)
