"""Spot requests of RunInstances, which moto does not make: their states, their end, and what they relaunch.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_SpotMarketOptions.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from moto.core import utils
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.utils import generic_filter, random_spot_request_id

from bake.localcloud.api.instances import LocalInstance, LocalInstances

# How long an open persistent request waits for capacity.
RELAUNCH = timedelta(seconds=2)
_OPTIONS = "InstanceMarketOptions.SpotOptions."


@dataclass(frozen=True)
class Market:
    """The spot options of a RunInstances."""

    kind: str
    interruption: str
    valid_until: datetime | None


def market(call: Mapping[str, str]) -> Market | None:
    """Read the spot options of a call, or refuse them as EC2 does; None for an instance on demand."""
    if call.get("InstanceMarketOptions.MarketType") != "spot":
        return None
    kind = call.get(f"{_OPTIONS}SpotInstanceType", "one-time")
    interruption = call.get(f"{_OPTIONS}InstanceInterruptionBehavior", "terminate")
    until = call.get(f"{_OPTIONS}ValidUntil")
    wrong = ""
    if (kind == "persistent") != (interruption in {"stop", "hibernate"}):
        wrong = (
            f"The request with type '{kind}' is not supported when instanceInterruptionBehavior is set to "
        )
        wrong += f"'{interruption}'."
    elif until and kind == "one-time":
        wrong = "The parameter validUntil cannot be specified when the SpotRequestType is set to 'one-time'."
    if wrong:
        raise EC2ClientError("InvalidParameterCombination", wrong)
    return Market(kind, interruption, _time(until) if until else None)


def _time(text: str) -> datetime:
    try:
        told = datetime.fromisoformat(text)
    except ValueError as error:
        raise EC2ClientError("InvalidParameterValue", f"Invalid date {text[:40]}") from error
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Notice:
    """What EC2 has announced: `stop` or `terminate`, and when, in UTC; `given` is when it did."""

    action: str
    at: datetime
    given: datetime


class SpotRequest(TaggedEC2Resource):  # type: ignore[misc]
    """One spot request and its current instance.

    `notice` is of an interruption that is to come, `interrupted` the instance that EC2 has stopped or ended,
    `launched_by` the RunInstances that it repeats: the call, and moto's arguments.
    """

    def __init__(self, backend: Any, asked: Market, instance: Any, tags: Mapping[str, str]) -> None:
        self.ec2_backend = backend
        self.id = self.spot_instance_request_id = random_spot_request_id()
        self.type, self.valid_until = asked.kind, asked.valid_until
        self.instance_interruption_behavior = asked.interruption
        self.create_time = utils.utcnow()
        self.product_description = "Linux/UNIX"
        self.launched_availability_zone = instance.availability_zone
        self.instance = instance
        self.cancelled = False
        self.notice: Notice | None = None
        self.interrupted = ""
        self.launched_by: tuple[dict[str, str], tuple[Any, ...], dict[str, Any]] = ({}, (), {})
        self.add_tags(tags)

    @property
    def instance_id(self) -> str:
        return str(self.instance.id)

    @property
    def launch_specification(self) -> dict[str, Any]:
        """What it launches, also again."""
        return {"ImageId": self.instance.image_id, "InstanceType": self.instance.instance_type}

    @property
    def expired(self) -> bool:
        return self.valid_until is not None and utils.utcnow() >= self.valid_until

    @property
    def ended(self) -> bool:
        """Whether its instance is terminated."""
        return bool(self.instance._state.name == "terminated")

    @property
    def state(self) -> str:
        """The state, which follows the instance's."""
        if self.cancelled:
            return "cancelled"
        if self.ended:
            return "open" if self.type == "persistent" and not self.expired else "closed"
        if self.instance._state.name in {"stopping", "stopped"}:
            return "disabled"
        return "closed" if self.notice and self.notice.action == "terminate" else "active"

    @property
    def is_interrupted(self) -> bool:
        """Whether EC2 has stopped or ended the instance that it has."""
        return self.interrupted == self.instance_id

    @property
    def status(self) -> dict[str, Any]:
        code = self._code()
        return {"Code": code, "Message": code, "UpdateTime": utils.utcnow()}

    def _code(self) -> str:
        """The status code, as the user guide's page "State changes for a Spot request" has them."""
        who = "no-capacity" if self.is_interrupted else "by-user"
        match self.state:
            case "active":
                return "marked-for-stop" if self.notice else "fulfilled"
            case "open":
                return "pending-fulfillment"
            case "disabled":
                return f"instance-stopped-{who}"
            case "closed" if not self.ended:
                return "marked-for-termination"
            case "closed" if self.expired:
                return "schedule-expired"
            case "cancelled" if not self.ended:
                return "request-canceled-and-instance-running"
        return f"instance-terminated-{who}"


