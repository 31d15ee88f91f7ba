"""Queue, bucket and event bus of the worker: checked where the worker looks for them, in AWS_REGION."""

from __future__ import annotations

import json
import re
from typing import Any

from bake.aws import Aws
from bake.planning.findings import Findings
from bake.profile import Profile


def check(profile: Profile, aws: Aws, findings: Findings) -> None:
    """Check what the profile gives; what it leaves out comes with the instance's user data later."""
    worker = profile.worker
    if worker.queue is not None:
        _check_queue(worker.queue, aws, findings)
    if worker.bucket is not None:
        _check_bucket(worker.bucket, aws, findings)
    if worker.bus is not None:
        _check_bus(worker.bus, aws, findings)


def _check_queue(url: str, aws: Aws, findings: Findings) -> None:
    named = re.match(r"https://sqs\.([a-z0-9-]+)\.", url)
    if named and named[1] != aws.worker_region:
        findings.problem("worker.queue", f"the queue is in {named[1]}, but AWS_REGION is {aws.worker_region}")
        return
    answer = findings.require(
        "worker.queue",
        f"queue {url} in {aws.worker_region}",
        lambda: aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]),
        "AWS.SimpleQueueService.NonExistentQueue",
        "QueueDoesNotExist",
        "InvalidAddress",
    )
    if answer is None:
        return
    findings.confirm(f"the queue {url} is in {aws.worker_region}")
    if not _dead_letters(answer.get("Attributes", {})):
        findings.warn(f"the queue {url} has no dead-letter queue: a job that fails is tried again for days")


def _dead_letters(attributes: Any) -> bool:
    return bool(json.loads(attributes.get("RedrivePolicy") or "{}").get("deadLetterTargetArn"))


def _check_bucket(bucket: str, aws: Aws, findings: Findings) -> None:
    # An answer comes from any region: boto3 follows the redirection to the bucket's own.
    answer = findings.require(
        "worker.bucket", f"bucket {bucket}", lambda: aws.s3.head_bucket(Bucket=bucket), "404", "NoSuchBucket"
    )
    if answer is None:
        return
    region = answer.get("BucketRegion") or aws.worker_region
    findings.confirm(f"the bucket {bucket} is in {region}")
    if region != aws.worker_region:
        findings.warn(f"the bucket {bucket} is in {region}, the queue and the bus are in {aws.worker_region}")


def _check_bus(bus: str, aws: Aws, findings: Findings) -> None:
    named = re.match(r"arn:[a-z-]+:events:([a-z0-9-]+):", bus)
    if named and named[1] != aws.worker_region:
        findings.problem("worker.bus", f"the bus is in {named[1]}, but AWS_REGION is {aws.worker_region}")
        return
    answer = findings.require(
        "worker.bus",
        f"event bus {bus} in {aws.worker_region}",
        lambda: aws.events.describe_event_bus(Name=bus),
        "ResourceNotFound",
    )
    if answer is not None:
        findings.confirm(f"the event bus {bus} is in {aws.worker_region}")
