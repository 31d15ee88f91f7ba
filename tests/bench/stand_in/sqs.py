"""SQS by its JSON protocol: long polls, visibility timeouts, receive counts and dead letters."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from .http import Answer, Reply, Request

_JSON = {"Content-Type": "application/x-amz-json-1.0"}
_REGION, _ACCOUNT = "eu-west-1", "123456789012"
_VISIBILITY_SECONDS = 30  # SQS's default
_QUERY_CODES = {"QueueDoesNotExist": "AWS.SimpleQueueService.NonExistentQueue"}
"""Codes of SQS's older protocol, which it still sends, and botocore shows, where they differ."""


class SqsError(Exception):
    """An error of SQS: its code, and a text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True)
class _Message:
    number: int
    body: str
    sent: int
    """Milliseconds, by this process's clock."""
    receives: int = 0
    receipt: str | None = None
    """The receipt of the last receive; None while the message is visible."""
    deleted: bool = False
    timer: asyncio.TimerHandle | None = None

    def cancel_timer(self) -> None:
        """The message becomes visible at another time, or never."""
        if self.timer:
            self.timer.cancel()
        self.timer = None


@dataclass(slots=True)
class _Poll:
    """A long poll that nothing came for yet."""

    asked: dict[str, Any]
    reply: Reply
    timer: asyncio.TimerHandle | None = None


@dataclass
class _Queue:
    name: str
    url: str
    attributes: dict[str, str] = field(default_factory=dict)
    visible: deque[_Message] = field(default_factory=deque)
    hidden: set[int] = field(default_factory=set)
    """The numbers of messages that somebody received and did not delete."""
    receipts: dict[str, _Message] = field(default_factory=dict)
    """Every receipt that was ever given out, with its message."""
    polls: deque[_Poll] = field(default_factory=deque)

    @property
    def arn(self) -> str:
        return f"arn:aws:sqs:{_REGION}:{_ACCOUNT}:{self.name}"

    def all_attributes(self) -> dict[str, str]:
        counts = {
            "ApproximateNumberOfMessages": str(len(self.visible)),
            "ApproximateNumberOfMessagesNotVisible": str(len(self.hidden)),
            "QueueArn": self.arn,
        }
        return self.attributes | counts


