"""The queue of jobs: receive one, keep it hidden while it is worked on, delete it when all is done."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = logging.getLogger(__name__)

AWS_ERRORS = (BotoCoreError, ClientError)


@dataclass(frozen=True)
class Message:
    """A message in hand: its body and the receipt that SQS wants back."""

    body: str
    receipt: str


@dataclass(frozen=True)
class JobQueue:
    """One SQS queue; an undeleted message comes back `visibility_seconds` after the last sign of life."""

    sqs: SQSClient
    url: str
    visibility_seconds: int

    def receive(self, wait_seconds: int) -> Message | None:
        """Wait for a message; at most one, so that other workers get the rest."""
        answer = self.sqs.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=1,
            WaitTimeSeconds=wait_seconds,
            VisibilityTimeout=self.visibility_seconds,
        )
        for message in answer.get("Messages", []):
            return Message(message["Body"], message["ReceiptHandle"])
        return None

    def delete(self, message: Message) -> None:
        """Only after S3 and EventBridge took the result."""
        self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message.receipt)

    @contextlib.contextmanager
    def hidden(self, message: Message) -> Iterator[None]:
        """Keep the message hidden from other workers for as long as the block runs."""
        done = threading.Event()
        context = contextvars.copy_context()  # carries the job's id into the thread's log lines
        keeper = threading.Thread(target=context.run, args=(self._extend, message, done), daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()

    def _extend(self, message: Message, done: threading.Event) -> None:
        while not done.wait(self.visibility_seconds / 3):
            try:
                self.sqs.change_message_visibility(
                    QueueUrl=self.url,
                    ReceiptHandle=message.receipt,
                    VisibilityTimeout=self.visibility_seconds,
                )
            except AWS_ERRORS as error:
                log.warning("cannot extend the message's visibility: %s", error)
