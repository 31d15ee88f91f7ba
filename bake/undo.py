"""What was created, and how it is removed again: in reverse order, whatever happened.

After pycloudlib's CleanupError and osbuild's buildroot: a failing removal never hides the cause, and it
names what leaked together with the command that removes it by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from bake import interrupt
from bake.errors import CleanupError


class Undo:
    """A stack of removals, run in reverse when the `with` block ends, unless `keep` was called."""

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self._stack = ExitStack()
        self._say = say
        self._leaks: list[str] = []

    def __enter__(self) -> Undo:
        return self

    @contextmanager
    def creating(self) -> Iterator[None]:
        """Wrap a creation and its `add`: an interrupt waits until the removal is registered."""
        with interrupt.deferred():
            yield

    def add(self, what: str, remove: Callable[[], object], *, by_hand: str) -> None:
        """Register `remove`; `by_hand` is the shell command a person can use if it fails."""

        def guarded() -> None:
            try:
                self._say(f"removing {what}")
                remove()
            except Exception as error:  # the remaining removals must still run
                self._leaks.append(f"{what} could not be removed ({error}); remove it with: {by_hand}")

        self._stack.callback(guarded)

    def keep(self) -> None:
        """What was created is wanted: forget how to remove it."""
        self._stack.pop_all()

    def now(self) -> None:
        """Remove everything at once, instead of at the end of the block."""
        self._stack.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.now()
        if not self._leaks:
            return
        message = "\n".join(self._leaks)
        if error is None:
            raise CleanupError(message)
        error.add_note(message)
