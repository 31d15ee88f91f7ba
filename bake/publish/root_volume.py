"""The rate at which EBS fills root volumes, in the data of a launch template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bake.aws import Aws
from bake.errors import BakeError
from bake.image import describe_image


@dataclass(frozen=True)
class RootVolume:
    """An AMI's root device, and the agreed VolumeInitializationRate in MiB/s."""

    device: str
    rate: int

    def within(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Launch template data with the rate; all other disks, and all else of this one, stay."""
        disks = [dict(one) for one in data.get("BlockDeviceMappings", [])]
        mine = next((one for one in disks if one.get("DeviceName") == self.device), None)
        if mine is None:
            mine = {"DeviceName": self.device}
            disks.append(mine)
        mine["Ebs"] = {**mine.get("Ebs", {}), "VolumeInitializationRate": self.rate}
        return {**data, "BlockDeviceMappings": disks}

    def is_within(self, data: Mapping[str, Any]) -> bool:
        """Whether launch template data has the rate already."""
        return self.within(data) == dict(data)


def of_image(aws: Aws, image: str, rate: int | None) -> RootVolume | None:
    """The root volume of an AMI; None without a rate: then a template stays as it is."""
    if rate is None:
        return None
    facts = describe_image(aws, image)
    if facts is None or not facts.get("RootDeviceName"):
        raise BakeError(f"there is no {image} in {aws.region} whose root volume could be filled at a rate")
    return RootVolume(facts["RootDeviceName"], rate)
