"""Attributes of images and snapshots: who may use them, what they require, when they are out of date.

moto's response layer has some of these calls, and hands on less than EC2 reads; `install` replaces them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core import utils
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend

from bake.localcloud.api import metadata_options, response_layer
from bake.localcloud.api.call import CALL
from bake.localcloud.api.encryption import check_shared
from bake.localcloud.api.images import LocalAmi
from bake.localcloud.api.response_layer import done

_MANAGED_KEY = "Snapshots encrypted with the AWS Managed CMK can't be shared. Specify another snapshot."
_LONGEST_DESCRIPTION = 255
_PROTECTED = ("enabled-without-cooldown", "enabled-with-cooldown")
_COOLDOWN = timedelta(hours=24)
_DEPRECATED_AT_MOST = timedelta(days=10 * 365 + 2)
# DescribeImageAttribute's attributes: the answer's field, and the image's attribute.
_ATTRIBUTES: Mapping[str, tuple[str, str]] = {
    "description": ("Description", "description"),
    "kernel": ("KernelId", "kernel_id"),
    "ramdisk": ("RamdiskId", "ramdisk_id"),
    "sriovNetSupport": ("SriovNetSupport", "sriov_net_support"),
    "bootMode": ("BootMode", "boot_mode"),
    "tpmSupport": ("TpmSupport", "tpm_support"),
    "uefiData": ("UefiData", "uefi_data"),
    "lastLaunchedTime": ("LastLaunchedTime", "last_launched_time"),
    "imdsSupport": ("ImdsSupport", "imds_support"),
    "deregistrationProtection": ("DeregistrationProtection", "deregistration_protection"),
}


class ImageAttributes(EC2Backend):  # type: ignore[misc]
    """The attributes of a region's images, for its backend."""

    _recording: threading.RLock

    def own_image(self, ami_id: str) -> LocalAmi:
        """An image that the account may change: EC2ClientError for another's and for none."""
        image: LocalAmi = self.known_image(ami_id)
        if image.owner_id != self.account_id:
            raise EC2ClientError("AuthFailure", f"Not authorized for image:{ami_id}")
        return image

    def modify_image_attribute(
        self,
        ami_id: str,
        launch_permissions_to_add: list[dict[str, str]],
        launch_permissions_to_remove: list[dict[str, str]],
    ) -> None:
        """Change one attribute: description, `ImdsSupport` (which stays once set), launch permissions."""
        call, image = CALL.get(), self.own_image(ami_id)
        imds_support = metadata_options.imds_support_of(call)
        description = call.get("Description.Value")
        if call.get("Attribute") == "description":
            description = call.get("Value", "")
        asked = [imds_support is not None, description is not None]
        asked.append(bool(launch_permissions_to_add or launch_permissions_to_remove))
        if sum(asked) != 1:
            text = (
                "No attributes specified."
                if not any(asked)
                else "Only one attribute can be modified at a time"
            )
            raise EC2ClientError("InvalidParameterCombination", text)
        if description is not None and len(description) > _LONGEST_DESCRIPTION:
            raise EC2ClientError(
                "InvalidParameterValue", f"A description has at most {_LONGEST_DESCRIPTION} characters"
            )
        added = launch_permissions_to_add
        _check_permissions(image, added)
        self.validate_permission_targets([*added, *launch_permissions_to_remove])
        check_shared(self, image.snapshots(), "InvalidParameter", _MANAGED_KEY, added)
        with self._recording:
            if imds_support is not None:
                image.imds_support = imds_support
            if description is not None:
                image.description = description
            kept = [one for one in image.launch_permissions if one not in launch_permissions_to_remove]
            image.launch_permissions = kept + [one for one in added if one not in kept]
            self.save(ami_id)

    def reset_image_attribute(self, ami_id: str, attribute: str) -> None:
        """Take all launch permissions back, the one attribute that can be reset."""
        if attribute != "launchPermission":
            raise EC2ClientError(
                "InvalidParameterValue", f"Value ({attribute[:60]}) for parameter attribute is invalid."
            )
        image = self.own_image(ami_id)
        with self._recording:
            image.launch_permissions = []
            self.save(ami_id)

    def describe_image_attribute(self, ami_id: str, attribute_name: str) -> dict[str, Any]:
        """The answer of DescribeImageAttribute, for one's own images."""
        image = self.known_image(ami_id)
        if attribute_name == "blockDeviceMapping":  # as EC2 answers: github.com/aws/aws-cli/issues/1083
            raise EC2ClientError("AuthFailure", "Unauthorized attempt to access restricted resource")
        answer: dict[str, Any] = {"ImageId": ami_id}
        if attribute_name == "launchPermission":
            return answer | {"LaunchPermissions": self.own_image(ami_id).launch_permissions}
        if attribute_name == "productCodes":
            return answer | {"ProductCodes": []}
        if attribute_name not in _ATTRIBUTES:
            raise EC2ClientError("InvalidRequest", "The request received was invalid")
        field, attribute = _ATTRIBUTES[attribute_name]
        value = getattr(image, attribute, None)
        return answer | {field: {"Value": value} if value is not None else {}}

    def set_deprecation(self, ami_id: str, at: str | None) -> None:
        """Say from when on an image is out of date (ISO 8601), or that it is not; launches go on."""
        image = self.own_image(ami_id)
        with self._recording:
            image.deprecation_time = None if at is None else _deprecation(at)
            self.save(ami_id)

    def enable_image(self, ami_id: str) -> None:
        self._switch(ami_id, "disabled", "available")

    def disable_image(self, ami_id: str) -> None:
        """Let nobody launch or see an image, until it is enabled again; it is shared with nobody any more."""
        with self._recording:
            self._switch(ami_id, "available", "disabled")
            self.amis[ami_id].launch_permissions = []
            self.save(ami_id)

    def _switch(self, ami_id: str, before: str, after: str) -> None:
        image = self.own_image(ami_id)
        if image.state != before:
            raise EC2ClientError(
                "InvalidAMIID.Unavailable", f"The image '{ami_id}' is {image.state}, not {before}"
            )
        with self._recording:
            image.state = after
            self.save(ami_id)

    def protect(self, ami_id: str, *, on: bool, cooldown: bool = False) -> str:
        """Protect an image against deregistration, or no longer; after one with a cooldown, from a day on."""
        image = self.own_image(ami_id)
        with self._recording:
            before = image.deregistration_protection
            image.deregistration_protection = _PROTECTED[cooldown] if on else "disabled"
            if before == _PROTECTED[True] and not on:
                image.protected_until = (utils.utcnow() + _COOLDOWN).isoformat()
            self.save(ami_id)
        return "true"


