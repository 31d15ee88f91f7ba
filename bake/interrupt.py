"""Ctrl-C and SIGTERM end a bake cleanly at any moment.

The first signal raises `Interrupted` in the main thread, so that every `with` undoes its work; later
ones are only acknowledged, since interrupting the clean-up is what leaks instances.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from bake.errors import Interrupted

_state = {"deferred": 0, "pending": 0, "raised": 0}


def install() -> None:
    """Take over SIGINT and SIGTERM for this process (main thread only)."""
    _state.update(deferred=0, pending=0, raised=0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)


def _handle(number: int, _frame: FrameType | None) -> None:
    if _state["raised"]:
        print("still removing what was created; please wait", file=sys.stderr, flush=True)
    elif _state["deferred"]:
        _state["pending"] = number
    else:
        _raise(number)


def _raise(number: int) -> None:
    _state["raised"] = number
    raise Interrupted(signal.Signals(number).name)


@contextmanager
def deferred() -> Iterator[None]:
    """Hold a signal back until the block ends.

    Wraps a creation and the registration of its undo: between the two, an interrupt would leak it.
    """
    _state["deferred"] += 1
    try:
        yield
    finally:
        _state["deferred"] -= 1
        if _state["pending"] and not _state["deferred"] and not _state["raised"]:
            _raise(_state["pending"])


def check() -> None:
    """Raise again what a library may have swallowed (pytest turns an interrupt into an exit code)."""
    if _state["raised"]:
        raise Interrupted(signal.Signals(_state["raised"]).name)
