"""The permissions that a worker needs, as worker/README.md lists them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..settings import AwsSettings

_MANAGED_KEY = "alias/aws/"
"""AWS managed keys need no permission of their own."""


@dataclass(frozen=True)
class Identity:
    """The caller's ARN, account and partition; without an ARN, what the settings tell."""

    arn: str | None
    account: str
    partition: str

    @classmethod
    def unknown(cls, settings: AwsSettings) -> Identity:
        """The identity if STS does not answer: the queue's account is the most likely."""
        account = re.match(r"/(\d{12})/", urlsplit(settings.queue_url).path)
        return cls(None, account[1] if account else "*", _partition(settings.region))


@dataclass(frozen=True)
class Permission:
    """An action on a resource as policies name it; `sample` is one such resource, for a simulation.

    `context` are the values of condition keys that limit it.
    """

    action: str
    resource: str
    optional: bool = False
    sample: str = ""
    consequence: str = ""
    context: tuple[tuple[str, str], ...] = ()

    @property
    def asked_on(self) -> str:
        """The ARN to simulate with."""
        return self.sample or self.resource


def permissions(settings: AwsSettings, identity: Identity) -> Iterator[Permission]:
    """All permissions except those on keys and secrets."""
    queue = queue_arn(settings, identity)
    for action in ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility"):
        yield Permission(f"sqs:{action}", queue)
    dead = "the worker does not know whether there is a dead-letter queue"
    yield Permission("sqs:GetQueueAttributes", queue, optional=True, consequence=dead)
    bucket = f"arn:{identity.partition}:s3:::{settings.bucket}"
    yield Permission("s3:ListBucket", bucket)
    for action in ("GetObject", "PutObject", "DeleteObject"):
        objects = f"{bucket}/{settings.prefix}"
        yield Permission(f"s3:{action}", f"{objects}*", sample=f"{objects}cat-1.png")
    bus = bus_arn(settings, identity)
    yield Permission("events:PutEvents", bus)
    absent = "the worker does not notice a missing bus"
    yield Permission("events:DescribeEventBus", bus, optional=True, consequence=absent)
    hooks = "lifecycle hooks of an Auto Scaling group wait for their timeout"
    for action in ("DescribeAutoScalingInstances", "DescribeLifecycleHooks", "CompleteLifecycleAction"):
        yield Permission(f"autoscaling:{action}", "*", optional=True, consequence=hooks)
    if namespace := settings.cloudwatch_namespace:
        yield Permission(
            "cloudwatch:PutMetricData",
            "*",
            optional=True,
            consequence="the metric Ready is not published",
            context=(("cloudwatch:namespace", namespace),),
        )


def key_permission(action: str, key: str, settings: AwsSettings, identity: Identity) -> Permission | None:
    """The permission on a KMS key; None if only an alias is known."""
    if key.startswith("arn:") and ":key/" in key:
        return Permission(action, key)
    if "alias/" in key:
        return None
    return Permission(action, f"arn:{identity.partition}:kms:{settings.region}:{identity.account}:key/{key}")


def is_own_key(key: str | None) -> bool:
    """Whether this is a customer managed key."""
    return bool(key) and _MANAGED_KEY not in str(key)


def queue_arn(settings: AwsSettings, identity: Identity) -> str:
    """The queue's ARN, from the account and name in the URL's path."""
    *_, account, name = ["", *urlsplit(settings.queue_url).path.strip("/").split("/")]
    account = account if re.fullmatch(r"\d{12}", account) else identity.account
    return f"arn:{identity.partition}:sqs:{settings.region}:{account}:{name}"


def bus_arn(settings: AwsSettings, identity: Identity) -> str:
    """The bus's ARN, as given or from its name."""
    if settings.event_bus.startswith("arn:"):
        return settings.event_bus
    return (
        f"arn:{identity.partition}:events:{settings.region}:{identity.account}:event-bus/{settings.event_bus}"
    )


def _partition(region: str) -> str:
    from botocore.exceptions import BotoCoreError
    from botocore.session import get_session

    try:
        return str(get_session().get_partition_for_region(region))
    except BotoCoreError:  # this botocore does not know the region
        return "aws"
