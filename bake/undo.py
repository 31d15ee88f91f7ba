"""Remove what was created, whatever happens.

All removals start at once, and each waits for its own end: a CI system kills a job seconds after its first
signal, and an instance takes minutes to terminate. A failed removal never hides the original error; it names
what is left behind, and the command that removes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType

from bake import interrupt
from bake.errors import LeftBehind


@dataclass(eq=False)
class Removal:
    """One thing to remove. `by_hand` returns the shell command for a person if `remove` fails.

    `group` is what it is needed for, where that lasts longer than the rest.
    """

    what: str
    remove: Callable[[], object]
    by_hand: Callable[[], str]
    record: Callable[..., None] = lambda event, **facts: None
    leak: str = ""
    group: str = ""

    def run(self) -> None:
        """Remove it; on failure, say why in `leak`."""
        try:
            self.remove()
            self.record("removed", what=self.what)
        except BaseException as error:  # the others must still be removed
            self.leak = f"{self.what} could not be removed ({error or type(error).__name__}); "
            self.leak += f"remove it with: {self.by_hand()}"
            self.record("left", what=self.what, why=self.leak)


class Undo:
    """Removals that run when the `with` block ends, except for those that were forgotten.

    What can't be removed is added to `leaks`; without that list, LeftBehind is raised. `record` is told what
    is about to be created, what was, and what was removed.
    """

    def __init__(
        self,
        say: Callable[[str], None] = lambda text: None,
        leaks: list[str] | None = None,
        record: Callable[..., None] = lambda event, **facts: None,
    ) -> None:
        self.record = record
        self._say = say
        self._removals: list[Removal] = []
        self._begun: list[tuple[Removal, threading.Thread | None]] = []
        self._leaks: list[str] = [] if leaks is None else leaks
        self._raises = leaks is None
        self._group = ""

    def __enter__(self) -> Undo:
        return self

    def add(self, what: str, remove: Callable[[], object], *, by_hand: str | Callable[[], str]) -> Removal:
        """Register a removal, before the thing is created."""
        command = (lambda: by_hand) if isinstance(by_hand, str) else by_hand
        removal = Removal(what, remove, command, self.record, group=self._group)
        self.record("intended", what=what)
        self._removals.append(removal)
        return removal

    @contextmanager
    def group(self, name: str) -> Iterator[None]:
        """Put the removals that the block registers into a group, which `now` can leave for later."""
        outer, self._group = self._group, name
        try:
            yield
        finally:
            self._group = outer

    def forget(self, removal: Removal) -> None:
        """Drop a removal, because the thing is wanted or was never created."""
        with suppress(ValueError):
            self._removals.remove(removal)
            self.record("kept", what=removal.what)

    def leave(self) -> None:
        """Drop all removals: `bake resume` goes on with what there is, and finds it by its tags."""
        self._removals.clear()

    def begin(self, but: str | None = None) -> None:
        """Start all removals but those of a group, without waiting; `now` and the end of the block wait."""
        removals = [one for one in reversed(self._removals) if one.group != but]
        self._removals = [one for one in self._removals if one.group == but]
        for removal in removals:
            with suppress(Exception):  # a broken screen must not stop a removal
                self._say(f"removing {removal.what}")
        self._begun += [(removal, _start(removal)) for removal in removals]

    def now(self, but: str | None = None) -> None:
        """Remove everything but a group now, instead of at the end of the block; signals are deferred."""
        with interrupt.deferred():
            self.begin(but)
            begun, self._begun = self._begun, []
            for _, thread in begun:
                if thread is not None:
                    thread.join()
            self._leaks += [removal.leak for removal, _ in begun if removal.leak]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            interrupt.ending()
        try:
            self.now()
        finally:  # also if a deferred signal is raised
            if self._leaks and self._raises:
                raise LeftBehind(self._leaks) from error


def _start(removal: Removal) -> threading.Thread | None:
    thread = threading.Thread(target=removal.run, name=f"remove {removal.what}", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads available
        removal.run()
        return None
    return thread


@contextmanager
def naming(leaks: list[str]) -> Iterator[None]:
    """Raise LeftBehind at the end of the block if something was left behind, however it ended."""
    try:
        yield
    except BaseException as error:
        if leaks:
            raise LeftBehind(leaks) from error
        raise
    if leaks:
        raise LeftBehind(leaks)
