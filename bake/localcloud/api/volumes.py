"""Volumes: created, attached, grown, detached and deleted, each with a disk on the host.

A root volume's disk is its machine's; every other lies in a folder of its own (machines/volumes.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from moto.core import utils
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.block_device import BlockDeviceType
from moto.ec2.models.elastic_block_store import Volume, VolumeAttachment, VolumeModification
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import random_volume_id

from bake.localcloud.api import block_devices, volume_limits
from bake.localcloud.api.call import CALL
from bake.localcloud.api.encryption import Encryption
from bake.localcloud.api.instances import LocalInstance, LocalInstances
from bake.localcloud.api.volume_records import LocalAttachment, LocalVolume
from bake.localcloud.machines import disks
from bake.localcloud.machines.volumes import VolumeFiles, extend

FEWEST_HOURS = 6  # between two modifications of a volume


class Volumes(EC2Backend):  # type: ignore[misc]
    """The volumes of a region, for its backend."""

    local_instances: ClassVar[LocalInstances]

    @property
    def files(self) -> VolumeFiles:
        """The disks of volumes that are no machine's root."""
        return self.local_instances.volumes

    # --- calls ------------------------------------------------------------------------------------

    def create_volume(
        self,
        size: int,
        zone_name: str,
        snapshot_id: str | None = None,
        encrypted: bool = False,
        kms_key_id: str | None = None,
        volume_type: str | None = None,
        iops: int | None = None,
        throughput: int | None = None,
        multi_attach_enabled: bool | None = None,
    ) -> Volume:
        """Make a volume: empty, or a copy of a snapshot's. moto calls this for launches as well."""
        zone = self.get_zone_by_name(zone_name)
        if CALL.get().get("Action") != "CreateVolume":
            return self._recorded(size, zone, None, Encryption(kms_key_id), volume_type, iops, throughput)
        if zone is None:
            raise EC2ClientError("InvalidZone.NotFound", f"The zone '{str(zone_name)[:60]}' does not exist.")
        if multi_attach_enabled:
            raise EC2ClientError("UnsupportedOperation", "The local cloud has no Multi-Attach")
        if not size and not snapshot_id:
            raise EC2ClientError("MissingParameter", "The request must contain the parameter size/snapshot")
        asked = {"SnapshotId": snapshot_id, "VolumeSize": size, "VolumeType": volume_type}
        asked |= {"Iops": iops, "Throughput": throughput}
        snapshot = self.own_snapshot(snapshot_id) if snapshot_id else None
        if snapshot is not None and size and int(size) < snapshot.gib:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Volume of size {size}GiB is smaller than snapshot '{snapshot_id}', expect size >= "
                f"{snapshot.gib}GiB",
            )
        _, gib, kind, iops, throughput = block_devices.sized(asked, self)
        rate = block_devices.number(CALL.get().get("VolumeInitializationRate"))
        volume_limits.check_initialization(rate, from_snapshot=snapshot is not None)
        encryption = self.encryption(encrypted, kms_key_id, snapshot)
        volume = self._recorded(gib, zone, snapshot_id, encryption, kind, iops, throughput)
        volume.making, volume.volume_initialization_rate = "creating", rate
        threading.Thread(target=self._make, args=(volume, snapshot, encryption), daemon=True).start()
        return volume

    def _recorded(
        self,
        gib: int,
        zone: Any,
        snapshot_id: str | None,
        encryption: Encryption,
        kind: str | None,
        iops: int | None,
        throughput: int | None,
    ) -> LocalVolume:
        volume = LocalVolume(
            self, random_volume_id(), gib, zone, snapshot_id or "", encryption.on, encryption.key, kind, iops,
            throughput, False,
        )  # fmt: skip
        self.volumes[volume.id] = volume
        return volume

    def _make(self, volume: LocalVolume, snapshot: Any, encryption: Encryption) -> None:
        """Make a new volume's file, and then set its state; EC2 looks at its key only here."""
        try:
            if encryption.problem:
                raise ValueError(encryption.problem)
            self.files.make(volume.id, volume.size, snapshot.path if snapshot else None)
            volume.making = ""
        except Exception:  # any: this is a thread's end, and callers wait until `creating` is over
            volume.making = "error"

    def modify_volume(
        self,
        volume_id: str,
        target_size: int | None = None,
        target_volume_type: str | None = None,
        target_iops: int | None = None,
        target_throughput: int | None = None,
        target_multi_attach_enabled: bool | None = None,
    ) -> Volume:
        """Grow a volume's disk, or change its type, IOPS and throughput.

        A running machine sees at once that a volume has grown, its root volume when it next starts.
        """
        volume: LocalVolume = self.get_volume(volume_id)
        if target_multi_attach_enabled:
            raise EC2ClientError("UnsupportedOperation", "The local cloud has no Multi-Attach")
        if volume.making:
            raise _wrong_volume_state(volume)
        gib = int(target_size or volume.size)
        if gib < volume.size:
            raise EC2ClientError(
                "InvalidParameterValue", f"New size cannot be smaller than existing size {volume.size}"
            )
        self._check_pace(volume)
        kind = target_volume_type or volume.volume_type
        same = kind == volume.volume_type
        settable = volume_limits.VOLUME_TYPES[kind].iops if kind in volume_limits.VOLUME_TYPES else None
        iops = target_iops or (volume.iops if same and settable else None)
        throughput = target_throughput or (volume.throughput if same else None)
        volume_limits.check(kind, gib, iops, throughput)
        modification = VolumeModification(
            volume, target_size, target_volume_type, target_iops, target_throughput
        )
        volume.modifications.append(modification)
        volume.size, volume.volume_type = gib, kind
        volume.iops = iops or block_devices.iops_of(kind, gib)
        volume.throughput = throughput or block_devices.throughput_of(kind)
        modification.target_iops, modification.target_throughput = volume.iops, volume.throughput
        self._grow(volume)
        return volume

    @staticmethod
    def _check_pace(volume: LocalVolume) -> None:
        if volume.modifications:
            hours = (utils.utcnow() - volume.modifications[-1].start_time).total_seconds() / 3600
            if hours < FEWEST_HOURS:
                raise EC2ClientError(
                    "VolumeModificationRateExceeded",
                    "You've reached the maximum modification rate per volume limit. Wait at least "
                    f"{FEWEST_HOURS} hours between modifications per EBS volume.",
                )

    def _grow(self, volume: LocalVolume) -> None:
        if self._is_root(volume):
            return  # before the machine's next start: `grow_root`
        extend(self.files.path(volume.id), volume.size)
        if volume.attachment:
            self.local_instances[volume.attachment.instance.id].machine.volumes.learn_size(volume.id)

    def attach_volume(
        self, volume_id: str, instance_id: str, device_path: str, delete_on_termination: bool = False
    ) -> VolumeAttachment | None:
        """Attach a volume to an instance, which has it at once if it runs. moto's launches call this, too."""
        volume: LocalVolume = self.get_volume(volume_id)
        moto = self.get_instance(instance_id)
        if CALL.get().get("Action") == "AttachVolume":
            self._check_attachable(volume, self.local_instances[instance_id], device_path)
        volume.attachment = LocalAttachment(volume, moto, device_path, "attached")
        moto.block_device_mapping[device_path] = BlockDeviceType(
            volume_id=volume_id,
            status=volume.status,
            size=volume.size,
            attach_time=utils.utcnow(),
            delete_on_termination=delete_on_termination,
        )
        if CALL.get().get("Action") == "AttachVolume":
            try:
                self._plug(volume)
            except Exception:  # any: it has no volume of which it does not know
                self._free(volume)
                raise
        return volume.attachment

    def _check_attachable(self, volume: LocalVolume, instance: LocalInstance, device: str) -> None:
        moto = instance.moto
        if volume.attachment:
            raise EC2ClientError("VolumeInUse", f"{volume.id} is already attached to an instance")
        if volume.making:
            raise EC2ClientError("IncorrectState", f"{volume.id} is not 'available'.")
        if volume.availability_zone != moto.availability_zone:
            raise EC2ClientError(
                "InvalidVolume.ZoneMismatch",
                f"The volume '{volume.id}' is not in the same availability zone as instance '{moto.id}'",
            )
        if instance.state not in {"running", "stopped"}:
            raise EC2ClientError("IncorrectState", f"Instance '{moto.id}' is not 'running'.")
        try:
            block_devices.check_device(device)
        except EC2ClientError as error:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Value ({device[:60]}) for parameter device is invalid. {device[:60]} is not a valid EBS "
                "device name.",
            ) from error
        most = INSTANCE_TYPES[moto.instance_type].get("EbsInfo", {}).get("MaximumEbsAttachments", 28)
        if len(moto.block_device_mapping) >= most:
            raise EC2ClientError(
                "AttachmentLimitExceeded",
                f"The maximum number of attachments to instance '{moto.id}' is {most}",
            )
        if device in moto.block_device_mapping:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
            )

    def detach_volume(self, volume_id: str, instance_id: str, device_path: str) -> VolumeAttachment:
        """Detach a volume, a root volume only from a stopped instance."""
        volume: LocalVolume = self.get_volume(volume_id)
        attached = volume.attachment
        if attached is None:
            raise EC2ClientError("IncorrectState", f"Volume '{volume_id}' is in the 'available' state.")
        if instance_id not in (None, attached.instance.id) or device_path not in (None, attached.device):
            raise EC2ClientError(
                "InvalidAttachment.NotFound",
                f"The volume '{volume_id}' is not attached to instance '{instance_id}'"
                + (f" as device '{device_path}'." if device_path else "."),
            )
        instance = self.local_instances[attached.instance.id]
        if self._is_root(volume) and instance.state != "stopped":
            raise EC2ClientError(
                "OperationNotPermitted",
                f"Unable to detach root volume '{volume_id}' from instance '{instance.moto.id}'",
            )
        self._unplug(volume)
        self._free(volume)
        return attached

    def delete_volume(self, volume_id: str) -> Volume:
        volume: LocalVolume = self.get_volume(volume_id)
        if volume.attachment:
            raise EC2ClientError(
                "VolumeInUse", f"Volume {volume_id} is currently attached to {volume.attachment.instance.id}"
            )
        if volume.making == "creating":
            raise _wrong_volume_state(volume)
        self.files.forget(volume_id)
        return self.volumes.pop(volume_id)

    # --- what instances need ------------------------------------------------------------------------

    def plug_all(self, instance: LocalInstance) -> None:
        """Let an instance's machine have its volumes beside the root volume, from its next start on."""
        for volume in self.volumes_of(instance):
            if not self._is_root(volume):
                self._plug(volume)

    def volumes_maker(self, instance: LocalInstance) -> Callable[[], None]:
        """What makes the disks of a new instance's volumes beside the root volume."""
        more = [volume for volume in self.volumes_of(instance) if not self._is_root(volume)]
        sources = {volume.id: self.snapshots.get(volume.snapshot_id) for volume in more}
        todo = [(one.id, one.size, source.path if (source := sources[one.id]) else None) for one in more]

        def make() -> None:
            for one in todo:
                self.files.make(*one)

        return make

    def volumes_of(self, instance: LocalInstance) -> list[LocalVolume]:
        """The volumes that an instance has, by their devices."""
        mapped = sorted(instance.moto.block_device_mapping.items())
        return [self.volumes[one.volume_id] for _, one in mapped if one.volume_id in self.volumes]

    def save_volumes(self, folder: Path) -> None:
        """Copy the disks of all volumes that are no machine's root, as they are at this moment."""
        for volume in list(self.volumes.values()):
            if not self._is_root(volume) and self.files.path(volume.id).exists():
                if volume.attachment:
                    self.local_instances[volume.attachment.instance.id].machine.volumes.flush(volume.id)
                disks.clone(self.files.path(volume.id), folder / f"{volume.id}.img")

    def restore_volumes(self, folder: Path) -> None:
        """Take the disks that `save_volumes` has copied."""
        for volume in self.volumes.values():
            if (disk := folder / f"{volume.id}.img").exists():
                self.files.make(volume.id, volume.size, disk)

    def release_volumes(self, instance: LocalInstance) -> None:
        """Delete the volumes that end with their instance, which is off, and keep the others."""
        for volume in self.volumes_of(instance):
            kept = not volume.attachment.delete_on_termination
            if kept:
                self._unplug(volume)
            self._free(volume)
            if not kept:
                self.files.forget(volume.id)
                self.volumes.pop(volume.id, None)

    def disk_of(self, volume: LocalVolume) -> Any:
        """Where a volume's disk is."""
        if self._is_root(volume):
            return self.local_instances[volume.attachment.instance.id].machine.disk
        return self.files.path(volume.id)

    def root_of(self, instance: LocalInstance) -> LocalVolume:
        """An instance's root volume, which can be detached."""
        mapping = instance.moto.block_device_mapping.get(instance.moto.root_device_name)
        if mapping is None:
            moto = instance.moto
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Invalid value '{moto.id}' for instanceId. Instance does not have a volume attached at root "
                f"({moto.root_device_name})",
            )
        volume: LocalVolume = self.volumes[mapping.volume_id]
        return volume

    def grow_root(self, instance: LocalInstance) -> None:
        """Make the root disk of an instance that is about to start as large as ModifyVolume has said."""
        root = self.root_of(instance)
        if root.modifications:
            disks.grow(instance.machine.disk, root.size)

    def _is_root(self, volume: LocalVolume) -> bool:
        attached = volume.attachment
        return attached is not None and attached.device == attached.instance.root_device_name

    def _plug(self, volume: LocalVolume) -> None:
        moto = volume.attachment.instance
        machine = self.local_instances[moto.id].machine
        if self._is_root(volume):
            self.files.hand_over(volume.id, machine.disk)
        else:
            nvme = INSTANCE_TYPES[moto.instance_type].get("Hypervisor") == "nitro"
            machine.volumes.add(volume.id, self.files.path(volume.id), volume.attachment.device, nvme=nvme)

    def _unplug(self, volume: LocalVolume) -> None:
        """Take a volume's disk from its machine: a root volume's is moved, others are unplugged."""
        machine = self.local_instances[volume.attachment.instance.id].machine
        if not self._is_root(volume):
            machine.volumes.remove(volume.id)
        elif machine.disk.exists():
            self.files.adopt(volume.id, machine.disk)

    @staticmethod
    def _free(volume: LocalVolume) -> None:
        attached = volume.attachment
        attached.instance.block_device_mapping.pop(attached.device, None)
        attached.status = "detached"
        volume.attachment = None


def install() -> None:
    """Let ModifyInstanceAttribute refuse devices that there are not, on which moto fails."""
    of_moto = InstanceResponse._block_device_mapping_handler

    def handle(self: Any) -> bool:
        mapped = self.ec2_backend.get_instance(self._get_param("InstanceId")).block_device_mapping
        for mapping in self._get_param("BlockDeviceMappings", []):
            if (device := str(mapping.get("DeviceName", ""))) not in mapped:
                raise EC2ClientError(
                    "InvalidInstanceAttributeValue", f"No device is currently mapped at {device[:60]}"
                )
        return bool(of_moto(self))

    InstanceResponse._block_device_mapping_handler = handle


def _wrong_volume_state(volume: LocalVolume) -> EC2ClientError:
    return EC2ClientError("IncorrectState", f"The volume '{volume.id}' is in the '{volume.making}' state.")
