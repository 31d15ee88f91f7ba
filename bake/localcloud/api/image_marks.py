"""What an owner puts on an image for those who use it: watermarks, and the instance types that it is for.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-watermark.html,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-allowed-instance-types.html. Where AWS documents a
refusal without its code, as for a sixth watermark, the code here is one of EC2's that fits.
"""

from __future__ import annotations

import fnmatch
import re
import threading
from collections.abc import Mapping
from typing import Any

from moto.core import utils
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend

from bake.localcloud.api import response_layer
from bake.localcloud.api.images import LocalAmi
from bake.localcloud.api.parameters import invalid

_WATERMARKS = 5
_TYPES = ("SupportedInstanceTypes", "UnsupportedInstanceTypes")
_TYPES_EACH = 100


class ImageMarks(EC2Backend):  # type: ignore[misc]
    """The marks of a region's images, for its backend."""

    _recording: threading.RLock

    def attach_watermark(self, ami_id: str, name: str) -> str:
        """Put a watermark on a private image; the key of one that it has already is the same."""
        image: LocalAmi = self.own_image(ami_id)
        if not re.fullmatch(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}", name):
            raise invalid(name, "watermarkName", "It has 3 to 128 letters, digits and ( ) [ ] . / - ' @ _.")
        if {"Group": "all"} in image.launch_permissions:
            raise EC2ClientError("OperationNotPermitted", f"The image {ami_id} is public")
        if image.state != "available":
            raise EC2ClientError(
                "InvalidAMIID.Unavailable", f"The image '{ami_id}' is {image.state}, not available"
            )
        key = f"{self.account_id}:{name}"
        if key in [one["WatermarkKey"] for one in image.watermarks]:
            return key
        if len(image.watermarks) >= _WATERMARKS:
            raise EC2ClientError(
                "ResourceLimitExceeded", f"The image {ami_id} has {_WATERMARKS} watermarks, as many as it can"
            )
        new = {
            "WatermarkKey": key,
            "SourceImageRegion": self.region_name,
            "SourceImageId": ami_id,
            "SourceImageCreationTime": image.creation_date.isoformat(),
            "WatermarkCreationTime": utils.utcnow().isoformat(),
        }
        with self._recording:
            image.watermarks = [*image.watermarks, new]
            self.save(ami_id)
        return key

    def detach_watermark(self, ami_id: str, key: str) -> None:
        """Take a watermark off this image, whoever put it on which; one that it has not is no error."""
        image: LocalAmi = self.own_image(ami_id)
        with self._recording:
            image.watermarks = [one for one in image.watermarks if one["WatermarkKey"] != key]
            self.save(ami_id)

    def replace_type_specification(self, ami_id: str, asked: Mapping[str, list[str]] | None) -> None:
        """Say which instance types an image is for, and which not; None: for all."""
        image: LocalAmi = self.own_image(ami_id)
        listed = {name: list((asked or {}).get(name) or ()) for name in _TYPES}
        for name, patterns in listed.items():
            _check_patterns(name, patterns)
        every = [pattern for patterns in listed.values() for pattern in patterns]
        if len(set(every)) < len(every):
            raise invalid(",".join(every), "instanceTypeSpecification", "Entries must be unique.")
        with self._recording:
            image.types = {name: patterns for name, patterns in listed.items() if patterns} or None
            self.save(ami_id)


def _check_patterns(name: str, patterns: list[str]) -> None:
    if len(patterns) > _TYPES_EACH:
        raise invalid(str(len(patterns)), name, f"At most {_TYPES_EACH} entries are taken.")
    for pattern in patterns:
        if not re.fullmatch(r"[A-Za-z0-9_.*-]{1,24}", pattern) or "**" in pattern:
            raise invalid(pattern, name, "Expecting an instance type, or a pattern of some.")


def check_type(image: Any, kind: str) -> None:
    """Raise EC2ClientError for a launch on an instance type that the image is not for."""
    types: Mapping[str, list[str]] = image.types or {}
    supported, unsupported = (types.get(name, []) for name in _TYPES)
    fits = not supported or _among(kind, supported)
    if not fits or _among(kind, unsupported):
        raise EC2ClientError(
            "InvalidParameterCombination",
            f"The instance type '{kind}' is not compatible with the AMI '{image.id}': see its instance type "
            "specification.",
        )


def _among(kind: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(kind, pattern) for pattern in patterns)


def _detached(backend: Any, get: Any) -> dict[str, bool]:
    backend.detach_watermark(get("ImageId"), get("WatermarkKey"))
    return {"Return": True}


def _replaced(backend: Any, get: Any) -> dict[str, bool]:
    backend.replace_type_specification(get("ImageId"), get("InstanceTypeSpecification"))
    return {"ReturnValue": True}


def install() -> None:
    """Give moto's response layer the calls; to be called before the first request."""
    response_layer.install(
        {
            "attach_image_watermark": lambda backend, get: {
                "WatermarkKey": backend.attach_watermark(get("ImageId"), get("WatermarkName"))
            },
            "detach_image_watermark": _detached,
            "replace_image_instance_type_specification": _replaced,
        }
    )
