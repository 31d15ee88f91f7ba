"""The clients of AWS's services, made in one place: how long each waits, and what counts as a failed call."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import boto3
from botocore.config import Config

from ..host.monitor import Monitor, Service
from ..settings import PlaceSettings
from .errors import Call, failed, mark

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

_CONTEXT = "flux_call"


@dataclass(frozen=True)
class Clients:
    """Makes each client when it is first asked for; not from two threads at once.

    A long poll answers after 20 s at the latest. A claim is renewed each third of its lease, so that it had
    better fail soon. Whatever fails is tried again by the worker itself.
    """

    session: boto3.Session

    @classmethod
    def of(cls, places: PlaceSettings, monitor: Monitor | None = None) -> Clients:
        """For the places of the settings; what fails is counted by `monitor`."""
        session = boto3.Session(region_name=places.region)
        _Watch(monitor).over(session)
        return cls(session)

    @cached_property
    def polling(self) -> SQSClient:
        """For receiving."""
        client: SQSClient = self.session.client("sqs", config=patient(5, 25, attempts=3))
        return client

    @cached_property
    def sqs(self) -> SQSClient:
        """For everything else that is done with a queue."""
        client: SQSClient = self.session.client("sqs", config=patient(2, 5, attempts=2))
        return client

    @cached_property
    def s3(self) -> S3Client:
        """For images and records."""
        client: S3Client = self.session.client("s3", config=patient(3, 20, attempts=3))
        return client

    @cached_property
    def claiming(self) -> S3Client:
        """For claims."""
        client: S3Client = self.session.client("s3", config=patient(2, 5, attempts=2))
        return client

    @cached_property
    def events(self) -> EventBridgeClient:
        """For the event bus."""
        client: EventBridgeClient = self.session.client("events", config=patient(3, 10, attempts=3))
        return client

    @cached_property
    def iam(self) -> Any:
        """Only `check` asks, and a network without a way to IAM is no fault."""
        client: Any = self.session.client("iam", config=patient(3, 10, attempts=2))
        return client

    @cached_property
    def sts(self) -> STSClient:
        """As `iam`."""
        client: STSClient = self.session.client("sts", config=patient(3, 10, attempts=2))
        return client


def patient(connect: float, read: float, *, attempts: int) -> Config:
    """Seconds to wait for a connection and for an answer, and how often botocore itself tries."""
    retries = {"mode": "standard", "total_max_attempts": attempts}
    return Config(connect_timeout=connect, read_timeout=read, retries=retries)  # type: ignore[arg-type]


class _Watch:
    """Sees every call of a session's clients, after botocore's own retries."""

    def __init__(self, monitor: Monitor | None) -> None:
        self._monitor = monitor

    def over(self, session: boto3.Session) -> None:
        """Watch all clients that are made from now on."""
        session.events.register("before-parameter-build", self._begins)
        session.events.register_last("after-call", self._ends)
        session.events.register("after-call-error", self._breaks)

    def _begins(self, params: Any, model: Any, context: dict[str, Any], **_: Any) -> None:
        service = model.service_model.signing_name
        context[_CONTEXT] = Call.of(service, model.name, params if isinstance(params, dict) else {})

    def _ends(self, http_response: Any, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        call = context.get(_CONTEXT, Call())
        if http_response.status_code >= 300:
            mark(parsed, call)
            if failed(call, str(parsed.get("Error", {}).get("Code", ""))):
                self._count(call)
        elif parsed.get("FailedEntryCount"):  # PutEvents answers 200 even where it took nothing
            self._count(call)

    def _breaks(self, exception: Exception, context: dict[str, Any], **_: Any) -> None:
        call = context.get(_CONTEXT, Call())
        mark(exception, call)
        self._count(call)

    def _count(self, call: Call) -> None:
        if self._monitor and call.service in get_args(Service):
            self._monitor.aws_failure(call.service)  # type: ignore[arg-type]
