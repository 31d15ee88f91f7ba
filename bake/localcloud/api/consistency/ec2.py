"""EC2's changes that settle late: stops, ends, images, quotas."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import Reservation

from bake.localcloud.api import quotas
from bake.localcloud.api.consistency.schedule import Schedule
from bake.localcloud.api.consistency.settling import INTERFACE, PENDING, QUOTA, STOPPED, Settling
from bake.localcloud.api.instances import LocalInstance, LocalInstances


class Settled:
    """The part of a region's backend that knows what has not settled yet."""

    local_instances: ClassVar[LocalInstances]
    settling: ClassVar[Settling] = Settling(Schedule(0, lenient=True))
    local_requests: dict[str, Any]

    def run_instances(
        self, image_id: str, count: int, user_data: Any, security_group_names: list[str], **kwargs: Any
    ) -> Reservation:
        """As moto's, within the account's quotas."""
        spot = bool(kwargs.get("instance_market_options"))
        kind = str(kwargs.get("instance_type"))
        if not (spot and self._reopened(kind)):
            limit = self.local_instances.settings.vcpus
            quotas.check(kind, count, spot=spot, counted=self._counted(), limit=limit)
        return super().run_instances(image_id, count, user_data, security_group_names, **kwargs)  # type: ignore[misc]

    def _reopened(self, kind: str) -> bool:
        """Whether an open spot request may launch such an instance again: its vCPUs are counted with it."""
        return any(
            one.state == "open" and one.instance.instance_type == kind for one in self.local_requests.values()
        )

    def _counted(self) -> Iterator[Any]:
        """The instances that use quotas: those that run, and for a moment those that have ended."""
        for one in self.local_instances.all():
            ended = one.state in {"terminated", "stopped"}
            if not ended or self.settling.left(QUOTA, one.moto.id, one.changed):
                yield one.moto

    def check_quota(self, instance: Any) -> None:
        """Refuse to start moto's instance, which is stopped, beyond its quota."""
        others = (one for one in self._counted() if one.id != instance.id)
        limit, spot = self.local_instances.settings.vcpus, instance.lifecycle == "spot"
        quotas.check(instance.instance_type, 1, spot=spot, counted=others, limit=limit)

    def create_image(self, instance_id: str, *words: Any, **named: Any) -> Any:
        """As always, but not of what was seen to stop a moment ago."""
        if instance_id in self.local_instances:
            self.check_stopped(self.local_instances[instance_id])
        return super().create_image(instance_id, *words, **named)  # type: ignore[misc]

    def capture(self, pairs: Any, image: Any, **how: Any) -> None:
        """As always; an image is pending from now on."""
        if image is not None:
            self.begin_image(image)
        super().capture(pairs, image, **how)  # type: ignore[misc]

    def complete(self, snapshots: Any, image: Any, copy: Callable[[], None]) -> None:
        """As always, but an image stays pending for a while, however fast its disk is copied."""

        def held() -> None:
            copy()
            if image is not None:
                self.hold_image(image)

        super().complete(snapshots, image, held)  # type: ignore[misc]

    def check_stopped(self, instance: LocalInstance) -> None:
        """Refuse to image what was seen to stop a moment ago, as a replica does that has not seen it."""
        if instance.state == "stopped" and self.settling.left(STOPPED, instance.moto.id, instance.changed):
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Invalid value '{instance.moto.id}' for instanceId. Instance is not in state 'running' or "
                "'stopped'",
            )

    def has_interface(self, instance: LocalInstance) -> bool:
        """Whether its network interface exists still."""
        ended = instance.state == "terminated"
        return not ended or bool(self.settling.left(INTERFACE, instance.moto.id, instance.changed))

    def begin_image(self, image: Any) -> None:
        """Note that an AMI is pending from now on."""
        self.settling.begin(PENDING, image.id)
        self.settling.left(PENDING, image.id)

    def hold_image(self, image: Any) -> None:
        """Wait as long as an AMI stays pending, however fast its disk is copied."""
        time.sleep(self.settling.left(PENDING, image.id))
