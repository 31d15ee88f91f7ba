"""The errors with which AWS refuses a call, by reason and service, in one table.

The codes are those of the services' lists of common errors and of what they answer in practice:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html,
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html,
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html.
"""

from __future__ import annotations

import secrets
from typing import Literal

from bake.localcloud.api.faults.calls import Call
from bake.localcloud.api.faults.errors import AwsError

Kind = Literal[
    "unsigned",  # no signature at all
    "unknown",  # an unknown key
    "token",  # a session token that is not the key's
    "wrong",  # a signature that does not match
    "skewed",  # signed too long ago, or in the future
    "late",  # an expired presigned URL
    "expired",  # an expired session
    "malformed",  # a malformed signature
    "scope",  # signed for another service
    "legacy",  # signature version 2
    "body",  # a body that does not match the signed hash
    "request",  # a request that no AWS client sends
    "lacking",  # not supported by the local cloud
    "denied",  # not allowed to this caller
    "failed",  # an error of the local cloud itself
]

_CHECK = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
    "Access Key and signing method. Consult the service documentation for details."
)
_S3_CHECK = (
    "The request signature we calculated does not match the signature you provided. Check your key and "
    "signing method."
)
_VALIDATE = "AWS was not able to validate the provided access credentials"
_MISSING = "Request is missing Authentication Token"
_INVALID = "The security token included in the request is invalid."
_EXPIRED = "The security token included in the request is expired"
_V4 = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
_FAILED = "An internal error has occurred"
_NOT_AUTHORIZED = "You are not authorized to perform this operation."
# EC2 repeats in it, encrypted for sts:DecodeAuthorizationMessage, what the message says before.
_ENCODED = ". Encoded authorization failure message: [encoded]"
_SHA256 = "The provided 'x-amz-content-sha256' header does not match what was computed."