def check_unprotected(image: LocalAmi) -> None:
    """Raise EC2ClientError for an image that may not be deregistered, or not yet."""
    if image.deregistration_protection != "disabled":
        raise EC2ClientError(
            "OperationNotPermitted", f"The AMI '{image.id}' is protected against deregistration"
        )
    until = image.protected_until
    if until and utils.utcnow() < datetime.fromisoformat(until):
        raise EC2ClientError(
            "OperationNotPermitted",
            f"The AMI '{image.id}' is protected against deregistration until {until[:19]}Z: it was protected "
            "with a cooldown",
        )


def _check_permissions(image: LocalAmi, added: list[dict[str, str]]) -> None:
    """Refuse to share a disabled image, and to make one public that has a watermark."""
    if added and image.state == "disabled":
        raise EC2ClientError("InvalidAMIID.Unavailable", f"The image '{image.id}' is disabled")
    if {"Group": "all"} in added and image.watermarks:
        raise EC2ClientError(
            "OperationNotPermitted", f"The image '{image.id}' has a watermark: it can't be made public"
        )


def is_past(stamp: str) -> bool:
    """Whether a time, as EC2 tells it, is over."""
    now: datetime = utils.utcnow()
    return datetime.fromisoformat(stamp).replace(tzinfo=None) <= now


