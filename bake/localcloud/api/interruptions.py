"""EC2 takes spot instances back: a notice, the interruption, and the start when there is capacity again.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-interruptions.html
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from moto.ec2.models import ec2_backends
from moto.events.models import events_backends

from bake.errors import UsageError
from bake.localcloud.api.clock import CloudClock, parse_span
from bake.localcloud.api.instances import LocalInstance, LocalInstances
from bake.localcloud.api.spot import Notice, SpotRequest
from bake.localcloud.network.control import Routes
from bake.localcloud.settings import ACCOUNT, SPOT_REGION

ROUTE = "/-/interruptions"
NOTICE = "2m"  # EC2's
STOPPED = "Server.SpotInstanceShutdown: Spot instance shutdown"
TERMINATED = "Server.SpotInstanceTermination: Spot instance termination"


class Interruptions:
    """Interrupts spot instances, and starts them again."""

    def __init__(self, instances: LocalInstances, clock: CloudClock) -> None:
        self._instances, self._clock = instances, clock

    def give_notice(self, identity: str, notice: timedelta) -> Notice:
        """Announce the interruption of a running spot instance, which comes after `notice`."""
        instance, request = self._find(identity)
        if instance.state not in {"pending", "running"}:
            raise UsageError(f"{identity} is {instance.state}: EC2 interrupts what runs")
        if request.notice is not None:
            raise UsageError(f"{identity} has its notice already: {_shown(request.notice)}")
        action = "terminate" if request.cancelled else request.instance_interruption_behavior
        if action not in {"stop", "terminate"}:
            raise UsageError(f"the local cloud can't {action} {identity}, as its spot request wants")
        now = self._clock.now()
        found = Notice(action, now + notice, now)
        request.notice = found
        self._tell(identity, "EC2 Instance Rebalance Recommendation", {})
        detail = {"instance-action": found.action}
        self._tell(identity, "EC2 Spot Instance Interruption Warning", detail)
        self._clock.at(found.at, lambda: self._interrupt(instance, request, found))
        return found

    def restore(self, identity: str) -> str:
        """Start an interrupted instance, as EC2 does when it has capacity; return its new public address."""
        instance, request = self._find(identity)
        if not request.is_interrupted:
            raise UsageError(f"{identity} is {instance.state}, and no interruption has stopped it")
        if instance.state != "stopped":
            raise UsageError(f"{identity} is {instance.state}: EC2 starts what is stopped")
        if request.cancelled or request.expired:
            raise UsageError(
                f"{identity} stays stopped: its spot request {request.id} "
                f"{'was cancelled' if request.cancelled else 'has expired'}"
            )
        request.interrupted = ""
        instance.start()
        return str(instance.moto.public_ip or "")

    def _interrupt(self, instance: LocalInstance, request: SpotRequest, notice: Notice) -> None:
        if request.notice is not notice:
            return
        request.notice = None
        if request.instance is not instance.moto or instance.state not in {"pending", "running"}:
            return
        request.interrupted = request.instance_id
        if notice.action == "terminate":
            instance.terminate(TERMINATED)
        else:
            instance.stop(STOPPED)

    def _find(self, identity: str) -> tuple[LocalInstance, SpotRequest]:
        if identity not in self._instances:
            raise UsageError(f"there is no instance {identity[:40]}", hint="bake local status")
        instance = self._instances[identity]
        request = ec2_backends[ACCOUNT][SPOT_REGION].request_of(instance.moto)
        if request is None:
            raise UsageError(f"{identity} is paid on demand: EC2 interrupts spot instances only")
        return instance, request

    def _tell(self, identity: str, kind: str, detail: dict[str, str]) -> None:
        """Send an event to the region's default bus."""
        zone = self._instances[identity].moto.availability_zone
        event = {
            "Source": "aws.ec2",
            "DetailType": kind,
            "Detail": json.dumps({"instance-id": identity, **detail}),
            "Resources": [f"arn:aws:ec2:{zone}:instance/{identity}"],
        }
        events_backends[ACCOUNT][SPOT_REGION].put_events([event])


def _span(text: str) -> timedelta:
    try:
        return parse_span(f"+{text}")
    except UsageError as error:
        raise UsageError(f"{text[:40]} is no time from notice to interruption", hint="2m, 30s, 0s") from error


def _shown(notice: Notice) -> str:
    return f"{notice.action} at {notice.at:%Y-%m-%dT%H:%M:%SZ}"


def routes(interruptions: Interruptions) -> Routes:
    """The control routes, which `bake local interrupt` calls."""

    def interrupt(request: Any) -> dict[str, str]:
        found = interruptions.give_notice(
            request.args.get("instance", ""), _span(request.args.get("notice", NOTICE))
        )
        return {"action": found.action, "at": found.at.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def restore(request: Any) -> dict[str, str]:
        return {"address": interruptions.restore(request.args.get("instance", ""))}

    return {("POST", ROUTE): interrupt, ("DELETE", ROUTE): restore}
