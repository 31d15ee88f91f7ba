"""Remove what a local cloud left on this machine after a crash, found by name and path."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bake.errors import UsageError
from bake.localcloud import host
from bake.localcloud.machines import disks, lazy
from bake.localcloud.machines.cgroups import Cgroups
from bake.localcloud.machines.nspawn import uuids
from bake.localcloud.network import bridge
from bake.localcloud.settings import Settings


def sweep(settings: Settings) -> list[str]:
    """Remove machines, mounts, loop devices, network and instance directories; return what was found.

    AMIs and caches stay. Other local clouds are not touched: every name contains the network, every path
    the state directory.
    """
    found: list[str] = []
    with suppress(UsageError), bridge.claim(settings):  # a running cloud keeps its network
        _machines(settings)
        found += bridge.left(settings)
        bridge.down(settings)
        settings.control.unlink(missing_ok=True)
        shutil.rmtree(uuids(settings), ignore_errors=True)
    found += [*_processes(settings), *_mounts(settings), *_loops(settings), *_lazy_disks(settings)]
    shutil.rmtree(settings.state / "keys", ignore_errors=True)
    for directory in settings.instances.glob("*"):
        found.append(f"disk {directory}")
        shutil.rmtree(directory, ignore_errors=True)
    return found


def leftovers(settings: Settings) -> list[str]:
    """List what a local cloud has on this machine. Empty when it is down."""
    found = [f"process {pid}" for pid in _machine_processes(settings)]
    found += [f"lazy disk's process {pid}" for pid in _lazy_processes(settings)]
    found += [f"control group {folder}" for folder in Cgroups(settings).left()]
    found += [f"mount {point}" for point in _own_mounts(settings)]
    found += [f"loop device {loop}" for loop in _own_loops(settings)]
    return found + bridge.left(settings)


def _machine_processes(settings: Settings) -> list[int]:
    """The nspawn processes that name a directory of this cloud on their command line."""
    marker = f"--directory={settings.instances}/".encode()
    return [pid for pid, words in _commands() if any(word.startswith(marker) for word in words)]


def _lazy_processes(settings: Settings) -> list[int]:
    """The processes of this cloud's lazy disks."""
    below = f"{settings.instances}/".encode()
    return [
        pid
        for pid, words in _commands()
        if lazy.SERVER.encode() in words and any(word.startswith(below) for word in words)
    ]


def _commands() -> Iterator[tuple[int, list[bytes]]]:
    """Each process and its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield int(path.parent.name), path.read_bytes().split(b"\0")


def _machines(settings: Settings) -> None:
    """Kill the machines' processes, even if their nspawn has ended."""
    cgroups = Cgroups(settings)
    cgroups.kill()
    cgroups.remove()


def _processes(settings: Settings) -> list[str]:
    found = []
    for pid in _machine_processes(settings):
        found.append(f"machine process {pid}")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while _machine_processes(settings) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _own_mounts(settings: Settings) -> list[Path]:
    return [Path(point) for point in disks.mounted() if point.startswith(f"{settings.instances}/")]


def _mounts(settings: Settings) -> list[str]:
    points = sorted((point for point in _own_mounts(settings) if point.name != lazy.FILE), reverse=True)
    for point in points:
        disks.unmount(point)
    return [f"mount {point}" for point in points]


def _lazy_disks(settings: Settings) -> list[str]:
    """End the processes of lazy disks, and unmount their files once no machine's disk uses them."""
    found = _lazy_processes(settings)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for point in _own_mounts(settings):
        disks.unmount(point)
    return [f"lazy disk's process {pid}" for pid in found]


def _own_loops(settings: Settings) -> list[str]:
    listed = host.run("losetup", "--json", "--list", "--output", "NAME,BACK-FILE")
    devices = json.loads(listed)["loopdevices"] if listed.strip() else []
    return [d["name"] for d in devices if (d["back-file"] or "").startswith(f"{settings.instances}/")]


def _loops(settings: Settings) -> list[str]:
    loops = _own_loops(settings)
    for loop in loops:
        host.run("losetup", "--detach", loop, check=False)
    return [f"loop device {loop}" for loop in loops]
