"""What a worker may do: on its own queue, bucket and bus, and on those of the first job of each image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bake.iam.statement import Statement, Trust
from bake.iam.subject import OURS, Account, Subject, place


def statements(subject: Subject) -> Iterator[Statement]:
    """The statements of the instance profile's role: the profile's own places, and those of boot checks."""
    own, first_jobs = subject.profile.worker, Places.named(subject, OURS)
    queues = (subject.queue,) if subject.queue else ()
    buckets = (subject.bucket(own.bucket),) if own.bucket else ()
    buses = (subject.bus,) if subject.bus else ()
    places = Places(
        (*queues, *first_jobs.queues), (*buckets, *first_jobs.buckets), (*buses, *first_jobs.buses)
    )
    yield from at(subject, places)
    yield from read_weights(subject, subject.profile.weights.stream)
    if own.cloudwatch_namespace:
        yield publish(own.cloudwatch_namespace)


@dataclass(frozen=True)
class Places:
    """The ARNs of queues, buckets and buses, each pattern once."""

    queues: tuple[str, ...]
    buckets: tuple[str, ...]
    buses: tuple[str, ...]

    @classmethod
    def named(cls, account: Account, *names: str) -> Places:
        """Those of an account that have such names, in the worker's region."""
        return cls(
            account.regional("sqs", *names),
            tuple(account.bucket(name) for name in names),
            account.regional("events", *(f"event-bus/{name}" for name in names)),
        )


def at(account: Account, places: Places) -> Iterator[Statement]:
    """What a worker may do at these places; worker/README.md says what is lost without each right."""
    yield Statement(
        "ReceiveJobs",
        "to take jobs from the queue, to keep one while it is drawn, and to know of a dead-letter queue",
        (
            *("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"),
            "sqs:GetQueueAttributes",
        ),
        places.queues,
    )
    yield Statement(
        "StoreImages",
        "images, records and claims; a claim, and the failure of a job that succeeds later, are deleted",
        ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
        tuple(f"{bucket}/*" for bucket in places.buckets),
    )
    yield Statement(
        "SeeWhatIsMissing",
        "without it S3 does not say that an object is missing, and no job runs",
        ("s3:ListBucket",),
        places.buckets,
    )
    yield Statement(
        "Announce",
        "events about finished and failed jobs, on a bus that is there",
        ("events:PutEvents", "events:DescribeEventBus"),
        places.buses,
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
        (account.arn("autoscaling", "autoScalingGroup:*:autoScalingGroupName/*"),),
    )


def read_weights(account: Account, stream: str | None) -> Iterator[Statement]:
    """What a worker may do that reads weights from a bucket beside its volume; nothing where it does not."""
    if stream is None:
        return
    bucket, prefix = place(stream)
    yield Statement(
        "ReadWeights",
        "weights beside the volume's; without it the volume alone is read",
        ("s3:GetObject",),
        (account.bucket(bucket, f"{prefix}*"),),
        when="`weights.stream`",
    )


def publish(namespace: str) -> Statement:
    """What a worker may do that publishes metrics."""
    return Statement(
        "PublishReady",
        "the metric `Ready`, in one namespace; there are no ARNs for metrics",
        ("cloudwatch:PutMetricData",),
        ("*",),
        {"StringEquals": {"cloudwatch:namespace": namespace}},
        when="`worker.cloudwatch_namespace`",
    )


def trust(account: Account) -> Trust:
    """Instances take the role."""
    return Trust(account.ec2_service)
