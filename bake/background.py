"""Do work in the background, beside what the caller does meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

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
