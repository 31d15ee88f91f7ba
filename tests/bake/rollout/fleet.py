"""A channel with AMIs, its launch template, and an Auto Scaling group, in the local cloud's account."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from moto.autoscaling.models import autoscaling_backends

from bake.aws import AccessKey, Aws
from bake.localcloud.api import instance_refreshes
from bake.localcloud.settings import ACCOUNT, SPOT_REGION
from bake.publish import places
from bake.publish.channels import Channel
from bake.publish.promote import promote
from bake.rollout.plan import Rollout, plan
from bake.rollout.preferences import ROLLING, Preferences, Strategy
from tests.localcloud.ebs_account import ELSEWHERE, EbsAccount

TYPES = ("g6e.xlarge", "g6e.2xlarge")
SPREAD = {"OnDemandPercentageAboveBaseCapacity": 0, "SpotAllocationStrategy": "price-capacity-optimized"}


class Fleet:
    """One channel, its template with the AMI `first`, and a group; `venue` is where bakes were."""

    def __init__(self, account: EbsAccount, *, venue: str = "REHEARSAL") -> None:
        self.account, self.venue = account, venue
        key = account.keys.owner
        self.aws = Aws(
            region=SPOT_REGION,
            worker_region=ELSEWHERE,
            endpoint=account.url,
            endpoint_key=AccessKey(key.id, key.secret),
        ).patiently(20)
        self.scaling = account.of("autoscaling")
        profile = f"t{secrets.token_hex(4)}"
        self.name = f"workers-{secrets.token_hex(4)}"
        self.channel = Channel(profile, "stable", f"/bake/{profile}/stable")
        self.first = self.image()
        self.template = self.new_template(self.first)
        self.channel = replace(self.channel, template=self.template)
        self.subnet = account.call("describe_subnets")["Subnets"][0]["SubnetId"]

    def new_template(self, image: str) -> str:
        data = {"ImageId": image, "InstanceType": "g6e.xlarge"}
        made = self.account.call(
            "create_launch_template",
            LaunchTemplateName=f"template-{secrets.token_hex(4)}",
            LaunchTemplateData=data,
        )
        return str(made["LaunchTemplate"]["LaunchTemplateId"])

    def version(self, *, default: bool = False, **data: Any) -> int:
        """A version of the template, made of its first one by somebody else."""
        made = self.account.call(
            "create_launch_template_version",
            LaunchTemplateId=self.template,
            SourceVersion="1",
            LaunchTemplateData=data,
        )
        number = int(made["LaunchTemplateVersion"]["VersionNumber"])
        if default:
            self.account.call(
                "modify_launch_template", LaunchTemplateId=self.template, DefaultVersion=str(number)
            )
        return number

    def image(self, *, volumes: int = 1, accelerator: str = "cuda", **changes: Any) -> str:
        """An AMI as a bake of the channel's profile leaves it."""
        tags = {
            "bake:profile": self.channel.profile,
            "bake:run": "r",
            "bake:state": "good",
            "bake:venue": self.venue,
            "bake:accelerator": accelerator,
        }
        listed = [{"Key": key, "Value": value} for key, value in tags.items()]
        snapshot = self.account.snapshot(
            self.account.volume(Size=1), TagSpecifications=[{"ResourceType": "snapshot", "Tags": listed}]
        )
        asked = {
            "Name": f"flux-{secrets.token_hex(4)}",
            "Architecture": "x86_64",
            "RootDeviceName": "/dev/sda1",
            "BlockDeviceMappings": [
                {"DeviceName": f"/dev/sd{letter}1", "Ebs": {"SnapshotId": snapshot}}
                for letter in "abc"[:volumes]
            ],
            "TagSpecifications": [{"ResourceType": "image", "Tags": listed}],
            **changes,
        }
        return str(self.account.call("register_image", **asked)["ImageId"])

    def serve(self, image: str) -> str:
        """Promote an AMI; its id."""
        found = places.find(self.aws, image)
        promote(self.channel, found, "a test", self.venue, secrets.token_hex(4), lambda _: None)
        return image

    def served(self) -> str:
        """Promote a new AMI; its id."""
        return self.serve(self.image())

    def spec(self, version: str = "1", template: str = "") -> dict[str, str]:
        return {"LaunchTemplateId": template or self.template, "Version": version}

    def mixed(self, version: str = "1", overrides: list[Any] | None = None) -> dict[str, Any]:
        """A mixed instances policy over two types of spot instances."""
        listed = [{"InstanceType": one} for one in TYPES] if overrides is None else overrides
        mixed = {"LaunchTemplateSpecification": self.spec(version), "Overrides": listed}
        return {"MixedInstancesPolicy": {"LaunchTemplate": mixed, "InstancesDistribution": SPREAD}}

    def with_images(self, image: str, version: str = "1") -> dict[str, Any]:
        """The same with an AMI in each override."""
        return self.mixed(version, [{"InstanceType": one, "ImageId": image} for one in TYPES])

    def group(self, **source: Any) -> Fleet:
        """Make the group, of the mixed policy unless another source is given."""
        where = {"VPCZoneIdentifier": self.subnet, "MinSize": 0, "MaxSize": 4, **(source or self.mixed())}
        self.scaling.create_auto_scaling_group(AutoScalingGroupName=self.name, **where)
        return self

    def told(self) -> Any:
        [found] = self.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])[
            "AutoScalingGroups"
        ]
        return found

    def plan(self, strategy: Strategy = ROLLING, **preferences: Any) -> Rollout:
        return plan(self.aws, self.channel, self.name, self.venue, Preferences(**preferences), strategy)

    def refreshes(self) -> list[Any]:
        asked = self.scaling.describe_instance_refreshes(AutoScalingGroupName=self.name)
        return list(asked["InstanceRefreshes"])

    def status(self) -> str:
        found = self.refreshes()
        return str(found[0]["Status"]) if found else "none"

    def reach(self, status: str) -> None:
        self.account.wait(lambda: self.status() == status)

    def tell(self, status: str, **told: Any) -> None:
        """Say of the group's newest refresh what its instances would bring about."""
        groups = autoscaling_backends[ACCOUNT][SPOT_REGION].autoscaling_groups
        instance_refreshes.tell(groups[self.name], status, **told)

    def until(self, condition: Callable[[], bool]) -> None:
        self.account.wait(condition)
