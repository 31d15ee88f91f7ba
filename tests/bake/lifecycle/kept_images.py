"""AMIs as bakes make and copy them, in the local cloud's API, whose instances are records."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from moto.ec2.models import ec2_backends

from bake.aws import AccessKey, Aws
from bake.creation import unless_absent
from bake.lifecycle.holding import Holding
from bake.lifecycle.machines import AMIS
from bake.lifecycle.prune import Scope
from bake.lifecycle.retention import Rule
from bake.localcloud.settings import ACCOUNT, SPOT_REGION
from tests.localcloud.ebs_account import ELSEWHERE, EbsAccount, copied

OTHERS = "210987654321"
KEEP_1 = Rule(keep=1, keep_unproven=1)


def new(prefix: str = "x") -> str:
    return f"{prefix}-{secrets.token_hex(6)}"


@dataclass
class Kept:
    """The AMIs of a profile of its own, the oldest first, and clients as `bake prune` has them."""

    ebs: EbsAccount
    profile: str = field(default_factory=lambda: new("p"))

    def __post_init__(self) -> None:
        key = AccessKey(self.ebs.keys.owner.id, self.ebs.keys.owner.secret)
        both = (SPOT_REGION, ELSEWHERE)
        self.clouds: Mapping[str, Aws] = {
            one: Aws(region=one, worker_region=one, endpoint=self.ebs.url, endpoint_key=key) for one in both
        }
        self.aws = self.clouds[SPOT_REGION]
        self.made = 0
        self._templates: list[str] = []
        self._parameters: list[str] = []

    def clean(self) -> None:
        """Delete what would be looked through for every other test."""
        for template in self._templates:
            unless_absent(lambda one=template: self.aws.ec2.delete_launch_template(LaunchTemplateId=one))  # type: ignore[misc]
        for first in range(0, len(self._parameters), 10):
            self.aws.ssm.delete_parameters(Names=self._parameters[first : first + 10])

    def bake(self, state: str = "good", **tags: str | None) -> str:
        """An AMI of a run, a day younger than the one before; None takes a tag away."""
        self.made += 1
        run = new("run")
        known = {"Name": run, "bake:run": run, "bake:profile": self.profile, "bake:state": state, **tags}
        return self._copied(SPOT_REGION, known)

    def copy(self, image: str) -> str:
        """Its copy in the other region."""
        [facts] = self.aws.ec2.describe_images(ImageIds=[image])["Images"]
        tags = {tag["Key"]: tag["Value"] for tag in facts["Tags"]}
        return self._copied(ELSEWHERE, {**tags, "bake:copy-of": f"{image} {SPOT_REGION}"})

    def _copied(self, region: str, tags: Mapping[str, str | None]) -> str:
        listed = [{"Key": key, "Value": value} for key, value in tags.items() if value is not None]
        kinds = [{"ResourceType": kind, "Tags": listed} for kind in ("image", "snapshot")]
        image = copied(self.ebs, region, Name=new(), TagSpecifications=kinds)
        self.ebs.available(image, region)
        ec2_backends[ACCOUNT][region].amis[image].creation_date = datetime(2026, 11, self.made, 12)
        return image

    def held(self, image: str, region: str = SPOT_REGION) -> Holding:
        (found,) = AMIS.ask(self.clouds[region], image)
        return found

    def there(self, image: str, region: str = SPOT_REGION) -> bool:
        return bool(AMIS.ask(self.clouds[region], image))

    def snapshots(self, images: Sequence[Holding]) -> list[str]:
        """Which of their snapshots there are."""
        found = []
        for held in images:
            filters: Any = [{"Name": "snapshot-id", "Values": list(held.snapshots)}]
            told = self.clouds[held.region].ec2.describe_snapshots(Filters=filters)["Snapshots"]
            found += [one["SnapshotId"] for one in told]
        return found

    def scope(self, rule: Rule = KEEP_1, **changed: Any) -> Scope:
        return replace(Scope(self.clouds, {self.profile: rule}, profile=self.profile), **changed)

    def template(self, image: str | None) -> str:
        data: Any = {"ImageId": image} if image else {"InstanceType": "g6e.xlarge"}
        asked = {"LaunchTemplateName": new("t"), "LaunchTemplateData": data}
        made = self.aws.ec2.create_launch_template(**asked)["LaunchTemplate"]["LaunchTemplateId"]
        self._templates.append(made)
        return str(made)

    def version(self, template: str, image: str) -> None:
        """A further version of a template, which another becomes the default's successor of."""
        self.aws.ec2.create_launch_template_version(
            LaunchTemplateId=template, LaunchTemplateData={"ImageId": image}
        )

    def parameter(self, value: str, kind: str = "String", **more: str) -> str:
        name = f"/{new('retention')}"
        self.aws.ssm.put_parameter(Name=name, Value=value, Type=kind, **more)
        self._parameters.append(name)
        return name

    def group(self, **how: Any) -> str:
        """An Auto Scaling group without instances."""
        name = new("g")
        zones = [f"{SPOT_REGION}b"]
        self.aws.autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=name, MinSize=0, MaxSize=0, AvailabilityZones=zones, **how
        )
        return name

    def share(self, image: str, *accounts: str) -> None:
        add: Any = {"Add": [{"UserId": account} for account in accounts]}
        self.aws.ec2.modify_image_attribute(ImageId=image, LaunchPermission=add)

    def unprotect(self, image: str) -> None:
        """As if a day had passed since its protection was lifted."""
        ec2_backends[ACCOUNT][SPOT_REGION].amis[image].protected_until = None

    def used_by_others(self, image: str, kind: str, count: int) -> None:
        ec2_backends[ACCOUNT][SPOT_REGION].used_elsewhere[image, OTHERS, kind] = count
