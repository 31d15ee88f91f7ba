"""Tell "it does not exist" from "nobody answered"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from bake.aws import unanswered
from bake.retries import error_code

T = TypeVar("T")


@dataclass(frozen=True)
class Unanswered:
    """A question that got no answer. `why` continues "not checked: …": "AWS answers AccessDenied"."""

    why: str


def look_up(call: Callable[[], T], *absent: str) -> T | None:
    """Ask for something that may not exist: None where the error code starts with one of `absent`."""
    try:
        return call()
    except Exception as error:
        if error_code(error).startswith(absent):
            return None
        raise


def ask(call: Callable[[], T]) -> T | Unanswered:
    """Ask; return Unanswered if AWS refuses or can't be reached. Any other error is raised."""
    try:
        return call()
    except Exception as error:
        why = unanswered(error)
        if why is None:
            raise
        return Unanswered(f"AWS answers {why}")


def require(call: Callable[[], T], *absent: str) -> T | Unanswered | None:
    """Ask for something that must exist: None where the error code starts with one of `absent`."""
    return ask(lambda: look_up(call, *absent))
