"""Create the boot check's queues, bucket, bus and rule before the builder: a denial costs seconds then."""

from __future__ import annotations

from bake.aws import Aws
from bake.creation import stamp, unless_absent
from bake.planning.plan import Plan
from bake.run import Run
from bake.steps.exclusive import refuse_second
from bake.steps.tags import tags
from bake.undo import Undo
from bake.wiring import Wiring, wire

BOOT_CHECK = "boot check"  # the group of their removals, which stay when the builder is removed
WIRING = "wiring"


def wire_boot_check(plan: Plan, aws: Aws, run: Run, undo: Undo, earlier: Wiring | None) -> Wiring | None:
    """Create them, or take over those of an `earlier` attempt; None if the boot check is done already.

    Their names are those of this attempt: SQS refuses for a minute a name that was just deleted. What waits
    in them for hours is nothing: the first message is the boot check's.
    """
    if run.recalls(BOOT_CHECK):
        return None
    with run.progress.step(WIRING):
        if run.exclusive and run.attempt == 1:
            refuse_second(plan, aws, run)
        if earlier is not None and _is_there(earlier, aws, run):
            return _keep_renewed(earlier, aws, run)
        wiring = new_wiring(plan, aws, run, undo)
        run.remember(WIRING, Wiring, wiring)
        return wiring


def new_wiring(plan: Plan, aws: Aws, run: Run, undo: Undo) -> Wiring:
    """Create them."""
    known = {tag["Key"]: tag["Value"] for tag in tags(plan, run, run.name)}
    with undo.group(BOOT_CHECK):
        return _keep_renewed(wire(aws, run.id, known, undo), aws, run)


def _is_there(earlier: Wiring, aws: Aws, run: Run) -> bool:
    """Move the expiry of what an earlier attempt made; False if a part of it is gone by now."""
    until = stamp(run.expires())

    def renewed() -> bool:
        earlier.renew(aws, until)
        return True

    return unless_absent(renewed) is not None


def _keep_renewed(wiring: Wiring, aws: Aws, run: Run) -> Wiring:
    """Let the lease move their expiry from now on."""
    run.renewals.append(lambda until: wiring.renew(aws, until))
    return wiring
