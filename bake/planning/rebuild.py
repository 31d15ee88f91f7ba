"""Decide whether a bake would make another image than there is, and say what changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from bake.account.baked import Baked
from bake.account.facts import IdentityFacts
from bake.planning import identity, review
from bake.planning.identity import TAG, Identity, Parts
from bake.planning.sources import Sources
from bake.profile import Profile
from bake.profile.types import duration_text
from bake.updates.pending import Pending
from bake.weights.lock import Lock

PLAN_TAG = "bake:plan"
_FEW = 3  # files that are named, not only counted
_DIGITS = 8  # of a hash, for people


@dataclass(frozen=True)
class Decision:
    """Whether a bake would make another image.

    `image` is the good one that makes it needless; else the newest good one, which `reasons` compare with.
    `plan` is the id of what would be baked; None where that can't be told. `unknown` is what could not be
    compared, and `unproven` an AMI of the same plan that only lacks its boot check.
    """

    changed: bool
    reasons: tuple[str, ...]
    plan: str | None = None
    image: Baked | None = None
    unknown: tuple[str, ...] = ()
    unproven: str | None = None

    @property
    def sentence(self) -> str:
        """All of it on one line."""
        said = "; ".join(self.reasons)
        said += "".join(f"; not known: {one}" for one in self.unknown)
        proof = f"; {self.unproven} of the same plan is unproven: bake boot-check {self.unproven}"
        return said + (proof if self.unproven else "")

    def as_dict(self) -> dict[str, Any]:
        """The decision for machines."""
        return {
            "changed": self.changed,
            "plan": self.plan,
            "image": self.image.id if self.image else None,
            "reasons": list(self.reasons),
            "unknown": list(self.unknown),
            "unproven": self.unproven,
        }


def made_of(profile: Profile, facts: IdentityFacts, sources: Sources, lock: Lock | None) -> Identity | None:
    """What a bake's image would be made of; None where base AMI or code can't be had: a plan says why."""
    if facts.base.ami is None or facts.code.source is None or facts.code.objections:
        return None
    own = review.digests(profile, sources)
    return identity.of(profile, facts.base.ami.id, sources, facts.code.source, own, lock)


def standard(found: Identity | None, images: tuple[Baked, ...]) -> Baked | None:
    """The image to compare with: the newest good one of the same plan, else the newest good one."""
    good = [image for image in images if image.good]
    same = [image for image in good if found is not None and image.tags.get(PLAN_TAG) == found.id]
    return next(reversed(same or good), None)


def decide(
    profile: Profile, found: Identity | None, facts: IdentityFacts, recorded: Parts | None = None
) -> Decision:
    """Compare what would be baked with the images that there are.

    `recorded` is what the image was made of that `standard` gives, from its report; None if that is not at
    hand.
    """
    if found is None:
        why = ("the base AMI or the worker's code can't be had: the plan says why",)
        return Decision(True, why, image=standard(None, facts.images))
    image = standard(found, facts.images)
    unproven = _unproven(found, facts.images)
    if image is None:
        return Decision(True, ("there is no good image of the profile yet",), found.id, unproven=unproven)
    if image.tags.get(PLAN_TAG) != found.id:
        reasons, unknown = compared(found, image, recorded)
        return Decision(True, reasons, found.id, image, unknown, unproven)
    if (old := _too_old(profile, image, facts.asked)) is not None:
        return Decision(True, (old,), found.id, image)
    return Decision(False, (f"nothing changed since {image.id}, of {image.created}",), found.id, image)


def with_updates(decision: Decision, found: Pending) -> Decision:
    """The decision of an image that is as it would be baked, where security updates count, too.

    What nobody could find out changes nothing but is told: a bake every night would not know more, and
    `rebuild.max_age` sees to it that no image gets too old.
    """
    unknown = (*decision.unknown, *found.unknown)
    if not found.updates:
        return replace(decision, unknown=unknown)
    return replace(decision, changed=True, reasons=(found.sentence,), unknown=unknown)


def _unproven(found: Identity, images: tuple[Baked, ...]) -> str | None:
    same = (image for image in reversed(images) if image.tags.get(PLAN_TAG) == found.id)
    return next((image.id for image in same if image.available and image.state == "unproven"), None)


def _too_old(profile: Profile, image: Baked, now: datetime) -> str | None:
    most = profile.rebuild.max_age
    if most is None:
        return None
    try:
        age = now - datetime.fromisoformat(image.created)
    except (ValueError, TypeError):
        return f"nobody knows how old {image.id} is, and rebuild.max_age is {duration_text(most)}"
    if age <= most:
        return None
    return f"{image.id} is {_age(age)} old, and rebuild.max_age is {duration_text(most)}"


def _age(age: timedelta) -> str:
    hours = age // timedelta(hours=1)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} h"


def compared(now: Identity, image: Baked, recorded: Parts | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What differs from an image, and what can't be told of it: by its report, else by its tags."""
    if recorded is not None:
        return tuple(_by_parts(recorded, now.parts)) or (_another(now, image),), ()
    before, after = _told(image), now.short
    lacking = tuple(group for group in after if group not in before and now.parts[group])
    texts = [
        f"{group} {before[group]} → {after[group]}" if group in ("base", "worker") else group
        for group in after
        if group in before and before[group] != after[group]
    ]
    unknown = []
    if vague := [text for text in texts if "→" not in text]:
        unknown.append(f"what changed in {', '.join(vague)}, as the report of {image.id} is not here")
    if lacking:
        unknown.append(
            f"{', '.join(lacking)}: the tags of {image.id} do not tell, and its report is not here"
        )
    return tuple(texts) or (_another(now, image),), tuple(unknown)


