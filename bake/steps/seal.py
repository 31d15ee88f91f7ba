"""Remove from the builder what must not be in an image, and check by the same list that it is gone."""

from __future__ import annotations

import json

from bake.errors import NotVerified
from bake.layout import BAKE, SEAL, SYSTEM_PYTHON
from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import Session


def seal(session: Session, plan: Plan, run: Run) -> None:
    """Run `provision/seal.py` over the seal list; the session outlives its own authorized_keys.

    The model cache is kept wherever the profile puts it, even below a place that the list empties.
    """
    session.run("install", "-d", "-m", "700", SEAL, sudo=True)
    session.run("cp", f"{BAKE}/seal.py", f"{BAKE}/seal.json", SEAL, sudo=True)
    # One sudo for both parts: another would be logged by auditd and syslog, and found by the check. Run twice
    # it comes to the same. The keys go last: where the connection breaks after that, no new one can be
    # opened, and the bake stops, since nobody can tell whether the seal is tight.
    command = (SYSTEM_PYTHON, f"{SEAL}/seal.py", "both", "--keep", plan.weights.cache)
    done = session.run(*command, sudo=True, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise NotVerified(f"the seal broke off:\n{done.stdout.strip()}{done.stderr.strip()}") from None
    run.keep("logs/seal.log", "".join([found["log"], *(f"{note}\n" for note in found["notes"])]))
    if wrong := found["failures"] + found["left"]:
        raise NotVerified(
            "the seal is not tight; failed, or still there:\n" + "\n".join(wrong),
            hint="stop and mask what writes there on the base AMI, or choose another base",
        )
