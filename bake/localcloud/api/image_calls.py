"""The calls of EC2 that make, change, describe and remove images and snapshots."""

from __future__ import annotations

import re
import threading
from typing import Any, ClassVar

from moto.ec2.exceptions import EC2ClientError, InvalidSnapshotIdError
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_block_store import Snapshot, Volume

from bake.localcloud.api import metadata_options
from bake.localcloud.api.call import CALL
from bake.localcloud.api.images import LocalAmi, LocalSnapshot
from bake.localcloud.api.instances import LocalInstance, LocalInstances, wrong_state
from bake.localcloud.images.store import ImageStore, StoredImage, StoredSnapshot


class Images(EC2Backend):  # type: ignore[misc]
    """The images and snapshots of a region, for its backend."""

    local_instances: ClassVar[LocalInstances]
    store: ClassVar[ImageStore]
    _recording: threading.RLock
    """An image's record in the API and the one in the store change together."""

    def create_image(
        self, instance_id: str, name: str, description: str, tag_specifications: list[Any]
    ) -> Any:
        """Copy the root disk into a new AMI, which is `pending` until the copy is complete."""
        self._check_name(name)
        if any(key.startswith("BlockDeviceMapping.") for key in CALL.get()):
            raise EC2ClientError("UnsupportedOperation", "The local cloud images the root volume as it is")
        instance = self._local_instance(instance_id)
        if instance.state not in {"running", "stopped", "stopping"}:
            raise wrong_state(instance, "imaged")
        volume = self._root_volume(instance)
        snapshot = self._snapshot_of(volume, "")
        image = LocalAmi(self, snapshot, name=name, description=description, instance=instance.moto)
        image.state = "pending"
        snapshot.description = f"Created by CreateImage({instance_id}) for {image.id}"
        snapshot.from_ami = image.id
        for specification in tag_specifications:
            resource: Any = {"image": image, "snapshot": snapshot}.get(specification["ResourceType"])
            if resource is None:
                raise EC2ClientError(
                    "InvalidParameterValue",
                    f"'{specification['ResourceType']}' can't be tagged by CreateImage",
                )
            resource.add_tags({tag["Key"]: tag["Value"] for tag in specification["Tags"]})
        self.amis[image.id] = image
        self.snapshots[snapshot.id] = snapshot
        reboot = CALL.get().get("NoReboot", "false").lower() != "true"
        instance.capture(lambda: self._copy(instance, snapshot, image), reboot=reboot)
        return image

    def create_snapshot(
        self, volume_id: str, description: str, owner_id: str | None = None, from_ami: str | None = None
    ) -> Snapshot:
        """Copy a volume's disk; a running machine's file system is frozen meanwhile."""
        volume = self.get_volume(volume_id)
        if from_ami or not volume.attachment:
            raise EC2ClientError(
                "UnsupportedOperation", "The local cloud has no volumes but instances' root volumes"
            )
        snapshot = self._snapshot_of(volume, description)
        self.snapshots[snapshot.id] = snapshot
        instance = self._local_instance(volume.attachment.instance.id)
        instance.capture(lambda: self._copy(instance, snapshot, None), reboot=False)
        return snapshot

    def _copy(self, instance: LocalInstance, snapshot: LocalSnapshot, image: LocalAmi | None) -> None:
        """Make the copy, then set the states of snapshot and image."""
        try:
            snapshot.copy_from(instance.machine.disk, self.store)
        except Exception as error:  # any: this is a thread's end, and callers wait until `pending` is over
            snapshot.status = "error"
            if image is not None:
                image.fail(str(error))
            return
        with self._recording:
            if snapshot.id not in self.snapshots:  # deleted during the copy
                self.store.forget(snapshot.id)
                return
            snapshot.status = "completed"
            self._save(snapshot.id)
            if image is not None and image.id in self.amis:
                image.state = "available"
                self._save(image.id)

    def _snapshot_of(self, volume: Volume, description: str) -> LocalSnapshot:
        snapshot = LocalSnapshot(self, volume, description=description)
        snapshot.status, snapshot.percent = "pending", 0
        return snapshot

    def _check_name(self, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}", name):
            raise EC2ClientError(
                "InvalidAMIName.Malformed",
                "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, "
                "spaces, and ( ) [ ] . / - ' @ _",
            )
        for image in self.amis.values():
            if image.name == name and image.owner_id == self.account_id:
                raise EC2ClientError(
                    "InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {image.id}"
                )

    def modify_image_attribute(self, ami_id: str, **permissions: Any) -> None:
        """As moto's, which knows only launch permissions; `ImdsSupport` is set and kept on disk as well."""
        imds_support = metadata_options.imds_support_of(CALL.get())
        with self._recording:
            super().modify_image_attribute(ami_id=ami_id, **permissions)
            if imds_support is not None:
                self._own_image(ami_id).imds_support = imds_support
                self._save(ami_id)

    def describe_image_attribute(self, ami_id: str, attribute_name: str) -> Any:
        """As moto's, which fails on an id that it does not know."""
        return getattr(self.describe_images(ami_ids=[ami_id])[0], attribute_name, None)

    def _own_image(self, ami_id: str) -> LocalAmi:
        image: LocalAmi = self.amis[ami_id]
        if image.owner_id != self.account_id:
            raise EC2ClientError("AuthFailure", f"Not authorized for image:{ami_id}")
        return image

    def deregister_image(self, ami_id: str) -> None:
        image = self._own_image(ami_id) if ami_id in self.amis else None
        with self._recording:
            super().deregister_image(ami_id)
            self.store.forget(ami_id)
        if image is not None and CALL.get().get("DeleteAssociatedSnapshots", "false").lower() == "true":
            self.delete_snapshot(image.ebs_snapshot.id)

    def delete_snapshot(self, snapshot_id: str) -> Snapshot:
        with self._recording:
            snapshot = super().delete_snapshot(snapshot_id)
            self.store.forget(snapshot_id)
        return snapshot

    def create_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        with self._recording:
            done: bool = super().create_tags(resource_ids, tags)
            for identity in resource_ids:
                self._save(identity)
        return done

    def delete_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        with self._recording:
            done: bool = super().delete_tags(resource_ids, tags)
            for identity in resource_ids:
                self._save(identity)
        return done

    def _save(self, identity: str) -> None:
        """Store the record of a finished image or snapshot."""
        record: StoredImage | StoredSnapshot | None = None
        image, snapshot = self.amis.get(identity), self.snapshots.get(identity)
        if image is not None and image.state == "available" and not image.ebs_snapshot.disk:
            record = image.record()
        elif snapshot is not None and snapshot.status == "completed" and not snapshot.disk:
            record = snapshot.record()
        if record is not None:
            self.store.save(record)

    def describe_snapshots(
        self, snapshot_ids: list[str] | None = None, filters: Any = None
    ) -> list[Snapshot]:
        """As moto's, without Amazon's own snapshots, which AWS hides as well."""
        found: list[Snapshot] = super().describe_snapshots(snapshot_ids, filters)
        if any(snapshot.hidden and snapshot.id in (snapshot_ids or ()) for snapshot in found):
            raise InvalidSnapshotIdError
        return [snapshot for snapshot in found if not snapshot.hidden]

    def _disk_of(self, image: LocalAmi) -> Any:
        return image.ebs_snapshot.disk or self.store.disk(image.ebs_snapshot.id)

    def _local_instance(self, instance_id: str) -> LocalInstance:
        self.get_instance(instance_id)
        return self.local_instances[instance_id]

    def _root_volume(self, instance: LocalInstance) -> Volume:
        mapping = instance.moto.block_device_mapping[instance.moto.root_device_name]
        return self.get_volume(mapping.volume_id)
