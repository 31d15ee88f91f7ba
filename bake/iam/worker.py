"""What a worker may do: on its own queue, bucket and bus, and on those of the first job of each image."""

from __future__ import annotations

from collections.abc import Iterator

from bake.iam.statement import Statement, Trust
from bake.iam.subject import OURS, Subject


def statements(subject: Subject) -> Iterator[Statement]:
    """The statements of the instance profile's role; worker/README.md says what is lost without each."""
    queues, buckets, buses = (list(found) for found in _places(subject))
    yield Statement(
        "ReceiveJobs",
        "to take jobs from the queue, to keep one while it is drawn, and to know of a dead-letter queue",
        (
            *("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"),
            "sqs:GetQueueAttributes",
        ),
        tuple(queues),
    )
    yield Statement(
        "StoreImages",
        "images, records and claims; a claim, and the failure of a job that succeeds later, are deleted",
        ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
        tuple(f"{bucket}/*" for bucket in buckets),
    )
    yield Statement(
        "SeeWhatIsMissing",
        "without it S3 does not say that an object is missing, and no job runs",
        ("s3:ListBucket",),
        tuple(buckets),
    )
    yield Statement(
        "Announce",
        "events about finished and failed jobs, on a bus that is there",
        ("events:PutEvents", "events:DescribeEventBus"),
        tuple(buses),
    )
    yield Statement(
        "FindLifecycleHooks",
        "in an Auto Scaling group: which hooks wait for the worker; there are no ARNs for these",
        ("autoscaling:DescribeAutoScalingInstances", "autoscaling:DescribeLifecycleHooks"),
        ("*",),
    )
    yield Statement(
        "CompleteLifecycleHooks",
        "in an Auto Scaling group: the worker is ready, or done",
        ("autoscaling:CompleteLifecycleAction",),
        (subject.arn("autoscaling", "autoScalingGroup:*:autoScalingGroupName/*"),),
    )


def _places(subject: Subject) -> Iterator[tuple[str, ...]]:
    """Queues, buckets and buses: the profile's own, and those that a boot check creates."""
    own = subject.profile.worker
    yield tuple(filter(None, (subject.queue, *subject.regional("sqs", OURS))))
    yield tuple(filter(None, (subject.bucket(own.bucket) if own.bucket else None, subject.bucket(OURS))))
    yield tuple(filter(None, (subject.bus, *subject.regional("events", f"event-bus/{OURS}"))))


def trust(subject: Subject) -> Trust:
    """Instances take the role."""
    return Trust(subject.ec2_service)
