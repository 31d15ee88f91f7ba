"""Routes for disks that fill while they are read: how later instances' do, and what each has delivered."""

from __future__ import annotations

import dataclasses
from typing import Any

from bake.errors import UsageError
from bake.localcloud.api.instances import LocalInstances
from bake.localcloud.api.pacing import Pacer
from bake.localcloud.machines.filling import Bandwidth, parse_speeds, speeds_of
from bake.localcloud.machines.lazy import LazyDisk
from bake.localcloud.network.control import Route

PATH = "/-/lazy-disks"
_LONGEST_STALL = 3600


def routes(instances: LocalInstances, pacer: Pacer) -> dict[tuple[str, str], Route]:
    """Set, show and end how later instances' disks fill; look at one instance's, and change it."""

    def fill(request: Any) -> dict[str, Any]:
        text = request.get_data(as_text=True)
        instances.speeds = parse_speeds(text) if text else speeds_of(request.args)
        pacer.bandwidth = instances.speeds.bandwidth
        return shown(request)

    def shown(request: Any) -> dict[str, Any]:
        return instances.speeds.described() if instances.speeds else {}

    def complete(request: Any) -> dict[str, Any]:
        instances.speeds, pacer.bandwidth = None, Bandwidth()
        return {}

    def figures(request: Any) -> dict[str, Any]:
        return _told(_disk(instances, request.path))

    def change(request: Any) -> dict[str, Any]:
        disk = _disk(instances, request.path)
        asked = request.args.to_dict()
        stall = asked.pop("stall", None)
        if asked:
            changed = dataclasses.asdict(speeds_of(asked).filling)
            disk.change(**{name: changed[name] for name in asked if name in changed})
        if stall is not None:
            disk.stall(_seconds(stall))
        return _told(disk)

    return {
        ("POST", PATH): fill,
        ("GET", PATH): shown,
        ("DELETE", PATH): complete,
        ("GET", f"{PATH}/*"): figures,
        ("POST", f"{PATH}/*"): change,
    }


def _told(disk: LazyDisk) -> dict[str, Any]:
    figures = disk.figures()
    return {
        **dataclasses.asdict(disk.filling),
        **dataclasses.asdict(figures),
        "progress": figures.progress,
        "ranges": disk.touched(),
    }


def _disk(instances: LocalInstances, path: str) -> LazyDisk:
    """The disk of the instance, or root volume, that a path ends in. Raises UsageError."""
    name = path.rpartition("/")[2]
    for instance in instances.all():
        root = instance.moto.block_device_mapping.get(instance.moto.root_device_name)
        if name in {instance.moto.id, root.volume_id if root else None}:
            if instance.machine.lazy is None or not instance.machine.lazy.is_known:
                raise UsageError(f"the disk of {name} is no lazy one", hint="bake local up --lazy-disks")
            return instance.machine.lazy
    raise UsageError(f"there is no instance or root volume {name[:60]!r}", hint="bake local status")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST_STALL:
        raise UsageError(f"a disk stalls for 0 (no more) to {_LONGEST_STALL} s, not {text[:60]!r}")
    return seconds
