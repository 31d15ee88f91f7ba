"""Do work in the background, beside what the caller does meanwhile; make what several threads share once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")


def start(work: Callable[[], T]) -> Future[T]:
    """Begin `work` in a new thread; its result, or its error, is the future's.

    The threads are daemons, unlike those of a ThreadPoolExecutor: Ctrl-C ends the program at once, and not
    when the slowest service has answered.
    """
    answer: Future[T] = Future()

    def do() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=do, name="background", daemon=True).start()
    return answer


class _MadeOnce(cached_property[T]):
    """A cached property that is made once, whichever thread asks first; its object has the lock `_making`."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        if instance is None:
            return self
        with instance._making:
            return super().__get__(instance, owner)


if TYPE_CHECKING:
    made_once = cached_property  # mypy knows the type of what is made
else:
    made_once = _MadeOnce
