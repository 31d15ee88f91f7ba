"""How long a start takes from its launch to its first image, and what of the profile's wishes it breaks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bake.account.answers import Unanswered
from bake.account.instance_types import InstanceType
from bake.account.starts import Started, StartFacts
from bake.planning import hydration
from bake.planning.findings import Findings
from bake.planning.hydration import CEILING, SLOWEST, Hydration, at_once, rate_price
from bake.planning.prices import Prices
from bake.planning.volume import MIB_PER_S
from bake.planning.weights import WeightFiles
from bake.profile import Profile

BOOT = 90.0
"""Seconds of a boot with cloud-init and of the imports, assumed until a start was measured."""
RATE = "cold_start.volume_initialization_rate"


@dataclass(frozen=True)
class Start:
    """Seconds of a start: boot, imports, load until all bytes are there, first drawing.

    `imports` are None where the boot's seconds hold them or nobody measured them; `first_draw` where nobody
    did. `measured` is the AMI whose boot check measured them; empty if `boot` is assumed. A start that reads
    while it boots is faster.
    """

    boot: float
    imports: float | None
    load: float
    first_draw: float | None
    measured: str = ""

    @property
    def seconds(self) -> float:
        """All that is known."""
        return self.boot + (self.imports or 0) + self.load + (self.first_draw or 0)


def of(load: float, started: Started | Unanswered | None) -> Start:
    """A start that has its bytes `load` seconds after the imports; the rest as last measured."""
    if not isinstance(started, Started) or started.measured.boot is None:
        return Start(BOOT, None, load, None)
    found = started.measured
    return Start(found.boot or 0.0, found.imports, load, found.first_draw, started.image)


def expected(
    profile: Profile, weights: WeightFiles, kind: InstanceType, started: Started | Unanswered | None
) -> Start:
    """A start on a type in the way that the profile asks for, whatever that costs."""
    unpriced = Prices(None, None, None)
    return of(load(hydration.find(profile, weights, kind, (0, False), started, unpriced)), started)


def load(found: Hydration) -> float:
    """Seconds until a start has its bytes; those of EBS alone where the network is not known."""
    seconds = found.chosen.seconds
    return (
        found.reads.bytes / (min(found.lazy.mb_per_s, found.reading.mb_per_s) * 1e6)
        if seconds is None
        else seconds
    )


def check(profile: Profile, found: Hydration, start: Start, facts: StartFacts, findings: Findings) -> None:
    """Warn of what is paid for in vain, of launches that EC2 refuses, and of starts that are late."""
    findings.answered("whether a start of an earlier image was measured", facts.newest)
    rate = profile.cold_start.volume_initialization_rate
    if rate is not None:
        _check_rate(rate, found, findings)
        _check_ceiling(rate, profile, found, findings)
        _check_fast_restore(facts, findings)
    most = profile.cold_start.max_seconds
    if most is not None and start.seconds > most:
        findings.warn(
            f"cold_start.max_seconds: {most} s, and the plan expects {start.seconds:.0f} s "
            f"({found.chosen.name}): such an image stays unproven; the hydration plan says what is faster"
        )


def _check_rate(rate: int, found: Hydration, findings: Findings) -> None:
    """A volume that is filled faster than it is read costs more and gains nothing."""
    enough = max(SLOWEST, math.ceil(round(found.reading.mb_per_s / MIB_PER_S, 3)))
    if rate <= enough:
        return
    saves = rate_price(enough) < rate_price(rate)
    findings.warn(
        f"{RATE}: {rate} MiB/s is more than {found.reading.limit} lets an instance read: "
        f"{found.reading.mb_per_s:.0f} MB/s; {enough} would do"
        + (f" and cost ${rate_price(enough)} a GiB in place of ${rate_price(rate)}" if saves else "")
    )


def _check_ceiling(rate: int, profile: Profile, found: Hydration, findings: Findings) -> None:
    """What a region fills at once: a launch beyond it is refused, and not only slow."""
    most, fleet, hourly = at_once(rate), profile.fleet.max_size or 0, found.launches_per_hour or 0
    seconds = found.snapshot_gib * 1024 / rate
    together = hourly * seconds / 3600
    if fleet > most:
        what = f"the fleet may launch {fleet} (fleet.max_size)"
    elif together > most:
        what = f"{hourly:g} launches an hour (cold_start.launches_per_hour) are {together:.0f} at a time"
    else:
        return
    findings.warn(
        f"{RATE}: {rate} MiB/s allow {most} launches at once, since a region fills {CEILING:,} MiB/s in all, "
        f"and {what}: EC2 refuses those beyond it; ask for a higher quota, or for a lower rate"
    )


def _check_fast_restore(facts: StartFacts, findings: Findings) -> None:
    zones = findings.answered("whether the newest image has Fast Snapshot Restore", facts.fast_restored)
    if zones:
        findings.warn(
            f"{RATE}: the newest image's snapshot has Fast Snapshot Restore in {', '.join(zones)}, and EBS "
            "fills a volume at the rate in place of that: both are paid for; use one of them"
        )
