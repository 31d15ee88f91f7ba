"""Copies of images, of this and other regions, and images that are registered from snapshots."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import Ami

from bake.localcloud.api import block_devices, metadata_options
from bake.localcloud.api.call import CALL
from bake.localcloud.api.images import LocalAmi, LocalSnapshot
from bake.localcloud.api.run_instances import comparable
from bake.localcloud.api.snapshot_calls import region_of
from bake.localcloud.api.volume_limits import VOLUME_TYPES

INHERITED = (
    *("architecture", "virtualization_type", "boot_mode", "tpm_support"),
    *("sriov_net_support", "ena_support"),
)
# RegisterImage's parameters: the attribute, the default and the values that EC2 takes.
_ARCHITECTURES = {"i386", "x86_64", "arm64", "x86_64_mac", "arm64_mac"}
_REGISTERED: Mapping[str, tuple[str, Any, set[str] | None]] = {
    "Architecture": ("architecture", "i386", _ARCHITECTURES),
    "VirtualizationType": ("virtualization_type", "paravirtual", {"hvm", "paravirtual"}),
    "BootMode": ("boot_mode", None, {"legacy-bios", "uefi", "uefi-preferred"}),
    "TpmSupport": ("tpm_support", None, {"v2.0"}),
    "SriovNetSupport": ("sriov_net_support", None, {"simple"}),
}


class ImageCopies(EC2Backend):  # type: ignore[misc]
    """The copied and registered images of a region, for its backend."""

    image_copies: dict[str, tuple[Mapping[str, str], LocalAmi]]
    """Copies by their client tokens, with the calls."""
    _recording: threading.RLock

    def copy_image(
        self,
        source_image_id: str,
        source_region: str,
        name: str | None = None,
        description: str | None = None,
    ) -> Ami:
        """Copy an image of this or another region, with its snapshots.

        The same client token gives the same copy. Machines live in one
        region: in the others, images are described, copied back and deregistered.
        """
        call = CALL.get()
        if earlier := self._copied_before(call):
            return earlier
        self.check_name(name or "")
        tags = _tag_specifications(call)
        check_taggable(tags, {"image", "snapshot"})
        source = region_of(self, source_region).available_image(source_image_id)
        encrypted, key = block_devices.true(call.get("Encrypted")), call.get("KmsKeyId")
        image, copies = self._copy_of(source, encrypted, key, str(name))
        image.description = source.description if description is None else description
        if block_devices.true(call.get("CopyImageTags")):
            image.add_tags(
                {one["key"]: one["value"] for one in source.get_tags() if one["key"][:4] != "aws:"}
            )
        self.tag_made(image, image.snapshots(), tags)
        self.amis[image.id] = image
        if token := call.get("ClientToken"):
            self.image_copies[token] = comparable(call), image

        def copy() -> None:
            for one in copies:
                one()

        threading.Thread(target=self.complete, args=(image.snapshots(), image, copy), daemon=True).start()
        return image

    def _copied_before(self, call: Mapping[str, str]) -> LocalAmi | None:
        earlier = self.image_copies.get(call.get("ClientToken", ""))
        if earlier is None:
            return None
        if earlier[0] != comparable(call):
            raise EC2ClientError(
                "IdempotentParameterMismatch", "The client token was used before with other parameters"
            )
        return earlier[1]

    def _copy_of(
        self, source: LocalAmi, encrypted: bool, key: str | None, name: str
    ) -> tuple[LocalAmi, list[Callable[[], None]]]:
        """A pending copy of an image, and what gives its snapshots their disks."""
        region = source.ec2_backend.region_name
        said = "Copied for DestinationAmi {} from SourceAmi " + f"{source.id} for SourceSnapshot"
        made = {one.id: self.copied(one, encrypted, key, said) for one in source.snapshots()}
        image = LocalAmi(self, made[source.ebs_snapshot.id][0], name=name, description="")
        image.state, image.root, image.root_device_name = "pending", source.root, source.root_device_name
        image.imds_support, image.watermarks = source.imds_support, list(source.watermarks)
        image.assign({attribute: getattr(source, attribute) for attribute in INHERITED})
        image.source_image_id, image.source_image_region = source.id, region
        more = []
        for one in source.more_mappings:
            of = one.get("Ebs", {}).get("SnapshotId")
            more.append({**one, "Ebs": {**one["Ebs"], "SnapshotId": made[of][0].id}} if of in made else one)
        image.more_mappings = tuple(more)
        for identity, (snapshot, _) in made.items():
            snapshot.description = f"{said.format(image.id)} {identity}"
            snapshot.from_ami = image.id
        return image, [copy for _, copy in made.values()]

    def register_image(self, name: str | None = None, description: str | None = None) -> Ami:
        """Register an image of snapshots, which is available at once."""
        call = CALL.get()
        self.check_name(name or "")
        tags = _tag_specifications(call)
        check_taggable(tags, {"image"})
        if call.get("ImageLocation"):
            raise EC2ClientError("UnsupportedOperation", "The local cloud has no images in S3")
        attributes = _registered(call)
        root_device = call.get("RootDeviceName", "")
        asked = block_devices.numbered(call)
        if not root_device and len(asked) == 1:
            root_device = asked[0].get("DeviceName", "")
        mappings = block_devices.merged([], asked, root_device)
        root = mappings.get(root_device, {}).get("Ebs", {})
        if not root.get("SnapshotId"):
            raise EC2ClientError("InvalidBlockDeviceMapping", "No root snapshot specified in device mapping")
        for device, one in mappings.items():
            if one.get("Ebs", {}).get("SnapshotId") and "Encrypted" in one["Ebs"]:
                raise already_encrypted(device)
        sizes = {device: self.sized_ebs(one, device) for device, one in mappings.items() if "Ebs" in one}
        image = LocalAmi(
            self, self.own_snapshot(root["SnapshotId"]), name=str(name), description=description or ""
        )
        image.root_device_name, image.root = root_device, sizes.pop(root_device)
        image.assign(attributes)
        if "ImdsSupport" in call:
            image.imds_support = metadata_options.imds_support_of({"ImdsSupport.Value": call["ImdsSupport"]})
        image.more_mappings = tuple(
            with_snapshot(one, sizes.get(device), None)
            for device, one in mappings.items()
            if device != root_device
        )
        self.tag_made(image, [], tags)
        with self._recording:
            self.amis[image.id] = image
            self.save(image.id)
        return image

    def sized_ebs(self, mapping: Mapping[str, Any], device: str) -> dict[str, Any]:
        """A mapping's volume as an AMI shows it, without its snapshot."""
        ebs = mapping["Ebs"]
        if ebs.get("SnapshotId"):
            self.own_snapshot(ebs["SnapshotId"])
        _, gib, kind, iops, throughput = block_devices.sized(ebs, self)
        if gib < int(ebs.get("_least", 0)):
            raise EC2ClientError(
                "InvalidBlockDeviceMapping",
                f"Volume of size {gib}GB is smaller than the volume at {device}, expect size >= "
                f"{ebs['_least']}GB",
            )
        return {
            "VolumeSize": gib,
            "VolumeType": kind,
            "Iops": iops if VOLUME_TYPES[kind].iops else None,
            "Throughput": throughput,
            "DeleteOnTermination": block_devices.true(ebs.get("DeleteOnTermination", True)),
        }

    def tag_made(self, image: LocalAmi, snapshots: list[LocalSnapshot], specifications: list[Any]) -> None:
        for specification in specifications:
            kinds: Any = {"image": [image], "snapshot": snapshots}
            for resource in kinds[specification["ResourceType"]]:
                resource.add_tags({tag["Key"]: tag["Value"] for tag in specification["Tags"]})


