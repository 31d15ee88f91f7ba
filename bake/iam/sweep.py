"""What whoever sweeps may do: look for what bakes of any profile left, and remove it."""

from __future__ import annotations

from collections.abc import Iterator

from bake.iam.statement import Statement
from bake.iam.subject import ANY_RUN, OURS, Account, within


def statements(account: Account) -> Iterator[Statement]:
    """The statements for `bake sweep`, in the profile's regions."""
    yield Statement(
        "Look",
        "to find what bakes left; there are no ARNs for these",
        (
            *("ec2:DescribeInstances", "ec2:DescribeSpotInstanceRequests", "ec2:DescribeKeyPairs"),
            *("ec2:DescribeSecurityGroups", "ec2:DescribeVolumes", "ec2:DescribeNetworkInterfaces"),
            *("ec2:DescribeImages", "ec2:DescribeSnapshots", "sqs:ListQueues", "events:ListEventBuses"),
            *("events:ListRules", "scheduler:ListScheduleGroups"),
        ),
        ("*",),
        within(tuple(dict.fromkeys((*account.regions, *account.copied)))),
    )
    yield Statement(
        "AskBucketsAndPrices",
        "the account's buckets, and what things cost; without prices the sweep says so",
        ("s3:ListAllMyBuckets", "pricing:GetProducts"),
        ("*",),
    )
    yield Statement(
        "RemoveMachines",
        "only what has a run's tag",
        (
            *("ec2:CancelSpotInstanceRequests", "ec2:TerminateInstances", "ec2:DeleteNetworkInterface"),
            *("ec2:DeleteVolume", "ec2:DeleteSecurityGroup", "ec2:DeregisterImage", "ec2:DeleteSnapshot"),
            *("ec2:DeleteKeyPair", "ec2:DisableImageDeregistrationProtection"),
        ),
        account.all_of_ec2,
        ANY_RUN,
    )
    if account.copied:
        yield Statement(
            "RemoveCopies",
            "of AMIs whose bake did not finish them; only what has a run's tag",
            ("ec2:DisableImageDeregistrationProtection", "ec2:DeregisterImage", "ec2:DeleteSnapshot"),
            tuple(
                account.arn("ec2", f"{kind}/*", region=region, account="")
                for region in account.copied
                for kind in ("image", "snapshot")
            ),
            ANY_RUN,
            "`publish.regions`",
        )
    yield from _first_jobs(account)
    yield from _schedules(account)


def _first_jobs(account: Account) -> Iterator[Statement]:
    yield Statement(
        "Queues",
        "their tags say whether they go",
        ("sqs:ListQueueTags", "sqs:DeleteQueue"),
        account.regional("sqs", OURS),
    )
    yield Statement(
        "Buckets",
        "their tags say whether they go; a bucket goes after what is in it",
        ("s3:GetBucketTagging", "s3:ListBucket", "s3:DeleteObject", "s3:DeleteBucket"),
        (account.bucket(OURS), account.bucket(OURS, "*")),
    )
    yield Statement(
        "Buses",
        "their tags say whether they go; a bus goes after its rules",
        tuple(
            f"events:{action}"
            for action in (
                *("DescribeEventBus", "ListTagsForResource", "RemoveTargets", "DeleteRule"),
                "DeleteEventBus",
            )
        ),
        account.regional("events", f"event-bus/{OURS}", f"rule/{OURS}"),
    )


def _schedules(account: Account) -> Iterator[Statement]:
    """Of both regions: a group may be in either."""
    yield Statement(
        "ScheduleGroups",
        "their tags say whether they go",
        ("scheduler:GetScheduleGroup", "scheduler:ListTagsForResource", "scheduler:DeleteScheduleGroup"),
        tuple(account.arn("scheduler", f"schedule-group/{OURS}", region=one) for one in account.regions),
    )
    yield Statement(
        "SchedulesInThem",
        "deleted with their group",
        ("scheduler:DeleteSchedule",),
        tuple(account.arn("scheduler", f"schedule/{OURS}", region=one) for one in account.regions),
    )
