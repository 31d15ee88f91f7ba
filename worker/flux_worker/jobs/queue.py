"""The queue of jobs: receive one, keep it hidden while it is worked on, delete it when all is done."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from ..aws.errors import DENIED, described

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import ReceiveMessageResultTypeDef

log = logging.getLogger(__name__)

# What is no answer of AWS's, such as a proxy's page, is no error of botocore's own kinds.
AWS_ERRORS = (BotoCoreError, ClientError, ResponseParserError)
_MAX_VISIBILITY_SECONDS = 43_200
_NOT_OURS = {
    "ReceiptHandleIsInvalid",
    "InvalidParameterValue",
    "MessageNotInflight",
    "AWS.SimpleQueueService.MessageNotInflight",
}
"""What SQS answers about a receipt that expired, or a message that is gone."""


@dataclass(frozen=True)
class Message:
    """A message in hand: its body, the receipt that SQS wants back, how often it was received, this time too,
    and the seconds between sending and receiving it (by SQS's own clock)."""

    body: str
    receipt: str
    receives: int = 1
    lag_seconds: float | None = None


@dataclass
class JobQueue:
    """One SQS queue; an undeleted message comes back `visibility_seconds` after the last sign of life."""

    sqs: SQSClient
    url: str
    visibility_seconds: int
    polling: SQSClient | None = None
    """A client that waits long enough for a long poll; None: `sqs` does."""
    arrived: Message | None = field(default=None, init=False)
    """What the last `receive` brought, also where it was interrupted before it could return it."""

    def receive(self, wait_seconds: int) -> Message | None:
        """Wait for a message; at most one, so that other workers get the rest."""
        self.arrived = None
        answer = (self.polling or self.sqs).receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=1,
            WaitTimeSeconds=wait_seconds,
            VisibilityTimeout=self.visibility_seconds,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        self.arrived = _message(answer)
        return self.arrived

    def keep(self, message: Message) -> bool:
        """Hide the message for `visibility_seconds` from now on; False where it is not this worker's."""
        return self._hide(message, self.visibility_seconds)

    def give_back(self, message: Message, after_seconds: float = 0) -> None:
        """Let the message be received again, at once or later; where that fails, it comes back by itself."""
        try:
            self._hide(message, min(round(after_seconds), _MAX_VISIBILITY_SECONDS))
        except AWS_ERRORS as error:
            log.warning("cannot give the message back, it comes back by itself: %s", described(error))

    def _hide(self, message: Message, seconds: int) -> bool:
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
        """Only after S3 and EventBridge took the result. A receipt that expired deletes nothing."""
        try:
            self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message.receipt)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _NOT_OURS:
                raise
            log.info("the message was not this worker's any more: if it comes back, it is announced again")

    def max_receives(self) -> int | None:
        """How often a message is received before it goes to the dead-letter queue.

        0 where the queue has none, None where the worker may not ask. Raises what botocore raises else.
        """
        try:
            answer = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["RedrivePolicy"])
        except ClientError as error:
            if error.response["Error"]["Code"] not in DENIED:
                raise
            log.info("cannot ask for the queue's dead-letter queue: %s", described(error))
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
