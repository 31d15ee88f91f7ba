"""The builder's instance store, in place of the root volume, for the files that int8 is made of.

It is there while they are needed and leaves nothing on the image: only what ships must lie on EBS (R-EBS).
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
    """Mount it where the plan says, unless it is; nothing where `weights.scratch` is not set."""
    if plan.profile.weights.scratch is None:
        return
    told = _ask(session, plan, "mount")
    kind = f"{told['filesystem']}, stands for an instance store" if plan.sources.scratch else told["model"]
    run.progress.note(f"the bfloat16 files go to {told['device']} ({kind}): {readable(told['free'])} free")


def unmount_scratch(session: Session, plan: Plan, run: Run) -> None:
    """Take it off, with all that it holds."""
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
