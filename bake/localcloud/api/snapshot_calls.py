"""The calls of EC2 that make, copy, share, describe and remove snapshots."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from moto.ec2.exceptions import EC2ClientError, InvalidSnapshotInUse
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.elastic_block_store import Snapshot

from bake.localcloud.api.call import CALL
from bake.localcloud.api.encryption import INACCESSIBLE, check_shared
from bake.localcloud.api.images import LocalAmi, LocalSnapshot
from bake.localcloud.api.instances import LocalInstance, LocalInstances
from bake.localcloud.api.volume_records import LocalVolume
from bake.localcloud.images.store import ImageStore
from bake.localcloud.machines.disks import link_or_clone

_DEFAULT_KEY = "Encrypted snapshots with EBS default key cannot be shared"


class Snapshots(EC2Backend):  # type: ignore[misc]
    """The snapshots of a region, for its backend."""

    local_instances: ClassVar[LocalInstances]
    store: ClassVar[ImageStore]
    _recording: threading.RLock
    """An image's record in the API and the one in the store change together."""

    def create_snapshot(
        self, volume_id: str, description: str, owner_id: str | None = None, from_ami: str | None = None
    ) -> Snapshot:
        """Copy a volume's disk; a running machine's root file system is frozen meanwhile."""
        volume: LocalVolume = self.get_volume(volume_id)
        if volume.making:
            raise EC2ClientError(
                "IncorrectState", f"The volume '{volume_id}' is in the '{volume.making}' state."
            )
        snapshot = self.snapshot_of(volume, description or "")
        self.capture([(volume, snapshot)], None, reboot=False)
        return snapshot

    def create_snapshots(
        self, instance_spec: dict[str, Any], description: str, tags: dict[str, str]
    ) -> list[Snapshot]:
        """Copy the disks of an instance's volumes, all at one moment."""
        instance = self.local_instance(instance_spec.get("InstanceId", ""))
        without_root = str(instance_spec.get("ExcludeBootVolume", "")).lower() == "true"
        left_out = {value for key, value in CALL.get().items() if "ExcludeDataVolumeId" in key}
        root = instance.moto.root_device_name
        chosen = [
            volume
            for volume in self.volumes_of(instance)
            if volume.id not in left_out and not (without_root and volume.attachment.device == root)
        ]
        if unknown := left_out - {volume.id for volume in self.volumes_of(instance)}:
            raise EC2ClientError(
                "InvalidParameterValue", f"Not volumes of {instance.moto.id}: {', '.join(sorted(unknown))}"
            )
        if not chosen:
            raise EC2ClientError("InvalidParameterCombination", "No volume is left to make a snapshot of")
        pairs = [(volume, self.snapshot_of(volume, description or "")) for volume in chosen]
        for volume, snapshot in pairs:
            if CALL.get().get("CopyTagsFromSource") == "volume":
                snapshot.add_tags({tag["key"]: tag["value"] for tag in volume.get_tags()})
            snapshot.add_tags(tags)
        self.capture(pairs, None, reboot=False)
        return [snapshot for _, snapshot in pairs]

    def snapshot_of(self, volume: LocalVolume, description: str) -> LocalSnapshot:
        """A snapshot of a volume that has no disk yet."""
        snapshot = LocalSnapshot(self, volume, description=description)
        snapshot.status, snapshot.percent = "pending", 0
        self.snapshots[snapshot.id] = snapshot
        return snapshot

    def capture(
        self,
        pairs: Sequence[tuple[LocalVolume, LocalSnapshot]],
        image: LocalAmi | None,
        *,
        reboot: bool,
        instance: LocalInstance | None = None,
    ) -> None:
        """Copy volumes' disks into snapshots, and complete those and the image that is made of them."""
        attached = [volume.attachment for volume, _ in pairs if volume.attachment]
        if instance is None and attached:
            instance = self.local_instances[attached[0].instance.id]

        def copy() -> None:
            self.complete([snapshot for _, snapshot in pairs], image, lambda: self._copied(pairs))

        if instance is None:
            threading.Thread(target=copy, daemon=True).start()
        else:
            instance.capture(copy, reboot=reboot)

    def _copied(self, pairs: Sequence[tuple[LocalVolume, LocalSnapshot]]) -> None:
        for volume, snapshot in pairs:
            if volume.attachment:
                self.local_instances[volume.attachment.instance.id].machine.volumes.flush(volume.id)
            snapshot.copy_from(self.disk_of(volume), self.store)

    def complete(
        self, snapshots: Sequence[LocalSnapshot], image: LocalAmi | None, copy: Callable[[], None]
    ) -> None:
        """Make the copies, then set the states of the snapshots and of their image."""
        try:
            copy()
        except Exception as error:  # any: this is a thread's end, and callers wait until `pending` is over
            for snapshot in snapshots:
                snapshot.fail(str(error))
            if image is not None:
                image.fail(str(error))
            return
        with self._recording:
            for snapshot in snapshots:
                if snapshot.id not in self.snapshots:  # deleted during the copy
                    self.store.forget(snapshot.id)
                    continue
                snapshot.complete()
                self.save(snapshot.id)
            if image is not None and image.id in self.amis:
                image.state = "available"
                self.save(image.id)

    # --- copies -------------------------------------------------------------------------------------

    def copy_snapshot(
        self, source_snapshot_id: str, source_region: str, description: str, kms_key_id: str | None
    ) -> Snapshot:
        """Copy a snapshot of this or another region; EC2 looks at the key only after its answer."""
        source = region_of(self, source_region).own_snapshot(source_snapshot_id)
        encrypted = CALL.get().get("Encrypted", "").lower() == "true"
        said = description or f"[Copied {source_snapshot_id} from {source_region}]"
        snapshot, copy = self.copied(source, encrypted, kms_key_id, said)
        threading.Thread(target=self.complete, args=([snapshot], None, copy), daemon=True).start()
        return snapshot

    def copied(
        self, source: LocalSnapshot, encrypted: bool, key: str | None, description: str
    ) -> tuple[LocalSnapshot, Callable[[], None]]:
        """A copy of a snapshot that has no disk yet, and what gives it one."""
        here = source.ec2_backend is self
        encryption = self.encryption(encrypted, key, source, as_source=here)
        volume = LocalVolume(
            self, "vol-ffffffff", source.gib, None, None, encryption.on, encryption.key,
            source.volume.volume_type, source.volume.iops, source.volume.throughput,
        )  # fmt: skip
        snapshot = self.snapshot_of(volume, description)
        snapshot.hostile_base = source.hostile_base

        def copy() -> None:
            if encryption.problem:
                raise ValueError(INACCESSIBLE)
            if source.hostile_base or not source.path.exists():
                snapshot.disk = source.path  # a base, which is built when it is launched
            else:
                self.store.fill(snapshot.id, partial(link_or_clone, source.path))

        return snapshot, copy

    # --- descriptions, rights, removal --------------------------------------------------------------

    def own_snapshot(self, snapshot_id: str) -> LocalSnapshot:
        """A completed snapshot that the account may use."""
        snapshot = self.usable_snapshot(snapshot_id)
        if snapshot.hidden:
            raise not_found(snapshot_id)
        return snapshot

    def usable_snapshot(self, snapshot_id: str) -> LocalSnapshot:
        """A completed snapshot, also one that only an AMI of Amazon's may use."""
        snapshot: LocalSnapshot | None = self.snapshots.get(snapshot_id)
        if snapshot is None:
            raise not_found(snapshot_id)
        if snapshot.status != "completed":
            raise EC2ClientError("IncorrectState", f"Snapshot is in invalid state - {snapshot.status}")
        return snapshot

    def describe_snapshots(
        self, snapshot_ids: list[str] | None = None, filters: Any = None
    ) -> list[Snapshot]:
        """As moto's, without Amazon's own snapshots, which AWS hides as well, and by owner."""
        for identity in snapshot_ids or ():
            if identity not in self.snapshots or self.snapshots[identity].hidden:
                raise not_found(identity)
        found: list[Snapshot] = super().describe_snapshots(snapshot_ids, filters)
        owners = {value for key, value in CALL.get().items() if key.startswith("Owner.")}
        owners = {self.account_id if owner == "self" else owner for owner in owners}
        return [one for one in found if not one.hidden and (not owners or one.owner_id in owners)]

    def get_snapshot(self, snapshot_id: str) -> Snapshot:
        snapshot = self.snapshots.get(snapshot_id)
        if snapshot is None or snapshot.hidden:
            raise not_found(snapshot_id)
        return snapshot

    def add_create_volume_permission(self, snapshot_id: str, user_ids: list[str], groups: list[str]) -> None:
        """Share a snapshot, unless its key can't be shared."""
        given = [{"UserId": one} for one in user_ids or ()] + [{"Group": one} for one in groups or ()]
        self.validate_permission_targets(given)
        snapshot = self.get_snapshot(snapshot_id)
        check_shared(self, [snapshot], "OperationNotPermitted", _DEFAULT_KEY, given)
        super().add_create_volume_permission(snapshot_id, user_ids, groups)

    def reset_snapshot_attribute(self, snapshot_id: str) -> None:
        """Share a snapshot with nobody any more."""
        snapshot = self.get_snapshot(snapshot_id)
        snapshot.create_volume_permission_groups.clear()
        snapshot.create_volume_permission_userids.clear()

    def delete_snapshot(self, snapshot_id: str) -> Snapshot:
        """Delete a snapshot and its disk, unless an AMI is made of it."""
        snapshot = self.get_snapshot(snapshot_id)
        for image in list(self.amis.values()):
            if any(one is snapshot for one in image.snapshots()):
                raise InvalidSnapshotInUse(snapshot_id, image.id)
        with self._recording:
            self.snapshots.pop(snapshot_id, None)
            self.store.forget(snapshot_id)
        return snapshot

    def save(self, identity: str) -> None:
        """Store the record of a finished image or snapshot."""
        image, snapshot = self.amis.get(identity), self.snapshots.get(identity)
        if image is not None and image.state in {"available", "disabled"}:
            if not any(one.disk for one in image.snapshots()):
                self.store.save(image.record())
        elif snapshot is not None and snapshot.status == "completed" and not snapshot.disk:
            self.store.save(snapshot.record())

    def local_instance(self, instance_id: str) -> LocalInstance:
        """The machine's side of an instance; moto refuses an unknown id."""
        self.get_instance(instance_id)
        return self.local_instances[instance_id]


def region_of(backend: Any, name: str) -> Any:
    """The same account's backend of another region."""
    backends: Mapping[str, Any] = ec2_backends[backend.account_id]
    try:
        return backends[name]
    except KeyError as error:
        raise EC2ClientError(
            "InvalidParameterValue", f"Invalid value '{str(name)[:60]}' for source region."
        ) from error


def not_found(snapshot_id: str) -> EC2ClientError:
    """The error for a snapshot that there is not, or that another account has."""
    return EC2ClientError("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id[:60]}' does not exist.")
