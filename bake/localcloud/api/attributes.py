"""Instances' shutdown behavior, which moto takes in one of EC2's two forms only."""

from __future__ import annotations

from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.instances import InstanceResponse

SHUTDOWN = "instance_initiated_shutdown_behavior"


def check_shutdown_behavior(value: str | None) -> None:
    """Refuse what is neither `stop` nor `terminate`; None means EC2's default, `stop`."""
    if value not in {None, "stop", "terminate"}:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({value}) for parameter instanceInitiatedShutdownBehavior is invalid. Unknown behavior.",
        )


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
