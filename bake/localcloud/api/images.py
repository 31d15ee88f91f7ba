"""AMIs and snapshots for moto, with the sizes and progress of the real disks."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from moto.core import utils
from moto.ec2.models.amis import Ami
from moto.ec2.models.elastic_block_store import Snapshot, Volume
from moto.ec2.models.instances import StateReason
from moto.ec2.utils import random_ami_id, random_snapshot_id

from bake.localcloud.images.hostile import HostileBase
from bake.localcloud.images.hostile.catalogue import ROOT_DEVICE
from bake.localcloud.images.store import ImageStore, StoredImage, StoredSnapshot
from bake.localcloud.machines import disks


class LocalSnapshot(Snapshot):  # type: ignore[misc]
    """A snapshot whose disk lies in the image store, or at `disk` if that is set.

    The script of `hostile_base` runs on each disk that is made of it. A `hidden` one belongs to another
    account.
    """

    def __init__(
        self, backend: Any, volume: Volume, *, description: str, identity: str | None = None
    ) -> None:
        name = identity or random_snapshot_id()
        super().__init__(backend, name, volume, description, volume.encrypted, volume.kms_key_id)
        self.percent = 100
        self.disk: Path | None = None
        self.hostile_base: HostileBase | None = None
        self.hidden = False

    @property
    def progress(self) -> str:
        return f"{self.percent}%"

    @property
    def full_snapshot_size_in_bytes(self) -> int | None:
        """The bytes written, as DescribeSnapshots gives them; None before the copy is there."""
        disk = self.disk or self.ec2_backend.store.disk(self.id)
        return disk.stat().st_blocks * 512 if disk.exists() else None

    def copy_from(self, source: Path, store: ImageStore) -> None:
        """Copy a disk into the store and update the percentage."""

        def follow(percent: int) -> None:
            self.percent = percent

        disks.clone(source, store.disk(self.id), follow)

    def record(self) -> StoredSnapshot:
        tags = {tag["key"]: tag["value"] for tag in self.get_tags()}
        created = self.start_time.isoformat()
        return StoredSnapshot(
            self.id, self.volume.id, self.volume.size, self.description, created, tags, self.kms_key_id
        )


class LocalAmi(Ami):  # type: ignore[misc]
    """An AMI with one root volume as large as its snapshot, and `more_mappings` of further devices."""

    def __init__(
        self,
        backend: Any,
        snapshot: LocalSnapshot,
        *,
        name: str,
        description: str,
        instance: Any = None,
        identity: str | None = None,
    ) -> None:
        # Not moto's own __init__, which would make a snapshot of 15 GiB.
        self.ec2_backend = backend
        self.id = identity or random_ami_id()
        self.state = "available"
        self.state_reason: StateReason | None = None
        self.name = name
        self.description = description
        self.image_type = "machine"
        self.owner_id = backend.account_id
        self.owner_alias: str | None = None
        self.image_location = f"{self.owner_id}/{name}"
        self.virtualization_type = "hvm"
        self.architecture = "x86_64"
        self.kernel_id = None
        self.platform = None
        self.platform_details = "Linux/UNIX"
        self.usage_operation = "RunInstances"
        self.hypervisor = "xen"
        self.ena_support = True
        self.root_device_name = instance.root_device_name if instance is not None else ROOT_DEVICE
        self.root_device_type = "ebs"
        self.sriov = "simple"
        self.creation_date: datetime = utils.utcnow()
        self.product_codes: set[str] = set()
        self.boot_mode = "uefi-preferred"
        self.imds_support: str | None = None
        self.instance_id = instance.id if instance is not None else None
        self.launch_permissions: list[dict[str, str]] = []
        self.ebs_snapshot = snapshot
        # Instance stores stay mapped as the instance was launched; volumes come from snapshots.
        launched = backend.amis.get(instance.image_id) if instance is not None else None
        more = launched.more_mappings if launched else ()
        self.more_mappings = tuple(mapping for mapping in more if "VirtualName" in mapping)

    @property
    def imds(self) -> str | None:
        """The name that moto's DescribeImageAttribute has for `imds_support`."""
        return self.imds_support

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        volume = self.ebs_snapshot.volume
        return [
            {
                "DeviceName": self.root_device_name,
                "Ebs": {
                    "SnapshotId": self.ebs_snapshot.id,
                    "VolumeSize": volume.size,
                    "VolumeType": volume.volume_type,
                    "Iops": volume.iops,
                    "Throughput": volume.throughput,
                    "Encrypted": self.ebs_snapshot.encrypted,
                    "DeleteOnTermination": True,
                },
            },
            *self.more_mappings,
        ]

    def fail(self, why: str) -> None:
        """Mark the image as failed, since its copy failed: nothing can be launched from it."""
        self.state = "failed"
        self.state_reason = StateReason(f"Client.InternalError: {why}", "Client.InternalError")

    def record(self) -> StoredImage:
        volume = self.ebs_snapshot.volume
        return StoredImage(
            self.id,
            self.name,
            self.description,
            self.creation_date.isoformat(),
            self.ebs_snapshot.id,
            volume.volume_type,
            volume.iops,
            volume.throughput,
            self.instance_id,
            {tag["key"]: tag["value"] for tag in self.get_tags()},
            self.imds_support,
            self.root_device_name,
            list(self.more_mappings),
        )

    @classmethod
    def restored(
        cls, backend: Any, snapshot: LocalSnapshot, stored: StoredImage, *, amazon: bool = False
    ) -> LocalAmi:
        """Restore a stored AMI with its ids."""
        image = cls(backend, snapshot, name=stored.name, description=stored.description, identity=stored.id)
        image.creation_date = datetime.fromisoformat(stored.created)
        image.instance_id = stored.source_instance
        image.imds_support, image.root_device_name = stored.imds_support, stored.root_device
        image.more_mappings = tuple(stored.more_mappings)
        volume = snapshot.volume
        volume.volume_type, volume.iops, volume.throughput = (
            stored.volume_type,
            stored.iops,
            stored.throughput,
        )
        snapshot.from_ami = image.id
        if amazon:
            image.owner_id, image.owner_alias = "898082745236", "amazon"
            image.launch_permissions = [{"Group": "all"}]
        image.add_tags(stored.tags)
        return image