# Rows: the kinds above; `{}` is the text of the refusal. Columns: EC2, S3, then the protocols of the other
# services: the query protocol (iam, sts), SQS, and JSON.
_TABLE: dict[Kind, tuple[AwsError, AwsError, AwsError, AwsError, AwsError]] = {
    "unsigned": (
        AwsError("AuthFailure", _VALIDATE, 401),
        AwsError("AccessDenied", "Access Denied", 403),
        AwsError("MissingAuthenticationToken", _MISSING, 403),
        AwsError("MissingAuthenticationTokenException", _MISSING, 403),
        AwsError("MissingAuthenticationTokenException", _MISSING),
    ),
    "unknown": (
        AwsError("AuthFailure", _VALIDATE, 401),
        AwsError(
            "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", 403
        ),
        AwsError("InvalidClientTokenId", _INVALID, 403),
        AwsError("InvalidClientTokenId", _INVALID, 403),
        AwsError("UnrecognizedClientException", _INVALID),
    ),
    "token": (
        AwsError("AuthFailure", _VALIDATE, 401),
        AwsError("InvalidToken", "The provided token is malformed or otherwise invalid."),
        AwsError("InvalidClientTokenId", _INVALID, 403),
        AwsError("InvalidClientTokenId", _INVALID, 403),
        AwsError("UnrecognizedClientException", _INVALID),
    ),
    "wrong": (
        AwsError("SignatureDoesNotMatch", _CHECK, 403),
        AwsError("SignatureDoesNotMatch", _S3_CHECK, 403),
        AwsError("SignatureDoesNotMatch", _CHECK, 403),
        AwsError("InvalidSignatureException", _CHECK, 403),
        AwsError("InvalidSignatureException", _CHECK),
    ),
    "skewed": (
        AwsError("RequestExpired", "Request has expired."),
        AwsError(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            403,
        ),
        AwsError("SignatureDoesNotMatch", "{}", 403),
        AwsError("InvalidSignatureException", "{}", 403),
        AwsError("InvalidSignatureException", "{}"),
    ),
    "late": (
        AwsError("RequestExpired", "Request has expired."),
        AwsError("AccessDenied", "Request has expired", 403),
        AwsError("SignatureDoesNotMatch", "{}", 403),
        AwsError("InvalidSignatureException", "{}", 403),
        AwsError("InvalidSignatureException", "{}"),
    ),
    "expired": (
        AwsError("RequestExpired", "Request has expired."),
        AwsError("ExpiredToken", "The provided token has expired."),
        AwsError("ExpiredToken", _EXPIRED, 403),
        AwsError("ExpiredTokenException", _EXPIRED, 403),
        AwsError("ExpiredTokenException", _EXPIRED),
    ),
    "malformed": (
        AwsError("IncompleteSignature", "{}"),
        AwsError("AuthorizationHeaderMalformed", "The authorization header is malformed; {}"),
        AwsError("IncompleteSignature", "{}"),
        AwsError("IncompleteSignature", "{}"),
        AwsError("IncompleteSignatureException", "{}"),
    ),
    "scope": (
        AwsError("AuthFailure", _VALIDATE, 401),
        AwsError("AuthorizationHeaderMalformed", "The authorization header is malformed; {}"),
        AwsError("SignatureDoesNotMatch", "{}", 403),
        AwsError("InvalidSignatureException", "{}", 403),
        AwsError("InvalidSignatureException", "{}"),
    ),
    "legacy": (
        AwsError("InvalidRequest", _V4),
        AwsError("InvalidRequest", _V4),
        AwsError("IncompleteSignature", _V4),
        AwsError("IncompleteSignature", _V4),
        AwsError("IncompleteSignatureException", _V4),
    ),
    "body": (
        AwsError("SignatureDoesNotMatch", _CHECK, 403),
        AwsError("XAmzContentSHA256Mismatch", _SHA256),
        AwsError("SignatureDoesNotMatch", _CHECK, 403),
        AwsError("InvalidSignatureException", _CHECK, 403),
        AwsError("InvalidSignatureException", _CHECK),
    ),
    "request": (
        AwsError("InvalidParameterCombination", "{}"),
        AwsError("InvalidRequest", "{}"),
        AwsError("MalformedQueryString", "{}"),
        AwsError("InvalidParameterCombination", "{}"),
        AwsError("SerializationException", "{}"),
    ),
    "lacking": (
        AwsError("UnsupportedOperation", "Not in the local cloud: {}"),
        AwsError("NotImplemented", "Not in the local cloud: {}"),
        AwsError("UnsupportedOperation", "Not in the local cloud: {}"),
        AwsError("UnsupportedOperation", "Not in the local cloud: {}"),
        AwsError("UnsupportedOperation", "Not in the local cloud: {}"),
    ),
    "denied": (
        AwsError("UnauthorizedOperation", f"{_NOT_AUTHORIZED} {{}}{_ENCODED}", 403),
        AwsError("AccessDenied", "{}", 403),
        AwsError("AccessDenied", "{}", 403),
        AwsError("AccessDenied", "{}", 403),
        AwsError("AccessDeniedException", "{}"),
    ),
    "failed": (
        AwsError("InternalError", _FAILED, 500),
        AwsError("InternalError", _FAILED, 500),
        AwsError("InternalFailure", _FAILED, 500),
        AwsError("InternalFailure", _FAILED, 500),
        AwsError("InternalFailure", _FAILED, 500),
    ),
}


class Refused(Exception):
    """A refused call: `kind` is a row of the table, `text` fills the `{}` of its messages."""

    def __init__(self, kind: Kind, text: str = "", *, error: AwsError | None = None) -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text
        self._error = error

    def error(self, call: Call) -> AwsError:
        """The error that the call's service answers."""
        if self._error is not None and call.protocol == "s3":
            return self._error
        row = _TABLE[self.kind][_column(call)]
        message = row.message.replace("{}", self.text)
        if "[encoded]" in message:
            message = message.replace("[encoded]", secrets.token_urlsafe(330))
        return AwsError(row.code, message, row.status)


def _column(call: Call) -> int:
    if call.protocol in {"ec2", "s3"}:
        return 0 if call.protocol == "ec2" else 1
    if call.protocol in {"query", "rest-xml"}:
        return 2
    return 3 if call.service == "sqs" else 4
