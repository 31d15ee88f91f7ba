"""Load a profile, plan it, and compare the plan with the agreement and the lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bake import localcloud, rehearsal, surroundings
from bake import profile as profiles
from bake.account.asking import Hub, ask, ask_identity
from bake.agreement import base_proposal, lockfile
from bake.agreement import render as agreement_render
from bake.agreement.base_proposal import BaseAmi, Proposed
from bake.agreement.facts import Agreement, Difference, Guarded, compare
from bake.agreement.lockfile import LockFile
from bake.agreement.render import ProfileRequest
from bake.aws import Aws
from bake.errors import BakeError, NotAgreed, UsageError
from bake.localcloud import EXAMPLES, NOT_REHEARSED, Delays
from bake.planning import egress, rebuild
from bake.planning import plan as planning
from bake.planning.guarded import stated_facts
from bake.planning.identity import Identity, Parts
from bake.planning.plan import Plan
from bake.planning.rebuild import Decision
from bake.planning.sources import Sources
from bake.profile import secretsmanager
from bake.progress import Progress, Tally
from bake.weights import lock as locks
from bake.weights.lock import Lock

if TYPE_CHECKING:
    from bake.account.baked import Baked
    from bake.account.facts import IdentityFacts
    from bake.account.images import Ami
    from bake.localcloud import LocalCloud
    from bake.profile import Profile
    from bake.profile.weights import Weights as WeightsSection


@dataclass(frozen=True)
class BakeRequest(ProfileRequest):
    """What was asked for: which profile, from where, and whether on the local cloud.

    `trust_guests` allows a rehearsal where the machines' root can't be kept apart from this host's.
    `delays` are those of a rehearsal's API.
    """

    trust_guests: bool = False
    delays: Delays = field(default_factory=Delays)


@dataclass(frozen=True)
class Proposal:
    """A plan, the cloud it was made with, and its agreement and lock (None: there is none yet).

    `unlocked` says why a bake can't go by the lock; None when it can.
    """

    request: BakeRequest
    plan: Plan
    aws: Aws
    guarded: Guarded
    agreement: Agreement | None
    differences: list[Difference]
    lock: Lock | None
    unlocked: str | None


def local_cloud(
    request: BakeRequest, stack: ExitStack, say: Callable[[str], None], progress: Progress | None = None
) -> LocalCloud | None:
    """The local cloud of a rehearsal, started if necessary and kept until `stack` ends; None for AWS."""
    if not request.rehearsal:
        return None
    surroundings.set_aside()
    # Report a mistake in the profile or its lock file before the local cloud is started.
    examples = {**NOT_REHEARSED, **EXAMPLES}
    variables = profiles.environment(request.env_file).overlaid(examples, "an example")
    profile = profiles.load(
        request.profile, request.directory, variables, lambda name, key: EXAMPLES["HF_TOKEN"]
    )
    lockfile.read(request.lock)
    with progress.step("local cloud") if progress else nullcontext():
        cloud = stack.enter_context(
            localcloud.running(say, trust_guests=request.trust_guests, delays=request.delays)
        )
        localcloud.provide(profile.base.os, profile.base.accelerator, say)
        return cloud


@dataclass(frozen=True)
class Opened:
    """A profile with its agreement, its lock (None if a bake can't go by it: `unlocked`) and its cloud."""

    profile: Profile
    origins: Mapping[str, str]
    held: LockFile
    lock: Lock | None
    unlocked: str | None
    aws: Aws
    sources: Sources


def open_profile(request: BakeRequest, cloud: LocalCloud | None, tally: Tally) -> Opened:
    """Load a profile and what belongs to it. Nobody is asked yet but a rehearsal's cloud who calls."""
    held = lockfile.read(request.lock)
    profile, origins = load(request, cloud)
    unlocked = locks.problem(held.weights, profile.weights)
    aws = clients(profile, cloud, tally)
    local = localcloud.sources(cloud, profile.base.os) if cloud else Sources()
    local = replace(local, checks=tuple(request.directory / name for name in profile.checks))
    return Opened(profile, origins, held, None if unlocked else held.weights, unlocked, aws, local)


def propose(
    request: BakeRequest,
    cloud: LocalCloud | None,
    tally: Tally,
    *,
    baking: bool = False,
    unpinned: bool = False,
) -> Proposal:
    """Load, plan, and compare with what was agreed.

    `unpinned` looks at the newest base AMI also where the profile is pinned to the agreed one.

    When `baking`, NotAgreed refuses everything else; a rehearsal without an agreement goes on, since
    nothing in it is the user's.
    """
    opened = open_profile(request, cloud, tally)
    profile, origins, agreement = opened.profile, opened.origins, opened.held.agreement
    unlocked = opened.unlocked
    try:
        base = None if unpinned else agreed_base(agreement)
        plan = ask_and_plan(profile, opened.aws, opened.sources, origins, opened.lock, base)
    except UsageError as error:
        if baking and agreement is not None:
            # Another region explains why its AMI and subnet are not found, so report it first.
            _refuse(request, Guarded(stated_facts(profile, origins), {}), opened.held, error.message)
        raise
    guarded = plan.guarded
    if baking and plan.unbakeable:
        raise UsageError(plan.unbakeable, hint=f"bake plan --profile {request.profile} shows the whole plan")
    if baking:
        _refuse(request, guarded, opened.held, unlocked=unlocked, plan=plan)
    if baking and cloud is not None:
        localcloud.declare_egress(egress.hosts(profile, plan.provision.egress))
    differences = compare(guarded, agreement)
    return Proposal(request, plan, opened.aws, guarded, agreement, differences, opened.held.weights, unlocked)


@dataclass(frozen=True)
class Question:
    """What a bake's image would be made of (None: that can't be told), and the images that there are."""

    profile: Profile
    aws: Aws
    identity: Identity | None
    facts: IdentityFacts

    @property
    def standard(self) -> Baked | None:
        """The image to compare with."""
        return rebuild.standard(self.identity, self.facts.images)

    def decide(self, recorded: Parts | None = None) -> Decision:
        """Whether a bake would make another image; `recorded` is what its report says of `standard`."""
        return rebuild.decide(self.profile, self.identity, self.facts, recorded)


def ask_whether_changed(request: BakeRequest, cloud: LocalCloud | None, tally: Tally) -> Question:
    """Ask the few questions that decide whether a bake would make another image; nothing is judged."""
    opened = open_profile(request, cloud, tally)
    profile, sources = opened.profile, opened.sources
    base = agreed_base(opened.held.agreement)
    facts = ask_identity(profile, opened.aws, sources.requirements, base)
    return Question(profile, opened.aws, rebuild.made_of(profile, facts, sources, opened.lock), facts)


def clients(profile: Profile, cloud: LocalCloud | None, tally: Tally) -> Aws:
    """Clients of whoever bakes the profile, in its two regions."""
    return Aws(
        region=profile.builder.region,
        worker_region=profile.worker.region,
        **rehearsal.as_baker(cloud, profile),
        tally=tally,
    )


def ask_and_plan(
    profile: Profile,
    aws: Aws,
    sources: Sources,
    origins: Mapping[str, str] | None = None,
    lock: Lock | None = None,
    base_ami: str | None = None,
) -> Plan:
    """Ask the account, then plan. The Hub is asked where the weights are locked, or their sizes not known.

    `base_ami` is the id of the agreed base AMI.
    """
    hub = Hub(sources.hub) if lock is not None or sources.sizes is None else None
    answers = ask(profile, aws, sources.requirements, hub, base_ami)
    return planning.make(profile, answers, sources, origins, lock)


def agreed_base(agreement: Agreement | None) -> str | None:
    """The id of the agreed base AMI; None if none is."""
    found = agreement.agreed.get("base_ami") if agreement else None
    return found if isinstance(found, str) else None


def _refuse(
    request: BakeRequest,
    guarded: Guarded,
    held: LockFile,
    problems: str = "",
    unlocked: str | None = None,
    plan: Plan | None = None,
) -> None:
    """Raise NotAgreed unless everything is agreed and locked; `problems` are the plan's own.

    A newer base AMI is proposed then, if the profile says so. A rehearsal without an agreement is held to its
    lock alone: nothing else in it is the user's.
    """
    agreement = held.agreement
    differences = [] if request.rehearsal and agreement is None else compare(guarded, agreement)
    texts, hints = [], []
    if differences:
        texts.append(agreement_render.refusal(request, guarded, differences, new=agreement is None))
        hints.append(agreement_render.how_to_agree(request, differences))
    if unlocked:
        texts.append(f"{unlocked} ({request.lock})")
        hints.append(agreement_render.how_to_lock(request))
    if not texts:
        return
    texts += [f"and the plan has problems:\n{problems}"] if problems else []
    proposed, told = _propose_base(request, held, differences, plan) if plan else (None, "")
    texts += [told] if told else []
    raise NotAgreed(
        "\n\n".join([*texts, "nothing was started"]),
        hint="\n".join(hints),
        proposal=proposed.as_dict() if proposed else None,
    )


def _propose_base(
    request: BakeRequest, held: LockFile, differences: Sequence[Difference], plan: Plan
) -> tuple[Proposed | None, str]:
    """Write the proposal to agree to a newer base AMI, if there is one; return it, and what to say of it."""
    base, found = plan.profile.base, plan.base
    one = next((one for one in differences if one.name == "base_ami" and not one.new), None)
    if one is None or base.family is None or base.following != "propose" or found.newest is None:
        return None, ""
    was = _base_ami(found.agreed) if found.agreed else BaseAmi(str(one.agreed), "not to be had any more")
    try:
        proposed = base_proposal.write(request, held, base.family, was, _base_ami(found.newest), one.origin)
    except BakeError as error:
        return None, error.message
    return proposed, str(proposed)


def _base_ami(ami: Ami) -> BaseAmi:
    return BaseAmi(ami.id, ami.name, ami.created, ami.owner, ami.deprecated or "")


def lock_rehearsal(request: BakeRequest, cloud: LocalCloud, say: Callable[[str], None]) -> None:
    """Lock the local Hub's files unless they are locked; a rehearsal's need nobody's consent."""
    before, held = lockfile.content(request.lock), lockfile.read(request.lock)
    if held.weights is not None:
        return
    profile, _ = load(request, cloud)
    lock = locks.resolve(profile.weights, cloud.hub)
    lockfile.write(replace(held, weights=lock), before, agreement_render.title(request))
    say(f"locked the local Hub's weights for rehearsals in {request.lock}: {lock}")


def weights_of(request: BakeRequest, cloud: LocalCloud | None) -> WeightsSection:
    """The profile's weights. Only the token's variable must be set for that."""
    if cloud is not None:
        return load(request, cloud)[0].weights
    variables = profiles.environment(request.env_file)
    absent = {
        name: value for name, value in EXAMPLES.items() if name != "HF_TOKEN" and not variables.get(name)
    }
    known = variables.overlaid(absent, "an example")
    return profiles.load(request.profile, request.directory, known, secretsmanager.reader(variables)).weights


def load(request: BakeRequest, cloud: LocalCloud | None) -> tuple[Profile, Mapping[str, str]]:
    """The profile with its variables filled in, and where each value came from.

    On the local cloud what it has stands for the user's, and no secret of theirs is read.
    """
    variables = profiles.environment(request.env_file)
    secrets = secretsmanager.reader(variables)
    if cloud is not None:
        variables = variables.overlaid({**NOT_REHEARSED, **cloud.environment}, "the local cloud")
        token = cloud.environment["HF_TOKEN"]  # stands for any secret: a rehearsal reads none of the user's
        secrets = lambda name, key: token  # noqa: E731
    return profiles.load_with_origins(request.profile, request.directory, variables, secrets)
