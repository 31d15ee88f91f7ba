"""The builder's own end of the lease: a timer that powers it off at the expiry, whoever has died by then."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from importlib import resources

from bake.creation import time_of
from bake.errors import BakeError
from bake.layout import LEASE, LEASE_KEPT, LEASE_UNIT, SYSTEM_PYTHON, UNITS_IN_MEMORY
from bake.run import Run
from bake.ssh import Session

SECONDS = 60  # for one renewal
# The program comes by stdin or by the second argument, and is put into memory; /run may be noexec.
_PLACE = 'umask 022; mkdir -p "$1" && cat > "$1/lease.new" && mv "$1/lease.new" "$1/lease.py" && '
_RUN = 'exec timeout -k 5 "$2" "$3" "$1/lease.py" "$4" "$5"'


def boot_command(expires: datetime, length: timedelta) -> list[str]:
    """The command for `bootcmd` of cloud-config, which runs at each boot, and early."""
    line = f'printf %s "$6" | {{ {_PLACE}{_RUN}; }}'
    return ["sh", "-c", line, "sh", *_arguments("boot", expires, length), _program()]


def renew(session: Session, expires: datetime, length: timedelta) -> None:
    """Move the builder's expiry; raises BakeError if it did not answer that it has."""
    command = ("sh", "-c", _PLACE + _RUN, "sh", *_arguments("renew", expires, length))
    session.run(*command, stdin=_program().encode(), sudo=True, again=False)


def _arguments(verb: str, expires: datetime, length: timedelta) -> list[str]:
    settings = {
        "expires": int(expires.timestamp()),
        "length": int(length.total_seconds()),
        "kept": LEASE_KEPT,
        "units": UNITS_IN_MEMORY,
        "name": LEASE_UNIT,
    }
    return [LEASE, str(SECONDS), SYSTEM_PYTHON, verb, json.dumps(settings)]


def _program() -> str:
    return (resources.files(__name__) / "program.py").read_text(encoding="utf-8")


class _Renewal:
    """Renews in a thread of its own: a builder that does not answer must not hold up the bake's own lease."""

    def __init__(self, session: Session, length: timedelta) -> None:
        self._session, self._length = session, length
        self._running: threading.Thread | None = None
        self._error: Exception | None = None

    def __call__(self, until: str) -> None:
        if self._running is None:
            self._running = threading.Thread(target=self._renew, args=(until,), daemon=True)
            self._running.start()
        self._running.join(SECONDS / 3)
        if self._running.is_alive():
            raise BakeError("the builder does not answer")
        self._running, error, self._error = None, self._error, None
        if error is not None:
            raise error

    def _renew(self, until: str) -> None:
        try:
            if (expires := time_of(until)) is not None:
                renew(self._session, expires, self._length)
        except Exception as error:  # raised where it was asked for
            self._error = error

    def settle(self) -> None:
        """Wait for a renewal that is under way."""
        if self._running is not None:
            self._running.join(SECONDS)


@contextmanager
def renewed(session: Session, run: Run, expires: datetime, length: timedelta) -> Iterator[None]:
    """Move the builder's expiry now, and with each renewal of the run's lease until the block ends.

    The seal comes after it: nothing may be written to the builder from then on.
    """
    renew(session, expires, length)
    one = _Renewal(session, length)
    run.on_builder.append(one)
    try:
        yield
    finally:
        run.on_builder.remove(one)
        one.settle()
