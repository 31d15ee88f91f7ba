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
    """What costs by the month whether or not an instance runs; `count` of a product.

    `needs_workers`: billed only for the hours in which a worker publishes it.
    """

    what: str
    count: int
    product: str
    needs_workers: bool = False


STANDING = (
    Standing("alarm: age of the oldest message", 1, "alarm"),
    Standing("alarm: dead letters", 1, "alarm"),
    Standing("alarm: workers that are not ready", 1, "alarm"),
    Standing("alarm: a backlog without an instance, from 0 to 1", 1, "alarm"),
    Standing("alarms: the backlog of an instance, by target tracking", 2, "alarm"),
    Standing("metric Ready, with FLUX_CLOUDWATCH_NAMESPACE", 1, "metric", needs_workers=True),
)
"""An alarm counts as many metrics as it looks at."""