def _another(now: Identity, image: Baked) -> str:
    return f"plan {image.tags.get(PLAN_TAG) or 'unknown'} → {now.id}"


def _told(image: Baked) -> dict[str, str]:
    """What an AMI's tags tell of each group; of an AMI without the tag EC2 itself tells the base."""
    pairs = (word.partition("=") for word in image.tags.get(TAG, "").split())
    found = {group.replace("-", " "): value for group, equals, value in pairs if equals}
    return found or ({"base": image.base} if image.base else {})


def _by_parts(before: Parts, now: Parts) -> Iterator[str]:
    """What differs, a text for each group, in the order of the groups."""
    for group, after in now.items():
        was = before.get(group, {})
        names = [name for name in {**was, **after} if was.get(name) != after.get(name)]
        if names and not (group == "settings" and before.get("profile") != now.get("profile")):
            yield _said(group, names, was, after)


def _said(group: str, names: list[str], was: Mapping[str, str], after: Mapping[str, str]) -> str:
    match group:
        case "base":
            return f"base {was.get('ami', '?')} → {after.get('ami', '?')}"
        case "worker":
            return f"worker {was.get('code', '?')[:_DIGITS]} → {after.get('code', '?')[:_DIGITS]}"
        case "profile":
            each = (f"{name} {_plain(was.get(name))} → {_plain(after.get(name))}" for name in names)
            return ", ".join(each)
        case "checks":
            return f"{_count(len(names), 'check')}{_named(names)}"
        case "own checks":
            return f"{_count(len(names), 'own check')}{_named(names)}"
        case "weights" if "revision" in names:
            return (
                f"weights {was.get('revision', 'none')[:_DIGITS]} → {after.get('revision', 'none')[:_DIGITS]}"
            )
        case "provision" | "bake" | "weights":
            what = {"provision": "provisioning", "bake": "bake itself", "weights": "weights"}[group]
            return f"{what}: {_count(len(names), 'file')}{_named(names)}"
    return f"{group}: {', '.join(names)}"


def _plain(value: str | None) -> str:
    """A value of the profile, which is kept as JSON."""
    try:
        found = json.loads(value or "null")
    except ValueError:
        return str(value)
    if found is None or found == []:
        return "not set"
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _named(names: list[str]) -> str:
    return f" ({', '.join(names)})" if len(names) <= _FEW else ""
