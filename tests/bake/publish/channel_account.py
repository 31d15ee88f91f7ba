"""AMIs, templates and a channel of a test's own, in the local cloud's account."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import Any

from bake.aws import Aws
from bake.image import describe_image
from bake.publish import places
from bake.publish.channels import Channel, history
from bake.publish.places import Place
from bake.publish.promote import Served, promote
from tests.localcloud.recorded_cloud import BASE

VENUE = "REHEARSAL"
RUN = "20260101-000000-0a1b2c"


@dataclass
class Bench:
    """One channel and what goes with it; `aws` is whoever promotes, `witness` somebody else."""

    aws: Aws
    witness: Aws
    channel: Channel
    said: list[str] = field(default_factory=list)

    @classmethod
    def new(cls, aws: Aws, witness: Aws) -> Bench:
        name = f"t{secrets.token_hex(4)}"
        return cls(aws, witness, Channel(name, "stable", f"/bake/{name}/stable"))

    def with_template(self, image: str, **data: Any) -> Bench:
        """Give the channel a launch template whose first version has this AMI."""
        name = f"template-{secrets.token_hex(4)}"
        asked: Any = {"ImageId": image, "InstanceType": "g6e.xlarge", **data}
        made = self.witness.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=asked)
        self.channel = replace(self.channel, template=made["LaunchTemplate"]["LaunchTemplateId"])
        return self

    def image(self, state: str = "good", **changed: str | None) -> str:
        """An AMI as a bake of the channel's profile leaves it; None takes a tag away."""
        tags: dict[str, str | None] = {
            "bake:run": RUN,
            "bake:profile": self.channel.profile,
            "bake:state": state,
            "bake:venue": VENUE,
            "bake:os": "ubuntu",
            "bake:accelerator": "cuda",
        }
        tags |= {f"bake:{name}": value for name, value in changed.items()}
        given = [{"Key": key, "Value": value} for key, value in tags.items() if value is not None]
        both: Any = [{"ResourceType": kind, "Tags": given} for kind in ("image", "snapshot")] if given else []
        made = self.witness.ec2.copy_image(
            Name=f"image-{secrets.token_hex(4)}",
            SourceImageId=BASE,
            SourceRegion=self.witness.region,
            **({"TagSpecifications": both} if given else {}),
        )["ImageId"]
        self.witness.wait(made, lambda: self.state(made) == "available" or None, timeout=60)
        return str(made)

    def copy(self, image: str, region: str) -> str:
        """A copy in another region, as publishing leaves it."""
        there = self.witness.elsewhere(region)
        tags = {**self.tags(image), "bake:copy-of": f"{image} {self.witness.region}"}
        given: Any = [{"Key": key, "Value": value} for key, value in tags.items()]
        made = there.ec2.copy_image(
            Name=f"copy-{secrets.token_hex(4)}",
            SourceImageId=image,
            SourceRegion=self.witness.region,
            TagSpecifications=[{"ResourceType": "image", "Tags": given}],
        )["ImageId"]

        def available() -> bool | None:
            facts = describe_image(there, made)
            return True if facts and facts["State"] == "available" else None

        there.wait(made, available, timeout=60)
        return str(made)

    def state(self, image: str) -> str:
        facts = describe_image(self.witness, image, disabled=True)
        return str(facts["State"]) if facts else "gone"

    def tags(self, image: str) -> dict[str, str]:
        facts = describe_image(self.witness, image, disabled=True)
        return {one["Key"]: one["Value"] for one in facts["Tags"]} if facts else {}

    def places(self, image: str) -> list[Place]:
        return places.find(self.aws, image)

    def promote(self, image: str, why: str = "a test", run: str = "") -> Served:
        run = run or secrets.token_hex(8)
        [served] = promote(self.channel, self.places(image), why, VENUE, run, self.said.append)
        return served

    def put(self, value: str, **more: Any) -> int:
        """Write the parameter as somebody else does."""
        asked = {"Type": "String", "DataType": "aws:ec2:image", "Overwrite": True, **more}
        written = self.witness.ssm.put_parameter(Name=self.channel.parameter, Value=value, **asked)
        return int(written["Version"])

    def values(self) -> list[str]:
        """All that the parameter held, oldest first."""
        return [one.value for one in history(self.witness, self.channel.parameter)]

    def default(self) -> tuple[int, str]:
        """The template's default version, and its AMI."""
        asked = {"LaunchTemplateId": self.channel.template, "Versions": ["$Default"]}
        [version] = self.witness.ec2.describe_launch_template_versions(**asked)["LaunchTemplateVersions"]
        return version["VersionNumber"], version["LaunchTemplateData"].get("ImageId", "")

    def locks(self) -> list[str]:
        """The locks that are there."""
        return list(self.witness.ssm.get_parameters(Names=[self.channel.lock])["Parameters"])
