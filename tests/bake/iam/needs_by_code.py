"""What no rehearsal needs of IAM, by the code: prices, notices, and retention.

tests/bake/lifecycle/test_prune_rights.py walks what prune does under the policy itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from bake.localcloud.api.access.needs import Context
from tests.bake.iam import profiles

# Who needs it, the action, the resource, the context, and whether the resource has the tags of a bake.
Row = tuple[str, str, str, Context, bool]

REGION: Context = {"aws:RequestedRegion": ("eu-north-1",)}
HOME: Context = {"aws:RequestedRegion": ("eu-west-1",)}
BUS = f"arn:aws:events:eu-west-1:123456789012:event-bus/{profiles.BUS}"
PRICES: Context = {"aws:RequestedRegion": ("us-east-1",)}
IMAGE, SNAPSHOT = "arn:aws:ec2:eu-north-1::image/ami-0", "arn:aws:ec2:eu-north-1::snapshot/snap-0"
REPORT = "arn:aws:ec2:eu-north-1:123456789012:image-usage-report/*"
PARAMETER = "arn:aws:ssm:eu-north-1:123456789012:parameter/flux/stable"
# bake/lifecycle/references.py and sharing.py.
ASKED = (
    *("ec2:DescribeImageReferences", "ec2:DescribeLaunchTemplates", "ec2:DescribeLaunchTemplateVersions"),
    *("ec2:DescribeSpotInstanceRequests", "ec2:DescribeSpotFleetRequests"),
    *("ec2:DescribeImageUsageReports", "ec2:DescribeImageUsageReportEntries", "ssm:DescribeParameters"),
    *("autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeLaunchConfigurations"),
)
REMOVING = ("DescribeImageAttribute", "DisableImageDeregistrationProtection", "DeregisterImage")


def rows() -> Iterator[Row]:
    """All of them."""
    for audience in ("caller", "prune"):
        yield from ((audience, action, "*", REGION, False) for action in ASKED)
        yield audience, "ssm:GetParameters", PARAMETER, REGION, False
        yield from ((audience, "ec2:CreateImageUsageReport", one, REGION, False) for one in (IMAGE, REPORT))
    for what in ("Images", "Instances", "Snapshots"):
        yield "prune", f"ec2:Describe{what}", "*", REGION, False
    # bake/account/prices.py; the local cloud has no price list.
    yield from (
        (audience, "pricing:GetProducts", "*", PRICES, False) for audience in ("caller", "sweep", "prune")
    )
    yield "caller", "events:PutEvents", BUS, HOME, False  # bake/notices.py
    yield from (("prune", f"ec2:{action}", IMAGE, REGION, True) for action in REMOVING)
    yield "prune", "ec2:DeleteSnapshot", SNAPSHOT, REGION, True


ALL = tuple(rows())
