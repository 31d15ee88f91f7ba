"""What a fleet's templates are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from bake import userdata
from bake.iam import Subject, partition_of
from bake.profile import Profile
from bake.profile.fleet import bucket_of, name_of

Kind = Literal["queue", "bucket", "bus"]
NAMESPACE = "FluxWorker"
"""CloudWatch's namespace of `Ready` and `Backlog`, where the profile has no worker.cloudwatch_namespace."""
DRAIN_SETTING = "FLUX_DRAIN_SECONDS"
DRAIN_SECONDS = 90  # the worker's own, where nothing else is set


@dataclass(frozen=True)
class Fleet:
    """A channel's fleet in an account. `profile` names its queue, bucket and bus; see `placed`.

    `created` are those of them that the stack creates. `image` is the AMI's literal id, `root_device` its
    root device's name, `user_data` what instances are launched with: a script, or gzipped. `drain_seconds`
    is the time that workers take at most to end.
    """

    profile: Profile
    channel: str
    account: str
    created: frozenset[Kind]
    image: str
    root_device: str
    user_data: bytes
    drain_seconds: int = DRAIN_SECONDS

    @property
    def name(self) -> str:
        """The name of the fleet, of its queue and of its bus."""
        return name_of(self.profile.name, self.channel)

    @property
    def region(self) -> str:
        """Where the instances are."""
        return self.profile.builder.region

    @property
    def jobs_region(self) -> str:
        """Where queue, bucket and bus are."""
        return self.profile.worker.region

    @property
    def namespace(self) -> str:
        """CloudWatch's namespace of what workers publish, and of what the fleet goes by."""
        return self.profile.worker.cloudwatch_namespace or NAMESPACE

    @property
    def types(self) -> tuple[str, ...]:
        """The agreed instance types."""
        return self.profile.fleet.instance_types or self.profile.worker_types

    @cached_property
    def subject(self) -> Subject:
        """The profile in the account, with the ARNs of its queue, bucket and bus."""
        return Subject.of(self.profile, self.account, partition=partition_of(self.region))

    @property
    def queue_arn(self) -> str:
        """The queue's ARN."""
        assert self.subject.queue is not None  # `placed` names one
        return self.subject.queue

    @property
    def queue_name(self) -> str:
        """The last part of the queue's URL, which is a dimension of its metrics."""
        return self.queue_arn.rsplit(":", 1)[1]

    def topics(self, region: str) -> list[str]:
        """The topics that alarms of a region go to: an alarm reaches those of its own region alone."""
        return [topic for topic in self.profile.fleet.alarm_topics if topic.split(":")[3] == region]

    @property
    def tags(self) -> list[dict[str, Any]]:
        """What everything of the fleet carries. Not `bake:*`: that is what bakes create, and sweep."""
        mine = {"Name": self.name, "flux:profile": self.profile.name, "flux:channel": self.channel}
        return [{"Key": key, "Value": value} for key, value in mine.items()]

    @property
    def about(self) -> str:
        """The fleet in words, for descriptions."""
        return f"FLUX.1-dev, profile {self.profile.name}, channel {self.channel}"


def placed(profile: Profile, channel: str, account: str) -> tuple[Profile, frozenset[Kind]]:
    """The profile with a name for its queue, bucket, bus and metrics, and what of it the stack creates.

    What the profile names is there and used, unless it has just the name that the stack gives: whoever sets
    FLUX_QUEUE_URL to the stack's own queue, to send jobs to it, must not take it out of the stack thereby.
    """
    worker, name = profile.worker, name_of(profile.name, channel)
    suffix = "amazonaws.com.cn" if worker.region.startswith("cn-") else "amazonaws.com"
    own: Mapping[Kind, str] = {
        "queue": f"https://sqs.{worker.region}.{suffix}/{account}/{name}",
        "bucket": bucket_of(name, account, worker.region),
        "bus": name,
    }
    found: dict[str, str] = {kind: getattr(worker, kind) or value for kind, value in own.items()}
    created = frozenset(kind for kind, value in own.items() if found[kind] == value)
    found["cloudwatch_namespace"] = worker.cloudwatch_namespace or NAMESPACE
    return profile.model_copy(update={"worker": worker.model_copy(update=found)}), created


def fleet_of(
    profile: Profile,
    channel: str,
    account: str,
    image: str,
    root_device: str,
    more: Mapping[str, str] | None = None,
    origins: Mapping[str, str] | None = None,
) -> Fleet:
    """A channel's fleet, with the user data of `bake userdata`; `more` are settings of the worker beside it.

    Git is asked for the launch scripts where the profile has `worker.source`. Raises UsageError with
    everything that can't be a setting (see bake.userdata).
    """
    named, created = placed(profile, channel, account)
    made = userdata.make(named, more or {}, origins or {})
    drain = (more or {}).get(DRAIN_SETTING, "")
    return Fleet(
        named,
        channel,
        account,
        created,
        image,
        root_device,
        made.content,
        int(drain) if drain.isascii() and drain.isdigit() else DRAIN_SECONDS,
    )
