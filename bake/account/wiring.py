"""Ask for the worker's queue, bucket and bus in AWS_REGION, and for the other buckets of a profile."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from bake.account.answers import Unanswered, require
from bake.aws import Aws
from bake.profile import Profile
from bake.weights.mirror import Place


@dataclass(frozen=True)
class Queue:
    """A queue, and whether it has one for dead letters."""

    dead_letters: bool


@dataclass(frozen=True)
class Bucket:
    """A bucket and its region."""

    region: str


@dataclass(frozen=True)
class Bus:
    """An event bus that exists."""


def queue_region(url: str) -> str | None:
    """The region that a queue's URL names."""
    named = re.match(r"https://sqs\.([a-z0-9-]+)\.", url)
    return named[1] if named else None


def bus_region(bus: str) -> str | None:
    """The region that an event bus's ARN names; a name alone names none."""
    named = re.match(r"arn:[a-z-]+:events:([a-z0-9-]+):", bus)
    return named[1] if named else None


def ask_queue(profile: Profile, aws: Aws) -> Queue | Unanswered | None:
    """Return the worker's queue; None if it does not exist, or the profile names none in AWS_REGION."""
    url = profile.worker.queue
    if url is None or queue_region(url) not in (None, aws.worker_region):
        return None

    def get() -> Queue:
        answer = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        policy = json.loads(answer.get("Attributes", {}).get("RedrivePolicy") or "{}")
        return Queue(dead_letters=bool(policy.get("deadLetterTargetArn")))

    return require(get, "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress")


def ask_bucket(profile: Profile, aws: Aws) -> Bucket | Unanswered | None:
    """Return the worker's bucket; None if it does not exist, or the profile names none."""
    name = profile.worker.bucket
    return None if name is None else _bucket(name, aws, aws.worker_region)


def ask_bus(profile: Profile, aws: Aws) -> Bus | Unanswered | None:
    """Return the worker's event bus; None if it does not exist, or the profile names none in AWS_REGION."""
    return _bus(profile.worker.bus, aws)


def ask_notices(profile: Profile, aws: Aws) -> Bus | Unanswered | None:
    """Return the bus of `notices`; None if it does not exist, or the profile names none in AWS_REGION."""
    return _bus(profile.notices, aws)


def _bus(bus: str | None, aws: Aws) -> Bus | Unanswered | None:
    if bus is None or bus_region(bus) not in (None, aws.worker_region):
        return None

    def get() -> Bus:
        aws.events.describe_event_bus(Name=bus)
        return Bus()

    return require(get, "ResourceNotFound")


def ask_mirror(profile: Profile, aws: Aws) -> Bucket | Unanswered | None:
    """Return the bucket of `weights.mirror`; None if it does not exist, or the profile names none."""
    mirror = profile.weights.mirror
    return None if mirror is None else _bucket(Place.of(mirror).bucket, aws, aws.region)


def ask_stream(profile: Profile, aws: Aws) -> Bucket | Unanswered | None:
    """Return the bucket of `weights.stream`; None if it does not exist, or the profile names none."""
    stream = profile.weights.stream
    return None if stream is None else _bucket(Place.of(stream).bucket, aws, aws.region)


def ask_reports(profile: Profile, aws: Aws) -> Bucket | Unanswered | None:
    """Return the bucket of `reports`; None if it does not exist, or the profile names none."""
    return None if profile.reports is None else _bucket(Place.of(profile.reports).bucket, aws, aws.region)


def _bucket(name: str, aws: Aws, usual: str) -> Bucket | Unanswered | None:
    # An answer comes from any region: boto3 follows the redirection to the bucket's own.
    def get() -> Bucket:
        return Bucket(aws.s3.head_bucket(Bucket=name).get("BucketRegion") or usual)

    return require(get, "404", "NoSuchBucket")
