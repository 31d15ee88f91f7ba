"""The launch template: what one instance is launched with."""

from __future__ import annotations

import base64
import gzip
from typing import Any

from bake.fleet.request import Fleet
from bake.fleet.resource import Resources, resource

GZIP = gzip.compress(b"")[:2]


def resources(fleet: Fleet) -> Resources:
    """The launch template. Its version is a number that is never another AMI: the id in it is literal."""
    data = {
        "ImageId": fleet.image,
        "InstanceType": fleet.types[0],
        "IamInstanceProfile": {"Arn": {"Fn::GetAtt": ["WorkerInstanceProfile", "Arn"]}},
        "SecurityGroupIds": list(fleet.profile.fleet.security_groups),
        "BlockDeviceMappings": [{"DeviceName": fleet.root_device, "Ebs": _volume(fleet)}],
        # One hop: what runs in a container on the instance has no use for the role.
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "UserData": _encoded(fleet.user_data),
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": fleet.tags} for kind in ("instance", "volume", "network-interface")
        ],
    }
    properties = {
        "VersionDescription": f"{fleet.image}, {fleet.about}",
        "LaunchTemplateData": data,
        "TagSpecifications": [{"ResourceType": "launch-template", "Tags": fleet.tags}],
    }
    return {"LaunchTemplate": resource("AWS::EC2::LaunchTemplate", properties)}


def _volume(fleet: Fleet) -> dict[str, Any]:
    """The agreed root volume, which is that of the AMI; encryption and key come with its snapshot."""
    agreed = fleet.profile.root_volume
    volume = {
        "VolumeSize": agreed.size_gib,
        "VolumeType": agreed.type,
        "Iops": agreed.iops,
        "Throughput": agreed.throughput,
        "VolumeInitializationRate": fleet.profile.cold_start.volume_initialization_rate,
        "DeleteOnTermination": True,
    }
    return {key: value for key, value in volume.items() if value is not None}


def _encoded(user_data: bytes) -> Any:
    """User data that people can read in the template, unless it had to be gzipped."""
    if user_data.startswith(GZIP):
        return base64.b64encode(user_data).decode()
    return {"Fn::Base64": user_data.decode()}
