"""The calls of EC2 that make, copy, register, describe and remove images."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.amis import Ami
from moto.ec2.utils import generic_filter

from bake.localcloud.api import block_devices, metadata_options
from bake.localcloud.api.call import CALL
from bake.localcloud.api.encryption import EbsEncryption
from bake.localcloud.api.image_attributes import ImageAttributes
from bake.localcloud.api.images import LocalAmi, LocalSnapshot
from bake.localcloud.api.instances import LocalInstance, wrong_state
from bake.localcloud.api.run_instances import comparable
from bake.localcloud.api.snapshot_calls import Snapshots, region_of
from bake.localcloud.api.volume_limits import VOLUME_TYPES
from bake.localcloud.api.volumes import LocalVolume, Volumes

_INHERITED = (
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


class Images(ImageAttributes, Snapshots, Volumes, EbsEncryption):
    """The images of a region, with their snapshots and volumes, for its backend."""

    image_copies: dict[str, tuple[Mapping[str, str], LocalAmi]]
    """Copies by their client tokens, with the calls."""

    def create_image(
        self, instance_id: str, name: str, description: str, tag_specifications: list[Any]
    ) -> Any:
        """Copy an instance's volumes into a new AMI, which is `pending` until the copies are complete."""
        self.check_name(name)
        instance = self.local_instance(instance_id)
        if instance.state not in {"running", "stopped", "stopping"}:
            raise wrong_state(instance, "imaged")
        root = self.root_of(instance)
        mappings = self._mapped_of(instance)
        image, pairs = self._image_of(instance, root, mappings, name, description)
        self._tag(image, [snapshot for _, snapshot in pairs], tag_specifications)
        self.amis[image.id] = image
        reboot = CALL.get().get("NoReboot", "false").lower() != "true"
        self.capture(pairs, image, reboot=reboot, instance=instance)
        return image

    def _mapped_of(self, instance: LocalInstance) -> block_devices.Mappings:
        """The mappings of an image of an instance: its volumes and stores, changed by the call's mappings."""
        brought: list[dict[str, Any]] = []
        for volume in self.volumes_of(instance):
            attached = volume.attachment
            brought.append({"DeviceName": attached.device, "Ebs": _ebs_of(volume)})
        taken = {one["DeviceName"] for one in brought}
        asked = block_devices.numbered(CALL.get())
        for one in asked:
            device = one.get("DeviceName", "")
            if device in taken and "Ebs.Encrypted" in one:
                raise _already_encrypted(device)
            if device in taken and "Ebs.SnapshotId" in one:
                raise EC2ClientError(
                    "InvalidBlockDeviceMapping", f"snapshotId cannot be modified on device {device}"
                )
        brought += [one for one in instance.moto.stores if one["DeviceName"] not in taken]
        return block_devices.merged(brought, asked, instance.moto.root_device_name)

    def _image_of(
        self,
        instance: LocalInstance,
        root: LocalVolume,
        mappings: block_devices.Mappings,
        name: str,
        description: str,
    ) -> tuple[LocalAmi, list[tuple[LocalVolume, LocalSnapshot]]]:
        """A pending AMI with these mappings, and the volumes whose disks are to be copied into snapshots."""
        sizes = {device: self._sized(one, device) for device, one in mappings.items() if "Ebs" in one}
        volumes = {volume.attachment.device: volume for volume in self.volumes_of(instance)}
        pairs: list[tuple[LocalVolume, LocalSnapshot]] = []
        made: dict[str, LocalSnapshot] = {}
        for device in (device for device in mappings if device in volumes):
            made[device] = self.snapshot_of(volumes[device], "")
            pairs.append((volumes[device], made[device]))
        root_device = root.attachment.device
        image = LocalAmi(self, made[root_device], name=name, description=description)
        image.state, image.root_device_name = "pending", root_device
        image.instance_id = instance.moto.id
        launched = self.amis.get(instance.moto.image_id)
        if launched is not None:
            image.assign({attribute: getattr(launched, attribute) for attribute in _INHERITED})
        image.source_image_id, image.source_image_region = instance.moto.image_id, self.region_name
        image.root = sizes.pop(root_device)
        image.more_mappings = tuple(
            _with_snapshot(one, sizes.get(device), made.get(device))
            for device, one in mappings.items()
            if device != root_device
        )
        for snapshot in made.values():
            snapshot.description = f"Created by CreateImage({instance.moto.id}) for {image.id}"
            snapshot.from_ami = image.id
        return image, pairs

    def _sized(self, mapping: Mapping[str, Any], device: str) -> dict[str, Any]:
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

    def _tag(self, image: LocalAmi, snapshots: list[LocalSnapshot], specifications: list[Any]) -> None:
        for specification in specifications:
            resources: Any = {"image": [image], "snapshot": snapshots}.get(specification["ResourceType"])
            if resources is None:
                raise EC2ClientError(
                    "InvalidParameterValue",
                    f"'{specification['ResourceType']}' is not a valid taggable resource type for this "
                    "operation.",
                )
            for resource in resources:
                resource.add_tags({tag["Key"]: tag["Value"] for tag in specification["Tags"]})

    # --- copies and registrations -------------------------------------------------------------------

    def copy_image(
        self,
        source_image_id: str,
        source_region: str,
        name: str | None = None,
        description: str | None = None,
    ) -> Ami:
        """Copy an image of this or another region, with its snapshots.

        The same client token gives the same copy. Machines live in one region: in the others, images are described, copied back and deregistered.
        """
        call = CALL.get()
        if earlier := self._copied_before(call):
            return earlier
        self.check_name(name or "")
        source = region_of(self, source_region).available_image(source_image_id)
        encrypted, key = block_devices.true(call.get("Encrypted")), call.get("KmsKeyId")
        image, copies = self._copy_of(source, encrypted, key, str(name))
        image.description = source.description if description is None else description
        if block_devices.true(call.get("CopyImageTags")):
            image.add_tags(
                {one["key"]: one["value"] for one in source.get_tags() if one["key"][:4] != "aws:"}
            )
        self._tag(image, image.snapshots(), _tag_specifications(call))
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
        image.imds_support = source.imds_support
        image.assign({attribute: getattr(source, attribute) for attribute in _INHERITED})
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
                raise _already_encrypted(device)
        sizes = {device: self._sized(one, device) for device, one in mappings.items() if "Ebs" in one}
        image = LocalAmi(
            self, self.own_snapshot(root["SnapshotId"]), name=str(name), description=description or ""
        )
        image.root_device_name, image.root = root_device, sizes.pop(root_device)
        image.assign(attributes)
        if "ImdsSupport" in call:
            image.imds_support = metadata_options.imds_support_of({"ImdsSupport.Value": call["ImdsSupport"]})
        image.more_mappings = tuple(
            _with_snapshot(one, sizes.get(device), None)
            for device, one in mappings.items()
            if device != root_device
        )
        self._tag(image, [], _tag_specifications(call))
        with self._recording:
            self.amis[image.id] = image
            self.save(image.id)
        return image

    def check_name(self, name: str) -> None:
        """Refuse a name that EC2 refuses, and one that another image of the account has."""
        if not re.fullmatch(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}", name):
            raise EC2ClientError(
                "InvalidAMIName.Malformed",
                "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, "
                "spaces, and ( ) [ ] . / - ' @ _",
            )
        for image in list(self.amis.values()):
            if image.name == name and image.owner_id == self.account_id:
                raise EC2ClientError(
                    "InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {image.id}"
                )

    # --- descriptions and removal -------------------------------------------------------------------

    def describe_images(
        self,
        ami_ids: list[str] | None = None,
        filters: dict[str, Any] | None = None,
        exec_users: list[str] | None = None,
        owners: list[str] | None = None,
    ) -> list[Ami]:
        """As EC2: each id must be there, and filters hold for ids as well.

        Disabled images are shown where they are named or asked for.
        """
        call = CALL.get() if CALL.get().get("Action") == "DescribeImages" else {}
        images: list[LocalAmi] = list(self.amis.values())
        if ami_ids:
            for identity in ami_ids:
                self.known_image(identity)
            images = [self.amis[identity] for identity in dict.fromkeys(ami_ids)]
        elif not block_devices.true(call.get("IncludeDisabled")):
            images = [image for image in images if image.state != "disabled"]
        if exec_users:
            images = [image for image in images if self._may_launch(image, exec_users)]
        if owners:
            named = {self.account_id if owner == "self" else owner for owner in owners}
            images = [image for image in images if {image.owner_id, image.owner_alias} & named]
        return list(generic_filter(filters or {}, images))

    def _may_launch(self, image: LocalAmi, users: list[str]) -> bool:
        """Whether one of the users was given the right to launch an image; "all" is everybody."""
        for user in users:
            wanted = {"Group": "all"} if user == "all" else {"UserId": user}
            if user == "self":
                wanted = {"UserId": self.account_id}
            if wanted in image.launch_permissions:
                return True
        return False

    def known_image(self, ami_id: str) -> LocalAmi:
        """An image by its id; EC2ClientError where there is none, as of a deregistered one."""
        if not re.fullmatch(r"ami-[0-9a-f]{8,17}", ami_id):
            text = f'Invalid id: "{ami_id[:60]}" (expecting "ami-...")'
            raise EC2ClientError("InvalidAMIID.Malformed", text)
        if ami_id not in self.amis:
            raise EC2ClientError("InvalidAMIID.NotFound", f"The image id '[{ami_id}]' does not exist")
        image: LocalAmi = self.amis[ami_id]
        return image

    def available_image(self, ami_id: str) -> LocalAmi:
        """An image that can be copied."""
        image = self.known_image(ami_id)
        if image.state != "available":
            raise EC2ClientError(
                "InvalidAMIID.Unavailable", f"The image ID '{ami_id}' is not available: it is {image.state}"
            )
        return image

    def deregister_image(self, ami_id: str) -> list[dict[str, str]]:
        """Remove an image, and its snapshots where the call says so; return what became of those.

        Instances of it go on.
        """
        image = self.own_image(ami_id)
        if image.deregistration_protection != "disabled":
            raise EC2ClientError(
                "OperationNotPermitted", f"The AMI '{ami_id}' is protected against deregistration"
            )
        with self._recording:
            super().deregister_image(ami_id)
            self.store.forget(ami_id)
        wanted = block_devices.true(CALL.get().get("DeleteAssociatedSnapshots"))
        return self._remove_snapshots(image) if wanted else []

    def _remove_snapshots(self, image: LocalAmi) -> list[dict[str, str]]:
        """Delete what an image was made of, except what other images need; the results for the answer."""
        results = []
        for snapshot in dict.fromkeys(image.snapshots()):
            try:
                self.delete_snapshot(snapshot.id)
                results.append({"SnapshotId": snapshot.id, "ReturnCode": "success"})
            except EC2ClientError:
                results.append({"SnapshotId": snapshot.id, "ReturnCode": "skipped"})
        return results

    def create_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        with self._recording:
            done: bool = super().create_tags(resource_ids, tags)
            for identity in resource_ids:
                self.save(identity)
        return done

    def delete_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        with self._recording:
            done: bool = super().delete_tags(resource_ids, tags)
            for identity in resource_ids:
                self.save(identity)
        return done


def _already_encrypted(device: str) -> EC2ClientError:
    return EC2ClientError(
        "InvalidBlockDeviceMapping",
        f"the encrypted flag cannot be specified since device {device} has a snapshot specified.",
    )


def _ebs_of(volume: LocalVolume) -> dict[str, Any]:
    """A volume as a mapping has it."""
    settable = VOLUME_TYPES[volume.volume_type].iops is not None
    return {
        "VolumeSize": volume.size,
        "VolumeType": volume.volume_type,
        "Iops": volume.iops if settable else None,
        "Throughput": volume.throughput,
        "DeleteOnTermination": volume.attachment.delete_on_termination,
        "_least": volume.size,
    }


def _with_snapshot(
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
