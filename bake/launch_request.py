"""The arguments of RunInstances: the same for the launch, and for the plan that asks if it is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bake.profile import Profile
from bake.profile.schema import RootVolume
from bake.profile.values import ssh_network

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import TagTypeDef


@dataclass(frozen=True)
class LaunchRequest:
    """What differs between launches of a profile: image, tags, how it ends, and what is made for it.

    `key_name`, `security_group` and `user_data` are None where a plan asks: nothing of that is there yet.
    `valid_until` is the end of a spot request. `ends_itself`: a shutdown from within terminates it.
    `initialization_rate`: MiB/s at which EBS fills the root volume; None as its blocks are first read.
    """

    image: str
    root_device: str
    tags: Sequence[TagTypeDef]
    valid_until: datetime
    ends_itself: bool
    key_name: str | None = None
    security_group: str | None = None
    user_data: str | None = None
    initialization_rate: int | None = None

    def arguments(self, profile: Profile) -> dict[str, Any]:
        """The arguments, without the instance type."""
        builder = profile.builder
        made = {
            "KeyName": self.key_name,
            "SecurityGroupIds": [self.security_group] if self.security_group else None,
            "UserData": self.user_data,
        }
        request: dict[str, Any] = {
            "ImageId": self.image,
            "MinCount": 1,
            "MaxCount": 1,
            "SubnetId": builder.subnet,
            "IamInstanceProfile": {"Name": builder.instance_profile},
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
            "BlockDeviceMappings": [{"DeviceName": self.root_device, "Ebs": self._disk(profile.root_volume)}],
            **{name: value for name, value in made.items() if value is not None},
        }
        if builder.ssh_from and ssh_network(builder.ssh_from).version == 6:
            request["Ipv6AddressCount"] = 1  # the security group's rule admits IPv6 only
        kinds = ["instance", "volume", "network-interface"]
        if builder.market == "spot":
            kinds.append("spot-instances-request")
            request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": self._spot_options()}
        else:
            request["InstanceInitiatedShutdownBehavior"] = "terminate" if self.ends_itself else "stop"
        tagged = [{"ResourceType": kind, "Tags": list(self.tags)} for kind in kinds]
        return {**request, "TagSpecifications": tagged}

    def _spot_options(self) -> dict[str, Any]:
        # Only instances of a persistent request can be stopped, which creating the image needs.
        return {
            "SpotInstanceType": "persistent",
            "InstanceInterruptionBehavior": "stop",
            "ValidUntil": self.valid_until,
        }

    def _disk(self, volume: RootVolume) -> dict[str, Any]:
        ebs = {
            "VolumeSize": volume.size_gib,
            "VolumeType": volume.type,
            "DeleteOnTermination": True,
            "Iops": volume.iops,
            "Throughput": volume.throughput,
            "KmsKeyId": volume.kms_key,
            "Encrypted": True if volume.kms_key else None,
            "VolumeInitializationRate": self.initialization_rate,
        }
        return {key: value for key, value in ebs.items() if value is not None}
