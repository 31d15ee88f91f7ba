"""AMIs and snapshots for moto, with the sizes and progress of the real disks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from moto.core import utils
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.amis import Ami
from moto.ec2.models.elastic_block_store import Snapshot, Volume
from moto.ec2.models.instances import StateReason
from moto.ec2.utils import random_ami_id, random_snapshot_id

from bake.localcloud.images.hostile import HostileBase
from bake.localcloud.images.hostile.catalogue import ROOT_DEVICE
from bake.localcloud.images.store import ImageStore, StoredImage, StoredSnapshot
from bake.localcloud.machines import disks
from bake.localcloud.settings import SPOT_REGION

# Attributes of an AMI beside those that `StoredImage` names, with their values for one made by CreateImage.
# Those that an AMI does not share with these are kept on disk.
ATTRIBUTES: Mapping[str, Any] = {
    "architecture": "x86_64",
    "virtualization_type": "hvm",
    "boot_mode": "uefi-preferred",
    "tpm_support": None,
    "sriov_net_support": "simple",
    "ena_support": True,
    "source_image_id": None,
    "source_image_region": None,
    "deprecation_time": None,
    "deregistration_protection": "disabled",
    "protected_until": None,  # ISO 8601 in UTC, after a protection with a cooldown
    "watermarks": (),  # as DescribeImages has them, with times in ISO 8601
    "types": None,  # patterns of the instance types that it is for, and not for
}


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
        self.gib: int = volume.size  # as the volume was; it may grow
        self.source_volume: str = volume.id
        self.percent = 100
        self.disk: Path | None = None
        self.hostile_base: HostileBase | None = None
        self.hidden = False
        self.state_message: str | None = None

    @property
    def tag_set(self) -> list[dict[str, str]] | None:
        """Its tags; None without any, which answers then leave out as EC2's do."""
        return self.get_tags() or None

    @property
    def volume_size(self) -> int:
        return self.gib

    @property
    def volume_id(self) -> str:
        return self.source_volume

    @property
    def progress(self) -> str:
        return f"{self.percent}%"

    @property
    def full_snapshot_size_in_bytes(self) -> int | None:
        """The bytes written, as DescribeSnapshots gives them; None before the copy is there."""
        disk = self.path
        return disk.stat().st_blocks * 512 if disk.exists() else None

    @property
    def path(self) -> Path:
        """Where its disk is, or will be."""
        return self.disk or self.ec2_backend.store.disk(self.id)

    def get_filter_value(self, filter_name: str, method_name: str | None = None) -> Any:
        own = {"volume-size": self.gib, "volume-id": self.volume_id, "progress": self.progress}
        return own[filter_name] if filter_name in own else super().get_filter_value(filter_name, method_name)

    def copy_from(self, source: Path, store: ImageStore) -> None:
        """Copy a disk into the store and update the percentage."""

        def follow(percent: int) -> None:
            self.percent = percent

        store.fill(self.id, lambda target: disks.clone(source, target, follow))

    def complete(self) -> None:
        self.status, self.percent = "completed", 100

    def fail(self, why: str) -> None:
        """Mark the snapshot as one that will never have a disk."""
        self.status, self.state_message = "error", why

    def record(self) -> StoredSnapshot:
        tags = {tag["key"]: tag["value"] for tag in self.get_tags()}
        created = self.start_time.isoformat()
        key, region = self.kms_key_id, _stored_region(self.ec2_backend)
        return StoredSnapshot(self.id, self.volume_id, self.gib, self.description, created, tags, key, region)


