"""What retention may do: look for what refers to AMIs, and remove those that nothing needs.

Whoever prunes may do both, in all regions; a bake looks, too, before it removes its profile's old images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from bake.iam.statement import Statement
from bake.iam.subject import ANY_RUN, Account, Subject, within

KEEP = "`image.keep`"


def of_bake(subject: Subject, known: Collection[str]) -> Iterator[Statement]:
    """What a bake asks before it removes its profile's old good images."""
    if subject.profile.image.keep is None:
        return
    template = ["ec2:DescribeLaunchTemplateVersions"] if subject.profile.publish.launch_template else []
    yield from looking(subject, subject.image_regions, known=(*known, *template), when=KEEP)
    if subject.copied:
        yield Statement(
            "AskWhomCopiesAreSharedWith",
            "a copy that is shared with others than the profile says stays",
            ("ec2:DescribeImageAttribute",),
            tuple(subject.arn("ec2", "image/*", region=one, account="") for one in subject.copied),
            subject.ours,
            f"{KEEP}, `publish.regions`",
        )


def looking(
    account: Account, regions: tuple[str, ...], *, known: Collection[str] = (), when: str = ""
) -> Iterator[Statement]:
    """What is asked before an AMI goes, but for actions that are `known` to be allowed anyway."""
    asked = (
        *("ec2:DescribeImageReferences", "ec2:DescribeLaunchTemplates"),
        *("ec2:DescribeLaunchTemplateVersions", "ec2:DescribeSpotInstanceRequests"),
        *("ec2:DescribeSpotFleetRequests", "ec2:DescribeImageUsageReports"),
        *("ec2:DescribeImageUsageReportEntries", "autoscaling:DescribeAutoScalingGroups"),
        *("autoscaling:DescribeLaunchConfigurations", "ssm:DescribeParameters"),
    )
    yield Statement(
        "LookWhatRefersToImages",
        "what refers to an AMI keeps it; there are no ARNs for these",
        tuple(one for one in asked if one not in known),
        ("*",),
        within(regions),
        when,
    )
    yield Statement(
        "ReadParameters",
        "a parameter that holds an AMI's id keeps it; secret ones are not read",
        ("ssm:GetParameters",),
        tuple(account.arn("ssm", "parameter/*", region=one) for one in regions),
        when=when,
    )
    images = [account.arn("ec2", "image/*", region=one, account="") for one in regions]
    reports = [account.arn("ec2", "image-usage-report/*", region=one) for one in regions]
    yield Statement(
        "AskWhoUsesThem",
        "EC2 counts which other accounts use an AMI that is shared",
        ("ec2:CreateImageUsageReport",),
        (*images, *reports),
        when=when,
    )


def statements(account: Account) -> Iterator[Statement]:
    """The statements for `bake prune`, in the regions of a profile's AMIs and their copies."""
    where = account.image_regions
    yield Statement(
        "Look",
        "to find what bakes made, and who runs it; there are no ARNs for these",
        ("ec2:DescribeImages", "ec2:DescribeInstances", "ec2:DescribeSnapshots"),
        ("*",),
        within(where),
    )
    yield Statement(
        "AskPrices",
        "what the snapshots cost; without prices it says so",
        ("pricing:GetProducts",),
        ("*",),
    )
    yield from looking(account, where)
    yield Statement(
        "RemoveImages",
        "only what has a run's tag; whom an AMI is shared with is asked first",
        (
            *("ec2:DescribeImageAttribute", "ec2:DisableImageDeregistrationProtection"),
            *("ec2:DeregisterImage", "ec2:DeleteSnapshot"),
        ),
        _images(account, where),
        ANY_RUN,
    )


def _images(account: Account, regions: tuple[str, ...]) -> tuple[str, ...]:
    """The ARNs of all AMIs and snapshots in these regions."""
    kinds = ("image/*", "snapshot/*")
    return tuple(account.arn("ec2", kind, region=one, account="") for one in regions for kind in kinds)
