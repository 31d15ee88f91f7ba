"""The initialization of volumes made from snapshots: the rate that a launch asks for, and how far it is.

https://docs.aws.amazon.com/ebs/latest/userguide/initalize-volume.html and ebs-initialize-monitor.html. Root
volumes of lazy disks are initialized while they are read and at that rate; every other volume is at once.
"""

from __future__ import annotations

import math
from typing import Any

from moto.ec2.exceptions import EC2ClientError

from bake.localcloud.api import response_layer
from bake.localcloud.api.parameters import Tree
from bake.localcloud.machines import disks
from bake.localcloud.machines.lazy import LazyDisk

NAME = "VolumeInitializationRate"


def refuse(tree: Tree, backend: Any) -> None:
    """Refuse the rate in mappings of an image, which has no place for it: it belongs to a launch."""
    for mapping in tree.get("BlockDeviceMappings", []):
        if NAME in (mapping.get("Ebs") or {}):
            raise EC2ClientError(
                "InvalidParameterCombination", f"The parameter {NAME} is not supported for images."
            )


def status(backend: Any, get: Any) -> dict[str, Any]:
    """The answer of DescribeVolumeStatus."""
    volumes = backend.describe_volumes(get("VolumeIds", []), _filters(get("Filters", [])))
    return {"VolumeStatuses": [_of(volume, backend) for volume in volumes]}


def _filters(asked: list[Any]) -> dict[str, list[str]]:
    """The filters that the local cloud has."""
    filters = {one["Name"]: one.get("Values", []) for one in asked}
    if lacking := sorted(set(filters) - {"availability-zone"}):
        raise EC2ClientError("UnsupportedOperation", f"Not in the local cloud: filters by {lacking[0]}")
    return filters


def _of(volume: Any, backend: Any) -> dict[str, Any]:
    details = {"io-enabled": "passed", "io-performance": "not-applicable"}
    entry: dict[str, Any] = {
        "VolumeId": volume.id,
        "AvailabilityZone": volume.availability_zone,
        "Events": [],
        "Actions": [],
    }
    if volume.snapshot_id:
        progress = _progress(volume, backend)
        details["initialization-state"] = "completed" if progress["Progress"] == 100 else "initializing"
        entry["InitializationStatusDetails"] = progress
    told = [{"Name": name, "Status": told} for name, told in details.items()]
    return {**entry, "VolumeStatus": {"Status": "ok", "Details": told}}


def _progress(volume: Any, backend: Any) -> dict[str, Any]:
    held, there = _filled(volume, backend)
    progress = there * 100 // held if held else 100
    rate = volume.volume_initialization_rate
    if rate is None:
        return {"InitializationType": "default", "Progress": progress}
    return {
        "InitializationType": "provisioned-rate",
        "Progress": progress,
        "EstimatedTimeToCompleteInSeconds": math.ceil((held - there) / (rate << 20)),
    }


def _filled(volume: Any, backend: Any) -> tuple[int, int]:
    """The bytes of the snapshot in a volume, and how many of them are there."""
    attached = volume.attachment
    if attached is None or attached.device != attached.instance.root_device_name:
        return 0, 0
    lazy = backend.local_instances[attached.instance.id].machine.lazy
    if not isinstance(lazy, LazyDisk):
        return 0, 0
    if not lazy.is_known:  # the machine has not started yet
        return volume.size * disks.GIB, 0
    figures = lazy.figures()
    return figures.held, figures.on_demand + figures.background


def install() -> None:
    """Answer DescribeVolumeStatus, which moto lacks."""
    response_layer.install({"describe_volume_status": status})
