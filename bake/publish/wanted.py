"""What is to be published of a good AMI, and what became of each part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Literal

from bake.errors import BakeError

State = Literal["published", "failed"]


class NotOurs(BakeError):
    """Something holds what bake has not put there; nothing was written over it."""


@dataclass(frozen=True)
class Wanted:
    """What the profile asks for; nothing by itself. `keys` are those of the copies, by region.

    `source` is the version of the launch template that the new one is made from, in which root volumes are
    filled at `initialization_rate` (MiB/s; None: as the source says). `types` are the instance
    types that the AMI enforces; none if it enforces nothing.
    """

    regions: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    parameter: str | None = None
    template: str | None = None
    source: int | None = None
    initialization_rate: int | None = None
    deprecate_after: timedelta | None = None
    protect: bool = False
    watermark: str | None = None
    types: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """One part: `what` it is, in which region, its id or value; why it failed, and the command."""

    what: str
    region: str
    id: str
    state: State = "published"
    why: str = ""
    by_hand: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The part for JSON."""
        return asdict(self)
