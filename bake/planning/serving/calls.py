"""The calls of AWS that a worker makes: this table is what `bake costs` multiplies with prices.

It describes worker/flux_worker/worker.py; a change there that adds or saves a call changes this table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """An operation, what it is for, and the product that it is billed as; None where it is free."""

    service: str
    operation: str
    why: str
    product: str | None
    per_image: bool = False


CALLS_OF_A_JOB = (
    Call("SQS", "ReceiveMessage", "the job", "queue"),
    Call("S3", "PutObject", "the claim", "put"),
    Call("S3", "GetObject", "is there a record?", "get"),
    Call("S3", "PutObject", "the image", "put", per_image=True),
    Call("S3", "PutObject", "the record", "put"),
    Call("EventBridge", "PutEvents", "the announcement", "event"),
    Call("S3", "DeleteObject", "the claim", None),
    Call("SQS", "DeleteMessage", "the job", "queue"),
)
"""In their order, for a job that is drawn once and whose calls all succeed."""

CALLS_OF_A_RENEWAL = (
    Call("S3", "PutObject", "the claim", "put"),
    Call("SQS", "ChangeMessageVisibility", "the job", "queue"),
)
RENEWALS = 3
"""A job's message and claim are renewed this often in FLUX_VISIBILITY_SECONDS."""
VISIBILITY_SECONDS = 120
"""FLUX_VISIBILITY_SECONDS unless it is set."""


@dataclass(frozen=True)
class Repeated:
    """A call that a worker makes again and again, `per_hour` times, while it waits for jobs."""

    call: Call
    per_hour: float


LONG_POLL_SECONDS = 20
CALLS_OF_AN_IDLE_WORKER = (
    Repeated(Call("SQS", "ReceiveMessage", "long polls", "queue"), 3600 / LONG_POLL_SECONDS),
    Repeated(Call("SQS", "GetQueueAttributes", "the redrive policy", "queue"), 1),
    Repeated(Call("EventBridge", "DescribeEventBus", "is the bus there?", None), 1),
    Repeated(Call("CloudWatch", "PutMetricData", "Ready, with FLUX_CLOUDWATCH_NAMESPACE", "metric-call"), 60),
)


@dataclass(frozen=True)
class Standing:
    """What costs by the month whether or not an instance runs: so many units of a product.

    `needs_workers`: billed only for the hours in which a worker publishes it.
    """

    what: str
    count: float
    product: str
    needs_workers: bool = False


MINUTES = 730 * 60  # of a month
COUNTER_GB, COUNTER_SECONDS = 0.125, 1
"""The memory of the function that counts the jobs, and its time, which is assumed."""

STANDING = (
    Standing("alarm: a job has waited too long", 1, "alarm"),
    Standing("alarm: dead letters", 1, "alarm"),
    Standing("alarm: a worker is not ready", 1, "instances-alarm"),
    Standing("alarm: nobody counts the jobs", 1, "instances-alarm"),
    Standing("alarm: from 0 to 1, by two metrics", 2, "instances-alarm"),
    Standing("alarm: from 1 to 0", 1, "instances-alarm"),
    Standing("two alarms of target tracking, by two metrics each", 4, "instances-alarm"),
    Standing("metric Backlog", 1, "metric"),
    Standing("PutMetricData of it, each minute", MINUTES, "metric-call"),
    Standing("Lambda, each minute: requests", MINUTES, "function"),
    Standing(
        f"Lambda: GB-seconds, with {COUNTER_SECONDS} s each (assumed)",
        MINUTES * COUNTER_GB * COUNTER_SECONDS,
        "function-time",
    ),
    Standing("SQS GetQueueAttributes by it", MINUTES, "queue"),
    Standing("metric Ready, with FLUX_CLOUDWATCH_NAMESPACE", 1, "metric", needs_workers=True),
)
"""What the template of `bake fleet` has. An alarm is billed by the metrics that it looks at."""
