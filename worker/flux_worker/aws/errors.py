"""Describe AWS's errors in one line: the call, its target, and AWS's own words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from .. import redaction

DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "Forbidden", "403"}
DENIED |= {
    "UnauthorizedOperation",
    "KMS.AccessDeniedException",
    "KmsAccessDenied",
    "AuthorizationErrorException",
}
"""The role lacks this permission. Wrong or expired credentials have other codes."""
NOT_THERE = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NoSuchBucket"}
NOT_THERE |= {"ResourceNotFoundException"}
"""The queue, bucket or bus does not exist."""
UNKNOWN_CREDENTIALS = {"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"}
UNKNOWN_CREDENTIALS |= {"SignatureDoesNotMatch", "InvalidSignatureException", "InvalidToken"}
UNKNOWN_CREDENTIALS |= {"AuthFailure", "IncompleteSignature", "MissingAuthenticationToken"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
NO_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.ConfigNotFound,
    exceptions.ProfileNotFound,
)
# Errors without an answer from AWS.
_UNREACHABLE = (exceptions.HTTPClientError, exceptions.EndpointConnectionError)
_EXPECTED_CODES = {
    "s3": {"PreconditionFailed", "412", "NoSuchKey", "NotFound", "404"},
    "sqs": {"ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight"},
}
_OPTIONAL = {"sqs:GetQueueAttributes", "events:DescribeEventBus"}
_NAMES = {"sqs": "SQS", "s3": "S3", "events": "EventBridge", "sts": "STS", "iam": "IAM"}
_ACTIONS = {"HeadBucket": "ListBucket", "HeadObject": "GetObject", "ListObjectsV2": "ListBucket"}
_TAG = "flux_call"
_LONGEST = 600


@dataclass(frozen=True)
class Call:
    """A call to AWS: the service as IAM writes it, the operation, and its target in words."""

    service: str = ""
    operation: str = ""
    place: str = ""

    @property
    def action(self) -> str:
        """The action as a policy names it, such as `s3:ListBucket`."""
        name = _ACTIONS.get(self.operation, self.operation) if self.service == "s3" else self.operation
        return f"{self.service}:{name}" if self.service else name

    @classmethod
    def of(cls, service: str, operation: str, parameters: dict[str, Any]) -> Call:
        """The call with these parameters."""
        return cls(service, operation, _place(operation, parameters))


def _place(operation: str, parameters: dict[str, Any]) -> str:
    if url := parameters.get("QueueUrl"):
        return f"the queue {url}"
    if bucket := parameters.get("Bucket"):
        key = parameters.get("Key")
        return f"s3://{bucket}/{key}" if key else f"the bucket {bucket}"
    entries = parameters.get("Entries")
    if operation == "PutEvents" and isinstance(entries, list) and entries:
        return f"the event bus {entries[0].get('EventBusName', 'default')}"
    return f"the event bus {parameters.get('Name')}" if operation == "DescribeEventBus" else ""


def tag(error: BaseException | dict[str, Any], call: Call) -> None:
    """Note the call in its exception, or in the answer that becomes one."""
    if isinstance(error, dict):
        error[_TAG] = call
    else:
        setattr(error, _TAG, call)


def failed_call(error: BaseException) -> Call:
    """The call that raised this error; as far as botocore tells if it is not tagged."""
    if isinstance(error, ClientError):
        known: dict[str, Any] = {**error.response}
        return known.get(_TAG) or Call(_service_of(error.operation_name), error.operation_name)
    return getattr(error, _TAG, None) or Call()


def _service_of(operation: str) -> str:
    """The service of an operation that a worker uses; for clients without an observer."""
    if operation in ("PutEvents", "DescribeEventBus"):
        return "events"
    return "s3" if operation.endswith(("Object", "Bucket")) else "sqs"


def error_code(error: BaseException) -> str:
    """AWS's error code; empty if there was no answer."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def is_failure(call: Call, code: str) -> bool:
    """Whether this code is a failure, not an expected answer such as missing, changed or optional."""
    if call.action in _OPTIONAL and code in DENIED:
        return False
    return code not in _EXPECTED_CODES.get(call.service, set())


def denied_action(error: BaseException) -> str | None:
    """The missing permission, such as kms:Decrypt, in AWS's words if it says; None for other errors."""
    if error_code(error) not in DENIED:
        return None
    named = re.search(r"perform: ([a-z0-9-]+:[A-Za-z]+)", str(error))
    action = failed_call(error).action
    return action if not named or named[1].lower() == action.lower() else named[1]


def denied_resource(error: BaseException) -> str | None:
    """The ARN that AWS names with a missing permission."""
    named = re.search(r"on resource: \"?(arn:[^\s\"]+)", str(error))
    return named[1] if named else None


def describe(error: BaseException) -> str:
    """A botocore error as one line, without secrets."""
    call = failed_call(error)
    text = (
        _describe_answer(call, error) if isinstance(error, ClientError) else _describe_no_answer(call, error)
    )
    line = " ".join(redaction.redact(text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _describe_answer(call: Call, error: ClientError) -> str:
    code = error_code(error)
    said = f"({code}): {error.response.get('Error', {}).get('Message') or 'no message'}"
    name, action = _NAMES.get(call.service, "AWS"), call.action
    on = f" on {call.place}" if call.place else ""
    if code in DENIED:
        return f"{name} refuses {action}{on} {said}"
    if code in NOT_THERE:
        bucket = call.place.removeprefix("s3://").partition("/")[0]
        place = f"the bucket {bucket}" if call.place.startswith("s3://") else call.place
        return f"{place or 'the resource'} does not exist, says {name} to {action} {said}"
    if code in _EXPIRED:
        return f"the credentials have expired, says {name} to {action}{on} {said}"
    if code in UNKNOWN_CREDENTIALS:
        return f"{name} does not accept these credentials for {action}{on} {said}"
    return f"{name} answers {action}{on} with an error {said}"


def _describe_no_answer(call: Call, error: BaseException) -> str:
    what = call.action or "the call"
    what += f" on {call.place}" if call.place else ""
    if isinstance(error, NO_CREDENTIALS):
        return f"no credentials for {what}: {error}"
    if isinstance(error, _UNREACHABLE):
        parts = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url", "")))
        endpoint = f"{parts.scheme}://{parts.netloc}" if parts.netloc else _NAMES.get(call.service, "AWS")
        return f"{endpoint} is not reachable for {what}: {error}"
    if isinstance(error, ResponseParserError):
        return f"the answer to {what} is not from {_NAMES.get(call.service, 'AWS')}: {error}"
    return f"{what} failed: {error}"
