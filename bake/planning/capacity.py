"""Calculate whether a bake fits beside what the base AMI holds, and list the choices if it does not.

`provision/capacity/inventory.py` measures on the builder. Nothing is chosen here, and no size changes
(R-DISK).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bake.account.instance_types import InstanceType
from bake.planning import disk as disk_of
from bake.planning.disk import FILE_SYSTEM, FILE_SYSTEM_SHARE, Disk, Part
from bake.planning.weights import WeightFiles
from bake.profile import Profile
from bake.weights import flux
from bake.weights.flux import GIB

KINDS = ("toolkit", "caches", "container images", "environment")
WORTH_NAMING = GIB // 10  # smaller things give no room that matters


@dataclass(frozen=True)
class Thing:
    """Something of the base AMI that `base.remove` can name. `bytes` are a lower bound unless `complete`.

    `packages` go with it, by the package manager. `blocked` says why it has to stay, `needed_by` names
    environments that are built on it, `mentioned_in` files of shells that will miss it.
    """

    name: str
    kind: str
    paths: tuple[str, ...]
    bytes: int
    complete: bool = True
    packages: tuple[str, ...] = ()
    blocked: str | None = None
    needed_by: tuple[str, ...] = ()
    mentioned_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class Content:
    """What the builder's disk holds, in bytes: `available` is what a plain user may still write.

    `places` maps directories that the bake writes to onto mount points, `free` those onto what is available.
    """

    size: int
    used: int
    available: int
    things: tuple[Thing, ...]
    others: tuple[tuple[str, int], ...] = ()
    places: Mapping[str, str] | None = None
    free: Mapping[str, int] | None = None
    complete: bool = True
    seconds: float = 0.0


def content(facts: Mapping[str, Any]) -> Content:
    """Read what `inventory.py` measured."""
    root = facts["filesystems"]["/"]
    tuples = ("paths", "packages", "needed_by", "mentioned_in")
    return Content(
        root["size"],
        root["used"],
        root["available"],
        tuple(Thing(**{**thing, **{key: tuple(thing[key]) for key in tuples}}) for thing in facts["things"]),
        tuple((other["path"], other["bytes"]) for other in facts["others"]),
        facts["places"],
        {place: system["available"] for place, system in facts["filesystems"].items()},
        facts["complete"],
        facts["seconds"],
    )


def measured(disk: Disk, found: Content, removed: Iterable[Thing] = ()) -> Disk:
    """Replace the plan's estimates with measured sizes, and subtract what is to be removed."""
    base, *rest = disk.parts
    volume = disk.volume_gib * GIB
    around = volume - found.used - found.available
    told = f"measured: {found.size / GIB:.1f} GiB of file system; other partitions, its own"
    parts = [replace(base, bytes=found.used, source="measured on the builder")]
    parts += [
        Part("removed", -thing.bytes, f"base.remove: {thing.name}, {', '.join(thing.paths)}")
        for thing in removed
    ]
    parts += [replace(part, bytes=around, source=told) if part.name == FILE_SYSTEM else part for part in rest]
    return replace(disk, parts=tuple(parts), at_most=False)


