"""Decide when a call to AWS is sent again, for every call of every client.

botocore's own retries are off. They repeat a request without capacity eight times, since EC2 answers it with
HTTP 500; they give up on throttling after a minute, with hours of work at stake; and they believe "not found"
about an id that AWS itself returned a second ago.

This is no retry loop, so tenacity has no place in it: botocore owns the loop, and asks a handler of its event
`needs-retry` how long to wait. Only there a retry has the call's parameters, signature and parsed answer.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

# https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html: seconds in which "not found",
# for an id that AWS returned, means "not yet".
FRESH = 180.0
LONGEST_PAUSE = 5.0

# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
THROTTLED = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "PriorRequestNotComplete",
        "SlowDown",
    }
)
PASSING = THROTTLED | {
    "RequestTimeout",
    "RequestTimeoutException",
    "InternalError",
    "InternalFailure",
    "ServiceUnavailable",
    "Unavailable",
}
# No capacity, or none left in the quota: waiting helps, an immediate retry does not.
CAPACITY = frozenset({"InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientCapacity"})
QUOTA = frozenset({"VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded"})
# The error that a DryRun ends with where the call would be allowed.
ALLOWED = "DryRunOperation"
# botocore's exceptions for a missing answer; one that can't be parsed is a proxy's page.
NO_ANSWER = {"ConnectionError", "HTTPClientError", "ResponseParserError"}
ABSENT = re.compile(r"NotFound|NonExistentQueue|QueueDoesNotExist|NoSuchBucket")
# A change is not visible everywhere at once: operation -> codes that mean "not yet".
SETTLING = {
    "CreateImage": {"IncorrectState", "IncorrectInstanceState", "InvalidState"},
    "ModifyImageAttribute": {"InvalidAMIID.Unavailable"},
    "DeleteBucket": {"BucketNotEmpty", "OperationAborted"},
    "CreateBucket": {"OperationAborted"},
    "DeleteEventBus": {"ConcurrentModificationException"},
    "DeleteRule": {"ConcurrentModificationException"},
    "PutTargets": {"ConcurrentModificationException"},
    "DeleteSnapshot": {"InvalidSnapshot.InUse"},
    "PutParameter": {"TooManyUpdates"},
    "CreateQueue": {"QueueDeletedRecently", "AWS.SimpleQueueService.QueueDeletedRecently"},
}
# The same where a code tells too little: operation -> code, a part of its message, and for how many seconds.
SETTLING_BY_MESSAGE = {
    # Right after DescribeInstances has shown "stopped": https://github.com/hashicorp/packer/pull/9579
    "CreateImage": ("InvalidParameterValue", "Instance is not in state", FRESH),
    # A new instance profile takes about ten seconds to reach EC2; a wrong name is as invalid.
    "RunInstances": ("InvalidParameterValue", "Invalid IAM Instance Profile", 30.0),
}
# Creating operation -> keys of its answer and its parameters that name the new thing.
CREATED = {
    "RunInstances": {"InstanceId", "SpotInstanceRequestId"},
    "CreateImage": {"ImageId"},
    "CopyImage": {"ImageId"},
    "CreateSecurityGroup": {"GroupId"},
    "ImportKeyPair": {"KeyName", "KeyPairId"},
    "CreateQueue": {"QueueUrl", "QueueName"},
    "CreateBucket": {"Bucket"},
    "CreateEventBus": {"Name", "EventBusArn"},
    "PutRule": {"Name", "RuleArn"},
    "CreateScheduleGroup": {"Name"},
}
# Operations whose answers about something fresh are the first to tell of what was created with it.
BESIDE = {"DescribeImages": {"SnapshotId"}, "DescribeInstances": {"VolumeId", "SpotInstanceRequestId"}}
_PARAMETERS, _SINCE, _UNSURE = "bake_parameters", "bake_since", "bake_unsure"
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def until(deadline: float) -> Iterator[None]:
    """Retry no call of this block after `deadline` (monotonic clock)."""
    token = _deadline.set(min(deadline, _deadline.get() or deadline))
    try:
        yield
    finally:
        _deadline.reset(token)


def error_code(error: BaseException) -> str:
    """The AWS error code of a ClientError, or an empty string for anything else."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed later: after throttling, a 5xx or a network error."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return _passing(error_code(error), response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return _of_the_network(error)


def is_refused(error: BaseException) -> bool:
    """Whether AWS certainly did nothing. If a try got no answer, nobody knows."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return False
    metadata = response.get("ResponseMetadata", {})
    if metadata.get(_UNSURE):
        return False
    status = metadata.get("HTTPStatusCode", 0)
    return 400 <= status < 500 or error_code(error) in CAPACITY | THROTTLED


def _passing(code: str, status: int) -> bool:
    return code in PASSING or (status >= 500 and code not in CAPACITY)


def _of_the_network(error: BaseException) -> bool:
    kinds = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("botocore")}
    return bool(kinds & NO_ANSWER)


@dataclass
class Fresh:
    """Ids and names that were created in the last minutes. Safe to use from several threads.

    `seconds` is for how long they stay fresh. Things of several kinds may share a name: the end of one is not
    the end of the others.
    """

    seconds: float = FRESH
    _until: dict[tuple[str, str], float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *names: str, kind: str = "", seconds: float | None = None) -> None:
        """Remember names that were just created, or that a list has just shown, for so many seconds."""
        until = time.monotonic() + (self.seconds if seconds is None else seconds)
        with self._lock:
            for key in ((kind, name) for name in names):
                self._until[key] = max(until, self._until.get(key, until))

    def drop(self, *names: str, kind: str) -> None:
        """Forget names of a kind that were deleted: from now on "not found" is true."""
        with self._lock:
            for name in names:
                self._until.pop((kind, name), None)

    def any(self, names: Iterator[str]) -> bool:
        """Whether one of them was created in the last minutes."""
        wanted = set(names)
        with self._lock:
            now = time.monotonic()
            return any(name in wanted and now < until for (_, name), until in self._until.items())


@dataclass
class RetryPolicy:
    """Decides about retries for the clients that it is attached to.

    A transient failure is retried for `patience` seconds, at most until the deadline of the wait around it.
    `say` is told of one that goes on.
    """

    patience: float
    fresh: Fresh
    say: Callable[[str], None] = lambda text: None

    def attach(self, client: Any) -> None:
        """Make a client ask this policy."""
        events = client.meta.events
        events.register("before-parameter-build", self._remember)
        events.register("needs-retry", self._needs_retry)
        events.register("after-call", self._learn)

    def _remember(self, params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
        context[_PARAMETERS] = params

    def _needs_retry(
        self,
        *,
        response: tuple[Any, dict[str, Any]] | None,
        caught_exception: BaseException | None,
        attempts: int,
        operation: Any,
        request_dict: Mapping[str, Any],
        **_: Any,
    ) -> float | None:
        """Return the seconds to wait before a retry; None to accept the answer."""
        context: dict[str, Any] = request_dict["context"]
        now = time.monotonic()
        limit = min(context.setdefault(_SINCE, now) + self.patience, _deadline.get() or float("inf"))
        parsed = response[1] if response is not None else {}
        code = str(parsed.get("Error", {}).get("Code", ""))
        status = parsed.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        error = parsed.get("Error", {})
        if not self._again(error, status, caught_exception, operation.name, context, now) or now >= limit:
            if response is not None and context.get(_UNSURE):  # an earlier try may have succeeded
                parsed.setdefault("ResponseMetadata", {})[_UNSURE] = True
            return None
        context[_UNSURE] = context.get(_UNSURE) or (code not in THROTTLED and (not code or status >= 500))
        pause = min(0.2 * 1.6 ** (attempts - 1), LONGEST_PAUSE) * random.uniform(0.7, 1.0)  # noqa: S311
        if attempts > 3:
            self.say(f"{code or type(caught_exception).__name__}, tried {attempts} times")
        return float(min(pause, limit - now))

    def _again(
        self,
        error: Mapping[str, Any],
        status: int,
        exception: BaseException | None,
        operation: str,
        context: Mapping[str, Any],
        now: float,
    ) -> bool:
        if exception is not None:
            return _of_the_network(exception)
        code = str(error.get("Code", ""))
        if not code:
            return False
        if ABSENT.search(code):
            names = [name for name in _texts(context.get(_PARAMETERS)) if name]  # "" is in any message
            meant = [name for name in names if name in str(error.get("Message", ""))]
            return self.fresh.any(iter(meant or names))
        if code in SETTLING.get(operation, ()):
            return now - float(context[_SINCE]) < FRESH
        known, told, seconds = SETTLING_BY_MESSAGE.get(operation, ("", "", 0.0))
        if code == known and told in str(error.get("Message", "")):
            return now - float(context[_SINCE]) < seconds
        return _passing(code, status)

    def _learn(
        self, parsed: Mapping[str, Any], model: Any, context: Mapping[str, Any], http_response: Any, **_: Any
    ) -> None:
        """Note what was created or deleted."""
        if http_response.status_code >= 300:
            return
        parameters = context.get(_PARAMETERS)
        if keys := CREATED.get(model.name):
            self.fresh.add(*_texts(parsed, keys), *_texts(parameters, keys), kind=_noun(model.name))
        elif (beside := BESIDE.get(model.name)) and self.fresh.any(_texts(parameters)):
            self.fresh.add(*_texts(parsed, beside))
        elif model.name.startswith(("Delete", "Deregister")):
            self.fresh.drop(*_texts(parameters), kind=_noun(model.name))


def _noun(operation: str) -> str:
    """What an operation creates or deletes: `Image` of CreateImage and DeregisterImage."""
    return re.sub("^[A-Z][a-z]+", "", operation)


def _texts(value: Any, keys: set[str] | None = None) -> Iterator[str]:
    """Yield all strings in nested parameters; with `keys`, only those below one of them."""
    if isinstance(value, str):
        if keys is None:
            yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, None if keys is not None and key in keys else keys)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, keys)
