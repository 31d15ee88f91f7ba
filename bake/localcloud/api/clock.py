"""The clock of a local cloud's API: this host's time, and as far ahead of it as `bake local clock` says.

What the API says and stamps follows it: the Date header of each answer, launch and creation times, spot
requests' ends, schedules. Signatures and sessions are judged by the host's clock, which those who sign have,
instances too: SDKs sign and renew by the clock of their machine.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core import utils

from bake.errors import UsageError
from bake.localcloud.network.control import Routes

log = logging.getLogger(__name__)

ROUTE = "/-/clock"
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_SPAN = re.compile(r"\+(?:[0-9]+[dhms])+")
_LONGEST = timedelta(days=3660)
_motos_utcnow = utils.utcnow


class CloudClock:
    """The API's time, and what is due by it. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ahead = timedelta()
        self._due: list[tuple[datetime, Callable[[], None]]] = []
        threading.Thread(target=self._run, name="clock", daemon=True).start()

    def now(self) -> datetime:
        """The API's time, in UTC."""
        return datetime.now(UTC) + self._ahead

    @property
    def ahead(self) -> timedelta:
        """How far it is ahead of the host's clock."""
        return self._ahead

    def advance(self, span: timedelta) -> None:
        """Move on by `span`; what is due by then is done at once."""
        with self._changed:
            if span > _LONGEST - self._ahead:
                raise UsageError("the clock goes ten years ahead at most", hint="bake local clock reset")
            self._ahead += span
            self._changed.notify_all()

    def reset(self) -> None:
        """Go back to the host's time; what was stamped meanwhile stays as it is."""
        with self._changed:
            self._ahead = timedelta()
            self._changed.notify_all()

    def at(self, moment: datetime, act: Callable[[], None]) -> None:
        """Call `act` once the clock shows `moment`, on the clock's own thread: it must not take long."""
        with self._changed:
            self._due.append((moment, act))
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            act = self._next()
            try:
                act()
            except Exception:  # any: whatever happens to this one, others are due
                log.exception("due by the clock")

    def _next(self) -> Callable[[], None]:
        """Wait for what is due first."""
        with self._changed:
            while True:
                self._due.sort(key=lambda entry: entry[0])
                left = (self._due[0][0] - self.now()).total_seconds() if self._due else None
                if left is not None and left <= 0:
                    return self._due.pop(0)[1]
                # Waits are cut short so that a change of the host's clock is noticed.
                self._changed.wait(None if left is None else min(left, 60.0))


def install(clock: CloudClock) -> None:
    """Let moto take its time from the clock; to be called before the first request."""

    def utcnow() -> datetime:
        return clock.now().replace(tzinfo=None)

    # Modules that are loaded have the function by name; later ones take it from moto's.
    for name, module in list(sys.modules.items()):
        if name.startswith("moto.") and getattr(module, "utcnow", None) is _motos_utcnow:
            module.utcnow = utcnow  # type: ignore[attr-defined]


def routes(clock: CloudClock) -> Routes:
    """The control routes of the clock, which `bake local clock` calls."""

    def show(request: Any) -> dict[str, Any]:
        return {"now": clock.now().isoformat(timespec="seconds"), "ahead_s": clock.ahead.total_seconds()}

    def advance(request: Any) -> dict[str, Any]:
        clock.advance(parse_span(request.get_data(as_text=True)))
        return show(request)

    def reset(request: Any) -> dict[str, Any]:
        clock.reset()
        return show(request)

    return {("GET", ROUTE): show, ("POST", ROUTE): advance, ("DELETE", ROUTE): reset}


def parse_span(text: str) -> timedelta:
    """Read a time like `+3h`, `+2d` or `+1h30m`; UsageError for any other."""
    if len(text) > 40 or not _SPAN.fullmatch(text):
        raise UsageError(
            f"{text[:40]}: the clock goes forward, or back to this host's", hint="+3h, +30m, reset"
        )
    parts = re.findall(r"(\d+)([dhms])", text)
    try:
        return sum((timedelta(**{_UNITS[unit]: int(count)}) for count, unit in parts), timedelta())
    except OverflowError as error:
        raise UsageError(f"{text}: that is too far", hint="+3h, +30m, reset") from error
