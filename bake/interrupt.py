"""Ctrl-C, SIGTERM and SIGHUP end a bake cleanly at any moment.

The first signal raises `Interrupted` in the main thread, so that every `with` undoes its work; later
ones are only acknowledged, since interrupting the clean-up is what leaks instances.
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
    """Take over SIGINT, SIGTERM and SIGHUP for this process (main thread only).

    Under nohup SIGHUP is ignored, and stays so.
    """
    _state.update(deferred=0, pending=0, raised=0, ending=0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


def request() -> None:
    """End this process as SIGTERM does; from any thread. Nothing happens unless `install` was called."""
    if signal.getsignal(signal.SIGTERM) == _handle:
        # To the main thread, or a call that it is blocked in would not notice.
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
    # Not by print: the handler may have interrupted one, and the terminal may be gone.
    with suppress(OSError):
        os.write(2, b"still removing what was created; please wait\n")


def _raise(number: int) -> None:
    _state["raised"] = number
    raise Interrupted(signal.Signals(number).name)


@contextmanager
def deferred() -> Iterator[None]:
    """Hold a signal back until the block ends: a removal in hand is finished."""
    _state["deferred"] += 1
    try:
        yield
    finally:
        _state["deferred"] -= 1
        if _state["pending"] and not _state["deferred"] and not _state["raised"]:
            _raise(_state["pending"])


def ending() -> None:
    """Something else has ended the bake: a signal from here on adds nothing, and is only acknowledged."""
    _state["ending"] = 1


def check() -> None:
    """Raise again what a library may have swallowed (pytest turns an interrupt into an exit code)."""
    if _state["raised"]:
        raise Interrupted(signal.Signals(_state["raised"]).name)
