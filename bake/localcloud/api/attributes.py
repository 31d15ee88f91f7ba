"""Changes of instances' attributes and groups, where moto takes more or less than EC2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import Instance
from moto.ec2.responses.instances import InstanceResponse

from bake.localcloud.api.instances import LocalInstance, LocalInstances
from bake.localcloud.api.security_groups import groups_of

SHUTDOWN = "instance_initiated_shutdown_behavior"


def check_shutdown_behavior(value: str | None) -> None:
    """Refuse what is neither `stop` nor `terminate`; None means EC2's default, `stop`."""
    if value not in {None, "stop", "terminate"}:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({value}) for parameter instanceInitiatedShutdownBehavior is invalid. Unknown behavior.",
        )


class Attributes:
    """The part of a region's backend that changes instances and refuses to delete what they have."""

    local_instances: ClassVar[LocalInstances]
    has_interface: Callable[[LocalInstance], bool]

    def modify_instance_attribute(self, instance_id: str, key: str, value: Any) -> Instance:
        """As moto's, which takes any value for the shutdown behavior."""
        if key == SHUTDOWN:
            check_shutdown_behavior(str(value))
        return super().modify_instance_attribute(instance_id, key, value)  # type: ignore[misc]

    def delete_security_group(self, name: str | None = None, group_id: str | None = None) -> None:
        """As moto's, but a group that an instance has is refused until its interface is gone."""
        wanted = {group_id, name} - {None}
        for instance in self.local_instances.all():
            groups = groups_of(instance.moto) if self.has_interface(instance) else []
            if any(wanted & {group.id, group.name} for group in groups):
                raise EC2ClientError(
                    "DependencyViolation", f"resource {group_id or name} has a dependent object"
                )
        super().delete_security_group(name, group_id)  # type: ignore[misc]

    def modify_instance_security_groups(self, instance_id: str, new_group_id_list: list[str]) -> Instance:
        """As moto's, which leaves out the network card that the groups belong to.

        moto gets here with any attribute that it does not know.
        """
        if not new_group_id_list:
            raise EC2ClientError("InvalidParameterCombination", "No attributes specified.")
        instance: Instance = super().modify_instance_security_groups(instance_id, new_group_id_list)  # type: ignore[misc]
        instance.nics[0]._group_set = list(instance.security_groups)
        return instance


def install() -> None:
    """Let moto's ModifyInstanceAttribute take `InstanceInitiatedShutdownBehavior.Value`, too."""
    of_moto = InstanceResponse._attribute_value_handler

    def handle(self: Any) -> bool:
        value = self._get_param("InstanceInitiatedShutdownBehavior.Value")
        if value is None:
            return bool(of_moto(self))
        self.error_on_dryrun()
        self.ec2_backend.modify_instance_attribute(self._get_param("InstanceId"), SHUTDOWN, value)
        return True

    InstanceResponse._attribute_value_handler = handle
