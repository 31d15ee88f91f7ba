"""Stop a fresh machine from upgrading itself while it is baked."""

from __future__ import annotations

from bake import units
from bake.errors import BakeError
from bake.planning.plan import Plan
from bake.resources import PROVISION
from bake.run import Run
from bake.ssh import Session
from bake.steps.check_script import check_script

LIBRARY = [PROVISION / "lib" / f"{name}.sh" for name in ("environment", "packages", "upgrades")]
EVERY = 1.0  # seconds between two checks of the locks


def stop_upgrades(session: Session, plan: Plan, run: Run) -> list[str]:
    """Stop the machine's own upgrades until its next boot, and wait for one that is running; name them.

    Nothing is disabled: the image upgrades itself as its base does. Raises BakeError if the package manager
    is still locked after `builder.package_wait_minutes`, and says by whom.
    """
    stopped = _ask(session, "upgrades_stop_timers").splitlines()
    wait_for_packages(session, run, plan.profile.builder.package_wait_minutes * 60)
    stopped += _ask(session, "upgrades_stop_daemons").splitlines()
    if stopped:
        run.progress.note(f"stopped until the image boots: {', '.join(sorted(stopped))}")
    if _ask(session, "packages_unfinished || true"):
        _finish(session, plan, run)
    return sorted(stopped)


def wait_for_packages(session: Session, run: Run, seconds: float) -> None:
    """Wait until nobody holds the package manager's locks, and show who does."""
    with run.progress.tally.waiting("the package manager's lock", seconds) as wait:
        while holder := _ask(session, "upgrades_running || true").strip():
            if wait.seconds > seconds:
                raise _still_locked(wait.seconds, holder)
            wait.say(f"held by {holder}")
            wait.pause(EVERY)


def _still_locked(seconds: float, holder: str) -> BakeError:
    return BakeError(
        f"the package manager of the builder is still locked after {seconds:.0f} s by {holder}",
        hint="that program must end first; on a fresh machine it is an upgrade, or DKMS that builds: "
        "wait longer with builder.package_wait_minutes, or choose a base AMI that does not "
        "begin one; nothing was downloaded",
    )


def _finish(session: Session, plan: Plan, run: Run) -> None:
    """Finish an interrupted dpkg run, in a unit, since that may build kernel modules."""
    script = _script(
        f"PACKAGES_LOCK_TIMEOUT={plan.profile.builder.package_wait_minutes * 60}\npackages_finish"
    )
    unit = units.start(session, "bake-finish-packages", "bash", "-s", stdin=script)
    result = unit.wait(seconds=1.0)
    unit.save_logs(run, result)
    check_script(result, run)


def _ask(session: Session, call: str) -> str:
    """Run a function of `provision/lib/upgrades.sh`, sent by stdin."""
    return session.run("bash", "-s", stdin=_script(call), sudo=True).stdout


def _script(call: str) -> bytes:
    return b"".join([*(file.read_bytes() for file in LIBRARY), f"{call}\n".encode()])
