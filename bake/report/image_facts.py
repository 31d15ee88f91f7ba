"""The AMI as EC2 answered, and the base AMI, from the facts of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bake.report.model import BaseFacts, ImageFacts, Volume


def image_facts(told: Mapping[str, Any], public: bool | None = None) -> ImageFacts | None:
    """The AMI of `facts/image.json`; what EC2 was not asked, or did not tell, is null."""
    known, described = told.get("image"), told.get("described") or {}
    if not known:
        return None
    disks = [one for one in described.get("BlockDeviceMappings", []) if "Ebs" in one]
    snapshots = {one["SnapshotId"]: one for one in told.get("snapshots") or []}
    permissions = told.get("launch_permissions") or []
    return ImageFacts(
        id=known["id"],
        name=known["name"],
        created=described.get("CreationDate"),
        architecture=described.get("Architecture"),
        boot_mode=described.get("BootMode"),
        imds_support=described.get("ImdsSupport") or known.get("imds_support"),
        ena_support=described.get("EnaSupport"),
        virtualization=described.get("VirtualizationType"),
        root_device=described.get("RootDeviceName"),
        public=described.get("Public", public),
        volumes=tuple(_volume(one, snapshots) for one in disks),
        launch_permissions=tuple(str(one.get("UserId") or one.get("Group")) for one in permissions),
        tags={one["Key"]: one["Value"] for one in described.get("Tags", [])},
    )


def _volume(mapping: Mapping[str, Any], snapshots: Mapping[str, Mapping[str, Any]]) -> Volume:
    disk = mapping["Ebs"]
    snapshot = snapshots.get(disk.get("SnapshotId", ""), {})
    return Volume(
        device=mapping["DeviceName"],
        snapshot=disk.get("SnapshotId", ""),
        size_gib=disk.get("VolumeSize", 0),
        type=disk.get("VolumeType", ""),
        encrypted=snapshot.get("Encrypted", disk.get("Encrypted")),
        kms_key=snapshot.get("KmsKeyId") or disk.get("KmsKeyId"),
        delete_on_termination=disk.get("DeleteOnTermination"),
    )


def base_facts(plan: Mapping[str, Any]) -> BaseFacts | None:
    """The base AMI of the plan."""
    base = plan.get("base")
    if not base:
        return None
    names = ("id", "name", "owner", "architecture", "created")
    return BaseFacts.model_validate({name: base.get(name) for name in names})
