"""Look at what the base AMI brought, before anything is fetched: what can't work stops here."""

from __future__ import annotations

from dataclasses import dataclass

from bake.checks.baseline import Baseline
from bake.errors import DoesNotFit
from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import Session
from bake.steps.check_capacity import NOTHING_DONE, Capacity, check_capacity
from bake.steps.record_baseline import record_baseline
from bake.steps.stop_upgrades import stop_upgrades

MIB = 1 << 20
# Bytes that root may still write to /boot, then those of its largest initramfs.
_BOOT = """
stat --file-system --format='%a %S' /boot
find /boot -maxdepth 1 -type f -name 'init*' -printf '%s\\n' | sort -n | tail -n 1
"""


@dataclass(frozen=True)
class Survey:
    """The base AMI as the builder has it: what it brought, and what takes its room."""

    capacity: Capacity
    baseline: Baseline


def survey(session: Session, plan: Plan, run: Run) -> Survey:
    """Record what the base brought, stop the machine's own upgrades, and find out whether the bake fits."""
    with run.progress.step("survey"):
        brought = record_baseline(session, plan, run)
        check_boot(session, plan)
        stop_upgrades(session, plan, run)
    with run.progress.step("fit"):
        return Survey(check_capacity(session, plan, run), brought)


def check_boot(session: Session, plan: Plan) -> None:
    """Raise DoesNotFit where a driver is to be built, and /boot has no room for the initramfs with it.

    The new one is written beside the old before it takes its place.
    """
    driver = plan.provision.settings["NVIDIA_DRIVER"]
    blocks, size, *largest = session.run("sh", "-c", _BOOT, sudo=True).stdout.split()
    free, needed = int(blocks) * int(size), int(largest[0]) if largest else 0
    if driver and needed > free:
        raise DoesNotFit(
            f"/boot has {free // MIB} MiB free, and an initramfs with the NVIDIA driver {driver} takes as "
            f"much as the one there: {needed // MIB} MiB",
            hint="remove old kernels from the base AMI, name one with a larger /boot, or one that has a "
            f"driver and leave nvidia.driver out; {NOTHING_DONE}",
        )
