"""A proxy in front of moto that fails a share of the calls, with each service's own errors.

It answers with 500, 503, throttling or, for conditional writes, a conflict; or it resets the connection
before or after the request reached the service. Writes under one prefix are always refused,
and a whole service may refuse everything for some seconds.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from typing import Any

from tests.worker.aws_proxy import Answer, AwsProxy, Call, error

SERVICES = ("s3", "sqs", "events")
KINDS = ("500", "503", "throttled", "reset before", "reset after")
CONFLICT = "409"  # S3's answer to a conditional write where another write is under way
REFUSALS = {
    "s3": ("AccessDenied", "ExpiredToken", "RequestTimeTooSkewed"),
    "sqs": ("AccessDenied", "ExpiredToken", "SignatureDoesNotMatch"),
    "events": ("AccessDeniedException", "ExpiredTokenException", "InvalidSignatureException"),
}
"""By service, what it answers for a spell: the first lasts, as it seems, the others are known to pass."""
FORBIDDEN = "forbidden/"
NOT_TAKEN = "not taken"  # PutEvents answers 200 and says inside that it took nothing
DELAY_DIVISOR = 20


class FaultyProxy(AwsProxy):
    """Passes calls on to `upstream`; fails one in `one_in` (None: none), at random by `seed`.

    Messages whose body is in `fast_retry` come back `DELAY_DIVISOR` times sooner: returns grow to minutes.
    """

    def __init__(self, upstream: str, *, seed: int, one_in: int | None = 5) -> None:
        super().__init__(upstream)
        self.one_in = one_in
        self.failed: Counter[tuple[str, str]] = Counter()
        self.fast_retry: set[str] = set()
        self.lost: Counter[tuple[str, int]] = Counter()
        """Bodies that were received, with the number of the receive, and of which no worker heard."""
        self.receipts: dict[str, str] = {}
        """By receipt, the body of each message in `fast_retry`."""
        self._dice = {service: random.Random(f"{seed} {service}") for service in SERVICES}
        self._down_until = dict.fromkeys(SERVICES, 0.0)
        self._refusing: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def respond(self, call: Call) -> Answer | None:
        """Refuse the call, let it fail, or ask the upstream."""
        fault = self.fault(call.service, call.target, conditional=call.conditional)
        if code := self.refusal(call.service, call.command, call.path):
            return _error(call.service, 403 if call.service == "s3" else 400, code)
        if fault is None:
            answer = call.forward(_shorten_delay(self, call.target, call.body))
            _note(self, call.target, answer[2])
            return answer
        if fault in ("reset before", "reset after"):
            if fault == "reset after":
                _note_lost(self, call.target, call.forward(_shorten_delay(self, call.target, call.body))[2])
            call.reset()
            return None
        return _failure(call.service, fault)

    def outage(self, service: str, seconds: float) -> None:
        """From now on every call to this service fails, for so long."""
        self._down_until[service] = time.monotonic() + seconds

    def refuse(self, service: str, code: str, seconds: float) -> None:
        """From now on this service answers every call with this code, for so long."""
        self._refusing[service] = (time.monotonic() + seconds, code)

    def refusal(self, service: str, command: str, path: str) -> str | None:
        """The code with which this call is refused, if it is."""
        until, code = self._refusing.get(service, (0.0, ""))
        if time.monotonic() < until:
            self.failed[service, code] += 1
            return code
        return "AccessDenied" if command == "PUT" and f"/images/{FORBIDDEN}" in path else None

    def fault(self, service: str, operation: str, *, conditional: bool = False) -> str | None:
        """What goes wrong with this call: one of KINDS, CONFLICT, NOT_TAKEN, or None."""
        with self._lock:
            self.calls[service] += 1
            dice = self._dice[service]
            unlucky = dice.random() < (1 / self.one_in if self.one_in else 0)
            if not unlucky and time.monotonic() >= self._down_until[service]:
                return None
            own = [CONFLICT] if conditional else [NOT_TAKEN] if operation.endswith("PutEvents") else []
            kind = dice.choice([*KINDS, *own])
            self.failed[service, kind] += 1
            return kind


def _failure(service: str, fault: str) -> Answer:
    if fault == NOT_TAKEN:
        entry = {"ErrorCode": "ThrottlingException", "ErrorMessage": "Rate exceeded"}
        content: dict[str, Any] = {"FailedEntryCount": 1, "Entries": [entry]}
        return 200, [("Content-Type", "application/x-amz-json-1.1")], json.dumps(content).encode()
    status, code = {
        "500": (500, "InternalError"),
        "503": (503, "ServiceUnavailable"),
        CONFLICT: (409, "ConditionalRequestConflict"),
        "throttled": (503, "SlowDown") if service == "s3" else (400, "ThrottlingException"),
    }[fault]
    return _error(service, status, code)


def _error(service: str, status: int, code: str) -> Answer:
    return error(service, status, code, "Please try again.")


def _shorten_delay(proxy: FaultyProxy, operation: str, body: bytes) -> bytes:
    """Shorten a long delay where the message is in `fast_retry`."""
    if not operation.endswith("ChangeMessageVisibility"):
        return body
    requested = json.loads(body)
    if requested["ReceiptHandle"] in proxy.receipts and requested["VisibilityTimeout"] >= DELAY_DIVISOR:
        requested["VisibilityTimeout"] //= DELAY_DIVISOR
    return json.dumps(requested).encode()


def _messages(operation: str, answer: bytes) -> list[dict[str, Any]]:
    received = operation.endswith("ReceiveMessage") and answer.startswith(b"{")
    return json.loads(answer).get("Messages", []) if received else []


def _note(proxy: FaultyProxy, operation: str, answer: bytes) -> None:
    for message in _messages(operation, answer):
        if message["Body"] in proxy.fast_retry:
            proxy.receipts[message["ReceiptHandle"]] = message["Body"]


def _note_lost(proxy: FaultyProxy, operation: str, answer: bytes) -> None:
    for message in _messages(operation, answer):
        proxy.lost[message["Body"], int(message["Attributes"]["ApproximateReceiveCount"])] += 1
