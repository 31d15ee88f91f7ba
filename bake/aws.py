"""Make boto3 clients and wait for AWS; nothing else does either.

Steps see a cloud only through `Aws`, and never know whether it is local.
"""

from __future__ import annotations

import functools
import os
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from bake import redaction, retries, tokens
from bake.background import made_once
from bake.errors import BakeError, TimedOut
from bake.progress import Tally
from bake.retries import Fresh, RetryPolicy, error_code, is_passing

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

__all__ = ["DUMMY", "AccessKey", "Aws", "ClientError", "call_errors", "error_code", "unanswered"]

T = TypeVar("T")

# AMIs and snapshots take more than 30 minutes in practice; boto3's own waiters give up after 10.
HOURS = 3600.0

# Three regions serve the price list, each for all regions.
# https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html
PRICING_REGION = "us-east-1"
BRIEFLY: dict[str, Any] = {"patience": 3, "outlast": 0}
# Seconds for which transient failures are retried. While planning somebody is waiting; during a bake hours of
# work are at stake, and AWS has had outages of minutes.
PLANNING, BAKING = 15.0, 900.0
# Seconds for an answer once connected; 3 s would be too few for a slow service.
ANSWER = 20.0


@dataclass(frozen=True)
class AccessKey:
    """A key pair that signs calls; temporary credentials have a session token, too."""

    id: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


# For a server that checks no signatures.
DUMMY = AccessKey("rehearsal", "rehearsal")


@dataclass
class _Clock:
    """How far AWS's clock is ahead of this machine's; None before the first answer."""

    ahead: timedelta | None = None


