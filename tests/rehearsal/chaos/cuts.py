"""Cut a bake in one of the ways of the table."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bake.localcloud.settings import API_PORT

from .cells import FAULTS, NOTICE, SIGNALS, Cell
from .lane import Controller, Lane

BRIEFLY, FOR_MINUTES = 4.0, 120.0  # seconds
ANY_MACHINE = 30.0  # seconds until the step has a machine, or has none

# What the message says of the cut, if the bake ends by it.
NAMED: Mapping[str, str] = {
    **{name: f"{name}|interrupted" for name in SIGNALS},
    "closed pipe": "interrupted|SIGPIPE|reader|closed|Broken pipe",
    "full disk": "No space left|could not be written",
    "SSH cut": "SSH|connection|reach|answer",
    "builder rebooted": "reboot|restart|SSH|connection|gone|unit|ended",
    "builder terminated": "terminated|shutting-down|gone|does not exist|no longer",
    NOTICE: "interrupted",
    "network gone for minutes": "network|reach|answer|connection|SSH|unproven",
    "refused": "not allowed|UnauthorizedOperation|Access ?Denied|not authorized|right|403",
    "throttled": "RequestLimitExceeded|Throttling|SlowDown|Rate exceeded|too many",
    "500": "InternalError|InternalFailure|internal error|500",
    "lost after success": "no answer|connection|Connection",
    "expired credentials": "expired|Expired",
}


class NoMachine(Exception):
    """The step has no machine that could be cut."""


def cut(cell: Cell, lane: Lane, bake: Controller, calls: Sequence[str]) -> dict[str, int]:
    """Cut the bake, which stands still at the beginning of the cell's step, and let it go on.

    Returns the number of the fault that is planted at each of the calls.
    """
    planted = {}
    for call in calls:
        service, _, action = call.partition(" ")
        fault = lane.faults.plant(service, action, caller="host", **FAULTS[cell.cut])  # type: ignore[arg-type]
        planted[call] = fault.number
    if planted:
        bake.go_on()
        return planted
    if cell.cut.startswith("kill -9"):
        bake.process.kill()
    elif cell.cut in SIGNALS:
        bake.process.send_signal(getattr(signal, cell.cut))
        bake.go_on()
    else:
        _CUTS[cell.cut](lane, bake)
    return planted


def _close_pipe(lane: Lane, bake: Controller) -> None:
    bake.close_pipes()
    bake.go_on()


def _fill_disk(lane: Lane, bake: Controller) -> None:
    with suppress(OSError), (lane.desk / "full").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    bake.go_on()


def empty_disk(desk: Path) -> None:
    (desk / "full").unlink(missing_ok=True)


def _cut_ssh(lane: Lane, bake: Controller) -> None:
    with lane.without(f"ip daddr {lane.settings.network} tcp dport 22 reject with tcp reset;"):
        bake.go_on()
        time.sleep(BRIEFLY)  # the outage itself


def _cut_network(lane: Lane, bake: Controller) -> None:
    ports = f"{{ 22, {API_PORT} }}"
    with lane.without(f"ip daddr {lane.settings.network} tcp dport {ports} drop;"):
        bake.go_on()
        deadline = time.monotonic() + FOR_MINUTES
        while time.monotonic() < deadline and bake.process.poll() is None:
            time.sleep(0.2)


def _reboot(lane: Lane, bake: Controller) -> None:
    lane.aws.ec2.reboot_instances(InstanceIds=[_machine(lane, bake, "running")])


def _terminate(lane: Lane, bake: Controller) -> None:
    lane.aws.ec2.terminate_instances(
        InstanceIds=[_machine(lane, bake, "pending", "running", "stopping", "stopped")]
    )


def _interrupt(lane: Lane, bake: Controller) -> None:
    """A notice that is short for a rehearsal, and the interruption."""
    identity = _machine(lane, bake, "pending", "running")
    lane.control("POST", f"/-/interruptions?instance={identity}&notice=2s")


def has_capacity_again(lane: Lane) -> None:
    """Let EC2 start what it has interrupted."""
    for identity in lane.machines("stopped"):
        lane.control("DELETE", f"/-/interruptions?instance={identity}")


def _machine(lane: Lane, bake: Controller, *states: str) -> str:
    """The machine of the step, once there is one; the bake goes on meanwhile."""
    bake.go_on()
    deadline = time.monotonic() + ANY_MACHINE
    while time.monotonic() < deadline and bake.process.poll() is None:
        if found := lane.machines(*states):
            return found[0]
        time.sleep(0.05)
    raise NoMachine


_CUTS: Mapping[str, Callable[[Lane, Controller], None]] = {
    "closed pipe": _close_pipe,
    "full disk": _fill_disk,
    "SSH cut": _cut_ssh,
    "network gone for minutes": _cut_network,
    "builder rebooted": _reboot,
    "builder terminated": _terminate,
    NOTICE: _interrupt,
}
