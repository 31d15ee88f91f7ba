"""moto's EC2 with real machines behind it: it reports their states, sizes and snapshots.

`install` replaces the class from which moto makes its backends. Parameters that moto's response layer does
not pass to the backend (`NoReboot`, a volume's throughput) are read from the call itself, in `CALL`.
"""

from __future__ import annotations

import copy
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, ClassVar

from moto.ec2.exceptions import EC2ClientError, InvalidSnapshotIdError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.elastic_block_store import Snapshot, Volume
from moto.ec2.models.instances import Instance, Reservation
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import filter_dict_attribute_mapping

from bake.localcloud.api import (
    attributes,
    front,
    launch_templates,
    launched,
    metadata_options,
    pickling,
    spot,
)
from bake.localcloud.api import run_instances as launch
from bake.localcloud.api.clock import CloudClock
from bake.localcloud.api.images import LocalAmi, LocalSnapshot
from bake.localcloud.api.instances import LocalInstance, LocalInstances
from bake.localcloud.images.store import ImageStore, StoredImage, StoredSnapshot
from bake.localcloud.machines.hostile import preparation
from bake.localcloud.settings import SPOT_REGION

# The parameters of the EC2 call that this thread is answering, as they came over the wire.
CALL: ContextVar[Mapping[str, str]] = ContextVar("CALL", default=MappingProxyType({}))


