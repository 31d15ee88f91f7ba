"""Look at what the first boot of the new image made, and at what its worker takes."""

from __future__ import annotations

from typing import Any

from bake.checks.cases import Cases
from bake.checks.probes import probe
from bake.ssh import Session
from bake.ssh.program import facts
from bake.steps.connect import WrongMachine
from bake.steps.wait_for_worker import services

SECONDS = 30
# A machine's clock is set while it boots: a file may look this much older than it is.
SLACK = 30.0
BY = "the probe first_boot"


def check_first_boot(session: Session, cases: Cases) -> int | None:
    """Record whether keys and id are this machine's own; return the bytes of memory that the worker took;
    of several workers, the largest.

    What fails is a failed case, and raises nothing: the image has drawn by now.
    """
    found = _ask(session)
    with cases.case("security.new_host_keys") as case:
        keys = found["keys"]
        old = {file: seconds for file, seconds in keys.items() if seconds < -SLACK}
        told = ", ".join(f"{file} {seconds:.0f} s after the boot" for file, seconds in keys.items())
        case.holds(bool(keys) and not old, "each written after the boot", told or "none", BY)
    with cases.case("system.new_machine_id") as case:
        made, identity = found["machine_id_after"], found["machine_id"]
        told = f"{identity or 'none'}, written {made or 0:.0f} s after the boot"
        whole = len(identity) == 32 and made is not None and made >= -SLACK
        case.holds(whole, "32 digits, written after the boot", told, BY)
    with cases.case("performance.memory") as case:
        memory, total = found["memory"], found["total"]
        if memory is None or total is None:
            case.does_not_apply = "the kernel does not tell the worker's memory"
            return None
        case.holds(memory <= total, f"at most {total} bytes", f"{memory} bytes at most", "VmHWM of proc(5)")
    return int(memory)


def _ask(session: Session) -> dict[str, Any]:
    units = [one["Id"] for one in services(session)]
    done = probe("first_boot").run(session, {"services": units}, SECONDS)
    try:
        return facts(done.check().stdout)
    except ValueError as error:
        raise WrongMachine(f"the new image's first boot can't be looked at: {done.stdout.strip()}") from error
