"""`check --aws --write`: write, rewrite, read and remove a probe object, and send a probe event.

It neither sends nor deletes messages: it calls SQS with a made-up receipt.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

from ..aws.clients import Clients
from ..aws.errors import DENIED, error_code
from ..jobs.queue import AWS_ERRORS
from ..jobs.results import EXISTS_OR_CHANGED, JSON
from ..jobspec.envelope import SOURCE
from ..settings import AwsSettings
from .report import Report

EVENT = "FluxProbe"


def probe_key(prefix: str) -> str:
    """A key that no job's object has, since an id cannot contain `=`."""
    return f"{prefix}=probe-{secrets.token_hex(8)}"


def write(settings: AwsSettings, clients: Clients, report: Report) -> None:
    """Make the worker's writing calls, without a job."""
    _object(settings, clients, report)
    _event(settings, clients, report)
    _receipt(settings, clients, report)


def _object(settings: AwsSettings, clients: Clients, report: Report) -> None:
    s3, bucket, key = clients.claiming, settings.bucket, probe_key(settings.prefix)
    body = json.dumps({"probe": report.identity.arn}).encode()
    made = report.ask(
        ["s3:PutObject"],
        lambda: s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=JSON, IfNoneMatch="*"),
        f"wrote s3://{bucket}/{key}",
    )
    if made is None:
        return
    etag = made["ETag"]
    again = report.ask(
        [],
        lambda: s3.put_object(Bucket=bucket, Key=key, Body=body + b" ", ContentType=JSON, IfMatch=etag),
    )
    etag = again["ETag"] if again else etag
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=JSON, IfNoneMatch="*")
        report.say("conditional writes", "missing", f"s3://{bucket} overwrote an object despite IfNoneMatch")
    except AWS_ERRORS as error:
        if error_code(error) not in EXISTS_OR_CHANGED:
            report.fail(error)
    report.ask(["s3:GetObject"], lambda: s3.get_object(Bucket=bucket, Key=key)["Body"].read(), "read it")
    removed = report.ask(["s3:DeleteObject"], lambda: s3.delete_object(Bucket=bucket, Key=key), "removed it")
    if removed is None:
        report.say("probe", "note", f"s3://{bucket}/{key} could not be removed and is left")


def _event(settings: AwsSettings, clients: Clients, report: Report) -> None:
    entry = {
        "Source": SOURCE,
        "DetailType": EVENT,
        "Detail": json.dumps({"probe": report.identity.arn}),
        "EventBusName": settings.event_bus,
    }
    answer = report.ask([], lambda: clients.events.put_events(Entries=[entry]))  # type: ignore[list-item]
    if answer is None:
        return
    if not answer["FailedEntryCount"]:
        report.settle("events:PutEvents", "holds", f"sent a {EVENT}")
        return
    refused = answer["Entries"][0]
    code = refused.get("ErrorCode", "")
    why = f"EventBridge did not accept a {EVENT} ({code}): {refused.get('ErrorMessage')}"
    if code in DENIED or "NotAuthorized" in code:
        report.settle("events:PutEvents", "missing", why)
    elif code in {"ThrottlingException", "InternalFailure", "InternalException"}:
        report.unreachable.append(why)
    else:
        report.say(f"the event bus {settings.event_bus}", "missing", why)


def _receipt(settings: AwsSettings, clients: Clients, report: Report) -> None:
    """SQS checks the permission before the receipt, so it complains about the receipt only if allowed."""
    url, receipt = settings.queue_url, "made-up-by-flux-worker-check"
    calls: dict[str, Callable[[], Any]] = {
        "sqs:ChangeMessageVisibility": lambda: clients.sqs.change_message_visibility(
            QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=0
        ),
        "sqs:DeleteMessage": lambda: clients.sqs.delete_message(QueueUrl=url, ReceiptHandle=receipt),
    }
    for action, call in calls.items():
        try:
            call()
            report.settle(action, "holds", "SQS accepted it")
        except AWS_ERRORS as error:
            if error_code(error) in {"ReceiptHandleIsInvalid", "InvalidParameterValue"}:
                report.settle(action, "holds", "SQS refuses a made-up receipt, not the call")
            else:
                report.fail(error)
