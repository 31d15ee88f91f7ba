"""Let Ctrl-C, SIGTERM and SIGHUP end a bake cleanly at any moment.

The first signal raises `Interrupted` in the main thread, so that every `with` block undoes its work. Later
signals are only acknowledged, since an interrupted clean-up leaks instances.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from bake.errors import Interrupted

_state = {"deferred": 0, "pending": 0, "raised": 0, "ending": 0}


def install() -> None:
    """Handle SIGINT, SIGTERM and SIGHUP in this process (main thread only); nohup's ignored SIGHUP stays."""
    _state.update(deferred=0, pending=0, raised=0, ending=0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


def request() -> None:
    """End this process as SIGTERM does, from any thread; does nothing unless `install` was called."""
    if signal.getsignal(signal.SIGTERM) == _handle:
        # Sent to the main thread, so that it interrupts a blocking call.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _handle(number: int, _frame: FrameType | None) -> None:
    if _state["raised"] or _state["ending"]:
        _acknowledge()
    elif _state["deferred"]:
        _state["pending"] = number
        _acknowledge()
    else:
        _raise(number)


def _acknowledge() -> None:
    # Not print(): the handler may have interrupted one, and the terminal may be gone.
    with suppress(OSError):
        os.write(2, b"still removing what was created; please wait\n")


def _raise(number: int) -> None:
    _state["raised"] = number
    raise Interrupted(signal.Signals(number).name)


@contextmanager
def deferred() -> Iterator[None]:
    """Defer a signal until the block ends, so that removals finish."""
    _state["deferred"] += 1
    try:
        yield
    finally:
        _state["deferred"] -= 1
        if _state["pending"] and not _state["deferred"] and not _state["raised"]:
            _raise(_state["pending"])


def ending() -> None:
    """Only acknowledge signals from now on, because something else has ended the bake."""
    _state["ending"] = 1


def check() -> None:
    """Raise an interrupt again that a library swallowed (pytest turns it into an exit code)."""
    if _state["raised"]:
        raise Interrupted(signal.Signals(_state["raised"]).name)
