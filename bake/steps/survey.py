"""Survey the base AMI before anything is downloaded, and fail if the bake can't work on it."""

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
# Prints the bytes free on /boot for root, then the size of its largest initramfs.
_BOOT = """
stat --file-system --format='%a %S' /boot
find /boot -maxdepth 1 -type f -name 'init*' -printf '%s\\n' | sort -n | tail -n 1
"""


@dataclass(frozen=True)
class Survey:
    """The base AMI on the builder: its contents and the findings of its own."""

    capacity: Capacity
    baseline: Baseline


def survey(session: Session, plan: Plan, run: Run) -> Survey:
    """Record what the base contains, stop the machine's own upgrades, and check that the bake fits."""
    with run.progress.step("survey"):
        brought = record_baseline(session, plan, run)
        check_boot(session, plan)
        stop_upgrades(session, plan, run)
    with run.progress.step("fit"):
        return Survey(check_capacity(session, plan, run), brought)


def check_boot(session: Session, plan: Plan) -> None:
    """Raise DoesNotFit if a driver will be built and /boot has no room for another initramfs.

    The new one is written beside the old one before it replaces it.
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
