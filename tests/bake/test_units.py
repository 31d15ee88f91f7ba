"""Units on the builder, with a fake session in place of the machine."""

from __future__ import annotations

import pytest

from bake import units
from bake.progress import Tally
from bake.ssh import CommandResult, Login, Session


class Slow(Session):
    """A machine whose systemd tells one state after the other, and a unit that said something."""

    def __init__(self, *states: str) -> None:
        self.login = Login("192.0.2.1", "ubuntu", "", "ssh-ed25519 AAAA")
        self.states = list(states)
        self.tally = Tally()
        self.work: list[list[tuple[str, str]]] = []

    def run_shell(
        self, command: str, *, stdin: bytes | None = None, argv: tuple[str, ...] | None = None
    ) -> CommandResult:
        if "systemctl" not in command:
            return CommandResult((command,), 0, "said", "", 0.0)
        facts = f"LoadState=loaded\nSubState={self.states.pop(0)}\nExecMainStatus=0\nResult=success\n"
        facts += "".join(f"{name}={value}\n" for name, value in self.work.pop(0)) if self.work else ""
        return CommandResult((command,), 0, facts, "", 0.0)


def test_a_unit_whose_start_is_still_queued_has_not_ended() -> None:
    """It is dead then, and its status is that of a success."""
    session = Slow("dead", "dead", "start", "running", "exited")
    result = units.Unit(session, "x", ("true",), 0.0).wait()
    assert session.states == []
    assert (result.exit_code, result.stdout) == (0, "said")


MINUTE = 60 * 10**9  # nanoseconds
NOT_SET = str(2**64 - 1)


@pytest.mark.parametrize(
    ("cpu", "read", "written", "works"),
    [
        pytest.param(MINUTE, 0, 0, True, id="computes"),
        pytest.param(4 * MINUTE // 60, 0, 0, True, id="computes-a-little"),
        pytest.param(0, 60 * 10**8, 0, True, id="reads"),
        pytest.param(0, 0, 60 * 10**8, True, id="writes"),
        pytest.param(0, 0, 0, False, id="sleeps"),
        pytest.param(MINUTE // 100, 20_000, 20_000, False, id="only-looks-again-and-again"),
    ],
)
def test_a_silent_unit_works_by_what_systemd_counts(cpu: int, read: int, written: int, works: bool) -> None:
    work = units.Work(0.0)
    before = {"CPUUsageNSec": "7000000000", "IOReadBytes": "5000", "IOWriteBytes": "5000"}
    work.grew(before, 60.0)
    after = {"CPUUsageNSec": str(7 * 10**9 + cpu)}
    after |= {"IOReadBytes": str(5000 + read), "IOWriteBytes": str(5000 + written)}
    assert not work.grew(after, 90.0)
    assert work.grew(after, 120.0) is works
    assert not work.grew(after, 180.0), "the same counters again are no work"


@pytest.mark.parametrize("value", ["[not set]", NOT_SET, "", "no data"])
def test_what_systemd_does_not_count_is_no_work(value: str) -> None:
    work = units.Work(0.0)
    assert not work.grew({"CPUUsageNSec": value, "IOReadBytes": value}, 60.0)
    assert not work.grew({}, 120.0)


@pytest.mark.parametrize(("measured", "moved"), [(True, True), (False, False)])
def test_work_renews_the_lease_unless_the_unit_tells_itself(
    monkeypatch: pytest.MonkeyPatch, measured: bool, moved: bool
) -> None:
    monkeypatch.setattr(units, "WINDOW", 0.0)
    session = Slow("running", "running", "exited")
    session.tally.saw("x", "running")
    session.tally.saw("x", "exited")
    session.tally.saw("output of x", "")
    session.tally.moved_at = 0.0
    session.work = [[("CPUUsageNSec", str(count * MINUTE))] for count in range(3)]
    units.Unit(session, "x", ("true",), 0.0).wait(measured=measured)
    assert (session.tally.moved_at > 0.0) is moved
    assert session.tally.last_move == ("x worked" if moved else "output of x: ")
