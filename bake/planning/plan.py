"""Make a plan from a profile and the account's answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from bake.account.facts import AccountFacts
from bake.account.images import BaseFacts
from bake.agreement.facts import Fact, Guarded
from bake.planning import (
    attesting,
    base_image,
    builder,
    estimates,
    guarded,
    hardware,
    hydration,
    identity,
    image,
    network,
    preflight,
    prices,
    publishing,
    quotas,
    reaching,
    review,
    starts,
    streaming,
    wiring,
)
from bake.planning import disk as disk_of
from bake.planning import drivers as drivers_of
from bake.planning import memory as memory_of
from bake.planning import weights as weights_of
from bake.planning.attesting import Attesting
from bake.planning.base_image import BaseImage
from bake.planning.builder import BuilderMemory
from bake.planning.disk import Disk
from bake.planning.drivers import Drivers
from bake.planning.estimates import Estimates
from bake.planning.findings import Findings
from bake.planning.hardware import Types
from bake.planning.hydration import Hydration
from bake.planning.identity import Identity
from bake.planning.memory import Memory
from bake.planning.network import Network
from bake.planning.parts import ImagePlan, LaunchPlan, ProvisionPlan, VerifyPlan, WeightsPlan
from bake.planning.preflight import Answer
from bake.planning.publishing import Copy
from bake.planning.reaching import Reach
from bake.planning.sources import Sources
from bake.planning.weights import WeightFiles
from bake.profile import Profile
from bake.systems import SYSTEMS, System
from bake.weights.flux import GIB
from bake.weights.lock import Lock
from bake.wiring import stream_settings
from bake.worker_source import WorkerSource


@dataclass(frozen=True)
class Plan:
    """Everything that a bake needs, decided before it starts anything: a part for each stage, and the rest.

    `identity` is what the image is made of, `base` what is known of its base AMI and that AMI's family, and
    `facts` what the user has to agree to. `hydration` is how a new volume gets what a start reads. `origins`
    says where each setting came from. `unchecked` are questions nobody answered, `preflight` what AWS said
    that it would do. `attesting` is None where the image is not attested, `copies` is what those in other
    regions cost. `unbakeable` says why the profile can be planned and not baked: by this version, or in the
    time that the credentials have.
    """

    profile: Profile
    identity: Identity
    base: BaseFacts
    sources: Sources
    launch: LaunchPlan
    weights: WeightsPlan
    provision: ProvisionPlan
    verify: VerifyPlan
    image: ImagePlan
    attesting: Attesting | None
    estimates: Estimates
    hydration: Hydration
    facts: tuple[Fact, ...]
    origins: Mapping[str, str]
    warnings: tuple[str, ...]
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]
    unbakeable: str | None
    preflight: tuple[Answer, ...]
    copies: tuple[Copy, ...] = ()

    @property
    def id(self) -> str:
        """A hash of all that the image is made of."""
        return self.identity.id

    @property
    def inputs(self) -> Mapping[str, str]:
        """Hashes of the files and folders that go into the image."""
        return self.identity.inputs

    @property
    def system(self) -> System:
        """The image's operating system, and what follows from it."""
        return SYSTEMS[self.profile.base.os]

    @property
    def lease(self) -> timedelta:
        """How long the bake may make no progress before what it created counts as left over."""
        hours = self.profile.builder.lease_hours
        return estimates.lease(self.estimates.seconds) if hours is None else timedelta(hours=hours)

    @property
    def guarded(self) -> Guarded:
        """What the user must have agreed to before a bake."""
        return guarded.guarded(self.facts, self.sources, self.inputs)


