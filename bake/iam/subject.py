"""What a policy is written for: a profile, the account, and the ARNs that stand in the statements."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bake.creation import RUN_TAG
from bake.iam.statement import Condition
from bake.profile import Profile

# The names of all that a bake creates begin so.
OURS = "bake-*"
PROFILE_TAG = "bake:profile"
_PARTITIONS = (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"), ("eusc-", "aws-eusc"))


def partition_of(region: str) -> str:
    """The partition of a region by its name; `aws` unless the name says another."""
    return next((name for prefix, name in _PARTITIONS if region.startswith(prefix)), "aws")


@dataclass(frozen=True)
class Account:
    """An account by its id, with the region of machines, and that of queues, buckets, buses and secrets.

    `copied` are the regions that AMIs are copied to.
    """

    id: str
    region: str
    worker_region: str
    partition: str = "aws"
    copied: tuple[str, ...] = ()

    @property
    def regions(self) -> tuple[str, ...]:
        """Both regions, each once."""
        return tuple(dict.fromkeys((self.region, self.worker_region)))

    @property
    def image_regions(self) -> tuple[str, ...]:
        """The regions where AMIs are: the builder's, and those that they are copied to."""
        return tuple(dict.fromkeys((self.region, *self.copied)))

    def arn(self, service: str, resource: str, *, region: str | None = "", account: str | None = None) -> str:
        """An ARN of this account in the machines' region, unless another or none (None) is given."""
        where = self.region if region == "" else region or ""
        owner = self.id if account is None else account
        return f"arn:{self.partition}:{service}:{where}:{owner}:{resource}"

    def ec2(self, *kinds: str) -> tuple[str, ...]:
        """The ARNs of EC2's resources: of all of a kind, or of the one that is named.

        Images and snapshots have no account in their ARNs.
        """
        return tuple(self._ec2(kind if "/" in kind else f"{kind}/*") for kind in kinds)

    def _ec2(self, resource: str) -> str:
        shared = resource.partition("/")[0] in ("image", "snapshot")
        return self.arn("ec2", resource, account="" if shared else None)

    @property
    def all_of_ec2(self) -> tuple[str, ...]:
        """The ARNs of all that EC2 has in the machines' region, for statements that tags limit."""
        return self.arn("ec2", "*/*"), self.arn("ec2", "*/*", account="")

    def regional(self, service: str, *resources: str) -> tuple[str, ...]:
        """ARNs in the worker's region."""
        return tuple(self.arn(service, one, region=self.worker_region) for one in resources)

    def bucket(self, name: str, objects: str = "") -> str:
        """The ARN of a bucket, or of objects in it by their key."""
        return f"arn:{self.partition}:s3:::{name}{f'/{objects}' if objects else ''}"

    @property
    def ec2_service(self) -> str:
        """The service to which the worker's role is passed."""
        return f"ec2.amazonaws.com{'.cn' if self.partition == 'aws-cn' else ''}"


@dataclass(frozen=True, kw_only=True)
class Subject(Account):
    """A profile in an account.

    `role` is the ARN of the worker's role, `kms_key` that of the key that `root_volume.kms_key` names, where
    it is known, `secrets` are the names of the profile's secrets in Secrets Manager, and `groups` those of
    the Auto Scaling groups that are rolled out to.
    """

    profile: Profile
    role: str = ""
    kms_key: str | None = None
    secrets: tuple[str, ...] = ()
    groups: tuple[str, ...] = ("*",)

    @classmethod
    def of(cls, profile: Profile, account: str, **known: Any) -> Subject:
        """A profile in the account with this id; its regions are the profile's."""
        regions = profile.builder.region, profile.worker.region
        return cls(account, *regions, profile=profile, copied=profile.publish.regions, **known)

    @property
    def queue(self) -> str | None:
        """The ARN of the profile's queue, from its URL; None if it names none."""
        url = self.profile.worker.queue
        if url is None:
            return None
        account, _, name = urlsplit(url).path.strip("/").rpartition("/")
        owner = account if re.fullmatch(r"[0-9]{12}", account) else None
        return self.arn("sqs", name, region=self.worker_region, account=owner)

    @property
    def bus(self) -> str | None:
        """The ARN of the profile's event bus; None if it names none."""
        return self._bus(self.profile.worker.bus)

    @property
    def notices(self) -> str | None:
        """The ARN of the bus that hears of the profile's images; None if it names none."""
        return self._bus(self.profile.notices)

    def _bus(self, bus: str | None) -> str | None:
        if bus is None or bus.startswith("arn:"):
            return bus
        return self.arn("events", f"event-bus/{bus}", region=self.worker_region)

    @property
    def ours(self) -> Condition:
        """On what a bake of this profile created: its tags say so."""
        return self._tagged("ResourceTag")

    @property
    def new(self) -> Condition:
        """What is created carries the tags of a bake of this profile."""
        return self._tagged("RequestTag")

    def _tagged(self, where: str) -> Condition:
        """A tag of the profile, and a run's tag that is not empty."""
        tags = {PROFILE_TAG: self.profile.name, RUN_TAG: "?*"}
        return {"StringLike": {f"aws:{where}/{tag}": value for tag, value in tags.items()}}


# On what any bake created.
ANY_RUN: Condition = {"Null": {f"aws:ResourceTag/{RUN_TAG}": "false"}}


def place(url: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://bucket/prefix`; the prefix ends in a slash unless it is empty."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/")
    return bucket, f"{prefix}/" if prefix else ""


def within(region: str | tuple[str, ...]) -> Condition:
    """Calls to these regions only: what has no ARN can't be limited otherwise."""
    return {"StringEquals": {"aws:RequestedRegion": region}}