def check_taggable(specifications: list[Any], kinds: set[str]) -> None:
    """Refuse tags for what a call does not make."""
    for one in specifications:
        if one["ResourceType"] not in kinds:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"'{one['ResourceType']}' is not a valid taggable resource type for this operation.",
            )


def already_encrypted(device: str) -> EC2ClientError:
    """The error for a mapping that changes the encryption of what a snapshot holds."""
    return EC2ClientError(
        "InvalidBlockDeviceMapping",
        f"the encrypted flag cannot be specified since device {device} has a snapshot specified.",
    )


def with_snapshot(
    mapping: Mapping[str, Any], ebs: dict[str, Any] | None, snapshot: LocalSnapshot | None
) -> dict[str, Any]:
    """A mapping as an AMI keeps it; a blank volume has no snapshot."""
    if ebs is None:
        return dict(mapping)
    asked = mapping["Ebs"]
    named = snapshot.id if snapshot else asked.get("SnapshotId")
    blank = {"Encrypted": True} if not named and block_devices.true(asked.get("Encrypted")) else {}
    told = {"SnapshotId": named, **ebs} if named else {**ebs, **blank}
    return {
        "DeviceName": mapping["DeviceName"],
        "Ebs": {key: value for key, value in told.items() if value is not None},
    }


def _registered(call: Mapping[str, str]) -> dict[str, Any]:
    """The attributes that RegisterImage asks for, EC2's defaults filled in."""
    found: dict[str, Any] = {"ena_support": block_devices.true(call.get("EnaSupport"))}
    for parameter, (attribute, default, values) in _REGISTERED.items():
        value = call.get(parameter, default)
        if values and value is not None and value not in values and parameter in call:
            named = parameter[:1].lower() + parameter[1:]
            raise EC2ClientError(
                "InvalidParameterValue", f"Value ({value[:60]}) for parameter {named} is invalid."
            )
        found[attribute] = value
    return found


def _tag_specifications(call: Mapping[str, str]) -> list[dict[str, Any]]:
    """The tags in a call that moto's response layer does not hand on."""
    found = []
    for number, one in enumerate(block_devices.numbered(call, "TagSpecification"), 1):
        tags = block_devices.numbered(call, rf"TagSpecification\.{number}\.Tag")
        filled = [{"Key": "", "Value": "", **tag} for tag in tags]
        found.append({"ResourceType": one.get("ResourceType", ""), "Tags": filled})
    return found
