"""Which of AWS's errors are permanent until somebody changes something, and which are transient.

The codes decide, not the HTTP status: throttling, expired credentials, a wrong clock, RequestTimeout and
conflicts are 4xx, too, and transient.
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEventsResultEntry.html
"""

from __future__ import annotations

import re

from botocore.exceptions import ClientError, ParamValidationError

from .errors import NO_CREDENTIALS, error_code

PATIENCE_SECONDS = 300.0
"""An error that is known neither as permanent nor as transient counts as permanent after this time."""

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


def is_permanent(error: Exception, seconds: float) -> bool:
    """Whether retrying is useless, after `seconds` of retries."""
    if isinstance(error, ParamValidationError):  # botocore does not even send such a call
        return True
    if not isinstance(error, ClientError):
        return False
    code = error_code(error)
    if _LASTING.fullmatch(code):
        return True
    return seconds > PATIENCE_SECONDS and not is_transient(error)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later although nobody changes anything but credentials."""
    if not isinstance(error, ClientError):
        return not isinstance(error, (*NO_CREDENTIALS, ParamValidationError))
    code, status = error_code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return (status >= 500 and code != "NotImplemented") or bool(_PASSING.fullmatch(code))
