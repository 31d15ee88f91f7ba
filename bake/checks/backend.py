"""Run testinfra over the bake's own SSH session, without a second connection or host key."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from typing import Any

import testinfra
import testinfra.host
from testinfra.backend.base import BaseBackend, CommandResult

from bake.errors import BakeError, UsageError
from bake.ssh import Session

# testinfra logs each command with its output, and what a check finds must not be logged.
logging.getLogger("testinfra").setLevel(logging.WARNING)

TAIL_LINES = 5


class Output(CommandResult):  # type: ignore[misc]  # testinfra is read as Any
    """A command's result, shown in a failed check by its exit code and last lines."""

    def __repr__(self) -> str:
        said = (self.stderr or self.stdout).strip().splitlines()[-TAIL_LINES:]
        return f"<exit code {self.rc}: {' / '.join(said) or 'no output'}>"


class SessionBackend(BaseBackend):  # type: ignore[misc]  # testinfra is read as Any
    """Runs testinfra's commands as root over a `Session`; secrets go in by `stdin`."""

    NAME = "bake"

    def __init__(self, session: Session) -> None:
        super().__init__(hostname=session.login.address, sudo=True)
        self._session = session

    def get_encoding(self) -> str:
        """Return UTF-8, as `Session` decodes, without asking the machine."""
        return "utf-8"

    def get_sudo_command(self, command: str, sudo_user: str | None) -> str:
        """Use `sudo -n`, which fails instead of asking for a password."""
        as_user = ("-u", sudo_user) if sudo_user else ()
        return shlex.join(("sudo", "-n", *as_user, "/bin/sh", "-c", command))

    def run(self, command: str, *args: str, stdin: bytes | None = None, **_: Any) -> Output:
        """Run one command; each `%s` is replaced by one of `args`, quoted."""
        line = self.get_command(command, *args)
        done = self._session.run_shell(line, stdin=stdin)
        return Output(self, done.exit_code, line.encode(), done.stdout, done.stderr)


def host(session: Session) -> testinfra.host.Host:
    """Make the testinfra `host` of the checks."""
    backend = SessionBackend(session)
    machine = testinfra.host.Host(backend)
    backend.set_host(machine)
    return machine


def named(
    url: str, *, ssh_config: str | None = None, identity: str | None = None, proxy: Sequence[str] = ()
) -> testinfra.host.Host:
    """Connect as testinfra does, as root; UsageError for an unknown kind of connection.

    `proxy` is a command that leads to the machine, for ssh(1); where it is not empty, `url` is of SSH.
    """
    through = {"ssh_extra_args": f"-o {shlex.quote(_option(proxy))}"} if proxy else {}
    try:
        machine = testinfra.get_host(
            url, sudo=True, ssh_config=ssh_config, ssh_identity_file=identity, **through
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{url}: {error}", hint="such as ssh://ubuntu@192.0.2.1") from error
    try:
        done = machine.run("id -u")
    except (RuntimeError, OSError) as error:
        said = getattr(error.args[-1] if error.args else error, "stderr", None) or str(error)
        raise BakeError(f"{url} can't be reached: {said.strip()}") from error
    if done.stdout.strip() != "0":
        raise BakeError(f"nobody becomes root on {url}: {(done.stderr or done.stdout).strip()}")
    return machine


def _option(proxy: Sequence[str]) -> str:
    """The option of ssh(1), which hands the command to a shell, and replaces what begins with %."""
    return f"ProxyCommand={shlex.join(proxy).replace('%', '%%')}"
