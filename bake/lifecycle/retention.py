"""Judge which AMIs may be pruned. Pure: an inventory, rules and a proof become verdicts.

An AMI and its copies in other regions are one image: they are of the same run, stay together and go together.
An image goes only if its profile's rule lets it go, if nothing refers to any of them, and if every question
that could have found such a reference was answered. Whatever else is true of it, it stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from bake.lifecycle.holding import Holding
from bake.lifecycle.proof import PARAMETER, Proof, Reference
from bake.lifecycle.verdict import Verdict

COPY_TAG, BECAUSE_TAG = "bake:copy-of", "bake:because"
OWN_PROTECTION = "enabled-without-cooldown"  # as publish.protect makes it
TOLD = 3  # references of a reason
Key = tuple[str, str, str]
ALWAYS = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Rule:
    """What is kept of a profile: `keep` good images (None: all), and `keep_unproven` unproven ones.

    `share_with` are the accounts with which the profile shares its images, `channels` the names of its
    channels by their SSM parameter; `protect` says that it is the profile that protects its images from
    deregistration.
    """

    keep: int | None
    keep_unproven: int
    share_with: frozenset[str] = frozenset()
    channels: Mapping[str, str] = field(default_factory=dict)
    protect: bool = False


NO_RULE = "nothing says how many to keep: set image.keep in the profile, or give --keep N"


@dataclass(frozen=True)
class Baked:
    """One image: the AMI that a run made, and its copies."""

    held: tuple[Holding, ...]

    @cached_property
    def head(self) -> Holding:
        """The run's own AMI; the oldest copy where that is gone."""
        return min(self.held, key=lambda one: (COPY_TAG in one.tags, one.created or ALWAYS, one.id))

    @property
    def state(self) -> str:
        """What became of it: one revoked copy is enough. An AMI from before there was such a tag is good."""
        states = {one.state or "good" for one in self.held}
        return "revoked" if "revoked" in states else self.head.state or "good"

    @property
    def order(self) -> tuple[datetime, str, str]:
        """By this images are sorted, oldest first, as by `images_of`; one of unknown age counts as new."""
        return self.head.created or ALWAYS, self.head.name, self.head.id

    @property
    def unclear(self) -> str:
        """What keeps it, whatever the rule says; empty if nothing does."""
        originals = [one for one in self.held if COPY_TAG not in one.tags]
        if len(originals) > 1:
            named = " and ".join(f"{one.id} in {one.region}" for one in originals)
            return f"{named} have the same tags: only one of them is a bake's"
        for one in self.held:
            if why := _unclear(one):
                return why if one is self.head else f"{one.id} in {one.region}: {why}"
        return ""


def _unclear(one: Holding) -> str:
    if one.state == "draft":
        return "it is a draft: bake sweep removes it once its run's lease has ended"
    if one.state not in ("good", "unproven", "revoked", ""):
        return f"its tag bake:state is {one.state!r}"
    if one.status == "disabled" and one.state != "revoked":
        return "somebody has disabled it, and it is not revoked: bake revoke, or enable it"
    if one.status not in ("available", "disabled"):
        return f"EC2 says that it is {one.status or 'in no state'}"
    return ""


def is_baked(held: Holding) -> bool:
    """Whether a bake made it: by its tags, never by its name."""
    return held.kind == "AMI" and not held.unread and bool(held.run and held.profile)


def key_of(held: Holding) -> Key:
    """What an AMI and its copies have in common: profile, run, and the name in their tags."""
    return held.profile, held.run, held.tags.get("Name", "")


def images(holdings: Iterable[Holding]) -> list[Baked]:
    """The images that bakes made, in the order of the holdings."""
    found: dict[Key, list[Holding]] = {}
    for held in holdings:
        if is_baked(held):
            found.setdefault(key_of(held), []).append(held)
    return [Baked(tuple(some)) for some in found.values()]


def beyond(holdings: Iterable[Holding], rules: Mapping[str, Rule]) -> list[Holding]:
    """The AMIs that the rules alone would let go: only what refers to these needs to be known."""
    baked = images(holdings)
    ruled = _ruled(baked, rules)
    return [held for one, (goes, _) in zip(baked, ruled, strict=True) if goes for held in one.held]


