"""What whoever rolls out may do: refresh the instances of Auto Scaling groups by the channels' templates."""

from __future__ import annotations

from collections.abc import Iterator

from bake.iam.statement import Statement
from bake.iam.subject import Subject, within
from bake.profile.channels import parameter_of

WHEN = "`channels.NAME.launch_template`"


def statements(subject: Subject) -> Iterator[Statement]:
    """The statements for `bake rollout`; `subject.groups` are the names of the groups."""
    yield Statement(
        "LookAtTheFleet",
        "what a group launches, how far a refresh is, and whether the AMI fits; there are no ARNs for these",
        (
            *("autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeInstanceRefreshes"),
            *("ec2:DescribeImages", "ec2:DescribeInstanceTypes", "ec2:DescribeLaunchTemplateVersions"),
        ),
        ("*",),
        within(subject.region),
    )
    channels = subject.profile.channels
    templates = tuple(dict.fromkeys(one.launch_template for one in channels.values() if one.launch_template))
    if not templates:
        return
    names = [parameter_of(subject.profile.name, name, one) for name, one in channels.items()]
    yield Statement(
        "ReadTheChannels",
        "the AMI that a channel serves",
        ("ssm:GetParameter",),
        tuple(subject.arn("ssm", f"parameter/{name.lstrip('/')}") for name in names),
        when=WHEN,
    )
    yield Statement(
        "Refresh",
        "start a refresh of a group, and cancel it or roll it back; `--asg` names the group",
        tuple(f"autoscaling:{one}InstanceRefresh" for one in ("Start", "Cancel", "Rollback")),
        tuple(
            subject.arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{one}")
            for one in subject.groups
        ),
        when=WHEN,
    )
    yield from _launching(subject, subject.ec2(*(f"launch-template/{one}" for one in templates)))


def _launching(subject: Subject, templates: tuple[str, ...]) -> Iterator[Statement]:
    """What Auto Scaling asks of whoever names a template: that they could launch by it themselves.

    https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-launch-template-permissions.html
    """
    yield Statement(
        "LaunchByTheTemplates",
        "Auto Scaling starts a refresh for whoever could launch by the template, and by no other",
        ("ec2:RunInstances",),
        subject.all_of_ec2,
        {"ArnEquals": {"ec2:LaunchTemplate": templates}},
        when=WHEN,
    )
    yield Statement(
        "TagWhatIsLaunched",
        "the tags that the template gives to what it launches",
        ("ec2:CreateTags",),
        subject.all_of_ec2[:1],
        {"StringEquals": {"ec2:CreateAction": "RunInstances"}},
        when=WHEN,
    )
    yield Statement(
        "HandOverTheWorkersRole",
        "the instance profile that the template gives to instances",
        ("iam:PassRole",),
        (subject.role,),
        {"StringEquals": {"iam:PassedToService": subject.ec2_service}},
        when=WHEN,
    )
