"""testinfra on the SSH session the bake already holds: no second connection, no second host key."""

from __future__ import annotations

import logging
import shlex
from typing import Any

import testinfra.host
from testinfra.backend.base import BaseBackend, CommandResult

from bake.ssh import Session

# testinfra logs every command with all of its output; what a check finds on the machine stays out of logs.
logging.getLogger("testinfra").setLevel(logging.WARNING)

TAIL_LINES = 5


class Output(CommandResult):  # type: ignore[misc]  # testinfra is read as Any
    """A command's result that says in a failed check what a person wants to know."""

    def __repr__(self) -> str:
        said = (self.stderr or self.stdout).strip().splitlines()[-TAIL_LINES:]
        return f"<exit code {self.rc}: {' / '.join(said) or 'no output'}>"


class SessionBackend(BaseBackend):  # type: ignore[misc]  # testinfra is read as Any
    """Runs testinfra's commands as root over a `Session`; `stdin` is the way for secrets."""

    NAME = "bake"

    def __init__(self, session: Session) -> None:
        super().__init__(hostname=session.login.address, sudo=True)
        self._session = session

    def get_encoding(self) -> str:
        """Say UTF-8 without asking the machine: `Session` decodes so."""
        return "utf-8"

    def get_sudo_command(self, command: str, sudo_user: str | None) -> str:
        """`sudo -n`: a password prompt is a failure at once, not a wait for ever."""
        as_user = ("-u", sudo_user) if sudo_user else ()
        return shlex.join(("sudo", "-n", *as_user, "/bin/sh", "-c", command))

    def run(self, command: str, *args: str, stdin: bytes | None = None, **_: Any) -> Output:
        """Run one command; `%s` in it stand for `args`, quoted."""
        line = self.get_command(command, *args)
        done = self._session.run_shell(line, stdin=stdin)
        return Output(self, done.exit_code, line.encode(), done.stdout, done.stderr)


def host(session: Session) -> testinfra.host.Host:
    """Make the testinfra `host` that the checks talk to."""
    backend = SessionBackend(session)
    machine = testinfra.host.Host(backend)
    backend.set_host(machine)
    return machine
