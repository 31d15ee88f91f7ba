"""Judge what EC2 said to DryRuns of the launch: each refusal with the setting that it concerns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from bake.account.answers import Unanswered
from bake.account.facts import AccountFacts
from bake.account.launches import LaunchAnswer
from bake.account.network import TEMPORARY
from bake.planning.base_image import setting as base_setting
from bake.planning.findings import Findings
from bake.planning.hardware import setting
from bake.profile import Profile
from bake.retries import CAPACITY, QUOTA

SOURCE = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html"
# Of codes and messages, what they are about: the first that is found counts.
_ABOUT = (
    (r"InvalidAMI|ImageId", "base"),
    (r"InvalidSubnet|InsufficientFreeAddresses", "builder.subnet"),
    (r"InvalidGroup|InvalidSecurityGroup|SecurityGroup", "builder.security_group"),
    (r"(?i)iam ?instance ?profile", "builder.instance_profile"),
    (r"(?i)kms", "root_volume.kms_key"),
    (r"(?i)volume ?initiali[sz]ation ?rate", "cold_start.volume_initialization_rate"),
    (r"(?i)\biops\b", "root_volume.iops"),
    (r"(?i)throughput", "root_volume.throughput"),
    (r"(?i)volume ?size|volume of size|smaller than snapshot", "root_volume.size_gib"),
    (r"(?i)volume ?type|VolumeTypeNotAvailable|BlockDeviceMapping|EncryptedVolume", "root_volume.type"),
    (r"(?i)spot", "builder.market"),
)
ENCODED = "aws sts decode-authorization-message --query DecodedMessage --output text --encoded-message"


def check(
    profile: Profile,
    asked: Mapping[str, LaunchAnswer | Unanswered],
    facts: AccountFacts,
    findings: Findings,
) -> Iterator[tuple[str, str]]:
    """Report each refusal; yield the question about each type, and its answer in a few words."""
    clean = not findings.problems  # or EC2 may only repeat them
    told: set[str] = set()
    for name, answer in asked.items():
        if name not in facts.types.types:
            continue
        question = f"a launch of {name}"
        found = findings.answered(question, answer)
        if found is None:
            yield question, "not known"
            continue
        if not found.allowed and f"{found.code} {found.message}" not in told:
            told.add(f"{found.code} {found.message}")  # one reason is often that of all types
            _report(profile, name, found, clean, findings)
        yield question, "EC2 would make it (DryRun)" if found.allowed else f"refused: {found.code}"


def _report(profile: Profile, name: str, found: LaunchAnswer, clean: bool, findings: Findings) -> None:
    if found.denied is not None:
        _denied(profile, name, found, findings)
    elif found.code in CAPACITY | QUOTA:
        # What has just ended still counts, and a run that is resumed has its builder.
        findings.warn(f"{setting(profile, name)}: {name} would not start now: {found.code}: {found.message}")
    elif clean:
        path = _about(profile, name, found)
        text = f"EC2 would refuse a launch of {name}: {found.code}: {found.message}"
        findings.problem(path, text, f"asked by a DryRun of RunInstances ({SOURCE})")


def _denied(profile: Profile, name: str, found: LaunchAnswer, findings: Findings) -> None:
    denied = found.denied
    assert denied is not None
    stands_in = profile.builder.security_group == TEMPORARY
    if stands_in and (":security-group/" in denied.resource or not denied.resource):
        findings.not_checked(
            f"whether whoever bakes may launch {name}",
            f"{denied}; the VPC's default security group stood for the temporary one, which is not there yet",
        )
        return
    path = "builder.instance_profile" if denied.action == "iam:PassRole" else setting(profile, name)
    hint = f"`bake iam --profile {profile.name}` prints the policy that whoever bakes needs"
    more = [f"{ENCODED} {denied.encoded}"] if denied.encoded and not denied.action else []
    findings.problem(path, f"whoever bakes may not launch {name}: {denied}", hint, *more)


def _about(profile: Profile, name: str, found: LaunchAnswer) -> str:
    """The setting that a refusal is about; the instance type's where nothing else is named."""
    text = f"{found.code} {found.message}"
    path = next((path for pattern, path in _ABOUT if re.search(pattern, text)), None)
    if path == "base":
        return base_setting(profile)
    return path or setting(profile, name)