def _deprecation(text: str) -> str:
    """A time of deprecation as EC2 tells it: rounded to the minute, in the next ten years."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise EC2ClientError(
            "InvalidParameterValue", f"Value ({text[:60]}) for parameter DeprecateAt is invalid."
        ) from error
    at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None)
    if not utils.utcnow() < at < utils.utcnow() + _DEPRECATED_AT_MOST:
        raise EC2ClientError(
            "InvalidParameterValue", "The deprecation time must lie in the future, at most 10 years from now."
        )
    return f"{at + timedelta(seconds=30):%Y-%m-%dT%H:%M}:00.000Z"


# --- answers that moto lacks, or gives without effect -----------------------------------------------


def _set_default(backend: Any, on: bool) -> dict[str, bool]:
    backend.ebs_encryption_by_default = on
    return {"EbsEncryptionByDefault": on}


def _deregistered(backend: Any, get: Any) -> dict[str, Any]:
    removed = backend.deregister_image(get("ImageId"))
    return {"Return": True, **({"DeleteSnapshotResults": removed} if removed else {})}


def _snapshot_attribute(backend: Any, get: Any) -> None:
    """ModifySnapshotAttribute: permissions by account or group, in either way of writing them."""
    asked = get("CreateVolumePermission") or {}
    kind = get("OperationType")
    given = [{"UserId": one} for one in get("UserIds") or ()] + [
        {"Group": one} for one in get("GroupNames") or ()
    ]
    added = [*(asked.get("Add") or ()), *(given if kind == "add" else ())]
    removed = [*(asked.get("Remove") or ()), *(given if kind == "remove" else ())]
    if not added and not removed:
        raise EC2ClientError("InvalidParameterCombination", "No attributes specified.")
    for change, permissions in (
        (backend.add_create_volume_permission, added),
        (backend.remove_create_volume_permission, removed),
    ):
        if permissions:
            users = [one["UserId"] for one in permissions if "UserId" in one]
            change(get("SnapshotId"), users, [one["Group"] for one in permissions if "Group" in one])


_ANSWERS: Mapping[str, Any] = {
    "deregister_image": _deregistered,
    "describe_image_attribute": lambda backend, get: backend.describe_image_attribute(
        get("ImageId"), get("Attribute")
    ),
    "reset_image_attribute": lambda backend, get: backend.reset_image_attribute(
        get("ImageId"), get("Attribute")
    ),
    "enable_image_deprecation": lambda backend, get: done(
        backend.set_deprecation(get("ImageId"), CALL.get().get("DeprecateAt", ""))
    ),
    "disable_image_deprecation": lambda backend, get: done(backend.set_deprecation(get("ImageId"), None)),
    "enable_image_deregistration_protection": lambda backend, get: {
        "Return": backend.protect(get("ImageId"), on=True, cooldown=bool(get("WithCooldown")))
    },
    "disable_image_deregistration_protection": lambda backend, get: {
        "Return": backend.protect(get("ImageId"), on=False)
    },
    "modify_snapshot_attribute": _snapshot_attribute,
    "reset_snapshot_attribute": lambda backend, get: backend.reset_snapshot_attribute(get("SnapshotId")),
    "get_ebs_encryption_by_default": lambda backend, get: {
        "EbsEncryptionByDefault": backend.ebs_encryption_by_default
    },
    "enable_ebs_encryption_by_default": lambda backend, get: _set_default(backend, True),
    "disable_ebs_encryption_by_default": lambda backend, get: _set_default(backend, False),
    "get_ebs_default_kms_key_id": lambda backend, get: {"KmsKeyId": backend.default_key()},
    "reset_ebs_default_kms_key_id": lambda backend, get: {"KmsKeyId": backend.reset_ebs_default_kms_key_id()},
}


def install() -> None:
    """Give moto's response layer these answers; to be called before the first request."""
    response_layer.install(_ANSWERS)
