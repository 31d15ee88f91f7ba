"""Host memory as the kernel counts it, and errors that mean that memory ran out."""

from __future__ import annotations

import re
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2^63 where there is no limit
# Messages of CUDA, cuBLAS, cuDNN and the C library that torch raises as plain RuntimeErrors.
_RAN_OUT = re.compile(r"out of memory|ALLOC_FAILED|can(no|')t allocate memory|not enough memory", re.I)


def ran_out(error: Exception) -> bool:
    """Whether the device or the host ran out of memory."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_RAN_OUT.search(str(error)))


def available_ram(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Bytes available without swapping or being killed: the machine's, or less if a cgroup limits it."""
    machine = _kibibytes(proc / "meminfo", "MemAvailable")
    return min(
        [machine, *(left for folder in _memory_cgroups(proc, cgroups) if (left := _left(folder)) is not None)]
    )


def anonymous_ram(proc: Path = _PROC) -> int:
    """Bytes of this process that are not mapped from a file, so that the kernel cannot reclaim them."""
    return _kibibytes(proc / "self" / "status", "RssAnon")


def _kibibytes(file: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", file.read_text(), re.M)
    assert found, f"{file} names no {name}"
    return int(found[1]) * 1024


def _memory_cgroups(proc: Path, cgroups: Path) -> list[Path]:
    """This process's memory cgroup and its parents; v2, or v1 if the memory controller is there."""
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
    """What a cgroup still allows, not counting the page cache, which is reclaimed first; None: no limit."""
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
    # v1 has separate names for counts that include child groups, as its limit does.
    return sum(int(found.get(f"total_{name}", found.get(name, 0))) for name in names)
