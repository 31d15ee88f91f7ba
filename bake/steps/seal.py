"""Remove from the builder what must not be in an image, and check by the same list that it is gone."""

from __future__ import annotations

from bake.errors import NotVerified
from bake.plan import Plan
from bake.run import Run
from bake.ssh import Session
from bake.steps.provision import REMOTE

# Memory, so that the tool itself is never in the snapshot.
SCRATCH = "/run/bake-seal"


def seal(session: Session, plan: Plan, run: Run) -> None:
    """Run `provision/seal.py` over the seal list; the session outlives its own authorized_keys.

    The model cache is kept wherever the profile puts it, even below a place that the list empties.
    """
    session.run("install", "-d", "-m", "700", SCRATCH, sudo=True)
    session.run("cp", f"{REMOTE}/seal.py", f"{REMOTE}/seal.json", SCRATCH, sudo=True)
    keep = ("--keep", plan.cache)
    done = session.run("python3", f"{SCRATCH}/seal.py", "delete", *keep, sudo=True)
    run.keep("logs/seal.log", done.stdout)
    left = session.run("python3", f"{SCRATCH}/seal.py", "check", *keep, sudo=True, check=False)
    if left.exit_code:
        raise NotVerified(f"the seal is not tight; still there:\n{left.stdout.strip()}{left.stderr.strip()}")
