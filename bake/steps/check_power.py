"""Check that a machine of the new image stays on: nothing powers it off but what the base AMI brought."""

from __future__ import annotations

from bake.checks.baseline import Baseline
from bake.checks.probes import probe
from bake.errors import BakeError
from bake.layout import LEASE_UNIT
from bake.run import Run
from bake.ssh import Session
from bake.ssh.program import facts
from bake.steps.wait_for_worker import ImageIsBad

KIND = "powers_off"
SECONDS = 60  # the disk of a new machine is slow


def check_power(session: Session, run: Run, brought: Baseline | None = None) -> list[str]:
    """Raise ImageIsBad for what would power the machine off; name what the base AMI brought.

    Without a record of the base AMI a note names what was found, and only a builder's lease makes it bad.
    """
    found, lines = _ask(session)
    known = brought is not None and KIND in brought.found and KIND not in brought.unknown
    caused = brought.caused(KIND, found) if brought is not None and known else found
    bad = [name for name in caused if known or is_lease(name)]
    if bad:
        raise ImageIsBad(
            "the new image would power its machines off:\n"
            + "\n".join(f"{one}: {lines[one]}" for one in bad),
            hint="a worker runs until somebody ends it: look at what packages and scripts install",
        )
    for name in found:
        whose = "the base AMI brought it" if known else "nobody recorded what the base AMI brought"
        run.progress.note(f"WARNING: may power the machine off, and {whose}: {name}: {lines[name]}")
    return sorted(found)


def is_lease(name: str) -> bool:
    """Whether a finding is what ends a builder."""
    return f"/{LEASE_UNIT}" in name


def _ask(session: Session) -> tuple[dict[str, str], dict[str, str]]:
    done = probe("power").run(session, {"lease": LEASE_UNIT}, SECONDS)
    try:
        told = facts(done.check().stdout)
    except ValueError as error:
        raise BakeError(f"nobody can tell what powers the new image off: {done.stdout.strip()}") from error
    return told[KIND], told["lines"]
