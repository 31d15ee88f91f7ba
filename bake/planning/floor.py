"""How fast the disk of a new instance can be read at most: the floor under each cold start."""

from __future__ import annotations

from bake.account.instance_types import InstanceType
from bake.checks.cold_start import Bandwidth
from bake.planning.estimates import MIB_PER_S, Estimates, throughput
from bake.profile import Profile


def bandwidth(profile: Profile, estimates: Estimates, kind: InstanceType | None) -> Bandwidth:
    """The lowest of what is known: the volume's throughput, what the type gets from EBS for a while, and the
    rate at which EBS fills a volume made from a snapshot. `kind` is None where nobody told the type.
    """
    limits = {"the volume's throughput": throughput(profile.root_volume)}
    if kind is not None and kind.ebs_maximum:
        limits[f"the EBS limit of {kind.name}"] = kind.ebs_maximum
    rate = (profile.cold_start.volume_initialization_rate or 0) * MIB_PER_S
    if rate > estimates.hydration_rate:
        limits["cold_start.volume_initialization_rate"] = rate
    else:
        limits["first reads of a volume made from a snapshot"] = estimates.hydration_rate
    lowest = min(limits, key=limits.__getitem__)
    return Bandwidth(mb_per_s=limits[lowest], limit=lowest)
