"""AWS's errors as each of its services writes them."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

from bake.localcloud.api.faults.calls import Call
from bake.localcloud.api.faults.operations import modelled_errors

# Codes whose HTTP status botocore's models leave out.
_STATUS = {
    "AccessDenied": 403,
    "AuthFailure": 401,
    "InsufficientHostCapacity": 500,
    "InsufficientInstanceCapacity": 500,
    "InternalError": 500,
    "InternalFailure": 500,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchUpload": 404,
    "RequestLimitExceeded": 503,
    "ServiceUnavailable": 503,
    "SlowDown": 503,
    "Unavailable": 503,
    "UnauthorizedOperation": 403,
}
# JSON services whose clients still expect the codes of the query protocol.
_QUERY_COMPATIBLE = {"sqs", "monitoring"}
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html#API_SendMessage_Errors
_SQS = {
    "AWS.SimpleQueueService.NonExistentQueue": "QueueDoesNotExist",
    "AWS.SimpleQueueService.QueueDeletedRecently": "QueueDeletedRecently",
}


@dataclass(frozen=True)
class AwsError:
    """A code, its message and the HTTP status that it comes with."""

    code: str
    message: str
    status: int = 400


_DENIED = "You are not authorized to perform this operation."
_TOKEN = "The security token included in the request is expired"  # noqa: S105
_RATE = "Rate exceeded"
_INTERNAL = "We encountered an internal error. Please try again."
# Looked up by service, then by protocol, then for all.
_USUAL: dict[str, dict[str, AwsError]] = {
    "refuse": {
        "ec2": AwsError("UnauthorizedOperation", _DENIED, 403),
        "s3": AwsError("AccessDenied", "Access Denied", 403),
        "sqs": AwsError("AccessDenied", _DENIED, 403),
        "query": AwsError("AccessDenied", _DENIED, 403),
        "rest-json": AwsError("AccessDeniedException", _DENIED, 403),
        "*": AwsError("AccessDeniedException", _DENIED),
    },
    "throttle": {
        "ec2": AwsError("RequestLimitExceeded", "Request limit exceeded.", 503),
        "s3": AwsError("SlowDown", "Please reduce your request rate.", 503),
        "query": AwsError("Throttling", _RATE),
        "rest-json": AwsError("ThrottlingException", _RATE, 429),
        "*": AwsError("ThrottlingException", _RATE),
    },
    "error": {"*": AwsError("InternalError", _INTERNAL, 500)},
    "expired": {
        "ec2": AwsError("RequestExpired", "Request has expired."),
        "s3": AwsError("ExpiredToken", "The provided token has expired."),
        "query": AwsError("ExpiredToken", _TOKEN, 403),
        "rest-json": AwsError("ExpiredTokenException", _TOKEN, 403),
        "*": AwsError("ExpiredTokenException", _TOKEN),
    },
}


def usual(kind: str, call: Call) -> AwsError:
    """The usual AWS error for a kind of fault: refused, throttled, failed, expired or without capacity."""
    if kind == "capacity":
        return _no_capacity(call)
    by_protocol = _USUAL[kind]
    return by_protocol.get(call.service) or by_protocol.get(call.protocol) or by_protocol["*"]


def status_of(call: Call, code: str) -> int:
    """The HTTP status that a code of this call's service comes with."""
    if call.service != "ec2" and (error := modelled_errors(call.service).get(code)) and error.status:
        return error.status
    return _STATUS.get(code, 400)


def answer(call: Call, error: AwsError, content_type: str = "") -> Response:
    """The error in the protocol of the call; `content_type` is the request's."""
    request = str(uuid.uuid4())
    headers = {"x-amzn-RequestId": request}
    if call.protocol in {"json", "cbor"}:
        name = _exception(call, error)
        if call.service in _QUERY_COMPATIBLE:
            headers["x-amzn-query-error"] = f"{error.code};{_side(error)}"
        if call.protocol == "cbor":
            headers["smithy-protocol"] = "rpc-v2-cbor"
            body: str | bytes = _cbor({"__type": name, "message": error.message})
            return Response(body, error.status, headers, content_type="application/cbor")
        body = json.dumps({"__type": name, "message": error.message})
        return Response(
            body, error.status, headers, content_type=content_type or "application/x-amz-json-1.0"
        )
    if call.protocol == "rest-json":
        headers["x-amzn-ErrorType"] = error.code
        body = json.dumps({"message": error.message})
        return Response(body, error.status, headers, content_type="application/json")
    if call.protocol == "s3":
        headers = {"x-amz-request-id": request}
    return Response(_xml(call, error, request), error.status, headers, content_type="text/xml")


def _xml(call: Call, error: AwsError, request: str) -> str:
    told = f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
    if call.protocol == "ec2":
        body = f"<Response><Errors><Error>{told}</Error></Errors><RequestID>{request}</RequestID></Response>"
    elif call.protocol == "s3":
        body = f"<Error>{told}<RequestId>{request}</RequestId></Error>"
    else:
        told = f"<Type>{_side(error)}</Type>{told}"
        body = f"<ErrorResponse><Error>{told}</Error><RequestId>{request}</RequestId></ErrorResponse>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'


def _exception(call: Call, error: AwsError) -> str:
    """The exception that JSON names for a code."""
    if call.service == "sqs" and error.code in _SQS:
        return _SQS[error.code]
    modelled = modelled_errors(call.service).get(error.code)
    return modelled.name if modelled else error.code


def _side(error: AwsError) -> str:
    return "Receiver" if error.status >= 500 else "Sender"


def _cbor(content: dict[str, str]) -> bytes:
    """A map of texts in CBOR (RFC 8949): 23 entries and 64 KiB a text at most."""
    encoded = bytes([0xA0 | len(content)])
    for pair in content.items():
        for text in pair:
            data = text.encode()
            encoded += b"\x79" + len(data).to_bytes(2, "big") + data
    return encoded


def _no_capacity(call: Call) -> AwsError:
    """EC2 answers 500, which SDKs retry."""
    instance_type = call.parameters.get("InstanceType", "")
    zone = call.parameters.get("Placement.AvailabilityZone", "")
    where = f"the Availability Zone you requested ({zone})" if zone else "the Availability Zone you requested"
    message = f"We currently do not have sufficient {instance_type} capacity in {where}."
    return AwsError("InsufficientInstanceCapacity", message.replace("  ", " "), 500)
