"""What a local cloud is and holds at the moment, for people and programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bake.localcloud.images.store import ImageStore
from bake.localcloud.machines import disks
from bake.localcloud.settings import Settings

if TYPE_CHECKING:
    from bake.localcloud.api.instances import LocalInstances
    from bake.localcloud.network.egress import Egress


@dataclass(frozen=True)
class InstanceStatus:
    """An instance; `disk_bytes` is what its volumes, of `volume_gib` together, really take."""

    id: str
    type: str
    state: str
    address: str
    image: str
    name: str
    volume_gib: int
    disk_bytes: int


@dataclass(frozen=True)
class ImageStatus:
    """An AMI on disk; `disk_bytes` is what its snapshots, of `volume_gib` together, really take."""

    id: str
    name: str
    created: str
    volume_gib: int
    disk_bytes: int


@dataclass(frozen=True)
class RefusedStatus:
    """A destination that machines tried to reach and may not; `packets` is how many were refused."""

    host: str
    address: str
    protocol: str
    port: int
    packets: int


@dataclass(frozen=True)
class Status:
    """A local cloud that is up. Its API's delays are those of `seed`, or none if it is `lenient`.

    `egress` are the hosts outside that machines may reach, or those of bakes; None: everything.
    """

    endpoint: str
    hub: str
    wheels: str
    pid: int
    since: str
    seed: int
    lenient: bool
    instances: tuple[InstanceStatus, ...]
    images: tuple[ImageStatus, ...]
    egress: tuple[str, ...] | None = None
    refused: tuple[RefusedStatus, ...] = ()

    @classmethod
    def of(cls, content: dict[str, Any]) -> Status:
        """Read what `report` wrote."""
        instances = tuple(InstanceStatus(**entry) for entry in content.pop("instances"))
        images = tuple(ImageStatus(**entry) for entry in content.pop("images"))
        refused = tuple(RefusedStatus(**entry) for entry in content.pop("refused"))
        declared = content.pop("egress")
        egress = None if declared is None else tuple(declared)
        return cls(instances=instances, images=images, egress=egress, refused=refused, **content)


def report(
    settings: Settings, about: dict[str, Any], instances: LocalInstances, store: ImageStore, egress: Egress
) -> dict[str, Any]:
    """The status as JSON; terminated instances are left out."""
    live = [instance for instance in instances.all() if instance.state != "terminated"]
    return {
        "endpoint": settings.endpoint,
        "hub": settings.hub,
        "wheels": settings.wheels,
        "pid": about["pid"],
        "since": about["since"],
        "seed": about["seed"],
        "lenient": about["lenient"],
        "instances": [_instance(instance) for instance in live],
        "images": [vars(image) for image in images(store)],
        "egress": egress.declared,
        "refused": egress.refused(),
    }


def _instance(instance: Any) -> dict[str, Any]:
    moto = instance.moto
    found = [moto.ec2_backend.disk_of(volume) for volume in moto.ec2_backend.volumes_of(instance)]
    tags = {tag["key"]: tag["value"] for tag in moto.get_tags()}
    return {
        "id": moto.id,
        "type": moto.instance_type,
        "state": instance.state,
        "address": instance.machine.hardware.address,
        "image": moto.image_id,
        "name": tags.get("Name", ""),
        "volume_gib": sum(block.size for block in list(moto.block_device_mapping.values())),
        "disk_bytes": sum(disks.used(disk) for disk in found if disk.exists()),
    }


def images(store: ImageStore) -> list[ImageStatus]:
    """The AMIs on disk, oldest first; the cloud need not be up."""
    found = []
    for image in store.images():
        sizes = [store.disk(snapshot).stat() for snapshot in image.snapshots]
        gib, used = sum(one.st_size >> 30 for one in sizes), sum(one.st_blocks * 512 for one in sizes)
        found.append(ImageStatus(image.id, image.name, image.created, gib, used))
    return found
