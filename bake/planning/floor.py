"""How fast the disk of a new instance can be read at most: the floor under each cold start."""

from __future__ import annotations

from bake.account.instance_types import InstanceType
from bake.checks.cold_start import Bandwidth
from bake.planning.hydration import Hydration
from bake.planning.volume import MIB_PER_S, at_start
from bake.profile import Profile


def bandwidth(profile: Profile, hydration: Hydration, kind: InstanceType | None) -> Bandwidth:
    """The lower of what the volume and the type's link to EBS give, and of the best that is known of the rate
    at which EBS fills a volume made from a snapshot. `kind` is None where nobody told the type.
    """
    reading = hydration.reading if kind is None else at_start(profile.root_volume, kind)
    limits = {reading.limit: reading.mb_per_s}
    rate = (profile.cold_start.volume_initialization_rate or 0) * MIB_PER_S
    if rate > hydration.lazy.best:
        limits["cold_start.volume_initialization_rate"] = rate
    else:
        known = "measured before" if hydration.lazy.image else "as published"
        limits[f"first reads of a new volume, {known}"] = hydration.lazy.best
    lowest = min(limits, key=limits.__getitem__)
    return Bandwidth(mb_per_s=limits[lowest], limit=lowest)
