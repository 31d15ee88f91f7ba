"""Ask about what publishing reaches: regions, their keys, the parameter and the launch template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bake.account.answers import Unanswered, ask, require
from bake.account.keys import Key, describe_key, is_awss_alias
from bake.account.price_list import Price
from bake.account.prices import snapshot_month
from bake.aws import Aws
from bake.background import start
from bake.profile import Profile
from bake.publish import launch_template, parameter
from bake.publish.launch_template import Version


@dataclass(frozen=True)
class RegionFacts:
    """A region of a copy. `enabled` is None where AWS knows no such region; `key` where it has no such key.

    `aws_key` says whether copies without a key of their own get AWS's, which no other account may use; None
    where that was not asked. `price` is the dollars of a GB-month of snapshots.
    """

    enabled: bool | Unanswered | None
    key: Key | Unanswered | None = None
    aws_key: bool | Unanswered | None = None
    price: Price = None


@dataclass(frozen=True)
class Held:
    """What an SSM parameter holds, whether a bake of the profile wrote it, and its data type."""

    value: str
    ours: bool
    data_type: str


@dataclass(frozen=True)
class PublishFacts:
    """What the account has of that; `parameter` and `template` are None where there is none."""

    regions: Mapping[str, RegionFacts] = field(default_factory=dict)
    parameter: Held | Unanswered | None = None
    template: tuple[Version, ...] | Unanswered | None = None


def ask_publishing(profile: Profile, aws: Aws) -> PublishFacts:
    """Ask what the profile's `publish` names, and nothing where it names nothing."""
    asked, template = profile.publish, profile.publish.launch_template
    known = ask(lambda: _regions(aws)) if asked.regions else {}
    there = {region: start(partial(_region, profile, aws, region, known)) for region in asked.regions}
    return PublishFacts(
        {region: answer.result() for region, answer in there.items()},
        ask(partial(_held, aws, asked.parameter, profile.name)) if asked.parameter is not None else None,
        ask(partial(_versions, aws, template)) if template is not None else None,
    )


def _regions(aws: Aws) -> dict[str, bool]:
    """All regions of the partition, and whether the account has each enabled."""
    found = aws.ec2.describe_regions(AllRegions=True)["Regions"]
    return {one["RegionName"]: one.get("OptInStatus") != "not-opted-in" for one in found}


def _region(profile: Profile, aws: Aws, region: str, known: Mapping[str, bool] | Unanswered) -> RegionFacts:
    enabled = known if isinstance(known, Unanswered) else known.get(region)
    if not enabled:
        return RegionFacts(enabled)
    there, arn = aws.elsewhere(region), profile.publish.keys.get(region)
    price = snapshot_month(there)
    if arn is not None:
        key = require(lambda: describe_key(arn, there), "NotFoundException", "InvalidArnException")
        return RegionFacts(enabled, key, price=price)
    return RegionFacts(enabled, aws_key=_awss_key(profile, there), price=price)


def _awss_key(profile: Profile, there: Aws) -> bool | Unanswered | None:
    """Whether a shared copy would be encrypted with AWS's own key, which the region has as its default."""
    if not profile.image.share_with:
        return None

    def look() -> bool:
        if profile.root_volume.kms_key is None:
            by_default: Any = there.ec2.get_ebs_encryption_by_default()
            if not by_default["EbsEncryptionByDefault"]:
                return False
        name = str(there.ec2.get_ebs_default_kms_key_id()["KmsKeyId"])
        return is_awss_alias(name) or describe_key(name, there).of_aws

    return ask(look)


def _held(aws: Aws, name: str, profile: str) -> Held | None:
    newest = parameter.current(aws, name)
    if newest is None:
        return None
    return Held(newest["Value"], parameter.is_ours(newest, profile), newest.get("DataType", "text"))


def _versions(aws: Aws, template: str) -> tuple[Version, ...] | None:
    found = launch_template.versions(aws, template)
    return None if found is None else tuple(found)
