"""How a finished AMI is made known; each only where the profile asks for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, field_validator

from bake.profile.section import Section, variable
from bake.profile.types import Duration, Like, Region

KmsKeyArn = Annotated[
    str,
    Like(
        r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+$",
        "a KMS key's ARN (arn:aws:kms:eu-west-1:123456789012:key/…), which says its region",
    ),
]
LaunchTemplateId = Annotated[
    str, Like(r"^lt-[0-9a-f]{8,17}$", "a launch template's id (lt-0123456789abcdef0)")
]
# https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-su-create.html
OwnParameter = Annotated[
    str,
    Field(max_length=900),
    Like(r"^/[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$", "an SSM parameter of your own (/flux/ami)"),
]
LEVELS = 15
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AttachImageWatermark.html
Watermark = Annotated[
    str,
    Like(
        r"^[A-Za-z0-9()\[\] ./'@_-]{3,128}$",
        "a watermark's name: 3 to 128 letters, digits, spaces and ( ) [ ] . / - ' @ _",
    ),
]


class Publish(Section):
    """Where a good AMI is published, and what it then says and enforces."""

    regions: tuple[Region, ...] = Field(
        default=(), max_length=32, json_schema_extra=variable("BAKE_PUBLISH_REGION", optional=True)
    )
    """Regions that a good AMI is copied to, beside the builder's."""
    kms_keys: tuple[KmsKeyArn, ...] = Field(
        default=(), max_length=32, json_schema_extra=variable("BAKE_PUBLISH_KMS_KEY")
    )
    """Keys that encrypt the copies, by ARN: each for the region that is in it."""
    parameter: OwnParameter | None = Field(
        default=None, json_schema_extra=variable("BAKE_PUBLISH_PARAMETER", optional=True)
    )
    """The SSM parameter that gets the AMI's id; in each region of a copy, that of the copy."""
    launch_template: LaunchTemplateId | None = Field(
        default=None, json_schema_extra=variable("BAKE_LAUNCH_TEMPLATE")
    )
    """The launch template, in the builder's region, that gets a new version with the AMI's literal id."""
    source_version: int | None = Field(default=None, ge=1, le=1_000_000, strict=True)
    """The version of the template that the new one is made from; the default one without it."""
    deprecate_after: Duration | None = None
    """How long after its creation the AMI counts as deprecated: it can still be launched."""
    protect: bool = False
    """Whether the AMI can't be deregistered until its protection is lifted, as `image.keep` does."""
    watermark: Watermark | None = None
    """The watermark of a good AMI, which all AMIs that are made of it inherit."""
    enforce_instance_types: bool = False
    """Whether EC2 launches the AMI on no other instance types than those that it is for."""

    @field_validator("parameter")
    @classmethod
    def _own(cls, value: str | None) -> str | None:
        if value is not None:
            if re.match(r"/(aws|ssm)", value, re.IGNORECASE):
                raise ValueError("must not begin with /aws or /ssm: such names are AWS's own")
            if value.count("/") > LEVELS:
                raise ValueError(f"must have {LEVELS} levels at most")
        return value

    def conflicts(self) -> Iterator[str]:
        """Each region and each region's key once; keys are of copies; a source is of a template."""
        if len(set(self.regions)) < len(self.regions):
            yield "regions names a region twice"
        where = [key_region(key) for key in self.kms_keys]
        if len(set(where)) < len(where):
            yield "kms_keys has two keys of one region"
        if unused := sorted(set(where) - set(self.regions)):
            yield f"kms_keys has a key of {', '.join(unused)}, and regions does not name that"
        if self.source_version is not None and self.launch_template is None:
            yield "source_version is a version of launch_template: name that, too"

    @property
    def keys(self) -> dict[str, str]:
        """The key of each region that has one."""
        return {key_region(key): key for key in self.kms_keys}


def key_region(arn: str) -> str:
    """The region of a key, from its ARN."""
    return arn.split(":")[3]
