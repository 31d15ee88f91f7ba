"""Ask whom AMIs are shared with, and whether those accounts use them.

An account sees only its own instances and templates. EC2 counts those of others in a usage report, which it
makes in the background; what others did within the last day may not be in it.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/your-ec2-ami-usage.html
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bake.aws import Aws
from bake.errors import BakeError, TimedOut
from bake.lifecycle.proof import Reference
from bake.lifecycle.references import ALL_VERSIONS

# A report that is this old is made anew; EC2 itself keeps it for 30 days.
YOUNG = timedelta(hours=6)
# Seconds to wait for a report: a later run finds it.
PATIENCE = 90.0
KINDS: Any = [
    {"ResourceType": "ec2:Instance"},
    {"ResourceType": "ec2:LaunchTemplate", "ResourceTypeOptions": ALL_VERSIONS},
    {"ResourceType": "imagebuilder:ImageRecipe"},
    {"ResourceType": "imagebuilder:ContainerRecipe"},
]
NAMES = {
    "ec2:Instance": "instances",
    "ec2:LaunchTemplate": "launch templates",
    "imagebuilder:ImageRecipe": "Image Builder recipes",
    "imagebuilder:ContainerRecipe": "Image Builder container recipes",
}


class NotMade(BakeError):
    """EC2 has no usage report of an AMI, or not yet."""


@dataclass(frozen=True)
class Sharing:
    """Whom one AMI is shared with, and which of them use it."""

    shares: tuple[str, ...] = ()
    users: tuple[Reference, ...] = ()


def ask_sharing(aws: Aws, image: str) -> Sharing:
    """Whom an AMI is shared with and, if it is, who uses it. Raises NotMade where EC2 can't say that yet."""
    asked = aws.ec2.describe_image_attribute(ImageId=image, Attribute="launchPermission")
    shares = tuple(sorted(str(value) for one in asked["LaunchPermissions"] for value in one.values()))
    return Sharing(shares, _users(aws, _report(aws, image)) if shares else ())


def _report(aws: Aws, image: str) -> str:
    """The id of a report that is not old; it is made where there is none."""
    oldest = aws.now() - YOUNG
    listed = [one for one in _reports(aws, ImageIds=[image]) if one["CreationTime"] >= oldest]
    young = sorted(
        (one for one in listed if one["State"] != "error"), key=lambda one: str(one["CreationTime"])
    )
    report = str(young[-1]["ReportId"]) if young else _create(aws, image)
    _wait_for(aws, image, report)
    return report


def _create(aws: Aws, image: str) -> str:
    made = str(aws.ec2.create_image_usage_report(ImageId=image, ResourceTypes=KINDS)["ReportId"])
    aws.fresh.add(made)
    return made


def _reports(aws: Aws, **chosen: Any) -> list[Any]:
    pages = aws.ec2.get_paginator("describe_image_usage_reports").paginate(**chosen)
    return [raw for page in pages for raw in page["ImageUsageReports"]]


def _wait_for(aws: Aws, image: str, report: str) -> None:
    def look() -> bool | None:
        states = {one["State"]: one.get("StateReason", "") for one in _reports(aws, ReportIds=[report])}
        if "error" in states:
            raise NotMade(f"EC2 made no usage report: {states['error'] or 'it does not say why'}")
        return True if "available" in states else None

    try:
        aws.wait(f"the usage report of {image}", look, timeout=PATIENCE)
    except TimedOut:
        raise NotMade(f"EC2 still makes the usage report {report}: try again in some minutes") from None


def _users(aws: Aws, report: str) -> tuple[Reference, ...]:
    pages = aws.ec2.get_paginator("describe_image_usage_report_entries").paginate(ReportIds=[report])
    used: dict[str, Counter[str]] = {}
    for raw in (each for page in pages for each in page["ImageUsageReportEntries"]):
        used.setdefault(raw["AccountId"], Counter())[raw["ResourceType"]] += int(raw["UsageCount"])
    return tuple(
        Reference(
            "account", account, "(" + ", ".join(_counted(kind, n) for kind, n in counts.items() if n) + ")"
        )
        for account, counts in sorted(used.items())
        if counts.total()
    )


def _counted(kind: str, count: int) -> str:
    name = NAMES.get(kind, kind)
    return f"{count} {name.removesuffix('s') if count == 1 else name}"
