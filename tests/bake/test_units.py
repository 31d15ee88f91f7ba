"""Units on the builder, with a fake session in place of the machine."""

from __future__ import annotations

from bake import units
from bake.progress import Tally
from bake.ssh import CommandResult, Login, Session


class Slow(Session):
    """A machine whose systemd tells one state after the other, and a unit that said something."""

    def __init__(self, *states: str) -> None:
        self.login = Login("192.0.2.1", "ubuntu", "", "ssh-ed25519 AAAA")
        self.states = list(states)
        self.tally = Tally()

    def run_shell(
        self, command: str, *, stdin: bytes | None = None, argv: tuple[str, ...] | None = None
    ) -> CommandResult:
        if "systemctl" not in command:
            return CommandResult((command,), 0, "said", "", 0.0)
        facts = f"LoadState=loaded\nSubState={self.states.pop(0)}\nExecMainStatus=0\nResult=success\n"
        return CommandResult((command,), 0, facts, "", 0.0)


def test_a_unit_whose_start_is_still_queued_has_not_ended() -> None:
    """It is dead then, and its status is that of a success."""
    session = Slow("dead", "dead", "start", "running", "exited")
    result = units.Unit(session, "x", ("true",), 0.0).wait()
    assert session.states == []
    assert (result.exit_code, result.stdout) == (0, "said")
