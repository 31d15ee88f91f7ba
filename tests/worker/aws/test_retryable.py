"""The error's code decides whether it is permanent, whatever the HTTP status."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ParamValidationError

from flux_worker.aws.errors import failed_call
from flux_worker.aws.retryable import PATIENCE_SECONDS, is_permanent, is_transient
from tests.worker.worker_harness import conflict, connection_lost

LASTING = [
    "AccessDenied",
    "AccessDeniedException",
    "AllAccessDisabled",
    "NoSuchBucket",
    "InvalidBucketName",
    "KeyTooLongError",
    "KMS.NotFoundException",
    "KMS.DisabledException",
    "KMS.KMSInvalidStateException",
    "KmsNotFound",
    "KmsAccessDenied",
    "QueueDoesNotExist",
    "AWS.SimpleQueueService.NonExistentQueue",
    "ResourceNotFoundException",
    "NotAuthorizedForSourceException",
]
PASSING = [
    (400, "ThrottlingException"),
    (400, "Throttling"),
    (400, "RequestThrottled"),
    (400, "RequestLimitExceeded"),
    (429, "TooManyRequestsException"),
    (400, "ExpiredToken"),
    (400, "ExpiredTokenException"),
    (403, "RequestExpired"),
    (403, "InvalidClientTokenId"),
    (403, "InvalidAccessKeyId"),
    (403, "UnrecognizedClientException"),
    (403, "SignatureDoesNotMatch"),
    (403, "InvalidSignatureException"),
    (403, "RequestTimeTooSkewed"),
    (400, "RequestTimeout"),
    (409, "ConditionalRequestConflict"),
    (409, "OperationAborted"),
    (412, "PreconditionFailed"),
    (400, "KmsThrottled"),
    (503, "SlowDown"),
    (500, "InternalError"),
    (500, "SomethingUnheardOf"),
]


def answered(code: str, status: int, operation: str = "PutObject") -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


@pytest.mark.parametrize("status", [400, 403, 404, 200])
@pytest.mark.parametrize("code", LASTING)
def test_these_last(code: str, status: int) -> None:
    assert is_permanent(answered(code, status), 0)
    assert not is_transient(answered(code, status))


@pytest.mark.parametrize(("status", "code"), PASSING, ids=[code for _, code in PASSING])
def test_these_pass_however_long_it_takes(status: int, code: str) -> None:
    assert not is_permanent(answered(code, status), 0)
    assert not is_permanent(answered(code, status), 100 * PATIENCE_SECONDS)
    assert is_transient(answered(code, status))


@pytest.mark.parametrize("error", [connection_lost(), NoCredentialsError(), conflict()], ids=repr)
def test_no_answer_and_no_credentials_pass(error: Exception) -> None:
    assert not is_permanent(error, 100 * PATIENCE_SECONDS)


def test_an_answer_that_nobody_knows_is_given_some_minutes() -> None:
    assert not is_permanent(answered("SomethingUnheardOf", 400), PATIENCE_SECONDS - 1)
    assert is_permanent(answered("SomethingUnheardOf", 400), PATIENCE_SECONDS + 1)


def test_a_call_that_is_never_sent_lasts() -> None:
    s3 = boto3.client("s3", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
    with pytest.raises(ParamValidationError) as raised:
        s3.put_object(Bucket="no bucket!", Key="a")
    assert is_permanent(raised.value, 0)


def test_a_call_is_named_as_policies_name_it() -> None:
    for name in ("s3:PutObject", "sqs:ReceiveMessage", "events:PutEvents"):
        assert failed_call(answered("AccessDenied", 403, name.partition(":")[2])).action == name