class LocalAmi(Ami):  # type: ignore[misc]
    """An AMI: a root volume of a snapshot, and `more_mappings` of further devices.

    `root` are the fields of the root volume's mapping, without its snapshot and encryption.
    """

    sriov_net_support: str | None = None
    watermarks: Sequence[dict[str, Any]]
    types: dict[str, list[str]] | None

    def __init__(
        self,
        backend: Any,
        snapshot: LocalSnapshot,
        *,
        name: str,
        description: str,
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
        self.kernel_id = None
        self.platform = None
        self.platform_details = "Linux/UNIX"
        self.usage_operation = "RunInstances"
        self.hypervisor = "xen"
        self.root_device_name = ROOT_DEVICE
        self.root_device_type = "ebs"
        self.creation_date: datetime = utils.utcnow()
        self.product_codes: set[str] = set()
        self.imds_support: str | None = None
        self.instance_id: str | None = None
        self.launch_permissions: list[dict[str, str]] = []
        self.ebs_snapshot = snapshot
        volume = snapshot.volume
        self.root: dict[str, Any] = {
            "VolumeSize": snapshot.gib,
            "VolumeType": volume.volume_type,
            "Iops": volume.iops,
            "Throughput": volume.throughput,
            "DeleteOnTermination": True,
        }
        self.more_mappings: tuple[dict[str, Any], ...] = ()
        self.assign(ATTRIBUTES)

    def assign(self, attributes: Mapping[str, Any]) -> None:
        """Set some of `ATTRIBUTES`."""
        for name, value in attributes.items():
            setattr(self, name, value)

    @property
    def tag_set(self) -> list[dict[str, str]] | None:
        """Its tags; None without any, which answers then leave out as EC2's do."""
        return self.get_tags() or None

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """As DescribeImages has them, the root volume's first."""
        root = {"SnapshotId": self.ebs_snapshot.id, **self.root}
        mapped = [{"DeviceName": self.root_device_name, "Ebs": root}, *self.more_mappings]
        return [{**one, "Ebs": self._encryption(one["Ebs"])} if "Ebs" in one else one for one in mapped]

    def _encryption(self, ebs: dict[str, Any]) -> dict[str, Any]:
        snapshot = self.ec2_backend.snapshots.get(ebs.get("SnapshotId"))
        return {"Encrypted": False, **ebs, **({"Encrypted": snapshot.encrypted} if snapshot else {})}

    @property
    def image_watermarks(self) -> list[dict[str, Any]]:
        """As DescribeImages has them."""
        times = ("SourceImageCreationTime", "WatermarkCreationTime")
        return [
            {**one, **{name: datetime.fromisoformat(one[name]) for name in times}} for one in self.watermarks
        ]

    @property
    def instance_type_specification(self) -> dict[str, list[dict[str, str]]] | None:
        """As DescribeImages has it; None where the image is for all types."""
        named = self.types or {}
        return {key: [{"InstanceType": one} for one in found] for key, found in named.items()} or None

    def snapshots(self) -> list[LocalSnapshot]:
        """The snapshots of all its volumes that exist, the root volume's first."""
        more = [one.get("Ebs", {}).get("SnapshotId") for one in self.more_mappings]
        found = [self.ec2_backend.snapshots.get(identity) for identity in more if identity]
        return [self.ebs_snapshot, *(one for one in found if one is not None)]

    def get_filter_value(self, filter_name: str, method_name: str | None = None) -> Any:
        if filter_name.startswith("block-device-mapping."):
            return list(self._mapped(filter_name.partition(".")[2]))
        if field := _WATERMARK.get(filter_name):
            return [str(one[field]) for one in self.watermarks]
        names = {"manifest-location": "image_location", "state-reason-code": "reason_code"}
        names |= {"state-reason-message": "reason_message", "source-instance-id": "instance_id"}
        if filter_name.startswith(("tag:", "tag-")) or filter_name in _MOTOS_FILTERS:
            return super().get_filter_value(filter_name, method_name)
        attribute = names.get(filter_name, filter_name.replace("-", "_"))
        if filter_name not in _FILTERS:
            raise EC2ClientError("InvalidParameterValue", f"The filter '{filter_name[:100]}' is invalid")
        return getattr(self, attribute, None)

    @property
    def reason_code(self) -> str | None:
        return self.state_reason.code if self.state_reason else None

    @property
    def reason_message(self) -> str | None:
        return self.state_reason.message if self.state_reason else None

    def _mapped(self, field: str) -> Iterator[str]:
        key = _MAPPED.get(field)
        if key is None:
            raise EC2ClientError("InvalidParameterValue", f"The filter '{field[:100]}' is invalid")
        for mapping in self.block_device_mappings:
            value = mapping.get(key) if key == "DeviceName" else mapping.get("Ebs", {}).get(key)
            if value is not None:
                yield str(value).lower() if isinstance(value, bool) else str(value)

    def fail(self, why: str, code: str = "Client.InternalError") -> None:
        """Mark the image as failed, since its copy failed: nothing can be launched from it."""
        self.state = "failed"
        self.state_reason = StateReason(f"{code}: {why}", code)

    def record(self) -> StoredImage:
        changed = {name: getattr(self, name) for name in ATTRIBUTES}
        changed = {name: value for name, value in changed.items() if value != ATTRIBUTES[name]}
        if self.launch_permissions:
            changed["launch_permissions"] = list(self.launch_permissions)
        if self.state == "disabled":
            changed["state"] = self.state
        return StoredImage(
            self.id,
            self.name,
            self.description,
            self.creation_date.isoformat(),
            self.ebs_snapshot.id,
            self.root["VolumeType"],
            self.root["Iops"],
            self.root["Throughput"],
            self.instance_id,
            {tag["key"]: tag["value"] for tag in self.get_tags()},
            self.imds_support,
            self.root_device_name,
            list(self.more_mappings),
            _stored_region(self.ec2_backend),
            {**changed, "root": {key: self.root[key] for key in ("VolumeSize", "DeleteOnTermination")}},
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
        kept = dict(stored.attributes)
        image.root |= {"VolumeType": stored.volume_type, "Iops": stored.iops, "Throughput": stored.throughput}
        image.root |= kept.pop("root", {})
        image.assign(kept)
        snapshot.from_ami = image.id
        if amazon:
            image.owner_id, image.owner_alias = "898082745236", "amazon"
            image.image_location = f"amazon/{image.name}"
            image.launch_permissions = [{"Group": "all"}]
        image.add_tags(stored.tags)
        return image


_MAPPED = {
    "delete-on-termination": "DeleteOnTermination",
    "device-name": "DeviceName",
    "encrypted": "Encrypted",
    "snapshot-id": "SnapshotId",
    "volume-size": "VolumeSize",
    "volume-type": "VolumeType",
}
_WATERMARK = {
    "image-watermark.source-image-creation-time": "SourceImageCreationTime",
    "image-watermark.source-image-id": "SourceImageId",
    "image-watermark.source-image-region": "SourceImageRegion",
    "image-watermark.watermark-creation-time": "WatermarkCreationTime",
    "image-watermark.watermark-key": "WatermarkKey",
}
_MOTOS_FILTERS = {"image-id", "is-public", "product-code", "product-code.type"}
_FILTERS = {
    *("architecture", "boot-mode", "creation-date", "deprecation-time", "description", "ena-support"),
    *("free-tier-eligible", "hypervisor", "image-allowed", "image-type", "imds-support", "kernel-id"),
    *("manifest-location", "name", "owner-alias", "owner-id", "platform", "ramdisk-id", "root-device-name"),
    *("root-device-type", "source-image-id", "source-image-region", "source-instance-id"),
    *("sriov-net-support", "state", "state-reason-code", "state-reason-message", "tpm-support"),
    *("usage-operation", "virtualization-type", "platform-details"),
}


def _stored_region(backend: Any) -> str:
    return "" if backend.region_name == SPOT_REGION else str(backend.region_name)