class SpotRequests:
    """The spot requests of a region, for its backend; `later` calls a function after a time."""

    later: Callable[[timedelta, Callable[[], None]], None]
    local_instances: ClassVar[LocalInstances]
    local_requests: dict[str, SpotRequest]

    def describe_spot_instance_requests(
        self, filters: Any = None, spot_instance_ids: list[str] | None = None
    ) -> list[SpotRequest]:
        """The requests with these ids, all of which must be known."""
        wanted = [self._request(one) for one in spot_instance_ids or self.local_requests]
        return list(generic_filter(filters, wanted))

    def cancel_spot_instance_requests(self, request_ids: list[str]) -> list[SpotRequest]:
        """Cancel requests: what runs of them runs on, and is not replaced; what is stopped is terminated."""
        wanted = [self._request(one) for one in request_ids]
        for request in wanted:
            request.cancelled = True
            if request.instance._state.name == "stopped":
                self.local_instances[request.instance_id].terminate()
        return wanted

    def _request(self, identity: str) -> SpotRequest:
        if identity not in self.local_requests:
            raise EC2ClientError(
                "InvalidSpotInstanceRequestID.NotFound",
                f"The spot instance request ID '{identity}' does not exist",
            )
        return self.local_requests[identity]

    def request_of(self, instance: Any) -> SpotRequest | None:
        """The request of an instance; None for one on demand."""
        return self.local_requests.get(getattr(instance, "spot_instance_request_id", None) or "")

    def check_start(self, instance: Any) -> None:
        """Refuse to start what EC2 has interrupted: it does that itself; or what has no request any more."""
        request = self.request_of(instance)
        if request is not None and (request.is_interrupted or request.cancelled or request.expired):
            raise EC2ClientError(
                "IncorrectSpotRequestState",
                f"You can't start the Spot Instance '{instance.id}' because the associated Spot Instance "
                "request is not in an appropriate state to support start.",
            )

    def check_stop(self, instance: Any) -> None:
        """Refuse to stop the instance of a one-time request."""
        request = self.request_of(instance)
        if request is not None and request.type == "one-time":
            raise EC2ClientError(
                "UnsupportedOperation",
                f"You can't stop the Spot Instance '{instance.id}' because it is associated with a one-time "
                "Spot Instance request. You can only stop Spot Instances associated with persistent Spot "
                "Instance requests.",
            )

    def relaunch_after(self, local: LocalInstance) -> None:
        """Once the instance has ended, launch its request's next one, if the request is open still."""
        request = self.request_of(local.moto)
        if request is None:
            return

        def launch() -> None:
            if request.instance is local.moto and request.state == "open":
                self.launch_again(request)

        local.ended = lambda: self.later(RELAUNCH, launch)
        if local.state == "terminated":  # of a saved cloud, whose request has waited for capacity
            local.ended()

    def launch_again(self, request: SpotRequest) -> None:
        """Launch the instance of an open request as the one before."""
        raise NotImplementedError

    def forget_notices(self) -> None:
        """Let no interruption be announced that nobody is going to carry out."""
        for request in self.local_requests.values():
            request.notice = None
