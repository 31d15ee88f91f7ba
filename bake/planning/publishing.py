"""Check what publishing needs before the bake, and estimate what copies cost."""

from __future__ import annotations

from dataclasses import dataclass

from bake.account.answers import Unanswered
from bake.account.publishing import Held, PublishFacts, RegionFacts
from bake.errors import BakeError
from bake.planning.findings import Findings
from bake.profile import Profile
from bake.publish.launch_template import Version, source_of
from bake.publish.parameter import IMAGE


@dataclass(frozen=True)
class Copy:
    """A copy's region, the GB that cross to it, and its snapshots' dollars a month; None: not known."""

    region: str
    gb: float
    month_dollars: float | None


def check(profile: Profile, facts: PublishFacts, findings: Findings) -> None:
    """Report what could not be published; what only differs from what is expected is a warning."""
    asked = profile.publish
    for region in asked.regions:
        if region == profile.builder.region:
            findings.problem("publish.regions", f"{region} is the builder's region: the AMI is there already")
        elif (there := facts.regions.get(region)) is not None:
            _check_region(profile, region, there, findings)
    if asked.parameter is not None:
        _check_parameter(asked.parameter, facts.parameter, findings)
    if asked.launch_template is not None:
        _check_template(profile, asked.launch_template, facts.template, findings)


def copies(profile: Profile, facts: PublishFacts, gb: float) -> tuple[Copy, ...]:
    """What each copy moves and costs."""
    found = []
    for region in profile.publish.regions:
        there = facts.regions.get(region)
        price = there.price if there is not None else None
        found.append(Copy(region, gb, price * gb if isinstance(price, float | int) else None))
    return tuple(found)


def _check_region(profile: Profile, region: str, there: RegionFacts, findings: Findings) -> None:
    enabled = findings.required("publish.regions", f"region {region}", there.enabled)
    if enabled is None:
        return
    if not enabled:
        findings.problem(
            "publish.regions",
            f"the account has not enabled {region}",
            f"aws account enable-region --region-name {region}",
        )
        return
    findings.confirm(f"{region} is enabled")
    arn = profile.publish.keys.get(region)
    if arn is not None:
        _check_key(profile, region, arn, there, findings)
    elif there.aws_key is not None and findings.answered(f"the default key of {region}", there.aws_key):
        findings.problem(
            "publish.kms_keys",
            f"the copy in {region} would be encrypted with AWS's own key aws/ebs, so that it can't be shared "
            "with the accounts of image.share_with",
            f"name a key of your own in {region}",
        )


def _check_key(profile: Profile, region: str, arn: str, there: RegionFacts, findings: Findings) -> None:
    key = findings.required("publish.kms_keys", f"KMS key {arn}", there.key)
    if key is None:
        return
    if not key.enabled:
        findings.problem("publish.kms_keys", f"the KMS key of {region} is disabled")
    elif key.of_aws and profile.image.share_with:
        findings.problem(
            "publish.kms_keys",
            f"the KMS key of {region} is AWS's own: the copy could not be shared with image.share_with",
        )
    else:
        findings.confirm(f"the KMS key of {region} exists and is enabled")


def _check_parameter(name: str, held: Held | Unanswered | None, findings: Findings) -> None:
    if held is None:
        findings.confirm(f"{name} is not there yet: it is created")
        return
    found = findings.answered(f"what {name} holds", held)
    if found is None:
        return
    if found.data_type != IMAGE:
        findings.problem(
            "publish.parameter",
            f"{name} is of the data type {found.data_type}, and SSM never changes that to {IMAGE}",
            "name another parameter, or delete this one if nobody reads it",
        )
    elif found.ours:
        findings.confirm(f"{name} holds {found.value}, which a bake of this profile wrote")
    else:
        findings.warn(
            f"publish.parameter: {name} holds {found.value}, which no bake of this profile wrote: it stays, "
            "and the AMI is not published there"
        )


def _check_template(
    profile: Profile, name: str, versions: tuple[Version, ...] | Unanswered | None, findings: Findings
) -> None:
    known = findings.required("publish.launch_template", f"launch template {name}", versions)
    if known is None:
        return
    try:
        source = source_of(list(known), name, profile.publish.source_version)
    except BakeError as error:
        findings.problem("publish.launch_template", error.message, *filter(None, [error.hint]))
        return
    findings.confirm(f"{name} has version {source.number}, which the new one is made of")
    if "IamInstanceProfile" not in source.data:
        findings.warn(
            f"publish.launch_template: version {source.number} of {name} has no instance profile: a worker "
            f"needs {profile.builder.instance_profile}, or whoever launches must name it"
        )
    kind = source.data.get("InstanceType")
    if kind is not None and kind not in profile.worker_types:
        findings.warn(
            f"publish.launch_template: version {source.number} of {name} launches {kind}, and the image is "
            f"for {' or '.join(profile.worker_types)}"
        )
