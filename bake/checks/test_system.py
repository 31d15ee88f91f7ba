"""The operating system: the right one, whole, and on time."""

from __future__ import annotations

import re

from bake import layout
from bake.checks.declare import check
from bake.checks.evidence import Caused, Compare, not_applicable
from bake.checks.expectations import Expectations
from bake.checks.gathered import Answers, Facts

# SigV4 refuses requests that are five minutes off; a machine with working NTP is off by far less.
LARGEST_CLOCK_ERROR_S = 60


@check(
    "critical",
    "Drivers and packages are built for one operating system, and the profile's owner chose it.",
    "Name the AMI that was meant in `base`, or change `base.os` and agree to it.",
    asks=lambda expect: {"release": "cat /etc/os-release"},
    booted=True,
)
def test_operating_system(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """The operating system is the one the profile chose (R-OS, R-AMI)."""
    ids = [line[3:].strip("'\"") for line in answers["release"].lines if line.startswith("ID=")]
    one_of = " or ".join(f"ID={name}" for name in sorted(expect.os_ids))
    found = " ".join(f"ID={name}" for name in ids)
    compare.holds(answers["release"], bool(ids) and ids[0] in expect.os_ids, one_of, found)


@check(
    "high",
    "A package that is half installed breaks the next upgrade, and the program that it delivers.",
    "Mend the base AMI: `dpkg --configure -a`, or `dnf check` and what it names.",
    asks=lambda expect: {"brought": f"cat {layout.UNFINISHED_PACKAGES} 2>/dev/null || :"},
)
def test_packages_are_consistent(
    answers: Answers, compare: Compare, expect: Expectations, packages: Facts, caused: Caused
) -> None:
    """Every package is installed completely and has what it needs (R-OS)."""
    found = packages["unsound_packages"]
    if expect.packages == "apt":
        # Packages that dpkg could not finish, by provision/lib/packages.sh.
        brought = answers["brought"].words
        names = {line: re.match(r" (\S+)", line) for line in found}
        if brought:
            found = {line: "" for line, name in names.items() if name and name[1] not in brought}
    compare.none(packages, caused("unsound_packages", found), "no package that misses something")


def _updated(expect: Expectations) -> str | None:
    return None if expect.updates == "security" else "base.updates is none: the base's packages stay"


@check(
    "high",
    "An image with a known hole carries it to every worker that boots from it.",
    "Read logs/bake-updates.*.log; mend what can't be upgraded in the base AMI, or choose a newer one.",
    on_builder=True,  # the seal removes the index
    applies=_updated,
)
def test_security_updates_installed(compare: Compare, updates: Facts) -> None:
    """No security update of the distribution is pending but the kernel's and its drivers' (R-OS)."""
    if updates["no_index"]:
        not_applicable("not known in a rehearsal: its stand-in base has no index of security updates")
    compare.holds(
        updates, updates["known"] > 0, "an index of security updates", f"{updates['known']} entries"
    )
    compare.none(updates, updates["pending"], "no pending security update")


@check(
    "high",
    "The package manager and cloud-init run on the system's Python; a changed one breaks both at a boot.",
    "Install nothing into the system's Python: the worker has an environment of its own.",
)
def test_system_python_is_untouched(compare: Compare, packages: Facts, caused: Caused) -> None:
    """The system's own Python is as its packages, or the base AMI's makers, delivered it (R-OS)."""
    there = packages["python_packages"]
    compare.holds(packages, bool(there), "packages of the system's Python", there)
    compare.none(packages, caused("changed_python", packages["changed_python"]), "no changed file of them")


@check(
    "high",
    "A unit that fails on the builder fails on every worker, at every boot.",
    "Look at `systemctl status UNIT` and its journal; mend the base AMI or the script that installs it.",
    booted=True,
)
def test_no_failed_units(system: Facts, compare: Compare, expect: Expectations, caused: Caused) -> None:
    """No unit of systemd has failed (R-SYSTEMD)."""
    # NVIDIA's daemons end where there is no GPU, the fabric manager where there is no NVSwitch; the boot
    # check looks at them on the worker's own type.
    daemons = "nvidia-fabricmanager." if expect.device else "nvidia-"
    excused = (daemons,) if expect.accelerator == "cuda" else ()
    found = {unit: said for unit, said in system["failed_units"].items() if not unit.startswith(excused)}
    # Whatever the baseline says: without these there is no worker.
    ours = [unit for unit in found if unit.startswith(("flux-worker", "bake-"))]
    others = caused("failed_units", {unit: found[unit] for unit in found if unit not in ours})
    compare.none(system, others + ours, "no failed unit")


@check(
    "medium",
    "Swap hides that memory runs out until the machine is too slow to answer.",
    "Remove the line from /etc/fstab, or mask the .swap unit, in the base AMI.",
    booted=True,
)
def test_no_swap(system: Facts, compare: Compare, caused: Caused) -> None:
    """A boot switches no swap on that the base did not: the worker has none in any case (R-OOM)."""
    compare.none(system, caused("swap", system["swap"]), "no swap")


@check(
    "high",
    "AWS refuses requests that are signed at another time: the worker could not receive a job.",
    "Start chrony or systemd-timesyncd in the base AMI, with Amazon's time server 169.254.169.123.",
    asks=lambda expect: {"now": "date +%s.%N"},
    booted=True,
)
def test_clock(answers: Answers, compare: Compare) -> None:
    """The clock is right: AWS refuses requests that are signed at another time (R-SPOT)."""
    there = float(answers["now"].out)
    error = max(answers.began - there, there - answers.ended, 0.0)
    expected = f"within {LARGEST_CLOCK_ERROR_S} s of the controller's clock"
    compare.holds(answers["now"], error < LARGEST_CLOCK_ERROR_S, expected, f"{error:.1f} s off")
