"""Measure what the base AMI holds, remove what the profile names, and fail unless the rest fits the volume.

Runs before anything is downloaded. It changes no size (R-DISK), and removes only what `base.remove` names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bake import layout
from bake.errors import BakeError, DoesNotFit, UsageError
from bake.planning import capacity as planning
from bake.planning import disk as disk_of
from bake.planning.capacity import Content, Thing
from bake.planning.disk import Disk
from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import Session
from bake.steps.ask_disks import ask_disks
from bake.steps.mount_scratch import mount_scratch
from bake.weights.flux import GIB

CONTENT = "base-content.json"
MEASURING = 45  # seconds; anything not measured by then is reported as a lower bound
REMOVING = 1200
PACKAGES = GIB // 2  # package lists, downloads and logs, if /var is a file system of its own
NOTHING_DONE = "nothing was downloaded, removed or resized; the builder is removed"


@dataclass(frozen=True)
class Capacity:
    """The builder's root volume: what the base AMI holds, what was removed, and how the bake fits.

    Each entry of `removed` has a name, paths, packages, links and the bytes that were freed.
    """

    content: Content
    removed: tuple[Mapping[str, Any], ...]
    disk: Disk


def check_capacity(session: Session, plan: Plan, run: Run) -> Capacity:
    """Measure, remove and compare.

    Raises DoesNotFit, with the calculation and the choices, unless everything fits beside the base AMI.
    """
    capacity = _capacity(session, plan, run)
    run.keep(CONTENT, json.dumps(as_dict(capacity), indent=2) + "\n")
    held, free = capacity.content.used / GIB, capacity.disk.free / GIB
    fits = f"all of it fits {capacity.disk.volume_gib} GiB, {free:.1f} GiB to spare"
    run.progress.note(f"the base AMI holds {held:.1f} GiB; {fits}")
    mount_scratch(session, plan, run)
    return capacity


def _capacity(session: Session, plan: Plan, run: Run) -> Capacity:
    run.progress.status("measuring what the base AMI holds")
    found = measure(session, plan)
    run.keep(CONTENT, json.dumps({"content": asdict(found)}, indent=2) + "\n")
    things = _chosen(plan, found)
    _check_places(plan, found)
    _check(plan, planning.measured(plan.image.disk, found, things), found)
    removed = _remove(session, things, run) if things else []
    if removed:
        found = measure(session, plan)
        _check(plan, planning.measured(plan.image.disk, found), found)
    return Capacity(found, tuple(removed), planning.measured(plan.image.disk, found))


def as_dict(capacity: Capacity) -> dict[str, Any]:
    """Return it as JSON-like values; sizes are bytes."""
    return {
        "content": asdict(capacity.content),
        "removed": list(capacity.removed),
        "disk": {**asdict(capacity.disk), "needed": capacity.disk.needed, "free": capacity.disk.free},
    }


def measure(session: Session, plan: Plan) -> Content:
    """Measure the machine; unnamed large directories are searched for only if the bake does not fit."""
    given = {
        "beside": plan.image.disk.needed_beside_base,
        "places": ["/tmp", "/boot", *_needs(plan)],  # noqa: S108
        "homes": [plan.system.home],
        "deadline": MEASURING,
    }
    return planning.content(
        ask_disks(session, "sizes", "packages", "inventory", given=given, seconds=4 * MEASURING)
    )


def _needs(plan: Plan) -> dict[str, int]:
    """Return the bytes that the bake writes elsewhere; 0 for paths that must be on the root file system."""
    parts = {part.name: part.bytes for part in plan.image.disk.parts}
    models = {plan.weights.model_dir: 0} if plan.weights.model_dir else {}
    return {
        plan.weights.cache: 0,
        **models,
        "/var": PACKAGES,
        layout.WORKER: parts.get("worker", 0) + parts.get("for Neuron", 0),
    }


def _chosen(plan: Plan, found: Content) -> list[Thing]:
    """Return what `base.remove` names; for an unknown name raise an error that lists the known ones."""
    things, problems = planning.chosen(plan.profile.base.remove, found)
    if problems:
        origin = plan.origins.get("base.remove", "the profile")
        lines = [f"{origin}: base.remove: {problem}" for problem in problems]
        there = planning.inventory(found) or ["nothing that could be removed"]
        raise UsageError("\n".join([*lines, "    there is:", *_indented(there)]), hint=NOTHING_DONE)
    return things


def _check_places(plan: Plan, found: Content) -> None:
    """Check that the image's files go to the root volume, and that other partitions have enough room."""
    if wrong := planning.elsewhere(found, _needs(plan)):
        hint = f"name a base AMI without a partition for that, or move weights.cache; {NOTHING_DONE}"
        raise DoesNotFit("\n".join(wrong), hint=hint)


def _check(plan: Plan, disk: Disk, found: Content) -> None:
    if disk.free >= 0:
        return
    origin = plan.origins.get("root_volume.size_gib", "the profile")
    volume, missing = disk.volume_gib, -disk.free / GIB
    held = f"the base AMI holds {found.used / GIB:.1f} GiB"
    choices = planning.choices(plan.profile, plan.launch.types, plan.weights.files, disk, found)
    lines = [f"{origin}: root_volume.size_gib: {held}: {missing:.1f} GiB are missing of {volume} GiB"]
    lines += _indented(disk_of.arithmetic(disk))
    lines += ["  what the base AMI holds:", *_indented(planning.inventory(found))]
    lines += ["  choose in the profile, then `bake approve`:", *_indented(choices)]
    raise DoesNotFit("\n".join(lines), hint=NOTHING_DONE)


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _remove(session: Session, things: list[Thing], run: Run) -> list[dict[str, Any]]:
    """Remove it and note the bytes freed; raises BakeError if something can't be removed."""
    run.progress.status(f"removing {', '.join(thing.name for thing in things)}")
    keys = ("name", "kind", "paths", "packages")
    given = {
        "things": [{key: value for key, value in asdict(thing).items() if key in keys} for thing in things]
    }
    told = ask_disks(session, "packages", "remove", given=given, seconds=REMOVING)
    removed: list[dict[str, Any]] = told["removed"]
    for one in removed:
        more = f", {len(one['packages'])} packages" if one["packages"] else ""
        won = f"{one['bytes'] / GIB:.1f} GiB won"
        run.progress.note(f"base.remove: {one['name']} ({', '.join(one['paths'])}{more}) is gone, {won}")
    for thing in things:
        if thing.mentioned_in:
            run.progress.note(f"{thing.name} is still mentioned in {', '.join(thing.mentioned_in)}")
    if told["error"]:
        raise BakeError(
            f"base.remove: {told['error']}",
            hint="the builder is removed; take the name out of base.remove, "
            "or look what the base AMI does with it",
        )
    return removed
