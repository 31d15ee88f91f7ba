"""What AWS answered, in one line that a person understands: which call, on what, and AWS's own words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from ..host import logs

DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "Forbidden", "403"}
DENIED |= {
    "UnauthorizedOperation",
    "KMS.AccessDeniedException",
    "KmsAccessDenied",
    "AuthorizationErrorException",
}
"""Nobody gave the role this right. Credentials that are wrong or have expired are another matter."""
NOT_THERE = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NoSuchBucket"}
NOT_THERE |= {"ResourceNotFoundException"}
"""The place itself is missing."""
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
# All that never got as far as an answer.
_UNREACHABLE = (exceptions.HTTPClientError, exceptions.EndpointConnectionError)
_ANSWERS = {
    "s3": {"PreconditionFailed", "412", "NoSuchKey", "NotFound", "404"},
    "sqs": {"ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight"},
}
_OPTIONAL = {"sqs:GetQueueAttributes", "events:DescribeEventBus"}
_NAMES = {"sqs": "SQS", "s3": "S3", "events": "EventBridge", "sts": "STS", "iam": "IAM"}
_ACTIONS = {"HeadBucket": "ListBucket", "HeadObject": "GetObject", "ListObjectsV2": "ListBucket"}
_MARK = "flux_call"
_LONGEST = 600


@dataclass(frozen=True)
class Call:
    """One call to AWS: `service` as IAM writes it, the operation's name, and what it is done to, in words."""

    service: str = ""
    operation: str = ""
    place: str = ""

    @property
    def action(self) -> str:
        """As a policy names it, such as `s3:ListBucket`."""
        name = _ACTIONS.get(self.operation, self.operation) if self.service == "s3" else self.operation
        return f"{self.service}:{name}" if self.service else name

    @classmethod
    def of(cls, service: str, operation: str, parameters: dict[str, Any]) -> Call:
        """From the parameters that a client is given."""
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


def mark(error: BaseException | dict[str, Any], call: Call) -> None:
    """Write down in an exception, or in an answer that becomes one, which call it came of."""
    if isinstance(error, dict):
        error[_MARK] = call
    else:
        setattr(error, _MARK, call)


def call_of(error: BaseException) -> Call:
    """The call that failed; as far as botocore tells where it was not marked."""
    if isinstance(error, ClientError):
        known: dict[str, Any] = {**error.response}
        return known.get(_MARK) or Call(_service_of(error.operation_name), error.operation_name)
    return getattr(error, _MARK, None) or Call()


def _service_of(operation: str) -> str:
    """Of the operations that a worker uses; for clients that nobody watches."""
    if operation in ("PutEvents", "DescribeEventBus"):
        return "events"
    return "s3" if operation.endswith(("Object", "Bucket")) else "sqs"


def code_of(error: BaseException) -> str:
    """AWS's short name for an error; empty where there was no answer."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def failed(call: Call, code: str) -> bool:
    """Whether an answer with this code is a failure, and not just a no: absent, changed, not to be asked."""
    if call.action in _OPTIONAL and code in DENIED:
        return False
    return code not in _ANSWERS.get(call.service, set())


def denied_action(error: BaseException) -> str | None:
    """The right that is missing, as AWS says where it does, such as kms:Decrypt; None: another error."""
    if code_of(error) not in DENIED:
        return None
    named = re.search(r"perform: ([a-z0-9-]+:[A-Za-z]+)", str(error))
    action = call_of(error).action
    return action if not named or named[1].lower() == action.lower() else named[1]


def denied_on(error: BaseException) -> str | None:
    """The ARN that AWS names with a right that is missing."""
    named = re.search(r"on resource: \"?(arn:[^\s\"]+)", str(error))
    return named[1] if named else None


def described(error: BaseException) -> str:
    """An error of botocore's as one line, without secrets."""
    call = call_of(error)
    text = _answered(call, error) if isinstance(error, ClientError) else _unanswered(call, error)
    line = " ".join(logs.concealed(text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _answered(call: Call, error: ClientError) -> str:
    code = code_of(error)
    said = f"({code}): {error.response.get('Error', {}).get('Message') or 'no message'}"
    name, action = _NAMES.get(call.service, "AWS"), call.action
    on = f" on {call.place}" if call.place else ""
    if code in DENIED:
        return f"{name} refuses {action}{on} {said}"
    if code in NOT_THERE:
        bucket = call.place.removeprefix("s3://").partition("/")[0]
        place = f"the bucket {bucket}" if call.place.startswith("s3://") else call.place
        return f"{place or 'what was asked for'} does not exist, says {name} to {action} {said}"
    if code in _EXPIRED:
        return f"the credentials have expired, says {name} to {action}{on} {said}"
    if code in UNKNOWN_CREDENTIALS:
        return f"{name} does not take these credentials for {action}{on} {said}"
    return f"{name} answers {action}{on} with an error {said}"


def _unanswered(call: Call, error: BaseException) -> str:
    what = call.action or "the call"
    what += f" on {call.place}" if call.place else ""
    if isinstance(error, NO_CREDENTIALS):
        return f"no credentials for {what}: {error}"
    if isinstance(error, _UNREACHABLE):
        parts = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url", "")))
        endpoint = f"{parts.scheme}://{parts.netloc}" if parts.netloc else _NAMES.get(call.service, "AWS")
        return f"{endpoint} cannot be reached for {what}: {error}"
    if isinstance(error, ResponseParserError):
        return f"what answers {what} is not {_NAMES.get(call.service, 'AWS')}: {error}"
    return f"{what} failed: {error}"
