"""The answers of AWS, the Hub and Git, collected before anything is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bake.account.answers import Unanswered
from bake.account.baked import Baked
from bake.account.images import BaseFacts
from bake.account.instance_types import InstanceType
from bake.account.keys import KeyFacts
from bake.account.network import Group, InstanceProfile, Subnet
from bake.account.preflight import PreflightFacts
from bake.account.prices import PriceFacts
from bake.account.proxy import Program
from bake.account.publishing import PublishFacts
from bake.account.quotas import Quota
from bake.account.signing import SigningKey
from bake.account.starts import StartFacts
from bake.account.wiring import Bucket, Bus, Queue
from bake.account.worker_code import WorkerCode
from bake.weights.hub import Refusal, Revision


@dataclass(frozen=True)
class NetworkFacts:
    """Where the builder is launched, and by which program it is reached.

    None is what does not exist, or is not named.
    """

    subnet: Subnet | None = None
    group: Group | None = None
    instance_profile: InstanceProfile | Unanswered | None = None
    program: Program | None = None


@dataclass(frozen=True)
class WiringFacts:
    """The worker's queue, bucket and bus, the buckets of mirror, stream and reports, and the bus of notices.

    None is what does not exist, or is not named.
    """

    queue: Queue | Unanswered | None = None
    bucket: Bucket | Unanswered | None = None
    bus: Bus | Unanswered | None = None
    mirror: Bucket | Unanswered | None = None
    stream: Bucket | Unanswered | None = None
    reports: Bucket | Unanswered | None = None
    notices: Bus | Unanswered | None = None


@dataclass(frozen=True)
class TypeFacts:
    """Instance types by name, the zones that offer the profile's, quotas by class, prices."""

    types: Mapping[str, InstanceType] = field(default_factory=dict)
    zones: Mapping[str, tuple[str, ...]] | Unanswered = field(default_factory=dict)
    quotas: Mapping[str, Quota | Unanswered] = field(default_factory=dict)
    prices: PriceFacts = field(default_factory=PriceFacts)


@dataclass(frozen=True)
class AccountFacts:
    """Everything that a plan needs besides the profile, as it was at one moment (`asked`).

    `region` is the builder's, `worker_region` the worker's. `taken` is the AMI of this account that has the
    image's name already. `hub` is None where the Hub was not asked, `signing` where nothing is signed.
    """

    region: str
    worker_region: str
    asked: datetime
    base: BaseFacts
    types: TypeFacts
    network: NetworkFacts
    wiring: WiringFacts
    taken: str | Unanswered | None
    keys: KeyFacts
    hub: Revision | Refusal | None
    code: WorkerCode
    signing: SigningKey | Unanswered | None = None
    preflight: PreflightFacts = field(default_factory=PreflightFacts)
    publishing: PublishFacts = field(default_factory=PublishFacts)
    starts: StartFacts = field(default_factory=StartFacts)


@dataclass(frozen=True)
class IdentityFacts:
    """What decides whether a bake would make another image; `images` are the profile's, oldest first.

    `asked` is when, by AWS's clock.
    """

    base: BaseFacts
    code: WorkerCode
    images: tuple[Baked, ...]
    asked: datetime