def make(
    profile: Profile,
    facts: AccountFacts,
    sources: Sources,
    origins: Mapping[str, str] | None = None,
    lock: Lock | None = None,
) -> Plan:
    """Decide how to bake. `origins` says where each setting came from.

    Raises UsageError with all problems in one message.
    """
    findings = Findings(origins or {})
    base = base_image.find(profile, facts, findings)
    types = hardware.find(profile, facts, findings)
    where = network.find(profile, facts, findings)
    reaching.check(profile, sources, facts, findings)
    wiring.check(profile, facts, findings)
    disk_of.check_key(profile, facts, findings)
    image.check(profile, facts, findings)
    publishing.check(profile, facts.publishing, findings)
    files = weights_of.find(profile, sources.sizes, lock, facts.hub, findings)
    _check_buckets_of_weights(profile, files, facts, findings)
    reviewed = review.check(profile, sources, facts, findings)
    memories, builder_memory = _check_types(profile, types, files, facts, findings)
    drivers = drivers_of.decide(profile, sources.requirements, types, sources.devices)
    image.check_user_data(profile, _booted_with(profile, sources, drivers), findings)
    code = _code(facts, findings)
    drivers_of.check(profile, types, drivers, sources.neuron, findings)
    _check_base(profile, base, types, where, files, facts, findings)
    asked = preflight.check(profile, sources, facts, findings)
    disk = disk_of.estimate(profile, base, files) if base is not None else None
    attested = attesting.find(profile, sources, disk, facts, findings) if disk is not None else None
    findings.stop_if_any()
    assert base is not None and code is not None and disk is not None  # or it would be among the findings
    filled, estimated = _estimate(profile, types, files, disk, facts, findings)
    ending, too_short = preflight.check_credentials(facts, estimated.seconds, findings)
    return Plan(
        profile=profile,
        identity=identity.of(profile, base.id, sources, code, reviewed.digests, lock),
        base=facts.base,
        sources=sources,
        launch=_launch(profile, sources, base, types, where, drivers),
        weights=WeightsPlan.of(profile, files, lock),
        provision=ProvisionPlan.of(profile, sources, code, drivers),
        verify=VerifyPlan(drivers, memories, builder_memory, reviewed.waivers, reviewed.files),
        image=ImagePlan.of(profile, disk),
        attesting=attested,
        estimates=estimated,
        hydration=filled,
        facts=guarded.facts(profile, base, where, findings.origins),
        origins=findings.origins,
        warnings=tuple(findings.warnings),
        checked=tuple(findings.checked),
        unchecked=tuple(findings.unchecked),
        unbakeable=unbakeable(profile) or too_short,
        preflight=asked + ending,
        copies=publishing.copies(profile, facts.publishing, estimated.snapshot_gb),
    )


def _check_buckets_of_weights(
    profile: Profile, files: WeightFiles, facts: AccountFacts, findings: Findings
) -> None:
    wiring.check_mirror(profile, facts, findings)
    streaming.check(profile, files, facts, findings)


def _check_base(
    profile: Profile,
    base: BaseImage | None,
    types: Types,
    where: Network,
    files: WeightFiles,
    facts: AccountFacts,
    findings: Findings,
) -> None:
    """Check the types and the disk against the base AMI."""
    if base is not None:
        hardware.check(profile, base, types, where.zone, facts.types, findings)
        disk_of.check(profile, base, disk_of.estimate(profile, base, files), findings)
    disk_of.check_scratch(profile, types.builder, files, findings)


def _estimate(
    profile: Profile, types: Types, files: WeightFiles, disk: Disk, facts: AccountFacts, findings: Findings
) -> tuple[Hydration, Estimates]:
    """How an instance of the image gets its bytes, and what all of it takes and costs."""
    found = prices.find(profile, types, facts.types.prices, findings)
    newest, snapshot = facts.starts.newest, (disk.stored / GIB, disk.at_most)
    filled = hydration.find(profile, files, types.worker[0], snapshot, newest, found)
    start = starts.of(starts.load(filled), newest)
    starts.check(profile, filled, start, facts.starts, findings)
    return filled, estimates.estimate(profile, types, files, disk, found, start)


def _code(facts: AccountFacts, findings: Findings) -> WorkerSource | None:
    """Return the worker's code; report what is wrong with it."""
    for wrong in facts.code.objections:
        findings.problem(wrong.path, wrong.text, *wrong.details)
    return facts.code.source


def _launch(
    profile: Profile, sources: Sources, base: BaseImage, types: Types, where: Network, drivers: Drivers
) -> LaunchPlan:
    settings = _booted_with(profile, sources, drivers)
    return LaunchPlan(base, types.builder, types.worker, where, settings, Reach.of(profile, sources))


def _booted_with(profile: Profile, sources: Sources, drivers: Drivers) -> dict[str, str]:
    """What the booted worker is told beside its queue, bucket and bus."""
    return {**sources.worker, **drivers.launched_with, **stream_settings(profile.weights.stream)}


def _check_types(
    profile: Profile, types: Types, files: WeightFiles, facts: AccountFacts, findings: Findings
) -> tuple[tuple[Memory, ...], tuple[BuilderMemory, ...]]:
    """Check memory, quotas and EBS limits of the types."""
    memories = memory_of.check(profile, types.worker, files, facts.types, findings)
    builder_memory = builder.check(profile, types, files, findings)
    quotas.check(profile, types.all, facts, findings)
    estimates.check(profile, types.all, findings)
    return memories, builder_memory


def unbakeable(profile: Profile) -> str | None:
    """Say why this version can plan the profile but not bake it; None if it can."""
    accelerator, precision = profile.base.accelerator, profile.weights.precision
    if accelerator == "cuda" or (accelerator, precision) == ("neuron", "bf16"):
        return None
    return f"this version bakes cuda, and neuron in bf16, not {accelerator} in {precision}"
