"""What whoever promotes may do: serve a profile's images in its channels, and revoke them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bake.iam.statement import Statement
from bake.iam.subject import Subject, within
from bake.image import BECAUSE_TAG, STATE_TAG
from bake.profile.channels import LOCK, parameter_of

MARKS = (BECAUSE_TAG, STATE_TAG)
WHEN = "`channels`"


def statements(subject: Subject) -> Iterator[Statement]:
    """The statements for `bake promote`, `rollback`, `channels` and `revoke`."""
    yield _looking(subject)
    yield from _serving(subject)
    yield from _revoking(subject)


def _looking(subject: Subject) -> Statement:
    return Statement(
        "Look",
        "which AMIs there are, and what would launch one; there are no ARNs for these",
        (
            *("ec2:DescribeImages", "ec2:DescribeLaunchTemplateVersions", "ec2:DescribeImageReferences"),
            *("autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeLaunchConfigurations"),
            "ssm:DescribeParameters",
        ),
        ("*",),
        within(regions_of(subject)),
    )


def _serving(subject: Subject) -> Iterator[Statement]:
    profile = subject.profile
    names = [parameter_of(profile.name, name, one) for name, one in profile.channels.items()]
    templates = [one.launch_template for one in profile.channels.values() if one.launch_template]
    if names:
        yield Statement(
            "Serve",
            "a channel's parameter: what it holds, what it held, and what it shall hold",
            ("ssm:GetParameter", "ssm:GetParameterHistory", "ssm:PutParameter"),
            _parameters(subject, names),
            when=WHEN,
        )
        yield Statement(
            "Lock",
            "the parameter beside it that says who is changing it",
            ("ssm:GetParameter", "ssm:PutParameter", "ssm:DeleteParameter"),
            tuple(_parameter(subject, f"{name}{LOCK}", subject.region) for name in names),
            when=WHEN,
        )
    if subject.notices is not None:
        yield Statement(
            "SendNotices",
            "a bus hears that a channel serves another AMI",
            ("events:PutEvents",),
            (subject.notices,),
            when="`notices`",
        )
    if templates:
        yield Statement(
            "FollowWithTheTemplate",
            "a new version of the launch template with the AMI, as its default",
            ("ec2:CreateLaunchTemplateVersion", "ec2:ModifyLaunchTemplate"),
            subject.ec2(*(f"launch-template/{one}" for one in templates)),
            when="`channels.NAME.launch_template`",
        )


def regions_of(subject: Subject) -> tuple[str, ...]:
    """The builder's region, and those that the profile's images are copied to."""
    return tuple(dict.fromkeys((subject.region, *subject.profile.publish.regions)))


def _parameters(subject: Subject, names: Iterable[str]) -> tuple[str, ...]:
    """The parameters with these names, in each region."""
    listed = list(names)
    return tuple(_parameter(subject, name, one) for one in regions_of(subject) for name in listed)


def _parameter(subject: Subject, name: str, region: str) -> str:
    return subject.arn("ssm", f"parameter/{name.lstrip('/')}", region=region)


def _images(subject: Subject, *kinds: str) -> tuple[str, ...]:
    """All of EC2's resources of these kinds, in each region; their ARNs name no account."""
    return tuple(
        subject.arn("ec2", f"{kind}/*", region=region, account="")
        for region in regions_of(subject)
        for kind in kinds
    )


def _revoking(subject: Subject) -> Iterator[Statement]:
    """Images of this profile's bakes alone."""
    yield Statement(
        "FindParameters",
        "EC2 looks, for whoever asks, which parameters hold an AMI: DescribeImageReferences needs it",
        ("ssm:GetParameters",),
        _parameters(subject, ["*"]),
    )
    yield Statement(
        "MarkRevoked",
        "an image's state and the reason, in the tags of a bake's image of this profile and of its snapshots",
        ("ec2:CreateTags",),
        _images(subject, "image", "snapshot"),
        {
            **subject.ours,
            "ForAllValues:StringEquals": {"aws:TagKeys": MARKS},
            "Null": {"aws:TagKeys": "false"},
        },
    )
    yield Statement(
        "Disable",
        "nothing launches it any more; whom it was shared with is told",
        ("ec2:DisableImage", "ec2:DescribeImageAttribute"),
        _images(subject, "image"),
        subject.ours,
    )
