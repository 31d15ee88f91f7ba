"""Check a worker's permissions and resources by read-only calls."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ..aws.clients import Clients
from ..aws.endpoints import endpoint_warnings
from ..aws.errors import DENIED, NO_CREDENTIALS, describe, error_code
from ..jobs.queue import AWS_ERRORS
from ..jobs.results import ABSENT
from ..settings import AwsSettings
from .permissions import Identity, is_own_key, key_permission, permissions
from .report import Report
from .write_checks import probe_key


def read(settings: AwsSettings, clients: Clients, references: Iterable[str]) -> Report:
    """Identify the caller, and check queue, bucket and bus. `references`: settings read from secrets."""
    report = Report(settings.region, Identity.unknown(settings))
    _identify(clients, report)
    report.expect(permissions(settings, report.identity))
    for oddity in endpoint_warnings(settings, clients):
        report.say("endpoint of SQS", "note", oddity)
    for reference in references:
        report.say("secretsmanager:GetSecretValue", "holds", "read", on=reference)
    _queue(settings, clients, report)
    _bucket(settings, clients, report)
    _bus(settings, clients, report)
    return report


def _identify(clients: Clients, report: Report) -> None:
    try:
        who = clients.sts.get_caller_identity()
        report.identity = Identity(who["Arn"], who["Account"], who["Arn"].split(":")[1])
    except BotoCoreError as error:
        if isinstance(error, NO_CREDENTIALS):
            report.fail(error)
        else:  # a worker does not need STS, which may not be reachable
            report.say("identity", "untold", describe(error))
    except ClientError as error:
        report.fail(error)


def _queue(settings: AwsSettings, clients: Clients, report: Report) -> None:
    answer = report.ask(
        ["sqs:GetQueueAttributes"],
        lambda: clients.sqs.get_queue_attributes(QueueUrl=settings.queue_url, AttributeNames=["All"]),
    )
    if answer is None:
        return
    attributes = {str(name): value for name, value in answer.get("Attributes", {}).items()}
    fifo = ", FIFO" if attributes.get("FifoQueue") == "true" else ""
    report.say(f"the queue {settings.queue_url}", "holds", f"it exists{fifo}")
    if is_own_key(key := attributes.get("KmsMasterKeyId")):
        _key(["kms:Decrypt"], str(key), f"the queue is encrypted with {key}", settings, report)
    _dead_letters(settings, clients, report, json.loads(attributes.get("RedrivePolicy", "{}")))


def _key(actions: list[str], key: str, why: str, settings: AwsSettings, report: Report) -> None:
    for action in actions:
        permission = key_permission(action, key, settings, report.identity)
        if permission:
            report.expect([permission])
            report.settle(action, "untold", why)
        else:
            report.say(action, "untold", f"{why}, an alias: its key is unknown")


def _dead_letters(settings: AwsSettings, clients: Clients, report: Report, redrive: dict[str, Any]) -> None:
    arn = redrive.get("deadLetterTargetArn")
    if not arn:
        text = "there is none: a job that always fails comes back until it expires"
        report.say("dead-letter queue", "note", text)
        return
    account, name = str(arn).split(":")[4:6]
    receives = int(redrive.get("maxReceiveCount", 0))
    try:
        url = clients.sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
        report.say("dead-letter queue", "holds", f"{url}, after {receives} receives")
    except AWS_ERRORS as error:
        absent = error_code(error) in {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
        why = f"{arn} does not exist" if absent else f"whether {arn} exists: {describe(error)}"
        report.say("dead-letter queue", "missing" if absent else "untold", why)
    if receives == 1:
        text = "maxReceiveCount is 1: a job whose worker is interrupted never runs again"
        report.say("dead-letter queue", "note", text)


def _bucket(settings: AwsSettings, clients: Clients, report: Report) -> None:
    bucket = settings.bucket
    s3 = clients.claiming
    listed = report.ask(
        ["s3:ListBucket"],
        lambda: s3.list_objects_v2(Bucket=bucket, Prefix=settings.prefix, MaxKeys=1),
        "listed",
    )
    if listed is None:
        return
    with contextlib.suppress(*AWS_ERRORS):
        region = s3.head_bucket(Bucket=bucket).get("BucketRegion") or settings.region
        if region != settings.region:
            text = f"is in {region}, but AWS_REGION is {settings.region}: calls are slower and cost more"
            report.say(f"the bucket {bucket}", "note", text)
    with contextlib.suppress(*AWS_ERRORS):
        rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        for key in [
            rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID") for rule in rules
        ]:
            if is_own_key(key):
                why = f"the bucket is encrypted with {key}"
                _key(["kms:GenerateDataKey", "kms:Decrypt"], str(key), why, settings, report)
    _absent_object(settings, clients, report)


def _absent_object(settings: AwsSettings, clients: Clients, report: Report) -> None:
    try:
        clients.claiming.get_object(Bucket=settings.bucket, Key=probe_key(settings.prefix))
    except AWS_ERRORS as error:
        if error_code(error) in ABSENT:
            report.settle("s3:GetObject", "holds", "S3 says that an object is missing")
        elif error_code(error) in DENIED:
            # Listing the bucket worked, but perhaps only with this prefix.
            hidden = "or s3:ListBucket has a condition on s3:prefix, so S3 does not say what is missing"
            why = f"{describe(error)}; {hidden}"
            report.settle("s3:GetObject", "missing", why, grant="explicit deny" not in why)
        else:
            report.fail(error)


def _bus(settings: AwsSettings, clients: Clients, report: Report) -> None:
    bus = settings.event_bus
    if report.ask(["events:DescribeEventBus"], lambda: clients.events.describe_event_bus(Name=bus)):
        report.say(f"the event bus {bus}", "holds", "it exists")
