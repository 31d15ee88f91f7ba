"""Which of AWS's errors last until somebody changes something.

Told by their codes, and never by the HTTP status: throttling, expired credentials, a clock that is wrong,
RequestTimeout and conflicts are answered with 4xx, too, and pass.
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEventsResultEntry.html
"""

from __future__ import annotations

import re

from botocore.exceptions import ClientError, ParamValidationError

from .errors import NO_CREDENTIALS, code_of

PATIENCE_SECONDS = 300.0
"""An answer that is known neither to last nor to pass is taken for one that lasts after so long."""

_LASTING = re.compile(
    r"""
    AccessDenied(Exception)? | AllAccessDisabled | AccountProblem | UnauthorizedOperation | NotAuthorized.*
    | NotSignedUp | OptInRequired | SubscriptionRequired(Exception)? | InvalidPayer | InvalidSecurity
    | NoSuchBucket | NoSuchAccessPoint | InvalidBucketName | InvalidBucketState | PermanentRedirect
    | IllegalLocationConstraintException | MethodNotAllowed | KeyTooLongError | InvalidObjectState
    | InvalidEncryptionAlgorithmError | InvalidStorageClass | EntityTooLarge
    | (AWS\.SimpleQueueService\.)?NonExistentQueue | QueueDoesNotExist | InvalidAddress
    | (AWS\.SimpleQueueService\.)?UnsupportedOperation
    | Kms(AccessDenied|Disabled|InvalidKeyUsage|InvalidState|NotFound|OptInRequired)
    | KMS\.(AccessDenied|Disabled|NotFound|InvalidKeyUsage|(KMS)?InvalidState|OptInRequired)(Exception)?
    | ResourceNotFoundException | InvalidAccountIdException | InvalidArgument | MalformedDetail
    """,
    re.VERBOSE,
)
_PASSING = re.compile(
    r"""
    .*(Throttl|Throughput|LimitExceeded|TooManyRequests|SlowDown|BandwidthLimit|Busy|Unavailable|Internal).*
    | .*(Expired|ExpiredToken|TokenRefreshRequired|InvalidToken|SecurityToken|AccessKeyId|ClientToken).*
    | .*(Signature|TimeTooSkewed|RequestInTheFuture|UnrecognizedClient|Credential|AuthenticationToken).*
    | RequestTimeout(Exception)? | OperationAborted | ConditionalRequestConflict | PreconditionFailed
    | KMS\..*(Unavailable|Timeout).* | KMSThrottling.*
    """,
    re.VERBOSE,
)


def lasts(error: Exception, seconds: float) -> bool:
    """Whether trying again is of no use, after `seconds` of trying."""
    if isinstance(error, ParamValidationError):  # botocore itself does not send such a call
        return True
    if not isinstance(error, ClientError):
        return False
    code = code_of(error)
    if _LASTING.fullmatch(code):
        return True
    return seconds > PATIENCE_SECONDS and not passes(error)


def passes(error: BaseException) -> bool:
    """Whether the same call may well succeed later, although nobody changes anything but credentials."""
    if not isinstance(error, ClientError):
        return not isinstance(error, (*NO_CREDENTIALS, ParamValidationError))
    code, status = code_of(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return (status >= 500 and code != "NotImplemented") or bool(_PASSING.fullmatch(code))
