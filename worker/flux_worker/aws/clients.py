"""The boto3 clients: their timeouts and retries, and a count of failed calls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import boto3
from botocore.config import Config

from ..host.monitor import Monitor, Service
from ..settings import QueueSettings
from .errors import Call, is_failure, tag

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

_CONTEXT = "flux_call"


@dataclass(frozen=True)
class Clients:
    """Creates each client on first use; not thread-safe.

    A long poll takes at most 20 s. A claim is renewed every third of its lease, so its calls must fail soon.
    The worker itself retries what fails.
    """

    session: boto3.Session

    @classmethod
    def from_settings(cls, settings: QueueSettings, monitor: Monitor | None = None) -> Clients:
        """Clients for the settings' region; `monitor` counts failed calls."""
        session = boto3.Session(region_name=settings.region)
        _CallObserver(monitor).attach(session)
        return cls(session)

    @cached_property
    def polling(self) -> SQSClient:
        """SQS, for receiving."""
        client: SQSClient = self.session.client("sqs", config=timeouts(5, 25, attempts=3))
        return client

    @cached_property
    def sqs(self) -> SQSClient:
        """SQS, for everything but receiving."""
        client: SQSClient = self.session.client("sqs", config=timeouts(2, 5, attempts=2))
        return client

    @cached_property
    def s3(self) -> S3Client:
        """S3, for images and records."""
        client: S3Client = self.session.client("s3", config=timeouts(3, 20, attempts=3))
        return client

    @cached_property
    def claiming(self) -> S3Client:
        """S3, for claims."""
        client: S3Client = self.session.client("s3", config=timeouts(2, 5, attempts=2))
        return client

    @cached_property
    def events(self) -> EventBridgeClient:
        """EventBridge."""
        client: EventBridgeClient = self.session.client("events", config=timeouts(3, 10, attempts=3))
        return client

    @cached_property
    def iam(self) -> Any:
        """IAM, for `check` only; it need not be reachable."""
        client: Any = self.session.client("iam", config=timeouts(3, 10, attempts=2))
        return client

    @cached_property
    def sts(self) -> STSClient:
        """STS, for `check` only; it need not be reachable."""
        client: STSClient = self.session.client("sts", config=timeouts(3, 10, attempts=2))
        return client


def timeouts(connect: float, read: float, *, attempts: int) -> Config:
    """Seconds to wait for a connection and for an answer, and botocore's own number of attempts."""
    retries = {"mode": "standard", "total_max_attempts": attempts}
    return Config(connect_timeout=connect, read_timeout=read, retries=retries)  # type: ignore[arg-type]


class _CallObserver:
    """Observes every call of a session's clients, after botocore's own retries."""

    def __init__(self, monitor: Monitor | None) -> None:
        self._monitor = monitor

    def attach(self, session: boto3.Session) -> None:
        """Observe all clients of the session that are created from now on."""
        session.events.register("before-parameter-build", self._before_call)
        session.events.register_last("after-call", self._after_call)
        session.events.register("after-call-error", self._on_error)

    def _before_call(self, params: Any, model: Any, context: dict[str, Any], **_: Any) -> None:
        service = model.service_model.signing_name
        context[_CONTEXT] = Call.of(service, model.name, params if isinstance(params, dict) else {})

    def _after_call(
        self, http_response: Any, parsed: dict[str, Any], context: dict[str, Any], **_: Any
    ) -> None:
        call = context.get(_CONTEXT, Call())
        if http_response.status_code >= 300:
            tag(parsed, call)
            if is_failure(call, str(parsed.get("Error", {}).get("Code", ""))):
                self._count(call)
        elif parsed.get("FailedEntryCount"):  # PutEvents answers 200 even if it accepted nothing
            self._count(call)

    def _on_error(self, exception: Exception, context: dict[str, Any], **_: Any) -> None:
        call = context.get(_CONTEXT, Call())
        tag(exception, call)
        self._count(call)

    def _count(self, call: Call) -> None:
        if self._monitor and call.service in get_args(Service):
            self._monitor.aws_failure(call.service)  # type: ignore[arg-type]
