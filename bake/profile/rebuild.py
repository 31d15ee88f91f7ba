"""When a profile's image is made anew although nothing that it is made of has changed."""

from __future__ import annotations

from typing import Literal

from bake.profile.section import Section
from bake.profile.types import Duration


class Rebuild(Section):
    """When `bake --if-changed` bakes although nothing changed."""

    max_age: Duration | None = None
    """How old the image may get, such as 30d or 12h, before `bake --if-changed` makes it anew."""
    when_updates: Literal["security"] | None = None
    """Makes it anew, too, when the distribution has security updates that are not on it (`base.updates`)."""
