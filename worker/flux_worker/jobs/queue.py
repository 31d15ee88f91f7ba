"""The SQS queue: receive one message, keep it hidden, return or delete it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from ..aws.errors import DENIED, describe

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import ReceiveMessageResultTypeDef

log = logging.getLogger(__name__)

# botocore raises ResponseParserError for answers that are not AWS's, such as a proxy's page.
AWS_ERRORS = (BotoCoreError, ClientError, ResponseParserError)
_MAX_VISIBILITY_SECONDS = 43_200
_NOT_OURS = {
    "ReceiptHandleIsInvalid",
    "InvalidParameterValue",
    "MessageNotInflight",
    "AWS.SimpleQueueService.MessageNotInflight",
}
"""SQS's answers for an expired receipt or a deleted message."""


@dataclass(frozen=True)
class Message:
    """A received message: its body, SQS's receipt, how often it was received including this time, and the
    seconds between sending and receiving it, by SQS's clock."""

    body: str
    receipt: str
    receives: int = 1
    lag_seconds: float | None = None


@dataclass
class JobQueue:
    """An SQS queue; an undeleted message comes back `visibility_seconds` after the last renewal."""

    sqs: SQSClient
    url: str
    visibility_seconds: int
    polling: SQSClient | None = None
    """A client whose timeout is longer than a long poll; None: use `sqs`."""
    received: Message | None = field(default=None, init=False)
    """The result of the last `receive`, even if it was interrupted before it could return."""

    def receive(self, wait_seconds: int) -> Message | None:
        """Wait for one message; the rest is left for other workers."""
        self.received = None
        answer = (self.polling or self.sqs).receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=1,
            WaitTimeSeconds=wait_seconds,
            VisibilityTimeout=self.visibility_seconds,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        self.received = _message(answer)
        return self.received

    def extend_visibility(self, message: Message) -> bool:
        """Hide the message for `visibility_seconds` from now; False if this worker lost it."""
        return self._set_visibility(message, self.visibility_seconds)

    def return_message(self, message: Message, after_seconds: float = 0) -> None:
        """Make the message visible now or after some seconds; if the call fails, it comes back by itself."""
        try:
            self._set_visibility(message, min(round(after_seconds), _MAX_VISIBILITY_SECONDS))
        except AWS_ERRORS as error:
            log.warning("cannot return the message, it comes back by itself: %s", describe(error))

    def _set_visibility(self, message: Message, seconds: int) -> bool:
        try:
            self.sqs.change_message_visibility(
                QueueUrl=self.url, ReceiptHandle=message.receipt, VisibilityTimeout=seconds
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in _NOT_OURS:
                raise
            return False
        return True

    def delete(self, message: Message) -> None:
        """Delete the message, once S3 and EventBridge have the result. An expired receipt deletes nothing."""
        try:
            self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message.receipt)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _NOT_OURS:
                raise
            log.info("this worker no longer held the message: if it comes back, it is announced again")

    def max_receives(self) -> int | None:
        """How often a message is received before SQS moves it to the dead-letter queue.

        0 if the queue has none, None if the worker may not ask. Raises botocore's other errors.
        """
        try:
            answer = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["RedrivePolicy"])
        except ClientError as error:
            if error.response["Error"]["Code"] not in DENIED:
                raise
            log.info("cannot read the queue's redrive policy: %s", describe(error))
            return None
        policy = answer.get("Attributes", {}).get("RedrivePolicy", "{}")
        return int(json.loads(policy).get("maxReceiveCount", 0))


def _message(answer: ReceiveMessageResultTypeDef) -> Message | None:
    for message in answer.get("Messages", []):
        known = message.get("Attributes", {})
        lag = None
        if sent := known.get("SentTimestamp"):
            now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
            lag = max(0.0, now.timestamp() - int(sent) / 1000)
        receives = int(known.get("ApproximateReceiveCount", 1))
        return Message(message["Body"], message["ReceiptHandle"], receives, lag)
    return None
