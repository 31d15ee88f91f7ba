"""The parameters of RunInstances: checked as EC2 checks them, and corrected in moto's records."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError

from bake.localcloud.api.instances import LocalInstance

USER_DATA_LIMIT = 16384


def check_user_data(user_data: Any) -> None:
    """EC2 takes 16 KB before base64."""
    if user_data is not None and len(base64.b64decode(str(user_data))) > USER_DATA_LIMIT:
        raise EC2ClientError("InvalidParameterValue", f"User data is limited to {USER_DATA_LIMIT} bytes")


def comparable(call: Mapping[str, str]) -> dict[str, str]:
    """A call's parameters without those that change when the call is repeated."""
    return {
        key: value for key, value in call.items() if not key.startswith(("Signature", "X-Amz", "Timestamp"))
    }


def status(instance: LocalInstance) -> dict[str, Any]:
    """An entry of DescribeInstanceStatus."""
    moto = instance.moto
    if instance.state != "running":
        check: dict[str, Any] = {"Status": "not-applicable"}
    elif instance.reachable:
        check = {"Status": "ok", "Details": [{"Name": "reachability", "Status": "passed"}]}
    else:
        check = {"Status": "initializing", "Details": [{"Name": "reachability", "Status": "initializing"}]}
    return {
        "InstanceId": moto.id,
        "AvailabilityZone": moto.availability_zone,
        "InstanceState": {"Code": moto.state_code, "Name": moto.state},
        "InstanceStatus": check,
        "SystemStatus": check,
    }