def judge(
    holdings: Iterable[Holding], rules: Mapping[str, Rule], proof: Proof, missing: Collection[str] = ()
) -> list[Verdict]:
    """A verdict on each AMI that a bake made, newest image first; on no other thing.

    `missing` says why AMIs of some regions are not among the holdings: then no image goes, since it may have
    copies there that are in use.
    """
    baked = images(holdings)
    pairs = list(zip(baked, _ruled(baked, rules), strict=True))
    verdicts: list[Verdict] = []
    for image, (goes, why) in sorted(pairs, key=lambda pair: pair[0].order, reverse=True):
        rule = rules.get(image.head.profile)
        kept = {one.id: _kept(one, rule, proof, missing) for one in image.held} if goes and rule else {}
        verdicts += [_verdict(one, image, goes, why, kept) for one in _head_first(image)]
    return verdicts


def _head_first(image: Baked) -> list[Holding]:
    return [image.head, *(held for held in image.held if held is not image.head)]


def _verdict(held: Holding, image: Baked, goes: bool, why: str, kept: Mapping[str, str]) -> Verdict:
    if not goes:
        return Verdict(held, "keep", why)
    if kept[held.id]:
        return Verdict(held, "keep", kept[held.id])
    for other in _head_first(image):
        if kept[other.id]:
            return Verdict(
                held, "keep", f"{other.id} in {other.region} is of the same image: {kept[other.id]}"
            )
    return Verdict(held, "prune", why)


def _ruled(baked: list[Baked], rules: Mapping[str, Rule]) -> list[tuple[bool, str]]:
    """What the rules say of each image: whether it goes, and why."""
    ranks = _ranks(baked)
    return [_by_rule(one, rules.get(one.head.profile), ranks.get(one.head.id, 0)) for one in baked]


def _ranks(baked: list[Baked]) -> dict[str, int]:
    """How many newer images of the same profile and state there are, of those that can be used."""
    ranks: dict[str, int] = {}
    counts: dict[tuple[str, str], int] = {}
    for one in sorted(baked, key=lambda one: one.order, reverse=True):
        if not one.unclear:
            key = one.head.profile, one.state
            ranks[one.head.id] = counts.get(key, 0)
            counts[key] = ranks[one.head.id] + 1
    return ranks


def _by_rule(image: Baked, rule: Rule | None, rank: int) -> tuple[bool, str]:
    if why := image.unclear:
        return False, why
    if rule is None:
        return False, NO_RULE
    own = OWN_PROTECTION if rule.protect else ""
    if protected := [one for one in image.held if one.protection not in ("", own)]:
        named = "" if protected[0] is image.head else f"{protected[0].id} in {protected[0].region}: "
        return False, f"{named}it is protected from deregistration, and not by its profile"
    if image.state == "unproven":
        return _newest(rank, rule.keep_unproven, "unproven")
    if rule.keep is None:
        return False, NO_RULE
    if image.state == "revoked":
        because = next((told for one in image.held if (told := one.tags.get(BECAUSE_TAG))), "")
        return True, f"it is revoked{f': {because}' if because else ''}"
    return _newest(rank, rule.keep, "good")


def _newest(rank: int, keep: int, state: str) -> tuple[bool, str]:
    if rank < keep:
        return False, f"one of the newest {keep} {state}" if keep > 1 else f"the newest {state}"
    return True, f"{state}, and older than the newest {keep}" if keep else state


def _kept(held: Holding, rule: Rule, proof: Proof, missing: Collection[str]) -> str:
    """Why an AMI that its rule lets go stays; empty if it does not."""
    reasons = list(_reasons(held, rule, proof))
    reasons += [*proof.doubts.get(held.id, ()), *missing]
    more = len(reasons) - TOLD
    return "; ".join(reasons[:TOLD]) + (f"; and {more} more" if more > 0 else "")


def _reasons(held: Holding, rule: Rule, proof: Proof) -> Iterator[str]:
    found = proof.references.get(held.id, ())
    for one in sorted(found, key=lambda one: not _channel(one, rule)):
        channel = _channel(one, rule)
        yield f"it is in the channel {channel} ({one})" if channel else f"{one} refers to it"
    told = {one.id for one in found}
    yield from (f"instance {user} runs from it" for user in held.used_by if user not in told)
    if strangers := [one for one in proof.shares.get(held.id, ()) if one not in rule.share_with]:
        yield f"it is shared with {', '.join(strangers)}, which the profile's image.share_with does not name"


def _channel(one: Reference, rule: Rule) -> str:
    if one.kind != PARAMETER:
        return ""
    return rule.channels.get(one.id) or rule.channels.get(f"/{one.id}", "")  # an ARN lacks the slash