class Aws:
    """Clients for one bake: EC2 in the builder's region; queue, bucket and bus in the worker's (R-REGIONS).

    With `endpoint` (a rehearsal), calls are signed with `endpoint_key`, which AWS does not know, and requests
    to any other address are refused before they are sent, so that a rehearsal can never reach AWS.
    """

    def __init__(
        self,
        *,
        region: str,
        worker_region: str,
        endpoint: str | None = None,
        endpoint_key: AccessKey = DUMMY,
        tally: Tally | None = None,
    ) -> None:
        self.region = region
        self.worker_region = worker_region
        self.copied: tuple[str, ...] = ()  # other regions where copies of AMIs are looked for
        self.endpoint = endpoint
        self.endpoint_key = endpoint_key
        self.tally = tally or Tally()
        self.fresh = Fresh()
        self.clock = _Clock()
        self._policy = self._retrying(PLANNING)
        self._making = threading.RLock()

    @made_once
    def _session(self) -> boto3.Session:
        import boto3

        if self.endpoint is None:
            tokens.check_aws()
            session = boto3.Session()
            session.events.register("before-sign", redaction.register_credentials)
        else:
            session = _without_settings(boto3.Session, self.endpoint_key)
            if self.endpoint_key is not DUMMY:
                redaction.register(self.endpoint_key.secret)
                redaction.register(self.endpoint_key.token)
            session.events.register("before-send", self._refuse_elsewhere)
        session.events.register("before-call", self._count)
        session.events.register("after-call", self._read_clock)
        return session

    def _count(self, **_: Any) -> None:
        with self._making:  # questions are asked side by side
            self.tally.api_calls += 1

    def _read_clock(self, http_response: Any, **_: Any) -> None:
        """Compare this machine's clock with AWS's, by the Date header of an answer."""
        try:
            told = parsedate_to_datetime(http_response.headers["Date"])
        except (KeyError, TypeError, ValueError, AttributeError):
            return  # a proxy's answer: the last one stands
        if told.tzinfo is not None:  # two headers in one are no time of a zone
            self.clock.ahead = told - datetime.now(UTC)

    def now(self) -> datetime:
        """The time by AWS's clock, which may differ from this machine's; asks once if no answer told it."""
        if self.clock.ahead is None:
            self.ask_clock()
        return datetime.now(UTC) + (self.clock.ahead or timedelta())

    def ask_clock(self) -> None:
        """Ask AWS for the time, which every answer tells; whoever bakes needs no right for this call."""
        self.sts.get_caller_identity()

    def _refuse_elsewhere(self, request: Any, **_: Any) -> None:
        if not str(request.url).startswith(f"{self.endpoint}/"):
            raise BakeError(f"a rehearsal tried to reach {request.url}; it may only talk to {self.endpoint}")

    @property
    def credentials(self) -> Any:
        """What signs the calls, as botocore holds it; None where there is nothing, and in a rehearsal."""
        return self._session.get_credentials() if self.endpoint is None else None

    @made_once
    def partition(self) -> str:
        """The region's AWS partition: aws, aws-cn, aws-us-gov, aws-eusc, …"""
        from botocore.exceptions import UnknownRegionError

        try:
            return str(self._session.get_partition_for_region(self.region))
        except UnknownRegionError:  # newer than this boto3
            return "aws"

    def elsewhere(self, region: str) -> Aws:
        """The same account with EC2 in another region; only for reading."""
        return self._alike(region, region)

    def at_home(self) -> Aws:
        """The same account and patience with all clients in the worker's region."""
        return self.within(self.worker_region)

    def within(self, region: str) -> Aws:
        """The same account and patience with all clients in one region."""
        there = self._alike(region, region)
        there._policy, there.fresh = self._policy, self.fresh
        return there

    def patiently(self, seconds: float = BAKING) -> Aws:
        """The same account for a bake: transient failures are retried for minutes."""
        bake = self._alike(self.region, self.worker_region)
        bake._policy = bake._retrying(seconds)
        return bake

    def _retrying(self, seconds: float) -> RetryPolicy:
        return RetryPolicy(seconds, self.fresh, lambda trouble: self.tally.waits.say(trouble))

    def _alike(self, region: str, worker_region: str) -> Aws:
        alike = Aws(
            region=region,
            worker_region=worker_region,
            endpoint=self.endpoint,
            endpoint_key=self.endpoint_key,
            tally=self.tally,
        )
        alike.__dict__["_session"] = self._session  # the session costs more than its clients
        alike.clock, alike.copied = self.clock, self.copied
        alike._making = self._making  # it makes one client at a time
        return alike

    def command(self, service: str, operation: str, *arguments: str, region: str | None = None) -> str:
        """Return an AWS CLI command for a person, with this bake's region and endpoint."""
        where = ["--region", region or self.region]
        where += ["--endpoint-url", self.endpoint] if self.endpoint else []
        return shlex.join(["aws", service, operation, *where, *arguments])

    def _client(
        self,
        service: str,
        region: str,
        *,
        patience: float = 60,
        outlast: float | None = None,
        style: Mapping[str, str] = MappingProxyType({}),
        signature: str | None = None,
        connections: int = 10,
    ) -> Any:
        from botocore.config import Config

        # Virtual-hosted bucket names do not resolve on a local endpoint.
        style = {"addressing_style": "path"} if self.endpoint else dict(style)
        config = Config(
            signature_version=signature,
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=patience,
            max_pool_connections=connections,
            read_timeout=max(patience, ANSWER),
            s3=style,  # type: ignore[arg-type]
            # The user's proxy leads to AWS, never to a cloud on this machine.
            proxies={} if self.endpoint else None,
        )
        with self._making:  # removals run in parallel, and sessions are not thread-safe
            client = self._session.client(
                service, region_name=region, endpoint_url=self.endpoint, config=config
            )
        policy = self._policy if outlast is None else self._retrying(outlast)
        policy.attach(client)
        self._show_waits(client)
        return client

    def _show_waits(self, client: Any) -> None:
        """Make each call of a client a wait with all of its retries: botocore's events miss an interrupt."""
        call = client._make_api_call

        def waited(operation: str, parameters: Any) -> Any:
            with self.tally.waiting(f"AWS to answer {operation}"):
                return call(operation, parameters)

        client._make_api_call = waited

    @made_once
    def ec2(self) -> EC2Client:
        return self._client("ec2", self.region)  # type: ignore[no-any-return]

    @made_once
    def sqs(self) -> SQSClient:
        return self._client("sqs", self.worker_region)  # type: ignore[no-any-return]

    @made_once
    def s3(self) -> S3Client:
        return self._client("s3", self.worker_region)  # type: ignore[no-any-return]

    def presigner(self, region: str) -> S3Client:
        """A client that signs URLs for a bucket in `region`, whose own endpoint does not redirect PUTs."""
        style = {"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"}
        client: S3Client = self._client("s3", region, style=style, signature="s3v4")
        return client

    @made_once
    def events(self) -> EventBridgeClient:
        return self._client("events", self.worker_region)  # type: ignore[no-any-return]

    @made_once
    def scheduler(self) -> Any:
        return self._client("scheduler", self.region)

    @made_once
    def autoscaling(self) -> Any:
        return self._client("autoscaling", self.region)

    @made_once
    def ssm(self) -> Any:
        return self._client("ssm", self.region)

    @made_once
    def sts(self) -> STSClient:
        return self._client("sts", self.region)  # type: ignore[no-any-return]

    @made_once
    def ebs(self) -> Any:
        return self._client("ebs", self.region, connections=32)  # blocks are read side by side

    def signer(self, region: str) -> Any:
        """A client of KMS that signs, as patient as the bake."""
        return self._client("kms", region)

    @made_once
    def secretsmanager(self) -> Any:
        return self._client("secretsmanager", self.worker_region)

    @made_once
    def inspector_scan(self) -> Any:
        return self._client("inspector-scan", self.region)

    # The plan can do without answers of these, and does not wait for them.

    @made_once
    def iam(self) -> Any:
        return self._client("iam", self.region, **BRIEFLY)

    @made_once
    def kms(self) -> Any:
        return self._client("kms", self.region, **BRIEFLY)

    @made_once
    def quotas(self) -> Any:
        return self._client("service-quotas", self.region, **BRIEFLY)

    @made_once
    def pricing(self) -> Any:
        return self._client("pricing", PRICING_REGION, **BRIEFLY)

    def wait(
        self,
        what: str,
        look: Callable[[], T | None],
        *,
        timeout: float = HOURS,
        hint: str | None = None,
        longest: float = 5.0,
    ) -> T:
        """Call `look` until it returns something other than None; at most `timeout` seconds.

        Transient failures (throttling, 5xx, a lost connection) are retried until then. The pause grows from
        0.2 s to `longest`, so that short waits end promptly and long ones cost few calls. tenacity would
        need a predicate each for answers and errors, and hide the deadline that the retries within `look`
        need.
        """
        deadline = time.monotonic() + timeout
        pause = 0.2
        trouble: Exception | None = None
        with self.tally.waiting(what, timeout) as wait, retries.until(deadline):
            while True:
                try:
                    if (found := look()) is not None:
                        self.tally.moved(f"{what} was there")
                        return found
                    trouble = None
                except call_errors() as error:
                    if not is_passing(error):
                        raise
                    trouble = error
                    wait.say(f"AWS: {error_code(error) or type(error).__name__}")
                if time.monotonic() > deadline:
                    why = f"; AWS: {error_code(trouble) or type(trouble).__name__}" if trouble else ""
                    raise TimedOut(f"{what}: not there after {timeout:.0f} s{why}", hint=hint) from trouble
                wait.pause(pause)
                pause = min(pause * 1.3, longest)


