"""moto's EC2 with real machines behind it: it reports their states, sizes and snapshots.

`install` replaces the class from which moto makes its backends. Parameters that moto's response layer does
not pass to the backend (`NoReboot`, a volume's throughput) are read from the call itself, in `CALL`.
"""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.instances import Instance, Reservation
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import filter_dict_attribute_mapping

from bake.localcloud.api import (
    attributes,
    block_devices,
    front,
    image_attributes,
    image_marks,
    image_relations,
    image_usage,
    initialization,
    launched,
    metadata_options,
    networks,
    pickling,
    security_rules,
    spot,
    template_versions,
)
from bake.localcloud.api import run_instances as launch
from bake.localcloud.api import volumes as volumes_of_ec2
from bake.localcloud.api.call import CALL
from bake.localcloud.api.clock import CloudClock
from bake.localcloud.api.consistency.ec2 import Settled
from bake.localcloud.api.image_calls import Images
from bake.localcloud.api.instances import LocalInstance, LocalInstances, wrong_state
from bake.localcloud.images.store import ImageStore
from bake.localcloud.machines.hostile import preparation
from bake.localcloud.settings import SPOT_REGION


class LocalEc2(
    spot.SpotRequests,
    attributes.Attributes,
    template_versions.LaunchTemplates,
    networks.Networks,
    security_rules.SecurityRules,
    Settled,
    Images,
    EC2Backend,  # type: ignore[misc]
):
    """One region's EC2. Machines live in the spot region only."""

    # moto finds a service's URLs by the module of its backend's class.
    __module__ = EC2Backend.__module__

    local_instances: ClassVar[LocalInstances]
    store: ClassVar[ImageStore]

    def __init__(self, region_name: str, account_id: str) -> None:
        self._launching = threading.Lock()
        self._recording = threading.RLock()
        self.local_requests = {}
        self.ebs_encryption_by_default = False
        self.image_copies = {}
        self.departed, self.usage_reports, self.used_elsewhere = {}, {}, {}
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
            image = self.available_image(image_id)
            volumes = block_devices.requested(image, CALL.get(), self)
            asked = kwargs.get("metadata_options") or {}
            kwargs["metadata_options"] = metadata_options.at_launch(image.imds_support, asked)
            kwargs["block_device_mappings"] = [volume.mapping() for volume in volumes]
            self.place(kwargs, count)
            reservation = super().run_instances(image_id, count, user_data, security_group_names, **kwargs)
            self.launches[token] = (launch.comparable(CALL.get()), reservation)
            launched.finish(self, reservation, CALL.get(), kwargs)
        for instance in reservation.instances:
            instance.reservation_id = reservation.id
            instance.stores = block_devices.stores(image, CALL.get())
            for volume in volumes:
                volume.describe(self, instance)
            self.give_public_addresses(instance)
            self.keep_or_delete_with(instance, CALL.get())
            prepare = preparation(self.local_instances.settings, image.ebs_snapshot.hostile_base)
            local = self.local_instances.add(instance, volumes[0].initialization_rate)
            self.plug_all(local)
            if market:
                tags = (kwargs.get("tags") or {}).get("spot-instances-request", {})
                request = request or spot.SpotRequest(self, market, instance, tags)
                request.instance, instance.spot_instance_request_id = instance, request.id
                request.launched_by = dict(CALL.get()), (image_id, 1, user_data, security_group_names), once
                self.local_requests[request.id] = request
                self.relaunch_after(local)
                request = None  # of one instance each
            if wrong := launched.unusable_key(self, volumes[0].kms_key):
                local.terminate(wrong)
            else:
                local.launch(image.ebs_snapshot.path, volumes[0].gib, prepare, self.volumes_maker(local))
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
                self.check_quota(instance.moto)
                self.root_of(instance)
            elif instance.state not in {"pending", "running"}:
                raise wrong_state(instance, "started")

        def start(instance: LocalInstance) -> None:
            if instance.state == "stopped":
                instance.start()

        return self._each(instance_ids, check, start)

    def stop_instances(self, instance_ids: list[str]) -> list[tuple[Instance, Any]]:
        def check(instance: LocalInstance) -> None:
            if instance.state in {"shutting-down", "terminated"}:
                raise wrong_state(instance, "stopped")
            self.check_stop(instance.moto)

        return self._each(instance_ids, check, lambda instance: instance.stop())

    def reboot_instances(self, instance_ids: list[str]) -> list[Instance]:
        def check(instance: LocalInstance) -> None:
            if instance.state != "running":
                raise wrong_state(instance, "rebooted")

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


def install(instances: LocalInstances, store: ImageStore, clock: CloudClock) -> None:
    """Make moto build its EC2 from LocalEc2; to be called before the first request."""
    LocalEc2.local_instances = instances
    LocalEc2.store = store
    LocalEc2.later = staticmethod(lambda span, act: clock.at(clock.now() + span, act))
    filter_dict_attribute_mapping["client-token"] = "client_token"  # a filter that moto lacks
    # moto rejects instance stores; block_devices reads the mappings itself.
    InstanceResponse._validate_block_device_mapping = staticmethod(lambda mapping: None)
    attributes.install()
    for part in (image_attributes, image_marks, image_relations, image_usage, initialization):
        part.install()
    volumes_of_ec2.install()
    launched.install()
    template_versions.install()
    front.install()
    pickling.ours(LocalEc2)
    ec2_backends.backend = LocalEc2