def chosen(names: Sequence[str], found: Content) -> tuple[list[Thing], list[str]]:
    """Return what `base.remove` names, and what is wrong with it; each problem lists what there is."""
    things = {thing.name: thing for thing in found.things}
    problems = []
    for name in names:
        if name not in things:
            near = difflib.get_close_matches(name, things, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(f"the base AMI has no {name}{hint}")
        elif why := objection(things[name], names):
            problems.append(f"{name} can't be removed: {why}")
    return [things[name] for name in names if name in things], problems


def objection(thing: Thing, names: Sequence[str]) -> str | None:
    """Say why a thing must stay. It may go together with everything that is built on it."""
    needed = [name for name in thing.needed_by if name not in names]
    return thing.blocked or (f"{', '.join(needed)} is built on it" if needed else None)


def inventory(found: Content) -> list[str]:
    """List what the base AMI holds, the largest first, and why some of it must stay."""
    lines = []
    for thing in found.things:
        if thing.bytes >= WORTH_NAMING or not thing.complete:
            why = objection(thing, ())
            stays = f"; stays: {why}" if why else ""
            lines.append(f"{_size(thing)}  {thing.name:<16} {', '.join(thing.paths)}{stays}")
    lines += [f"{size / GIB:7.1f} GiB  {'(not named)':<16} {path}" for path, size in found.others]
    return lines


def _size(thing: Thing) -> str:
    return f"{thing.bytes / GIB:7.1f} GiB{'' if thing.complete else ' at least'}"


def choices(
    profile: Profile, types: Sequence[InstanceType], weights: WeightFiles, disk: Disk, found: Content
) -> list[str]:
    """List the user's choices as lines of a profile, with the bytes each frees and whether that is enough.

    `disk` is what does not fit, with what is removed already. Another model is never among them (R-MODEL).
    """
    missing = -disk.free
    going = [part.source.removeprefix("base.remove: ").split(",")[0] for part in disk.parts if part.bytes < 0]
    removable = [
        thing
        for thing in found.things
        if thing.name not in going and thing.bytes >= WORTH_NAMING and not objection(thing, ())
    ]
    scratch = scratch_gives(profile, types, weights)
    enough = fewest(removable, missing)
    offers = [_removals(removable, going, enough, missing)] if removable else []
    if scratch is not None:
        offers.append([*_scratch_lines(profile), _given("  scratch: instance-store", scratch, missing)])
        both = fewest(removable, missing - scratch)
        if both and (not enough or len(both) < len(enough)):
            offers.append(_both(profile, going, both, scratch, missing))
    larger = math.ceil((disk.volume_gib * GIB + missing / (1 - FILE_SYSTEM_SHARE)) / GIB)
    more = f"root_volume.size_gib of {larger} at least; nothing is resized for you"
    lines = [line for offer in offers for line in (*offer, "or")]
    return [*lines[:-1], f"{'or ' if offers else ''}a larger disk, if you ask for one: {more}"]


def _removals(
    removable: Sequence[Thing], going: Sequence[str], enough: Sequence[Thing], missing: int
) -> list[str]:
    offered = enough or removable
    names = _yaml([*going, *(thing.name for thing in offered)])
    lines = ["base:", _given(f"  remove: {names}", sum(thing.bytes for thing in offered), missing)]
    rest = [f"{thing.name} ({_gib(thing.bytes)})" for thing in removable if thing not in offered]
    return [*lines, f"  # there are also {', '.join(rest)}"] if rest else lines


def _both(
    profile: Profile, going: Sequence[str], removed: Sequence[Thing], scratch: int, missing: int
) -> list[str]:
    names = _yaml([*going, *(thing.name for thing in removed)])
    given = scratch + sum(thing.bytes for thing in removed)
    own = ["base:", f"  remove: {names}", *_scratch_lines(profile)]
    return [*own, _given("  scratch: instance-store", given, missing)]


def _scratch_lines(profile: Profile) -> list[str]:
    """Return the lines of section `weights` that int8 needs and the profile does not have yet."""
    weights = profile.weights
    lines = ["weights:"]
    lines += ["  precision: int8"] if weights.precision != "int8" else []
    return [*lines, "  keep_source: false"] if weights.keep_source else lines


def _given(line: str, given: int, missing: int) -> str:
    """Write a line of a profile, with the bytes that it frees as a comment."""
    short = "enough" if given >= missing else f"{_gib(missing - given)} short"
    return f"{line}   # gives {_gib(given)}: {short}"


def _yaml(names: Iterable[str]) -> str:
    return f"[{', '.join(names)}]"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def scratch_gives(profile: Profile, types: Sequence[InstanceType], weights: WeightFiles) -> int | None:
    """Bytes that `weights.scratch: instance-store` saves; None if it is impossible or set already."""
    if profile.weights.scratch or profile.base.accelerator != "cuda":
        return None
    if any(kind.instance_store_gb * 10**9 < disk_of.scratch_needs(weights) for kind in types):
        return None
    extra = 0 if profile.weights.precision == "int8" else flux.checkpoint_bytes(weights.files)
    return weights.bytes - extra


def fewest(things: Sequence[Thing], missing: int) -> list[Thing]:
    """As few as will do, and of those no larger than need be; nothing where all of them are not enough.

    What somebody may miss is named last: toolkits go first, environments where all else is too little.
    """
    for number in range(1, len(KINDS) + 1):
        pool = [thing for thing in things if thing.kind in KINDS[:number]]
        if 0 < missing <= sum(thing.bytes for thing in pool):
            return _fewest(sorted(pool, key=lambda thing: -thing.bytes), missing)
    return []


def _fewest(largest_first: Sequence[Thing], missing: int) -> list[Thing]:
    taken: list[Thing] = []
    while (left := missing - sum(thing.bytes for thing in taken)) > 0:
        rest = [thing for thing in largest_first if thing not in taken]
        last = [thing for thing in rest if thing.bytes >= left]
        taken.append(min(last, key=lambda thing: thing.bytes) if last else rest[0])
    return taken


def elsewhere(found: Content, needs: Mapping[str, int]) -> list[str]:
    """Directories of the bake's that lie on another file system than the root's: what is wrong with that.

    `needs` maps each to the bytes that go there; those with 0 must be on the root volume at all events.
    """
    places, free = found.places or {}, found.free or {}
    wrong = []
    for path, size in needs.items():
        mount = places.get(path, "/")
        if mount == "/":
            continue
        if size == 0:
            wrong.append(f"{path} lies on the file system of {mount}, not on the root volume's own")
        elif free.get(mount, 0) < size:
            room = _gib(free.get(mount, 0))
            wrong.append(f"{path} needs {_gib(size)}; the file system of {mount} has {room}")
    return wrong