def _without_settings(new: Callable[..., boto3.Session], key: AccessKey) -> boto3.Session:
    """Make a session with these credentials that reads no AWS_… variable and no file in ~/.aws."""
    from botocore.session import Session

    known = Session.SESSION_VARIABLES.items()
    settings = {name: (None, None, default, convert) for name, (_, _, default, convert) in known}
    for name in ("config_file", "credentials_file"):
        settings[name] = (None, None, os.devnull, None)
    bare = Session(session_vars=settings)
    bare.register_component("data_loader", _models())
    return new(
        botocore_session=bare,
        aws_access_key_id=key.id,
        aws_secret_access_key=key.secret,
        aws_session_token=key.token or None,
    )


@functools.cache
def _models() -> Any:
    """What reads botocore's models of services, once for all sessions: EC2's takes longer than many calls."""
    from botocore.loaders import create_loader

    return create_loader()


def call_errors() -> tuple[type[Exception], ...]:
    """What a call raises that AWS refuses or does not answer: `except call_errors() as error`.

    A function, since the parsers take longer to import than any command that asks AWS nothing.
    """
    from botocore.parsers import ResponseParserError  # a proxy's page in place of an answer

    return ClientError, BotoCoreError, ResponseParserError


def unanswered(error: BaseException) -> str | None:
    """Why AWS did not answer a call: an error code or the name of botocore's exception; None for others."""
    if code := error_code(error):
        return code
    if type(error).__module__.startswith("botocore"):
        return type(error).__name__
    return None
