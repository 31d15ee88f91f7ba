"""Mount the builder's instance store for the files that the int8 checkpoint is made from.

They never touch the root volume, so nothing of them is on the image. Only what ships must be on EBS (R-EBS).
"""

from __future__ import annotations

from typing import Any

from bake.errors import DoesNotFit
from bake.layout import SCRATCH
from bake.planning.plan import Plan
from bake.progress import readable
from bake.run import Run
from bake.ssh import Session
from bake.steps.ask_disks import ask_disks

SECONDS = 300


def mount_scratch(session: Session, plan: Plan, run: Run) -> None:
    """Mount it, unless it is mounted already or `weights.scratch` is not set."""
    if plan.profile.weights.scratch is None:
        return
    told = _ask(session, plan, "mount")
    kind = f"{told['filesystem']}, stands for an instance store" if plan.sources.scratch else told["model"]
    run.progress.note(f"the bfloat16 files go to {told['device']} ({kind}): {readable(told['free'])} free")


def unmount_scratch(session: Session, plan: Plan, run: Run) -> None:
    """Unmount it and drop its files."""
    if plan.profile.weights.scratch is None:
        return
    _ask(session, plan, "unmount")
    run.progress.note("the bfloat16 files lay on the instance store, and never on the image")


def _ask(session: Session, plan: Plan, verb: str) -> dict[str, Any]:
    assert plan.weights.lock is not None  # what is not locked is not baked
    given = {
        "verb": verb,
        "at": SCRATCH,
        "user": plan.system.user,
        "needed": sum(file.bytes for file in plan.weights.lock.files.values()),
        "stand_in": plan.sources.scratch,
    }
    told = ask_disks(session, "sizes", "packages", "scratch", given=given, seconds=SECONDS)
    if error := told.get("error"):
        raise DoesNotFit(
            f"weights.scratch: {error}",
            hint="nothing was downloaded; without weights.scratch these files lie on the root volume",
        )
    return told
