"""Survey the base AMI before anything is downloaded, and fail if the bake can't work on it."""

from __future__ import annotations

from dataclasses import dataclass

from bake import background
from bake.checks.baseline import Baseline
from bake.checks.case_list import SURVEY
from bake.checks.cases import Case, recording
from bake.errors import DoesNotFit
from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import Session
from bake.steps.check_capacity import NOTHING_DONE, Capacity, check_capacity
from bake.steps.record_baseline import record_baseline
from bake.steps.record_inventory import record_intended, record_inventory
from bake.steps.stop_upgrades import stop_upgrades
from bake.weights.flux import GIB

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
    with recording(run, "base", "survey", SURVEY, plan.verify.waivers) as cases:
        with run.progress.step("survey"):
            recorded = background.start(lambda: record_inventory(session, plan, run, "base"))
            brought = record_baseline(session, plan, run, cases)
            recorded.result()
            with cases.case("disk.boot_room") as case:
                check_boot(session, plan, case)
            with cases.case("system.upgrades_stopped") as case:
                stopped = stop_upgrades(session, plan, run)
                case("the package manager's lock is free", "free", "provision/lib/upgrades.sh")
                case("timers and daemons of upgrades are stopped", stopped, "systemctl stop")
        with run.progress.step("fit"), cases.case("disk.fits") as case:
            capacity = check_capacity(session, plan, run)
            record_intended(plan, run, capacity.removed)
            _tell(capacity, case)
            return Survey(capacity, brought)


def _tell(capacity: Capacity, case: Case) -> None:
    disk = capacity.disk
    parts = ", ".join(f"{part.name} {part.bytes / GIB:.1f}" for part in disk.parts)
    found = f"{disk.needed / GIB:.1f} GiB ({parts})"
    case(f"at most {disk.volume_gib} GiB", found, "stat --file-system / and the plan's sum")


def check_boot(session: Session, plan: Plan, case: Case | None = None) -> None:
    """Raise DoesNotFit if a driver will be built and /boot has no room for another initramfs.

    The new one is written beside the old one before it replaces it.
    """
    driver = plan.provision.settings["NVIDIA_DRIVER"]
    blocks, size, *largest = session.run("sh", "-c", _BOOT, sudo=True).stdout.split()
    free, needed = int(blocks) * int(size), int(largest[0]) if largest else 0
    if case is not None:
        case.does_not_apply = "" if driver else "no driver is built, so there is no new initramfs"
        case(
            f"{needed // MIB} MiB for another initramfs",
            f"{free // MIB} MiB free",
            "stat --file-system /boot",
        )
    if driver and needed > free:
        raise DoesNotFit(
            f"/boot has {free // MIB} MiB free, and an initramfs with the NVIDIA driver {driver} takes as "
            f"much as the one there: {needed // MIB} MiB",
            hint="remove old kernels from the base AMI, name one with a larger /boot, or one that has a "
            f"driver and leave nvidia.driver out; {NOTHING_DONE}",
        )
