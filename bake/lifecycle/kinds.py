"""One kind of thing that bakes have in an account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bake.aws import Aws
from bake.lifecycle.holding import Holding


class Ask(Protocol):
    """Lists what concerns bakes, or only the thing with the id `one`; empty if that is gone."""

    def __call__(self, aws: Aws, one: str | None = None) -> list[Holding]: ...


@dataclass(frozen=True)
class Kind:
    """`ask` lists it; `remove` removes one thing, waits for its end, and takes one that is gone for done."""

    name: str
    plural: str
    ask: Ask
    remove: Callable[[Aws, Holding], object]