class Sqs:
    """All queues."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._numbers = itertools.count(1)
        self._operations = {
            "GetQueueAttributes": self._get_queue_attributes,
            "SetQueueAttributes": self._set_queue_attributes,
            "SendMessage": self._send_message,
            "SendMessageBatch": self._send_message_batch,
            "DeleteMessage": self._delete_message,
            "DeleteMessageBatch": self._delete_message_batch,
            "ChangeMessageVisibility": self._change_visibility,
        }

    def handle(self, request: Request, reply: Reply) -> str:
        """Answer at once, but for a long poll that has nothing to receive yet."""
        operation = request.headers["x-amz-target"].partition(".")[2]
        asked = json.loads(request.body)
        try:
            if operation == "ReceiveMessage":
                self._receive(asked, reply)
            elif operation == "CreateQueue":
                reply.send(_ok(self._create_queue(asked, request.headers["host"])))
            else:
                reply.send(_ok(self._operations[operation](asked)))
        except SqsError as error:
            reply.send(_error(error))
        return f"sqs {operation}"

    def send(self, arn: str, body: str) -> None:
        """Send a message to the queue with this ARN, for EventBridge."""
        self._send(self._of_arn(arn), body)

    def _of(self, asked: dict[str, Any]) -> _Queue:
        name = str(asked["QueueUrl"]).rpartition("/")[2]
        if name not in self._queues:
            raise SqsError("QueueDoesNotExist", "The specified queue does not exist.")
        return self._queues[name]

    def _of_arn(self, arn: str) -> _Queue:
        return self._queues[arn.rpartition(":")[2]]

    def _create_queue(self, asked: dict[str, Any], host: str) -> dict[str, Any]:
        name = asked["QueueName"]
        queue = self._queues.setdefault(name, _Queue(name, f"http://{host}/{_ACCOUNT}/{name}"))
        queue.attributes |= asked.get("Attributes", {})
        return {"QueueUrl": queue.url}

    def _get_queue_attributes(self, asked: dict[str, Any]) -> dict[str, Any]:
        known, names = self._of(asked).all_attributes(), asked.get("AttributeNames", [])
        shown = {name: value for name, value in known.items() if name in names or "All" in names}
        return {"Attributes": shown} if shown else {}

    def _set_queue_attributes(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._of(asked).attributes |= asked["Attributes"]
        return {}

    def _send_message(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self._send(self._of(asked), asked["MessageBody"])

    def _send_message_batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        queue = self._of(asked)
        sent = [{"Id": one["Id"]} | self._send(queue, one["MessageBody"]) for one in asked["Entries"]]
        return {"Successful": sent, "Failed": []}

    def _send(self, queue: _Queue, body: str) -> dict[str, Any]:
        message = _Message(next(self._numbers), body, round(time.time() * 1000))
        self._show(queue, message)
        return {"MessageId": _message_id(message), "MD5OfMessageBody": _md5(body)}

    def _show(self, queue: _Queue, message: _Message) -> None:
        """Let the next receive have the message; somebody may be waiting for it."""
        message.cancel_timer()
        queue.hidden.discard(message.number)
        message.receipt = None
        queue.visible.append(message)
        while queue.polls and queue.visible:
            poll = queue.polls.popleft()
            if poll.timer:
                poll.timer.cancel()
            if poll.reply.open:
                poll.reply.send(_ok(self._take(queue, poll.asked)))

    def _receive(self, asked: dict[str, Any], reply: Reply) -> None:
        queue = self._of(asked)
        taken = self._take(queue, asked)
        seconds = asked.get("WaitTimeSeconds", 0)
        if taken or not seconds:
            reply.send(_ok(taken))
            return
        poll = _Poll(asked, reply)
        queue.polls.append(poll)

        def over() -> None:
            queue.polls.remove(poll)
            reply.send(_ok({}))

        poll.timer = asyncio.get_running_loop().call_later(seconds, over)

    def _take(self, queue: _Queue, asked: dict[str, Any]) -> dict[str, Any]:
        """Hide the next messages and show them to the receiver; those received too often are dead letters."""
        policy = json.loads(queue.attributes.get("RedrivePolicy", "{}"))
        most_receives = int(policy.get("maxReceiveCount", 0))
        taken: list[dict[str, Any]] = []
        while queue.visible and len(taken) < asked.get("MaxNumberOfMessages", 1):
            message = queue.visible.popleft()
            if most_receives and message.receives >= most_receives:
                self._show(self._of_arn(policy["deadLetterTargetArn"]), message)
                continue
            taken.append(self._hide(queue, message, asked))
        return {"Messages": taken} if taken else {}

    def _hide(self, queue: _Queue, message: _Message, asked: dict[str, Any]) -> dict[str, Any]:
        message.receives += 1
        message.receipt = f"{message.number}.{message.receives}"
        queue.receipts[message.receipt] = message
        queue.hidden.add(message.number)
        default = int(queue.attributes.get("VisibilityTimeout", _VISIBILITY_SECONDS))
        self._hide_for(queue, message, asked.get("VisibilityTimeout", default))
        return _shown(message, asked)

    def _hide_for(self, queue: _Queue, message: _Message, seconds: float) -> None:
        message.cancel_timer()
        if seconds:
            message.timer = asyncio.get_running_loop().call_later(seconds, self._show, queue, message)
        else:
            self._show(queue, message)

    def _delete_message(self, asked: dict[str, Any]) -> dict[str, Any]:
        """An old receipt deletes nothing, as SQS has it."""
        self._delete(self._of(asked), asked["ReceiptHandle"])
        return {}

    def _delete_message_batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        queue = self._of(asked)
        for one in asked["Entries"]:
            self._delete(queue, one["ReceiptHandle"])
        return {"Successful": [{"Id": one["Id"]} for one in asked["Entries"]], "Failed": []}

    def _delete(self, queue: _Queue, receipt: str) -> None:
        message = _received(queue, receipt)
        if message.receipt == receipt:
            message.cancel_timer()
            message.deleted = True
            queue.hidden.discard(message.number)

    def _change_visibility(self, asked: dict[str, Any]) -> dict[str, Any]:
        queue, receipt = self._of(asked), asked["ReceiptHandle"]
        message = _received(queue, receipt)
        if message.deleted:
            raise SqsError("ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
        if message.receipt != receipt:
            raise SqsError("MessageNotInflight", "The message is not in flight.")
        self._hide_for(queue, message, asked["VisibilityTimeout"])
        return {}


def _received(queue: _Queue, receipt: str) -> _Message:
    if receipt not in queue.receipts:
        raise SqsError("ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
    return queue.receipts[receipt]


def _shown(message: _Message, asked: dict[str, Any]) -> dict[str, Any]:
    names = {*asked.get("MessageSystemAttributeNames", ()), *asked.get("AttributeNames", ())}
    known = {"ApproximateReceiveCount": str(message.receives), "SentTimestamp": str(message.sent)}
    shown = {
        "MessageId": _message_id(message),
        "ReceiptHandle": message.receipt,
        "MD5OfBody": _md5(message.body),
        "Body": message.body,
    }
    attributes = {name: value for name, value in known.items() if name in names or "All" in names}
    return shown | ({"Attributes": attributes} if attributes else {})


def _message_id(message: _Message) -> str:
    return f"00000000-0000-0000-0000-{message.number:012}"


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _ok(content: dict[str, Any]) -> Answer:
    return 200, _JSON, json.dumps(content).encode()


def _error(error: SqsError) -> Answer:
    code = _QUERY_CODES.get(error.code, error.code)
    content = {"__type": f"com.amazonaws.sqs#{error.code}", "message": str(error)}
    return 400, _JSON | {"x-amzn-query-error": f"{code};Sender"}, json.dumps(content).encode()
