"""The calls of EC2 that make, copy, register, describe and remove images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.amis import Ami
from moto.ec2.utils import generic_filter

from bake.localcloud.api import block_devices
from bake.localcloud.api.call import CALL
from bake.localcloud.api.encryption import EbsEncryption
from bake.localcloud.api.image_attributes import ImageAttributes, check_unprotected, is_past
from bake.localcloud.api.image_copies import (
    INHERITED,
    ImageCopies,
    already_encrypted,
    check_taggable,
    with_snapshot,
)
from bake.localcloud.api.image_marks import ImageMarks
from bake.localcloud.api.image_relations import ImageRelations
from bake.localcloud.api.image_usage import ImageUsage
from bake.localcloud.api.images import LocalAmi, LocalSnapshot
from bake.localcloud.api.instances import LocalInstance, wrong_state
from bake.localcloud.api.snapshot_calls import Snapshots
from bake.localcloud.api.volume_limits import VOLUME_TYPES
from bake.localcloud.api.volume_records import LocalVolume
from bake.localcloud.api.volumes import Volumes


class Images(
    ImageCopies, ImageAttributes, ImageMarks, ImageRelations, ImageUsage, Snapshots, Volumes, EbsEncryption
):
    """The images of a region, with their snapshots and volumes, for its backend."""

    def create_image(
        self, instance_id: str, name: str, description: str, tag_specifications: list[Any]
    ) -> Any:
        """Copy an instance's volumes into a new AMI, which is `pending` until the copies are complete."""
        self.check_name(name)
        check_taggable(tag_specifications, {"image", "snapshot"})
        instance = self.local_instance(instance_id)
        if instance.state not in {"running", "stopped", "stopping"}:
            raise wrong_state(instance, "imaged")
        root = self.root_of(instance)
        mappings = self._mapped_of(instance)
        image, pairs = self._image_of(instance, root, mappings, name, description)
        self.tag_made(image, [snapshot for _, snapshot in pairs], tag_specifications)
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
                raise already_encrypted(device)
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
        sizes = {device: self.sized_ebs(one, device) for device, one in mappings.items() if "Ebs" in one}
        volumes = {volume.attachment.device: volume for volume in self.volumes_of(instance)}
        pairs: list[tuple[LocalVolume, LocalSnapshot]] = []
        made: dict[str, LocalSnapshot] = {}
        for device in (device for device in sizes if device in volumes):
            made[device] = self.snapshot_of(volumes[device], "")
            pairs.append((volumes[device], made[device]))
        root_device = root.attachment.device
        image = LocalAmi(self, made[root_device], name=name, description=description)
        image.state, image.root_device_name = "pending", root_device
        image.instance_id = instance.moto.id
        launched = self.amis.get(instance.moto.image_id)
        if launched is not None:
            image.assign({attribute: getattr(launched, attribute) for attribute in INHERITED})
            image.watermarks = list(launched.watermarks)
        image.source_image_id, image.source_image_region = instance.moto.image_id, self.region_name
        image.root = sizes.pop(root_device)
        image.more_mappings = tuple(
            with_snapshot(one, sizes.get(device), made.get(device))
            for device, one in mappings.items()
            if device != root_device
        )
        for snapshot in made.values():
            snapshot.description = f"Created by CreateImage({instance.moto.id}) for {image.id}"
            snapshot.from_ami = image.id
        return image, pairs

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
        else:
            images = [image for image in images if self._is_listed(image, call)]
        if exec_users:
            images = [image for image in images if self._may_launch(image, exec_users)]
        if owners:
            named = {self.account_id if owner == "self" else owner for owner in owners}
            images = [image for image in images if {image.owner_id, image.owner_alias} & named]
        return list(generic_filter(filters or {}, images))

    def _is_listed(self, image: LocalAmi, call: Mapping[str, str]) -> bool:
        """Whether an image is shown to who does not name it: disabled ones, and others' deprecated ones.

        Without `call`, another call looks for images, and is shown all but disabled ones.
        """
        if image.state == "disabled" and not block_devices.true(call.get("IncludeDisabled")):
            return False
        at = image.deprecation_time
        mine = image.owner_id == self.account_id or not call
        return not at or mine or block_devices.true(call.get("IncludeDeprecated")) or not is_past(at)

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
        check_unprotected(image)
        with self._recording:
            self.remember(image)
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