class LocalEc2(spot.SpotRequests, attributes.Attributes, launch_templates.LaunchTemplates, EC2Backend):  # type: ignore[misc]
    """One region's EC2. Machines live in the spot region only."""

    # moto finds a service's URLs by the module of its backend's class.
    __module__ = EC2Backend.__module__

    local_instances: ClassVar[LocalInstances]
    store: ClassVar[ImageStore]
    subnet_default: ClassVar[str] = ""

    def __init__(self, region_name: str, account_id: str) -> None:
        self._launching = threading.Lock()
        # An image's record in the API and the one in the store change together.
        self._recording = threading.RLock()
        self.local_requests = {}
        self.launches: dict[str, tuple[Mapping[str, str], Reservation]] = {}
        super().__init__(region_name, account_id)

    # --- instances -------------------------------------------------------------------------------

    def run_instances(
        self, image_id: str, count: int, user_data: Any, security_group_names: list[str], **kwargs: Any
    ) -> Reservation:
        """Launch machines. The same client token again returns the same reservation."""
        if self.region_name != SPOT_REGION:
            raise EC2ClientError(
                "UnsupportedOperation",
                f"The local cloud's machines live in {SPOT_REGION}, not in {self.region_name}",
            )
        with self._launching:
            # moto gives all launches without a token the same one.
            token = kwargs["client_token"] = CALL.get().get("ClientToken") or uuid.uuid4().hex
            if earlier := self._launched_before(token):
                return earlier
            launch.check_user_data(user_data)
            attributes.check_shutdown_behavior(kwargs.get(attributes.SHUTDOWN))
            market = spot.market(CALL.get())
            request: spot.SpotRequest | None = kwargs.pop("spot_request", None)
            once = copy.deepcopy(kwargs)
            image: LocalAmi = self.describe_images(ami_ids=[image_id])[0]
            volume = launch.root_volume(image, CALL.get())
            asked = kwargs.get("metadata_options") or {}
            kwargs["metadata_options"] = metadata_options.at_launch(image.imds_support, asked)
            kwargs["block_device_mappings"] = [volume.mapping()]
            if not kwargs.get("subnet_id") and not kwargs.get("nics"):
                kwargs["subnet_id"] = self.subnet_default
            reservation = super().run_instances(image_id, count, user_data, security_group_names, **kwargs)
            self.launches[token] = (launch.comparable(CALL.get()), reservation)
            launched.finish(self, reservation, CALL.get(), kwargs)
        for instance in reservation.instances:
            instance.reservation_id = reservation.id
            volume.describe(self, instance)
            launch.public_is_private(instance)
            prepare = preparation(self.local_instances.settings, image.ebs_snapshot.hostile_base)
            local = self.local_instances.add(instance)
            if market:
                tags = (kwargs.get("tags") or {}).get("spot-instances-request", {})
                request = request or spot.SpotRequest(self, market, instance, tags)
                request.instance, instance.spot_instance_request_id = instance, request.id
                request.launched_by = dict(CALL.get()), (image_id, 1, user_data, security_group_names), once
                self.local_requests[request.id] = request
                self.relaunch_after(local)
                request = None  # of one instance each
            if wrong := launched.unusable_key(self, volume.kms_key):
                local.terminate(wrong)
            else:
                local.launch(self._disk_of(image), volume.gib, prepare)
        return reservation

    def launch_again(self, request: spot.SpotRequest) -> None:
        """Launch the instance of an open spot request as the one before."""
        if self.local_instances.closing:
            return
        call, words, once = request.launched_by
        token = CALL.set({name: value for name, value in call.items() if name != "ClientToken"})
        try:
            self.run_instances(*words, **copy.deepcopy(once), spot_request=request)
        finally:
            CALL.reset(token)

    def _launched_before(self, token: str) -> Reservation | None:
        if token not in self.launches:
            return None
        parameters, reservation = self.launches[token]
        if parameters != launch.comparable(CALL.get()):
            raise EC2ClientError(
                "IdempotentParameterMismatch", "The client token was used before with other parameters"
            )
        return reservation

    def start_instances(self, instance_ids: list[str]) -> list[tuple[Instance, Any]]:
        def check(instance: LocalInstance) -> None:
            if instance.state == "stopped":
                self.check_start(instance.moto)
            elif instance.state not in {"pending", "running"}:
                raise _wrong_state(instance, "started")

        def start(instance: LocalInstance) -> None:
            if instance.state == "stopped":
                instance.start()

        return self._each(instance_ids, check, start)

    def stop_instances(self, instance_ids: list[str]) -> list[tuple[Instance, Any]]:
        def check(instance: LocalInstance) -> None:
            if instance.state in {"shutting-down", "terminated"}:
                raise _wrong_state(instance, "stopped")
            self.check_stop(instance.moto)

        return self._each(instance_ids, check, lambda instance: instance.stop())

    def reboot_instances(self, instance_ids: list[str]) -> list[Instance]:
        def check(instance: LocalInstance) -> None:
            if instance.state != "running":
                raise _wrong_state(instance, "rebooted")

        done = self._each(instance_ids, check, lambda instance: instance.reboot())
        return [instance for instance, _ in done]

    def terminate_instances(self, instance_ids: list[str]) -> list[tuple[Instance, Any]]:
        def check(instance: LocalInstance) -> None:
            if instance.moto.disable_api_termination and instance.state != "terminated":
                raise EC2ClientError(
                    "OperationNotPermitted",
                    f"The instance '{instance.moto.id}' may not be terminated. Modify its "
                    "'disableApiTermination' instance attribute and try again.",
                )

        def terminate(instance: LocalInstance) -> None:
            if instance.state != "terminated":
                instance.terminate()

        return self._each(instance_ids, check, terminate)

    def _each(
        self,
        instance_ids: list[str],
        check: Callable[[LocalInstance], None],
        act: Callable[[LocalInstance], None],
    ) -> list[tuple[Instance, Any]]:
        """Act on instances, or on none if one is refused; return each with its state before."""
        found = self.get_multi_instances_by_id(instance_ids)
        for instance in found:
            check(self.local_instances[instance.id])
        done = []
        for instance in found:
            before = {"Code": instance._state.code, "Name": instance._state.name}
            act(self.local_instances[instance.id])
            done.append((instance, before))
        return done

    def describe_instance_status(
        self, instance_ids: list[str], include_all_instances: bool, filters: Any
    ) -> Any:
        """`initializing` until the machine answers on port 22."""
        found = super().describe_instance_status(instance_ids, include_all_instances, filters)
        return [launch.status(self.local_instances[instance.id]) for instance in found]

    # --- images and snapshots --------------------------------------------------------------------

    def create_image(
        self, instance_id: str, name: str, description: str, tag_specifications: list[Any]
    ) -> Any:
        """Copy the root disk into a new AMI, which is `pending` until the copy is complete."""
        self._check_name(name)
        if any(key.startswith("BlockDeviceMapping.") for key in CALL.get()):
            raise EC2ClientError("UnsupportedOperation", "The local cloud images the root volume as it is")
        instance = self._local_instance(instance_id)
        if instance.state not in {"running", "stopped", "stopping"}:
            raise _wrong_state(instance, "imaged")
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


def _wrong_state(instance: LocalInstance, done: str) -> EC2ClientError:
    return EC2ClientError(
        "IncorrectInstanceState",
        f"The instance '{instance.moto.id}' is not in a state from which it can be {done}: {instance.state}",
    )


def install(instances: LocalInstances, store: ImageStore, clock: CloudClock) -> None:
    """Make moto build its EC2 from LocalEc2; to be called before the first request."""
    LocalEc2.local_instances = instances
    LocalEc2.store = store
    LocalEc2.later = staticmethod(lambda span, act: clock.at(clock.now() + span, act))
    filter_dict_attribute_mapping["client-token"] = "client_token"  # a filter that moto lacks
    # moto rejects instance stores; launch.root_volume reads the mappings itself.
    InstanceResponse._validate_block_device_mapping = staticmethod(lambda mapping: None)
    attributes.install()
    launched.install()
    front.install()
    pickling.ours(LocalEc2)
    ec2_backends.backend = LocalEc2
