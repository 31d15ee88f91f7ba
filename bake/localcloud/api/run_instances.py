"""The parameters of RunInstances: checked as EC2 checks them, and corrected in moto's records."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moto.ec2.exceptions import EC2ClientError

from bake.localcloud.api.instances import LocalInstance

USER_DATA_LIMIT = 16384
_IOPS = {"gp3": 3000, "io1": 100, "io2": 100}


@dataclass(frozen=True)
class RootVolume:
    """The requested root volume, with the image's values as defaults."""

    device: str
    gib: int
    kind: str
    iops: int | None
    throughput: int | None
    delete: bool
    snapshot_id: str
    encrypted: bool
    kms_key: str | None

    def mapping(self) -> dict[str, Any]:
        """As moto's run_instances takes it; it knows nothing of IOPS, hence gp3 for all until `describe`."""
        ebs = {
            "VolumeSize": self.gib,
            "VolumeType": "gp3",
            "SnapshotId": None,
            "Encrypted": self.encrypted,
            "KmsKeyId": self.kms_key,
            "DeleteOnTermination": self.delete,
        }
        return {"DeviceName": self.device, "Ebs": ebs}

    def describe(self, backend: Any, instance: Any) -> None:
        """Write the requested values into moto's volume of the instance."""
        volume = backend.get_volume(instance.block_device_mapping[self.device].volume_id)
        volume.volume_type, volume.iops, volume.throughput = self.kind, self.iops, self.throughput
        volume.snapshot_id = self.snapshot_id


def root_volume(image: Any, call: Mapping[str, str]) -> RootVolume:
    """Read the root volume from the call's block device mappings, or refuse it as EC2 does."""
    brought = {
        mapping["DeviceName"]: mapping["Ebs"] for mapping in image.block_device_mappings if "Ebs" in mapping
    }
    default, asked = _asked(image.root_device_name, brought, _numbered(call, "BlockDeviceMapping"))
    gib = int(asked.get("VolumeSize") or default["VolumeSize"])
    if gib < default["VolumeSize"]:
        raise EC2ClientError(
            "InvalidBlockDeviceMapping",
            f"Volume of size {gib}GB is smaller than snapshot '{default['SnapshotId']}', "
            f"expect size >= {default['VolumeSize']}GB",
        )
    kind = asked.get("VolumeType") or default["VolumeType"]
    iops, throughput = asked.get("Iops"), asked.get("Throughput")
    return RootVolume(
        device=image.root_device_name,
        gib=gib,
        kind=kind,
        iops=int(iops) if iops else _IOPS.get(kind),
        throughput=int(throughput) if throughput else (125 if kind == "gp3" else None),
        delete=asked.get("DeleteOnTermination", "true").lower() == "true",
        snapshot_id=default["SnapshotId"],
        encrypted=default["Encrypted"] or asked.get("Encrypted", "false").lower() == "true",
        kms_key=asked.get("KmsKeyId") or image.ebs_snapshot.kms_key_id,
    )


def _asked(
    root: str, brought: dict[str, Any], mappings: Sequence[dict[str, str]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The image's root volume, and the values requested for it. Instance stores may be mapped and unmapped.

    They are there or not by the instance's type, as on types with NVMe, and `NoDevice` leaves out a volume.
    """
    asked: dict[str, str] = {}
    volumes = dict(brought)
    for mapping in mappings:
        device = mapping.get("DeviceName", "")
        if device == root:
            asked = {key.removeprefix("Ebs."): value for key, value in mapping.items()}
        elif "NoDevice" in mapping:
            volumes.pop(device, None)
        elif not mapping.get("VirtualName", "").startswith("ephemeral"):
            volumes[device] = mapping
    if more := sorted(set(volumes) - {root}):
        raise EC2ClientError(
            "UnsupportedOperation",
            f"The local cloud gives instances a root volume ({root}) and no other: {', '.join(more)}",
        )
    return volumes[root], asked


def _numbered(call: Mapping[str, str], name: str) -> list[dict[str, str]]:
    """The list parameter `name` of a query call: Name.1.Key=value and so on."""
    found: dict[int, dict[str, str]] = {}
    for key, value in call.items():
        if match := re.fullmatch(rf"{name}\.(\d+)\.(.+)", key):
            found.setdefault(int(match[1]), {})[match[2]] = value
    return [found[number] for number in sorted(found)]


def check_user_data(user_data: Any) -> None:
    """EC2 takes 16 KB before base64."""
    if user_data is not None and len(base64.b64decode(str(user_data))) > USER_DATA_LIMIT:
        raise EC2ClientError("InvalidParameterValue", f"User data is limited to {USER_DATA_LIMIT} bytes")


def comparable(call: Mapping[str, str]) -> dict[str, str]:
    """A call's parameters without those that change when the call is repeated."""
    return {
        key: value for key, value in call.items() if not key.startswith(("Signature", "X-Amz", "Timestamp"))
    }


def status(instance: LocalInstance) -> dict[str, Any]:
    """An entry of DescribeInstanceStatus."""
    moto = instance.moto
    if instance.state != "running":
        check: dict[str, Any] = {"Status": "not-applicable"}
    elif instance.reachable:
        check = {"Status": "ok", "Details": [{"Name": "reachability", "Status": "passed"}]}
    else:
        check = {"Status": "initializing", "Details": [{"Name": "reachability", "Status": "initializing"}]}
    return {
        "InstanceId": moto.id,
        "AvailabilityZone": moto.availability_zone,
        "InstanceState": {"Code": moto.state_code, "Name": moto.state},
        "InstanceStatus": check,
        "SystemStatus": check,
    }
