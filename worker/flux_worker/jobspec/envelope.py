"""Unwrap jobs from SNS and EventBridge, and recognise messages that are sent to the queue by mistake.

SNS notifications without raw delivery and EventBridge events are unwrapped, even nested. Known mistakes are
refused with advice.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

from ..errors import InvalidJob

SOURCE = "flux.worker"
"""The source of the workers' own events, `FluxImageReady` and `FluxImageFailed`."""
_DEEPEST = 4  # EventBridge through SNS is two; more is hardly intended
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}\s*")
_SHOWN_CHARACTERS = 64

_OWN_EVENT = (
    "this is an event of the workers themselves, not a job: restrict the EventBridge rule that sends to this "
    "queue to the source of your jobs"
)
_POINTER = (
    "this is a pointer to S3 of the SQS extended client, not a job: send the job itself with a plain SQS "
    "client; it fits into a message"
)
_CELERY = (
    "this is a message of Celery or kombu, not a job: send the job's JSON with an SQS client, as the AWS "
    "CLI's `send-message` does"
)


def opened(body: str) -> str:
    """The JSON of the job in a message's body; the body itself if it has no known envelope.

    Raises InvalidJob, with advice, if the body is a known mistake.
    """
    where = ""
    for _ in range(_DEEPEST):
        content = _read(body)
        if isinstance(content, dict) and "prompt" in content:
            return body  # a job, even an invalid one, is never mistaken for anything else
        _refuse(content, body)
        holder, inside = _envelope(content)
        if not holder:
            if where and not (isinstance(content, dict) and "id" in content):
                raise InvalidJob(f"{where} holds no job: a job is a JSON object with an id and a prompt")
            return body
        where, body = holder, inside
    raise InvalidJob(f"more than {_DEEPEST - 1} nested envelopes of SNS and EventBridge")


def _read(body: str) -> Any:
    """The body as JSON; None if it is not JSON, and for `null`."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _envelope(content: Any) -> tuple[str, str]:
    """An envelope's name and content; two empty strings if this is not an envelope."""
    if not isinstance(content, dict):
        return "", ""
    if content.get("Type") == "Notification" and isinstance(content.get("Message"), str):
        return "the SNS notification", content["Message"]
    if _is_event(content):
        return "the EventBridge event", json.dumps(content["detail"])
    return "", ""


def _is_event(content: dict[str, Any]) -> bool:
    """Whether this is an event of EventBridge."""
    named = isinstance(content.get("source"), str) and isinstance(content.get("detail-type"), str)
    return named and isinstance(content.get("detail"), dict)


def _refuse(content: Any, body: str) -> None:
    """Raise InvalidJob if this is a known mistake."""
    checks: tuple[Callable[[Any], str | None], ...] = (_text_mistake,) if content is None else _CHECKS
    if isinstance(content, dict) and _is_own(content):
        raise InvalidJob(_OWN_EVENT, announce=False)
    for check in checks:
        if reason := check(body if content is None else content):
            raise InvalidJob(reason)


def _is_own(content: dict[str, Any]) -> bool:
    """Whether this is a worker's event, or only its detail, as a rule with InputPath sends it."""
    if _is_event(content):
        return content["source"] == SOURCE and str(content["detail-type"]).startswith("FluxImage")
    return {"id", "bucket", "sidecar"} <= content.keys() and ("keys" in content or "reason" in content)


def _s3_event(content: Any) -> str | None:
    if not isinstance(content, dict):
        return None
    records = content.get("Records")
    if isinstance(records, list) and records and isinstance(records[0], dict):
        source = records[0].get("eventSource", records[0].get("EventSource"))
        if isinstance(source, str):
            name = "an S3 event notification" if source == "aws:s3" else f"a list of {_shown(source)} records"
            return f"this is {name}, not a job: take this queue out of what sends it, and send jobs instead"
    if content.get("Event") == "s3:TestEvent":
        return "this is S3's test event, not a job: remove this queue from the bucket's event notifications"
    if _is_event(content) and content["source"] == "aws.s3":
        return "this is an S3 event of EventBridge, not a job: remove this queue from the rule's targets"
    return None


def _sns_other(content: Any) -> str | None:
    if isinstance(content, dict) and content.get("Type") in (
        "SubscriptionConfirmation",
        "UnsubscribeConfirmation",
    ):
        return (
            f"this is a {content['Type']} of SNS, not a job: confirm the subscription with its token "
            "(`aws sns confirm-subscription`), or remove it"
        )
    return None


def _celery(content: Any) -> str | None:
    if isinstance(content, dict) and "body" in content and {"properties", "headers"} <= content.keys():
        return _CELERY
    return None


def _listed(content: Any) -> str | None:
    if not isinstance(content, list):
        return None
    if len(content) == 2 and isinstance(content[0], str) and content[0].endswith("S3Pointer"):
        return _POINTER
    if content and all(isinstance(item, dict) for item in content):
        return "this is a list of objects, not a job: send each job as a message of its own"
    return None


def _encoded_twice(content: Any) -> str | None:
    if isinstance(content, str) and isinstance(_read(content), dict | list):
        return "this is JSON within a JSON string: encode the job once, not twice"
    return None


_CHECKS = (_s3_event, _sns_other, _celery, _listed, _encoded_twice)


def _text_mistake(body: str) -> str | None:
    """The mistake behind a body that is not JSON, if it is a known one."""
    if body.startswith("\ufeff"):
        return "the message begins with a byte order mark: write the job as UTF-8 without one"
    if re.match(r"fileb?://", body):
        return f"this is a file's name ({_shown(body)}), not its content: send the file's content"
    if re.match(r"(id|prompt|Action|MessageBody)=|%7B", body, re.IGNORECASE):
        return "this is form-encoded, not a job: send the job as JSON"
    return _base64(body) if _BASE64.fullmatch(body) else None


def _base64(body: str) -> str | None:
    try:
        data = base64.b64decode(body.strip(), altchars=b"-_" if re.search("[-_]", body) else None)
    except ValueError:
        return None
    if data.startswith(b"\x1f\x8b"):
        return "this is gzip in base64: send the job's JSON as it is"
    content = _read(data.decode(errors="replace"))
    if not isinstance(content, dict | list):
        return None
    return _celery(content) or "this is JSON in base64: send the job's JSON as it is"


def _shown(text: str) -> str:
    """The start of a text from outside, safe to log."""
    return ascii(text[:_SHOWN_CHARACTERS])[1:-1]
