"""Block device mappings: those of an AMI and of a call together.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/block-device-mapping-concepts.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moto.ec2.exceptions import EC2ClientError

from bake.localcloud.api import volume_limits
from bake.localcloud.api.encryption import Encryption

DEFAULT_TYPE = "gp2"  # of a volume that neither an AMI nor the call says more of
_DEVICE = re.compile(r"/dev/(sd[a-z]([1-9]|1[0-5])?|xvd[a-z]{1,2}[0-9]?)|xvd[a-z]{1,2}|sd[a-z]")
_STORE = re.compile(r"ephemeral([0-9]|1[0-9]|2[0-3])")
_GP3_IOPS, _GP3_THROUGHPUT = 3000, 125
Mappings = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Volume:
    """A volume that a launch asks for, with the image's values as defaults."""

    device: str
    gib: int
    kind: str
    iops: int | None
    throughput: int | None
    delete: bool
    snapshot_id: str | None
    encryption: Encryption
    initialization_rate: int | None = None
    """MiB/s at which EBS fills it."""

    @property
    def kms_key(self) -> str | None:
        """The key as it was named, where there is no such key; None of a volume that is not encrypted."""
        return self.encryption.key

    def mapping(self) -> dict[str, Any]:
        """As moto's run_instances takes it; it knows nothing of IOPS, hence gp3 for all until `describe`."""
        ebs = {
            "VolumeSize": self.gib,
            "VolumeType": "gp3",
            "SnapshotId": None,
            "Encrypted": self.encryption.on,
            "KmsKeyId": self.encryption.key,
            "DeleteOnTermination": self.delete,
        }
        return {"DeviceName": self.device, "Ebs": ebs}

    def describe(self, backend: Any, instance: Any) -> Any:
        """Write the requested values into moto's volume of the instance, and return that."""
        volume = backend.get_volume(instance.block_device_mapping[self.device].volume_id)
        volume.volume_type, volume.iops, volume.throughput = self.kind, self.iops, self.throughput
        volume.snapshot_id = self.snapshot_id or ""
        volume.volume_initialization_rate = self.initialization_rate
        return volume


def requested(image: Any, call: Mapping[str, str], backend: Any) -> list[Volume]:
    """Read the volumes of a launch, the root volume first, or refuse them as EC2 does.

    Instance stores may be mapped and unmapped: they are there or not by the instance's type, as on types with
    NVMe. `NoDevice` leaves out what the image brings.
    """
    root, asked = image.root_device_name, numbered(call)
    for one in asked:
        if one.get("Ebs.SnapshotId"):
            backend.own_snapshot(one["Ebs.SnapshotId"])
    mappings = merged(image.block_device_mappings, asked, root)
    volumes = [_volume(device, one["Ebs"], backend) for device, one in mappings.items() if "Ebs" in one]
    return sorted(volumes, key=lambda volume: volume.device != root)


def stores(image: Any, call: Mapping[str, str]) -> list[dict[str, Any]]:
    """The instance stores that a launch maps; images of the instance keep their mappings."""
    mappings = merged(image.block_device_mappings, numbered(call), image.root_device_name)
    return [one for one in mappings.values() if "VirtualName" in one]


def merged(brought: Iterable[Mapping[str, Any]], asked: Iterable[Mapping[str, Any]], root: str) -> Mappings:
    """The mappings by device: those of an image or instance, changed by those of a call."""
    mappings: Mappings = {one["DeviceName"]: dict(one) for one in brought if "NoDevice" not in one}
    for one in asked:
        device = one.get("DeviceName", "")
        check_device(device)
        ebs = {key.removeprefix("Ebs."): value for key, value in one.items() if key.startswith("Ebs.")}
        if "NoDevice" in one:
            if device == root:
                raise _wrong(f"The root device {root} can't be left out")
            mappings.pop(device, None)
        elif "VirtualName" in one:
            if not _STORE.fullmatch(one["VirtualName"]) or device == root:
                raise _wrong(f"Virtual name '{one['VirtualName'][:60]}' is not valid for {device}")
            mappings[device] = {"DeviceName": device, "VirtualName": one["VirtualName"]}
        else:
            changed = _changed(mappings.get(device), ebs, device, root)
            mappings[device] = {"DeviceName": device, "Ebs": changed}
    return mappings


def check_device(device: str) -> None:
    """Refuse a device name that EC2 gives no volume."""
    if not device:
        raise _wrong("Missing device name")
    if not _DEVICE.fullmatch(device):
        raise _wrong(f"Invalid device name {device[:60]}")


def _changed(
    brought: Mapping[str, Any] | None, asked: Mapping[str, str], device: str, root: str
) -> dict[str, Any]:
    """The Ebs part of a mapping, with what a call says of it."""
    before = dict((brought or {}).get("Ebs", {}))
    other = asked.get("SnapshotId", before.get("SnapshotId")) != before.get("SnapshotId")
    if other and before.get("SnapshotId") and device == root:
        raise _wrong(f"snapshotId cannot be modified on root device {root}")
    if asked.get("VolumeType", before.get("VolumeType")) != before.get("VolumeType"):
        before |= {"Iops": None, "Throughput": None}
    after = {**before, **asked}
    if not after.get("SnapshotId") and not after.get("VolumeSize"):
        raise _wrong(f"Either snapshot ID or volume size must be provided for: {device}")
    return after


def _volume(device: str, ebs: Mapping[str, Any], backend: Any) -> Volume:
    snapshot, gib, kind, iops, throughput = sized(ebs, backend)
    key = ebs.get("KmsKeyId")
    encryption = backend.encryption(true(ebs.get("Encrypted", False)), key, snapshot)
    delete = true(ebs.get("DeleteOnTermination", True))
    snapshot_id = snapshot.id if snapshot else None
    rate = number(ebs.get("VolumeInitializationRate"))
    volume_limits.check_initialization(rate, from_snapshot=snapshot is not None)
    return Volume(device, gib, kind, iops, throughput, delete, snapshot_id, encryption, rate)


def sized(ebs: Mapping[str, Any], backend: Any) -> tuple[Any, int, str, int | None, int | None]:
    """The snapshot, GiB, type, IOPS and MiB/s of a mapping's volume, defaults filled in; or refuse it."""
    snapshot = backend.usable_snapshot(ebs["SnapshotId"]) if ebs.get("SnapshotId") else None
    least = snapshot.gib if snapshot else 1
    gib = number(ebs.get("VolumeSize")) or least
    if gib < least:
        raise _wrong(
            f"Volume of size {gib}GB is smaller than snapshot '{ebs['SnapshotId']}', expect size >= {least}GB"
        )
    kind = str(ebs.get("VolumeType") or DEFAULT_TYPE)
    iops, throughput = number(ebs.get("Iops")), number(ebs.get("Throughput"))
    volume_limits.check(kind, gib, iops, throughput)
    return snapshot, gib, kind, iops or iops_of(kind, gib), throughput or throughput_of(kind)


def iops_of(kind: str, gib: int) -> int | None:
    """The IOPS that DescribeVolumes shows of a volume for which none were asked."""
    if kind == "gp2":
        return min(16000, max(100, 3 * gib))
    return _GP3_IOPS if kind == "gp3" else None


def throughput_of(kind: str) -> int | None:
    """The same for its MiB/s."""
    return _GP3_THROUGHPUT if kind == "gp3" else None


def numbered(call: Mapping[str, str], name: str = "BlockDeviceMapping") -> list[dict[str, str]]:
    """The list parameter `name` of a query call: Name.1.Key=value and so on."""
    found: dict[int, dict[str, str]] = {}
    for key, value in call.items():
        if match := re.fullmatch(rf"{name}\.(\d+)\.(.+)", key):
            found.setdefault(int(match[1]), {})[match[2]] = value
    return [found[place] for place in sorted(found)]


def number(value: Any) -> int | None:
    """A whole number of a call; None where there is none."""
    if value in (None, ""):
        return None
    try:
        return int(value)
    except ValueError as error:
        raise EC2ClientError("InvalidParameterValue", f"Value ({value[:60]}) is not a number") from error


def true(value: Any) -> bool:
    """A boolean of a call or a record."""
    return str(value).lower() == "true"


def _wrong(what: str) -> EC2ClientError:
    return EC2ClientError("InvalidBlockDeviceMapping", what)
